"""A clip and a portrait -> an identity. Each host brings its own VAE; the rest is here.

Shape letters: F frames, H W height and width, B batch, C latent channels, T h w latent frames, height and width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .checkpoint import SlotIDWeights
from .errors import SlotIDError
from .identity_file import THUMBNAIL_SIDE
from .latents import shuffle_frames
from .model import SlotID
from .reference.crop import resize
from .safe_file import pixel_hash
from .types import Identity, Routing

# Sides of the square clip and of the portrait in pixels that Slot-ID is trained with (paper, 4.1, for the portrait).
CLIP_SIDE, PORTRAIT_SIDE = 256, 512


@dataclass(frozen=True)
class Identified:
    """An identity, and what each slot read of the clip (``None`` without routing)."""

    identity: Identity
    routing: Routing | None


def identify(
    weights: SlotIDWeights,
    model: SlotID,
    encode_frames: Callable[[Tensor], Tensor],
    clip_FHWC: Tensor,
    portrait_HWC: Tensor,
) -> Identified:
    """Encode one person.

    Args:
        weights: whose hash the identity will carry.
        model: the weights' model, or a copy of it on another device; runs where it is.
        encode_frames: pixels in [0, 1], ``[F, H, W, 3]`` -> *normalised* latents ``[1, C, T, h, w]``.
        clip_FHWC: the square clip, float RGB in [0, 1]; 4n+1 frames, at least 5.
        portrait_HWC: the square portrait, float RGB in [0, 1].

    Returns:
        On the CPU, in float32, as a file holds it.

    Raises:
        SlotIDError: a frame count or size that does not fit.
    """
    frames = clip_FHWC.shape[0]
    if frames < 5 or frames % 4 != 1:
        lower = max(5, (frames - 1) // 4 * 4 + 1)
        raise SlotIDError(
            f"The clip has {frames} frames, expected 4n+1 and at least 5, such as {lower} or {lower + 4}."
        )
    ordered_FHWC = clip_FHWC
    if model.config.clip_order == "shuffled":
        ordered_FHWC = shuffle_frames(clip_FHWC, seed=0)
    portrait_FHWC = portrait_HWC.unsqueeze(0)
    device = next(model.parameters()).device
    with torch.no_grad():
        encoding = model.encode(encode_frames(ordered_FHWC).to(device), encode_frames(portrait_FHWC).to(device))
    identity = Identity(
        embedding=encoding.embedding.to(torch.device("cpu"), torch.float32),
        weights_hash=weights.sha256,
        clip_hash=pixel_hash(clip_FHWC),
        portrait_hash=pixel_hash(portrait_FHWC),
        thumbnail_HWC=(resize(portrait_FHWC, THUMBNAIL_SIDE)[0] * 255).round().to(torch.uint8).cpu(),
    )
    return Identified(identity, encoding.routing)
