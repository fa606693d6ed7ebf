"""A clip and a portrait -> an identity. Each host brings its own VAE; the rest is here.

Shape letters: F frames, H W height and width, B batch, C latent channels, T h w latent frames, height and width,
L the numbers of one picture.
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
from .reference.analyse import Analysis, Reference
from .reference.crop import resize
from .reference.stabilise import CropPath, crop_along
from .safe_file import pixel_hash
from .types import FaceEmbedding, Identity, Routing

# A clip and its own reference are compared at this side. Their correlation was 0.95 and more, also after gamma, blur or
# noise; that of different people's clips 0.68 and less.
_COMPARED_SIDE, _SAME_CLIP = 32, 0.85
_VAE_CELL = 8
"""Pixels that a latent cell is wide and high, in every Wan 2.1 VAE."""


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
    reference: Reference | None = None,
) -> Identified:
    """Encode one person.

    Args:
        weights: whose hash the identity will carry.
        model: the weights' model, or a copy of it on another device; runs where it is.
        encode_frames: pixels in [0, 1], ``[F, H, W, 3]`` -> *normalised* latents ``[1, C, T, h, w]``.
        clip_FHWC: the square clip, float RGB in [0, 1]; 4n+1 frames, at least 5.
        portrait_HWC: the square portrait, float RGB in [0, 1].
        reference: that the clip was cut from; the identity will carry its coverage, and the person's face embedding
            where the face backend has one.

    Returns:
        The identity on the CPU, in float32, as a file holds it; the routing where the model is.

    Raises:
        SlotIDError: a frame count or size that does not fit, numbers that are none, or the reference is another clip's.
    """
    frames = clip_FHWC.shape[0]
    if frames < 5 or frames % 4 != 1:
        lower = max(5, (frames - 1) // 4 * 4 + 1)
        raise SlotIDError(
            f"The clip has {frames} frames, expected 4n+1 and at least 5, such as {lower} or {lower + 4}."
        )
    portrait_FHWC = portrait_HWC.unsqueeze(0)
    config = model.config
    _check_pixels("clip", clip_FHWC, config.encoder.patch[1:])
    _check_pixels("portrait", portrait_FHWC, config.portrait.patch)
    if reference is not None:
        _check_reference(reference, clip_FHWC)
    ordered_FHWC = clip_FHWC
    if model.config.clip_order == "shuffled":
        ordered_FHWC = shuffle_frames(clip_FHWC)
    device = next(model.parameters()).device
    with torch.no_grad():
        both = [encode_frames(pixels_FHWC) for pixels_FHWC in (ordered_FHWC, portrait_FHWC)]
        for what, latents_BCThw in zip(("clip", "portrait"), both, strict=True):
            if not bool(latents_BCThw.isfinite().all()):
                raise SlotIDError(
                    f"The VAE made NaN or infinity of the {what}. Run it with more precision (ComfyUI: start with "
                    "--bf16-vae or --fp32-vae), or load the VAE anew."
                )
        encoding = model.encode(*(latents_BCThw.to(device) for latents_BCThw in both))
    if not all(bool(tensor.isfinite().all()) for tensor in vars(encoding.embedding).values()):
        raise SlotIDError(
            f"The weights {weights.sha256[:12]} made NaN or infinity of the clip and the portrait. Load them anew, or "
            "use others."
        )
    identity = Identity(
        embedding=encoding.embedding.to(torch.device("cpu"), torch.float32),
        weights_hash=weights.sha256,
        clip_hash=pixel_hash(clip_FHWC),
        portrait_hash=pixel_hash(portrait_FHWC),
        thumbnail_HWC=(resize(portrait_FHWC, THUMBNAIL_SIDE)[0] * 255).round().to(torch.uint8).cpu(),
        coverage=None if reference is None else reference.analysis.coverage,
        face=None if reference is None else _face(reference.analysis),
        frames=frames,
        backbone=str(weights.model.config.backbone),
    )
    return Identified(identity, encoding.routing)


def _check_pixels(what: str, pixels_FHWC: Tensor, patch: tuple[int, int]) -> None:
    height, width = pixels_FHWC.shape[1:3]
    down, across = (_VAE_CELL * cells for cells in patch)
    if height % down or width % across:
        near = f"{max(across, width // across * across)}x{max(down, height // down * down)}"
        multiples = f"{across}" if across == down else f"{across} (width) and {down} (height)"
        raise SlotIDError(
            f"The {what} is {width}x{height} pixels, expected sides that are multiples of {multiples}, such as {near}. "
            "Resize it before."
        )
    odd_F = ~pixels_FHWC.flatten(1).isfinite().all(1)
    if bool(odd_F.any()):
        where = f"frame {int(odd_F.nonzero()[0])} of " if len(pixels_FHWC) > 1 else ""
        raise SlotIDError(f"The pixels of {where}the {what} are NaN or infinite. Look at the node that made them.")


def _face(analysis: Analysis) -> FaceEmbedding | None:
    embedding_D = analysis.people.persons[analysis.person - 1].embedding_D
    if embedding_D is None:
        return None
    return FaceEmbedding(analysis.backend, torch.from_numpy(embedding_D).to(torch.float32))


def _check_reference(reference: Reference, clip_FHWC: Tensor) -> None:
    """Another clip's coverage would stay with this identity for good."""
    kept, path = reference.analysis.kept, reference.analysis.path
    frames = clip_FHWC.shape[0]
    fix = "Take clip and reference from the same node"
    if len(kept) != frames:
        raise SlotIDError(f"The reference is of {len(kept)} frames, and the clip has {frames}. {fix}.")
    shown = [0, frames // 2, frames - 1]
    squares = CropPath(centre_F2=path.centre_F2[shown], side_F=path.side_F[shown])
    expected_FHWC = crop_along(reference.frames_FHWC[[kept[i] for i in shown]], squares, _COMPARED_SIDE)
    pictures = expected_FHWC, resize(clip_FHWC[shown].cpu().float(), _COMPARED_SIDE)
    a_FL, b_FL = (picture.flatten(1) - picture.flatten(1).mean(1, keepdim=True) for picture in pictures)
    alike_F, most_F = (a_FL * b_FL).sum(1), a_FL.norm(dim=1) * b_FL.norm(dim=1)
    if bool((alike_F < _SAME_CLIP * most_F).any()):  # no division: a flat picture has no correlation
        raise SlotIDError(
            f"The reference shows something else than the clip. {fix}, and leave the clip's crop as it is."
        )
