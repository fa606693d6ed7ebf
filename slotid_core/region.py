"""Where in the frame, and in which blocks, an identity acts.

Shape letters: F mask frames, H W height and width, T latent frames, B rows of the backbone, Q video tokens, N
identities, P prefix tokens of all of them, L text tokens, K keys of cross-attention, E text-token width.

In :mod:`.prefix` an identity's tokens take the place of the prompt's last pads, for every video token alike. Here the
pads stay, the identities' tokens are appended, and each video token gets a mixture of both: with the weight ``m`` that
the identity has there, its prefix token counts ``m`` and the pad whose place it takes counts ``1 - m``. Attention
weights are exponentials, so a factor is a logarithm that is added to the score: :func:`key_bias`. At ``m = 1`` a video
token sees exactly the context of :func:`.prefix.place_prefix`, at ``m = 0`` exactly the null identity's.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import SlotIDError
from .prefix import trailing_pads

_TIME_STRIDE = 4
"""Frames of a latent frame, but for the first, which is one frame alone."""
_ASPECT_TOLERANCE = 1.05


@dataclass(frozen=True)
class Reach:
    """The part of the frame and of the backbone in which an identity acts."""

    mask_FHW: Tensor | None = None
    """Its region, 1 inside; one mask for all frames (F = 1) or one a frame. ``None`` is the whole frame."""
    blocks: range | None = None
    """``None`` is all of them."""


EVERYWHERE = Reach()


def block_range(first: int, last: int, blocks: int) -> range | None:
    """Blocks ``first`` to ``last``, both included, counted from 0; -1 is the last one. ``None`` where that is all.

    Raises:
        SlotIDError: no block lies in it, or the backbone has not so many.
    """
    end = blocks - 1 if last == -1 else last
    if not 0 <= first <= end < blocks:
        raise SlotIDError(
            f"The block range goes from {first} to {last}, expected 0 <= first <= last <= {blocks - 1} (or -1, the "
            f"last): the model has {blocks} blocks."
        )
    return None if end - first + 1 == blocks else range(first, end + 1)


def token_weights(mask_FHW: Tensor, latents: tuple[int, int, int], patch: tuple[int, int, int]) -> Tensor:
    """The share of each video token's cell that lies in the region: the identity's weight there.

    Args:
        mask_FHW: 1 inside, 0 outside, softly between; what lies beyond counts as 0 or 1. Of any size with the frame's
            proportions. One mask (F = 1), or one for each of the video's ``4 (T - 1) + 1`` frames.
        latents: T, H, W of the video's latents.
        patch: cells of a token in time, height and width.

    Returns:
        ``[T', H', W']`` float32 on the CPU, in [0, 1], as many as there are tokens.

    Raises:
        SlotIDError: the mask's shape doesn't fit the video, or it holds numbers that are none.
    """
    T, H, W = latents
    frames = _TIME_STRIDE * (T - 1) + 1
    shape = list(mask_FHW.shape)
    if len(shape) != 3 or shape[0] not in (1, frames) or 0 in shape:
        raise SlotIDError(
            f"The region's mask has the shape {shape}, expected [1, height, width] or, for this video, "
            f"[{frames}, height, width]: one mask for all frames, or one for each. A reference picture that a node "
            "(VACE) puts before the video counts as 4 frames: put 4 copies of the first mask there."
        )
    stretch = (shape[2] / W) / (shape[1] / H)
    if not 1 / _ASPECT_TOLERANCE <= stretch <= _ASPECT_TOLERANCE:
        raise SlotIDError(
            f"The region's mask is {shape[2]} x {shape[1]} pixels and the video's latents are {W} x {H}: other "
            "proportions, so the region would be stretched. Make the mask in the video's width and height."
        )
    mask_FHW = mask_FHW.detach().float().cpu()
    if not mask_FHW.isfinite().all():
        raise SlotIDError(
            "The region's mask holds numbers that are not finite, expected 0 (outside) to 1 (inside). Look at the node "
            "that makes it."
        )
    cells_FHW = F.interpolate(mask_FHW.clamp(0, 1).unsqueeze(1), (H, W), mode="area").squeeze(1)
    if len(cells_FHW) == 1:
        cells_THW = cells_FHW.expand(T, -1, -1)
    else:
        later_THW = cells_FHW[1:].reshape(T - 1, _TIME_STRIDE, H, W).mean(dim=1)
        cells_THW = torch.cat([cells_FHW[:1], later_THW])
    pad = [n for size, p in zip((W, H, T), reversed(patch), strict=True) for n in (0, -size % p)]
    cells_THW = F.pad(cells_THW[None, None], pad, mode="replicate")
    return F.avg_pool3d(cells_THW, patch)[0, 0].clamp(
        0, 1
    )  # a mean may round beyond, and log(1 - m) would be no number


def append_prefix(context_BLE: Tensor, prefix_BPE: Tensor, avoid: Collection[int]) -> Tensor:
    """The context with all identities' tokens behind it, ``[B, K, E]`` in its dtype.

    Args:
        avoid: values of K to stay clear of, by spare zero tokens at the end that :func:`key_bias` hides: K is what the
            calls of cross-attention with the text are known by.
    """
    K = context_BLE.shape[1] + prefix_BPE.shape[1]
    spare = 0
    while K + spare in avoid:
        spare += 1
    return F.pad(torch.cat([context_BLE, prefix_BPE.to(context_BLE.dtype)], dim=1), (0, 0, 0, spare))


def key_bias(context_BLE: Tensor, active_BN: Tensor, weights_QN: Tensor, tokens_N: Sequence[int], keys: int) -> Tensor:
    """What is added to the scores of cross-attention before the softmax, ``[B, Q, K]`` in the context's dtype.

    Args:
        context_BLE: the prompts, before :func:`append_prefix`.
        active_BN: bool, whether the identity has anything to say to that row.
        weights_QN: float32 in [0, 1]; Q may be 1 for all video tokens alike.
        tokens_N: prefix tokens of each identity, in the order in which they were appended.
        keys: K, with spare tokens.

    A prefix token whose place is a pad shares it with the pad. The last of those that speak to the row have none where
    the prompt leaves too few, exactly as :func:`.prefix.place_prefix` would have grown the context.
    """
    (B, N), L, P = active_BN.shape, context_BLE.shape[1], sum(tokens_N)
    owner_P = torch.arange(N).repeat_interleave(torch.tensor(tokens_N)).to(context_BLE.device)
    weights_BQP = (active_BN[:, None] * weights_QN)[:, :, owner_P]
    bias_BQK = context_BLE.new_zeros(B, weights_BQP.shape[1], keys)
    bias_BQK[:, :, L : L + P] = weights_BQP.log()
    bias_BQK[:, :, L + P :] = -torch.inf
    speaks_BP = active_BN[:, owner_P].tolist()
    for row, pads in enumerate(trailing_pads(context_BLE).tolist()):
        sharing = [token for token, speaks in enumerate(speaks_BP[row]) if speaks][:pads]
        bias_BQK[row, :, L - len(sharing) : L] = torch.log1p(-weights_BQP[row][:, sharing])
    return bias_BQK
