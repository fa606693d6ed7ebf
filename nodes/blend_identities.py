"""Blend Identities."""

from comfy_api.latest import io

from ..slotid_core.identities import blend as blend_two
from ..slotid_core.identities import describe
from ..slotid_core.types import Identity
from .node_text import show_picture
from .sockets import CATEGORY, SlotIDIdentity


class SlotIDBlendIdentities(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDBlendIdentities",
            display_name="Blend Identities",
            category=CATEGORY,
            description="Makes somebody between two people.",
            search_aliases=["mix faces", "morph", "interpolate identities", "cross two people"],
            inputs=[
                SlotIDIdentity.Input("identity_1", tooltip="The person at 0."),
                SlotIDIdentity.Input("identity_2", tooltip="The person at 1."),
                io.Float.Input(
                    "blend",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="0: exactly the first person. 1: exactly the second. Between: linear in every token.",
                ),
            ],
            outputs=[
                SlotIDIdentity.Output("identity", tooltip="For Apply Slot-ID to Wan and Save Identity."),
                io.String.Output("info", tooltip="Who was blended in which shares."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, identity_1: Identity, identity_2: Identity, blend: float) -> io.NodeOutput:
        identity = blend_two(identity_1, identity_2, blend)
        info = describe(identity)
        return io.NodeOutput(identity, info, ui=show_picture(cls, identity.thumbnail_HWC, info))
