"""A Wan VAE that takes all frames of a clip at once, for training: the same numbers from a fifth of the kernels.

diffusers hands four frames on at a time, as one has to with long videos; a GPU then waits for kernels to be started.

Letters: B clips, C latent channels, F frames, H W height and width, T h w latent frames, height, width.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from training.wan_diffusers import AutoencoderKLWan, WanResample


class WholeClips:
    """Encoding and decoding of whole clips by this VAE, which itself stays as it is."""

    def __init__(self, vae: AutoencoderKLWan):
        self._vae = vae
        for module in vae.modules():
            if isinstance(module, WanResample) and module.mode.endswith("3d"):
                module.forward = partial(_resample, module)

    def encode(self, pixels_B3FHW: Tensor) -> Tensor:
        """The means ``[B, C, T, h, w]``, not normalised, of pixels in -1 to 1; F is 1 more than a multiple of 4."""
        return self._vae.quant_conv(self._vae.encoder(_laid_out(pixels_B3FHW))).chunk(2, 1)[0]

    def decode(self, latents_BCThw: Tensor) -> Tensor:
        """Pixels ``[B, 3, F, H, W]``, in -1 to 1."""
        return self._vae.decoder(self._vae.post_quant_conv(_laid_out(latents_BCThw))).clamp(-1, 1)


def _laid_out(x: Tensor) -> Tensor:
    """Channels beside each other in memory, as convolutions in bfloat16 read them, on a CPU too."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def _resample(module: WanResample, x: Tensor, feat_cache: list[Any] | None = None, *more: Any, **named: Any) -> Tensor:
    """:class:`WanResample`, which leaves frames as many as they are where it is given no cache. The first frame stands
    by itself: on the way down it is kept, on the way up it is not doubled."""
    if feat_cache is not None:
        return WanResample.forward(module, x, feat_cache, *more, **named)
    first, later = x[:, :, :1], x[:, :, 1:]
    if module.mode == "upsample3d" and later.shape[2]:
        doubled = module.time_conv(later).unflatten(1, (2, x.shape[1])).movedim(1, 3).flatten(2, 3)
        x = torch.cat([first, doubled], 2)
    x = WanResample.forward(module, x)
    if module.mode == "downsample3d" and x.shape[2] > 1:
        x = torch.cat([x[:, :, :1], module.time_conv(x)], 2)
    return x
