"""The world's Wan VAE: real architecture, small width, trained on the world's own pictures.

    python -m training.world.models.vae PICTURES OUT.safetensors --minutes 45

Written under ComfyUI's names, so that its *Load VAE* reads it; ``quant_conv`` is folded so that latents have Wan 2.1's
statistics and every host's normalisation holds.

Letters: B crops, C latent channels, F frames, H W height and width, T h w latent frames, height, width.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file
from torch import Tensor, nn

from slotid_core.latents import WAN21_MEAN, WAN21_STD
from training.wan_keys import vae_to_original
from training.world.pictures import read_pictures

BASE_DIM = 8
"""Wan's is 96."""
_NOISE = 0.05
"""Added to latents in training, in units of their spread: neighbouring latents have to decode alike."""


def new_vae(seed: int) -> AutoencoderKLWan:
    """Starts as nearly linear: residual branches at zero, time steps halved by averages and doubled by copies.

    From there a few thousand updates are enough.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLWan(base_dim=BASE_DIM)
        with torch.no_grad():
            for name, module in vae.named_modules():
                if name.endswith(".conv2"):
                    module.weight.zero_(), module.bias.zero_()
                elif name.endswith(".time_conv"):
                    _as_copies(module)
    return vae


def _as_copies(layer: nn.Module) -> None:
    """``time_conv`` of a resampling step: the mean of two frames on the way down, the frame twice on the way up."""
    out, into = layer.weight.shape[:2]
    layer.weight.zero_(), layer.bias.zero_()
    same = torch.eye(into)
    if out == into:
        layer.weight[:, :, 1, 0, 0] = layer.weight[:, :, 2, 0, 0] = same / 2
    else:
        layer.weight[:into, :, 2, 0, 0] = layer.weight[into:, :, 2, 0, 0] = same


def _loss(decoded: Tensor, wanted: Tensor) -> Tensor:
    """Absolute error of pixels and of their differences along the picture and in time, where small things live."""
    error = decoded - wanted
    total = error.abs().mean()
    for dim in (2, 3, 4):
        if wanted.shape[dim] > 1:
            total = total + error.diff(dim=dim).abs().mean()
    return total


def _crops(files: list[Path], random: np.random.RandomState, count: int, frames: int, side: int) -> Tensor:
    """``[B, 3, F, side, side]`` in -1 to 1."""
    crops = []
    for _ in range(count):
        pictures = read_pictures(files[random.randint(len(files))])
        clip = pictures["portrait"][None] if frames == 1 else pictures["clip"]
        t, y, x = (random.randint(most - size + 1) for most, size in zip(clip.shape, (frames, side, side)))
        crops.append(clip[t : t + frames, y : y + side, x : x + side].permute(3, 0, 1, 2))
    return torch.stack(crops).float() / 127.5 - 1


def train(pictures: Path, out: Path, *, minutes: float, seed: int, resume: Path | None) -> None:
    """Learn for so many minutes; files that are drawn meanwhile are used as they come."""
    random = np.random.RandomState(seed)
    vae = new_vae(seed).train()
    if resume is not None:
        vae.load_state_dict(torch.load(resume))
    noise = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, betas=(0.9, 0.97), weight_decay=1e-3)
    started, step, running = time.monotonic(), 0, None
    log = out.with_suffix(".log").open("a")
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        if step % 100 == 0:
            files = sorted((pictures / "train").glob("*.safetensors"))
        rate = 2e-3 * min(1, (step + 1) / 50) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = []
        whole = share > 0.8  # attention in the middle must see whole pictures once
        for frames, count in ((1, 4), (9, 2 if whole else 6)):
            wanted = _crops(files, random, count, frames, 80 if whole else 48)
            with torch.autocast("cpu", torch.bfloat16):
                latents = vae.encode(wanted).latent_dist.mean
                spread = latents.float().std().detach()
                noisy = latents + _NOISE * spread * torch.randn(latents.shape, generator=noise)
                decoded = vae.decode(noisy).sample
            losses.append(_loss(decoded.float(), wanted) + 1e-3 * (latents.float().square().mean() - 1).relu())
        loss = 0.25 * losses[0] + losses[1]
        if not bool(loss.isfinite()):
            raise FloatingPointError(f"loss {float(loss)} in step {step}")
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        running = float(losses[1]) if running is None else 0.98 * running + 0.02 * float(losses[1])
        if step % 20 == 0:
            log.write(json.dumps({"step": step, "share": round(share, 4), "loss": running}) + "\n")
            log.flush()
        step += 1
    torch.save(vae.state_dict(), out.with_suffix(".raw.pt"))
    fold(vae, files[:100])
    facts = {"steps": step, "minutes": minutes, "seed": seed, "base_dim": BASE_DIM, "loss": running}
    write(vae, out, facts)


@torch.no_grad()
def fold(vae: AutoencoderKLWan, files: list[Path]) -> None:
    """Put an affine map into ``quant_conv``, and its inverse into ``post_quant_conv``, so that latents of these clips
    have Wan 2.1's mean and spread, in place. What is decoded stays as it was."""
    vae.eval()
    channels = len(WAN21_MEAN)
    raw = torch.cat([vae.encode(_whole(path)).latent_dist.mean for path in files])
    mean_C, std_C = raw.mean((0, 2, 3, 4)), raw.std((0, 2, 3, 4))
    gain_C = torch.tensor(WAN21_STD) / std_C
    shift_C = torch.tensor(WAN21_MEAN) - gain_C * mean_C
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:channels] *= gain_C.view(-1, 1, 1, 1, 1)
    before.bias[:channels] = before.bias[:channels] * gain_C + shift_C
    after.bias += -(after.weight[:, :, 0, 0, 0] * (shift_C / gain_C)).sum(1)
    after.weight /= gain_C.view(1, -1, 1, 1, 1)


def _whole(path: Path) -> Tensor:
    return read_pictures(path)["clip"].permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def write(vae: AutoencoderKLWan, out: Path, facts: dict) -> None:
    """One file under ComfyUI's names, float16: half the size, and more exact than what bfloat16 was trained with."""
    tensors = {vae_to_original(name): tensor.half().contiguous() for name, tensor in vae.state_dict().items()}
    save_file(tensors, out, metadata={"format": "pt", "facts": json.dumps(facts)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="a .raw.pt to start from")
    args = parser.parse_args()
    train(args.pictures, args.out, minutes=args.minutes, seed=args.seed, resume=args.resume)


if __name__ == "__main__":
    main()
