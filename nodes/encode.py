"""Encode Slot-ID."""

import copy
import logging

import comfy.model_management
from comfy_api.latest import io
from torch import Tensor

from ..slotid_core.checkpoint import NO_IDENTITY, SlotIDWeights
from ..slotid_core.errors import SlotIDError
from ..slotid_core.identify import Identified, identify
from ..slotid_core.model import SlotID
from ..slotid_core.reference import Reference
from ..slotid_core.routing_view import clip_routing
from .host_vae import encode_frames
from .node_text import show_text
from .pictures import rgb
from .sockets import CATEGORY, SlotIDIdentity, SlotIDModel, SlotIDReference, SlotIDRouting

_log = logging.getLogger("slotid")


class SlotIDEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDEncode",
            display_name="Encode Slot-ID",
            category=CATEGORY,
            description="Reads a reference clip and a portrait into an identity: a few tokens for the text context.",
            search_aliases=["identity tokens", "encode identity", "encode face", "reference encoder"],
            inputs=[
                SlotIDModel.Input("slotid_model", tooltip="From Load Slot-ID Model."),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE, the same that decodes the video."),
                io.Image.Input("clip", tooltip="The square clip from Load Reference Clip, 4n+1 frames."),
                io.Image.Input("portrait", tooltip="One picture, from Extract Portrait."),
                SlotIDReference.Input(
                    "reference",
                    optional=True,
                    tooltip="From the node that gave the clip. What the clip shows and lacks is said on the node and "
                    "kept with the identity.",
                ),
            ],
            outputs=[
                SlotIDIdentity.Output("identity", tooltip="The person, for Apply Slot-ID to Wan."),
                SlotIDRouting.Output("routing", tooltip="What each slot read of the clip, for Routing Preview."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        slotid_model: SlotIDWeights,
        vae: io.Vae.Type,
        clip: Tensor,
        portrait: Tensor,
        reference: Reference | None = None,
    ) -> io.NodeOutput:
        if portrait.shape[0] != 1:
            raise SlotIDError(f"Got {portrait.shape[0]} portraits, expected one. Pick one with Extract Portrait.")
        clip, portrait = rgb(clip), rgb(portrait)
        model = _on_gpu(slotid_model.model)
        identified = identify(
            slotid_model,
            model,
            lambda frames: encode_frames(vae, frames),
            clip,
            portrait[0],
            reference,
        )
        text = _describe(slotid_model, identified, clip)
        _log.info("%s", text)
        routing = clip_routing(slotid_model, identified, clip, reference)
        return io.NodeOutput(identified.identity, routing, ui=show_text(cls, text))


def _on_gpu(model: SlotID) -> SlotID:
    """A copy on the GPU: the weights on the socket stay where they are, for whoever else uses them."""
    device = comfy.model_management.get_torch_device()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    comfy.model_management.free_memory(4 * size, device)
    return copy.deepcopy(model).to(device)


def _describe(weights: SlotIDWeights, identified: Identified, clip: Tensor) -> str:
    embedding = identified.identity.embedding
    tokens = f"{embedding.clip_tokens_BSE.shape[1]} tokens from {clip.shape[0]} frames, "
    tokens += f"{embedding.portrait_tokens_BKE.shape[1]} from the portrait."
    lines = [tokens]
    if identified.routing is not None:
        lines.append(f"Overlap of what the slots read: {float(identified.routing.overlap()):.2f} (1 = all the same).")
    coverage = identified.identity.coverage
    if coverage is not None:
        lines.append(f"Kept with the identity: {coverage.faces} frames of the clip measured by {coverage.backend}.")
        lines += [f"Missing: {sentence}." for sentence in coverage.missing]
    face = identified.identity.face
    if face is not None:
        lines.append(f"Kept too: the face's embedding by {face.backend}, by which Merge Identities tells people apart.")
    if weights.untrained:
        lines.insert(0, NO_IDENTITY)
    return "\n".join(lines)
