"""Extract Portrait."""

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..slotid_core.errors import SlotIDError
from ..slotid_core.reference import Box, Reference, describe_portraits, extract_portrait, head_portraits
from .pictures import rgb
from .sockets import CATEGORY, SlotIDReference, box_from, box_inputs


class SlotIDExtractPortrait(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDExtractPortrait",
            display_name="Extract Portrait",
            category=CATEGORY,
            description="Picks the best portrait of the person that was found, or the sharpest frame in a box or mask.",
            search_aliases=["best frame", "sharpest frame", "reference portrait", "face image", "diverse portraits"],
            inputs=[
                io.Image.Input(
                    "frames",
                    optional=True,
                    tooltip="Whole frames, from Load Reference Clip. Only without a reference: then the sharpest "
                    "frame is taken.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the person is: one mask for all frames or one a frame. The portrait is cropped "
                    "around it and turns white outside it. Without a mask the background stays.",
                ),
                *box_inputs(
                    "The portrait is cropped to a square around it; with a mask too, white follows the mask.",
                    "what the reference or the mask says, else the largest centred square",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=1024,
                    step=16,
                    tooltip="Side of the portrait in pixels. 512 is what Slot-ID is trained with.",
                ),
                SlotIDReference.Input(
                    "reference",
                    optional=True,
                    tooltip="The person that was found: frames are ranked by sharpness, frontality, neutral "
                    "expression, size, light and occlusion.",
                ),
                io.Int.Input(
                    "rank",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="1: the best portrait of the reference, 2: the second best, ...",
                ),
                io.Int.Input(
                    "count",
                    default=1,
                    min=1,
                    max=16,
                    advanced=True,
                    tooltip="More than 1: so many portraits that differ in where they look or in their expression, "
                    "the best first, for nodes that take several references. Encode Slot-ID takes one.",
                ),
                io.Combo.Input(
                    "background",
                    options=["built-in matte", "keep"],
                    tooltip="Of a reference's portrait without a mask: white by the built-in matte, or kept. Slot-ID "
                    "is trained with white.",
                ),
            ],
            outputs=[
                io.Image.Output("portrait", tooltip="Square pictures, for Encode Slot-ID (one) or other nodes."),
                io.Int.Output("frame_index", tooltip="Which frame the first one is, counted from 0."),
                io.String.Output("info", tooltip="Where it was taken from, and what became of the background."),
            ],
        )

    @classmethod
    def execute(
        cls,
        box_x: int,
        box_y: int,
        box_width: int,
        box_height: int,
        size: int,
        rank: int,
        count: int,
        background: str,
        frames: Tensor | None = None,
        mask: Tensor | None = None,
        reference: Reference | None = None,
    ) -> io.NodeOutput:
        box = box_from(box_x, box_y, box_width, box_height)
        if reference is not None:
            return cls._of_reference(reference, box, mask, rank=rank, count=count, background=background, size=size)
        if frames is None:
            raise SlotIDError("Got neither a reference nor frames. Connect one of them from Load Reference Clip.")
        if rank > 1 or count > 1:
            raise SlotIDError(
                f"rank is {rank} and count is {count}, but only a reference is ranked. Connect the reference of Load "
                "Reference Clip (faces must not be off), or set both to 1."
            )
        portrait = extract_portrait(rgb(frames).cpu(), box=box, mask=mask, size=size)
        image_BHWC = portrait.image_HWC.unsqueeze(0)
        info = f"Frame {portrait.frame_index} of {frames.shape[0]}: {portrait.region}."
        return io.NodeOutput(image_BHWC, portrait.frame_index, info, ui=ui.PreviewImage(image_BHWC, cls=cls))

    @classmethod
    def _of_reference(
        cls, reference: Reference, box: Box | None, mask: Tensor | None, **choice: int | str
    ) -> io.NodeOutput:
        if box is not None:
            raise SlotIDError("Got a box and a reference: the reference says where the face is. Set the box to 0.")
        portraits = head_portraits(reference.frames_FHWC, reference.analysis, masks_FHW=mask, **choice)
        images_BHWC = torch.stack([portrait.image_HWC for portrait in portraits])
        info = describe_portraits(portraits)
        return io.NodeOutput(images_BHWC, portraits[0].frame_index, info, ui=ui.PreviewImage(images_BHWC, cls=cls))
