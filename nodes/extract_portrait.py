"""Extract Portrait."""

from comfy_api.latest import io, ui
from torch import Tensor

from ..slotid_core.reference import extract_portrait
from .sockets import CATEGORY, box_from, box_inputs


class SlotIDExtractPortrait(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDExtractPortrait",
            display_name="Extract Portrait",
            category=CATEGORY,
            description="Picks the sharpest frame inside a box or mask and puts white around the person.",
            search_aliases=["best frame", "sharpest frame", "reference portrait", "face image"],
            inputs=[
                io.Image.Input("frames", tooltip="Whole frames of the clip, from Load Reference Clip."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the person is: one mask for all frames or one a frame. The portrait is cropped "
                    "around it and turns white outside it. Without a mask the background stays.",
                ),
                *box_inputs("The portrait is cropped to a square around it; with a mask too, white follows the mask."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=1024,
                    step=16,
                    tooltip="Side of the portrait in pixels. 512 is what Slot-ID is trained with.",
                ),
            ],
            outputs=[
                io.Image.Output("portrait", tooltip="One square picture, for Encode Slot-ID."),
                io.Int.Output("frame_index", tooltip="Which frame it is, counted from 0."),
                io.String.Output("info", tooltip="Where it was taken from, and what became of the background."),
            ],
        )

    @classmethod
    def execute(
        cls,
        frames: Tensor,
        box_x: int,
        box_y: int,
        box_width: int,
        box_height: int,
        size: int,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        box = box_from(box_x, box_y, box_width, box_height)
        portrait = extract_portrait(frames[..., :3], box=box, mask=mask, size=size)
        image_BHWC = portrait.image_HWC.unsqueeze(0)
        info = f"Frame {portrait.frame_index} of {frames.shape[0]}: {portrait.region}."
        return io.NodeOutput(image_BHWC, portrait.frame_index, info, ui=ui.PreviewImage(image_BHWC, cls=cls))
