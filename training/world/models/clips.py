"""Many clips of the world through a Wan VAE, and back.

Letters: N clips, B of them at once, C latent channels, F frames, H W height and width, T h w latent frames, height and
width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from slotid_core.latents import denormalise, normalise
from training.atomic import atomic
from training.wan_diffusers import AutoencoderKLWan, load_vae
from training.world.models.device import best_device, half
from training.world.models.files import weights_id
from training.world.pictures import drawn_files, read_pictures

_TOGETHER = 100
"""On a GPU, which one clip of 80 pixels would leave idle. A CPU gains nothing from more than one."""
_READ = 100
"""Clips that are read from the disk in one go."""


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


def round_trips(pictures: Path, split: str, vae_file: Path, kept: Path) -> tuple[list[str], Tensor]:
    """Names and uint8 clips ``[N, F, H, W, 3]`` of a split after encoding and decoding, kept in a file as long as the
    VAE is the same."""
    seen_by, done = weights_id(vae_file), {}
    if kept.is_file():
        with safe_open(kept, framework="pt") as file:
            if (file.metadata() or {}).get("vae") == seen_by:
                done = {name: file.get_tensor(name) for name in file.keys()}
    missing = [path for path in drawn_files(pictures / split) if path.stem not in done]
    vae = load_vae(vae_file).to(best_device())
    for start in tqdm(range(0, len(missing), _READ), desc="round trips", unit=f"{_READ} clips"):
        paths = missing[start : start + _READ]
        clips_NFHW3 = torch.stack([read_pictures(path)["clip"] for path in paths])
        seen_NFHW3 = decode_clips(vae, encode_clips(vae, clips_NFHW3))
        done |= {path.stem: seen.clone() for path, seen in zip(paths, seen_NFHW3, strict=True)}
    if missing:
        with atomic(kept) as temporary:
            save_file(done, temporary, metadata={"vae": seen_by})
    names = sorted(done)
    return names, torch.stack([done[name] for name in names])
