"""Many clips of the world through a Wan VAE, and back.

Letters: N clips, B of them at once, C latent channels, F frames, H W height and width, T h w latent frames, height and
width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from slotid_core.latents import denormalise, normalise
from training.wan_diffusers import AutoencoderKLWan
from training.world.models.device import half

_TOGETHER = 100
"""On a GPU, which one clip of 80 pixels would leave idle. A CPU gains nothing from more than one."""


@torch.no_grad()
def encode_clips(vae: AutoencoderKLWan, clips_NFHW3: Tensor) -> Tensor:
    """uint8 pixels to *normalised* latents ``[N, C, T, h, w]``, float32, on the CPU."""
    parts = []
    for clips in _parts(vae, clips_NFHW3, "encoding"):
        with half(vae.device):
            pixels_B3FHW = clips.to(vae.device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
            parts.append(normalise(vae.encode(pixels_B3FHW).latent_dist.mode().float()).cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode_clips(vae: AutoencoderKLWan, latents_NCThw: Tensor) -> Tensor:
    """*Normalised* latents to uint8 pixels ``[N, F, H, W, 3]``, on the CPU."""
    parts = []
    for latents in _parts(vae, latents_NCThw, "decoding"):
        with half(vae.device):
            pixels_B3FHW = vae.decode(denormalise(latents.to(vae.device).float())).sample.float()
        parts.append((pixels_B3FHW.permute(0, 2, 3, 4, 1) * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).cpu())
    return torch.cat(parts)


def _parts(vae: AutoencoderKLWan, tensor: Tensor, name: str) -> tqdm:
    return tqdm(tensor.split(1 if vae.device.type == "cpu" else _TOGETHER), desc=name, leave=False)
