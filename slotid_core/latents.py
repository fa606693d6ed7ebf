"""Wan 2.1 video latents: statistics and the temporal difference.

Shape letters: B batch, C channels (16), T H W latent frames, height, width.

A VAE gives *raw* latents; the backbone, and so the encoder here, sees them normalised per channel. Both hosts
must normalise exactly once: ComfyUI's ``VAE.encode`` and diffusers' ``AutoencoderKLWan.encode`` return raw ones.
"""

import torch
from torch import Tensor

from .errors import SlotIDError
from .safe_file import pixel_hash

# Per-channel mean and standard deviation of Wan 2.1's raw latents, as published with the VAE
# (``latents_mean`` and ``latents_std`` in diffusers' AutoencoderKLWan config, ``Wan21`` in ComfyUI).
WAN21_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
WAN21_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


def _statistics(latents_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
    if latents_BCTHW.ndim != 5 or latents_BCTHW.shape[1] != len(WAN21_MEAN):
        raise SlotIDError(
            f"Got latents of shape {list(latents_BCTHW.shape)}, expected [B, {len(WAN21_MEAN)}, T, H, W]. "
            "Encode the clip with the Wan 2.1 VAE."
        )
    mean = torch.tensor(WAN21_MEAN, dtype=latents_BCTHW.dtype, device=latents_BCTHW.device)
    std = torch.tensor(WAN21_STD, dtype=latents_BCTHW.dtype, device=latents_BCTHW.device)
    return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)


def normalise(latents_BCTHW: Tensor) -> Tensor:
    """Raw VAE latents -> the normalised ones that the backbone sees, ``(z - mean) / std``.

    Raises:
        SlotIDError: the latents are not ``[B, 16, T, H, W]``.
    """
    mean, std = _statistics(latents_BCTHW)
    return (latents_BCTHW - mean) / std


def denormalise(latents_BCTHW: Tensor) -> Tensor:
    """Inverse of :func:`normalise`: what the VAE's decoder takes."""
    mean, std = _statistics(latents_BCTHW)
    return latents_BCTHW * std + mean


def temporal_difference(latents_BCTHW: Tensor) -> Tensor:
    """``dZ[:, :, 0] = 0``, ``dZ[:, :, t] = Z[:, :, t] - Z[:, :, t-1]`` (paper, 3.1). Shape ``[B, C, T, H, W]``."""
    first = torch.zeros_like(latents_BCTHW[:, :, :1])
    return torch.cat([first, latents_BCTHW.diff(dim=2)], dim=2)


def shuffled_order(clip_FHWC: Tensor) -> Tensor:
    """Indices ``[F]`` of the clip's frames in an order of its own (ablation B of the paper).

    It depends on the pixels alone, so that a clip always gives the same identity, and differs from clip to clip. One
    order for all clips would be no ablation: an encoder that knows places learns it like any other.

    Args:
        clip_FHWC: in [0, 1].
    """
    # 60 bits of the hash are a seed that torch takes.
    generator = torch.Generator().manual_seed(int(pixel_hash(clip_FHWC)[:15], 16))
    return torch.randperm(clip_FHWC.shape[0], generator=generator).to(clip_FHWC.device)


def shuffle_frames(clip_FHWC: Tensor) -> Tensor:
    """The clip in its :func:`shuffled_order`.

    It works on pixels ``[F, H, W, C]``, before the VAE: shuffled latents would still hold the order inside
    each group of four frames.
    """
    return clip_FHWC[shuffled_order(clip_FHWC)]
