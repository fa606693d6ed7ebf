"""Slot-ID's ComfyUI nodes: thin, from widgets to one call into the core."""

from comfy_api.latest import ComfyExtension, io

from .apply import SlotIDApply
from .blend_identities import SlotIDBlendIdentities
from .demo_prompt import SlotIDDemoPrompt
from .encode import SlotIDEncode
from .extract_portrait import SlotIDExtractPortrait
from .find_person import SlotIDFindPerson
from .folders import register_model_folder
from .gate import SlotIDGate
from .gate_preview import SlotIDGatePreview
from .guider import SlotIDGuider
from .identity_score import SlotIDIdentityScore
from .load_identity import SlotIDLoadIdentity
from .load_model import SlotIDLoadModel
from .load_reference_clip import SlotIDLoadReferenceClip
from .merge_identities import SlotIDMergeIdentities
from .reference_report import SlotIDReferenceReport
from .routing_preview import SlotIDRoutingPreview
from .save_identity import SlotIDSaveIdentity


class SlotIDExtension(ComfyExtension):
    """All nodes of the pack."""

    async def on_load(self) -> None:
        register_model_folder()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            SlotIDLoadModel,
            SlotIDLoadReferenceClip,
            SlotIDFindPerson,
            SlotIDReferenceReport,
            SlotIDExtractPortrait,
            SlotIDEncode,
            SlotIDSaveIdentity,
            SlotIDLoadIdentity,
            SlotIDMergeIdentities,
            SlotIDBlendIdentities,
            SlotIDRoutingPreview,
            SlotIDApply,
            SlotIDGate,
            SlotIDGatePreview,
            SlotIDGuider,
            SlotIDIdentityScore,
            SlotIDDemoPrompt,
        ]


async def comfy_entrypoint() -> SlotIDExtension:
    return SlotIDExtension()
