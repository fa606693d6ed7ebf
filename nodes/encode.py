"""Encode Slot-ID."""

import copy
import logging

import comfy.model_management
import torch
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

from ..slotid_core.checkpoint import NO_IDENTITY, SlotIDWeights
from ..slotid_core.errors import SlotIDError
from ..slotid_core.identity_file import THUMBNAIL_SIDE
from ..slotid_core.latents import shuffle_frames
from ..slotid_core.safe_file import pixel_hash
from ..slotid_core.types import Encoding, Identity
from .host_vae import encode_frames
from .node_text import show_text
from .sockets import CATEGORY, SlotIDIdentity, SlotIDModel

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
            ],
            outputs=[SlotIDIdentity.Output("identity", tooltip="The person, for Apply Slot-ID to Wan.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, slotid_model: SlotIDWeights, vae: io.Vae.Type, clip: Tensor, portrait: Tensor) -> io.NodeOutput:
        clip, portrait = clip[..., :3], portrait[..., :3]
        _check(clip, portrait)
        ordered = clip
        if slotid_model.model.config.clip_order == "shuffled":
            ordered = shuffle_frames(clip, seed=0)
        encoding = _encode(slotid_model, encode_frames(vae, ordered), encode_frames(vae, portrait))
        identity = Identity(
            embedding=encoding.embedding.to(torch.device("cpu"), torch.float32),
            weights_hash=slotid_model.sha256,
            clip_hash=pixel_hash(clip),
            portrait_hash=pixel_hash(portrait),
            thumbnail_HWC=_thumbnail(portrait),
        )
        text = _describe(slotid_model, encoding, clip)
        _log.info("%s", text)
        return io.NodeOutput(identity, ui=show_text(cls, text))


def _check(clip: Tensor, portrait: Tensor) -> None:
    if clip.shape[0] < 5 or clip.shape[0] % 4 != 1:
        lower = max(5, (clip.shape[0] - 1) // 4 * 4 + 1)
        raise SlotIDError(
            f"The clip has {clip.shape[0]} frames, expected 4n+1 and at least 5, such as {lower} or {lower + 4}. "
            "Set frame_count in Load Reference Clip."
        )
    if portrait.shape[0] != 1:
        raise SlotIDError(f"Got {portrait.shape[0]} portraits, expected one. Pick one with Extract Portrait.")


def _encode(weights: SlotIDWeights, clip_latents_BCTHW: Tensor, portrait_latents_BCTHW: Tensor) -> Encoding:
    """On the GPU, through a copy: the weights on the socket stay where they are, for whoever else uses them."""
    device = comfy.model_management.get_torch_device()
    size = sum(p.numel() * p.element_size() for p in weights.model.parameters())
    comfy.model_management.free_memory(4 * size, device)
    model = copy.deepcopy(weights.model).to(device)
    with torch.no_grad():
        return model.encode(clip_latents_BCTHW.to(device), portrait_latents_BCTHW.to(device))


def _thumbnail(portrait_BHWC: Tensor) -> Tensor:
    small_BCHW = F.interpolate(portrait_BHWC.movedim(-1, 1), size=(THUMBNAIL_SIDE, THUMBNAIL_SIDE), mode="area")
    return (small_BCHW[0].movedim(0, -1).clamp(0, 1) * 255).round().to(torch.uint8)


def _describe(weights: SlotIDWeights, encoding: Encoding, clip: Tensor) -> str:
    embedding = encoding.embedding
    tokens = f"{embedding.clip_tokens_BSE.shape[1]} tokens from {clip.shape[0]} frames, "
    tokens += f"{embedding.portrait_tokens_BKE.shape[1]} from the portrait."
    lines = [tokens]
    if encoding.routing is not None:
        lines.append(f"Overlap of what the slots read: {float(encoding.routing.overlap()):.2f} (1 = all the same).")
    if weights.untrained:
        lines.insert(0, NO_IDENTITY)
    return "\n".join(lines)
