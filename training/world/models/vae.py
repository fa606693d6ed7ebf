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
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from slotid_core.latents import WAN21_MEAN, WAN21_STD
from training.wan_diffusers import AutoencoderKLWan, load_vae
from training.wan_keys import vae_to_original
from training.world.models.device import best_device, half
from training.world.models.files import write_model
from training.world.models.focus import counts, mirrored, parts_of_clips, parts_of_portraits
from training.world.models.optimizer import MatrixOptimizer
from training.world.models.whole import WholeClips
from training.world.pictures import FRAMES, SIZE, clip_of_name, drawn_files, read_pictures

BASE_DIM = 16
"""Wan's is 96."""
_NOISE = 0.05
"""Added to latents in training, in units of their spread: neighbouring latents have to decode alike."""
_FINE_FROM = 0.4
"""Share of the time after which the residual branches at full and half size learn too, on whole pictures. They take
most of the arithmetic and give the least."""


def new_vae(seed: int) -> AutoencoderKLWan:
    """Starts as nearly linear: residual branches at zero, time steps halved by averages and doubled by copies."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLWan(base_dim=BASE_DIM)
        with torch.no_grad():
            for name, module in vae.named_modules():
                if name.endswith((".conv2", ".proj")):
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


@contextmanager
def _without_fine_branches(vae: AutoencoderKLWan) -> Iterator[None]:
    """Residual blocks at full and half size are their shortcuts, which they are anyhow while branches are zero."""
    down, up = vae.encoder.down_blocks, vae.decoder.up_blocks
    blocks = [down[0], down[1], down[3], down[4], *up[2].resnets, *up[3].resnets]
    for block in blocks:
        block.forward = lambda x, *_, shortcut=block.conv_shortcut, **__: shortcut(x)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


@dataclass(frozen=True)
class _Pictures:
    """All clips, or all portraits as clips of one frame, kept in memory: a GPU learns faster than a disk reads."""

    clips_NFHW3: Tensor
    """uint8"""
    parts_NFK4: Tensor
    """As :func:`parts_of_clips`."""

    @classmethod
    def read(cls, files: list[Path], device: torch.device) -> tuple[_Pictures, _Pictures]:
        """Clips and portraits."""
        known = [clip_of_name(path.stem) for path in files]
        seen = [read_pictures(path) for path in tqdm(files, desc="reading", leave=False)]
        clips, portraits = (torch.stack([one[name] for one in seen]).to(device) for name in ("clip", "portrait"))
        return (
            cls(clips, parts_of_clips(known).to(device)),
            cls(portraits[:, None], parts_of_portraits(known).to(device)),
        )

    def crops(self, random: np.random.RandomState, count: int, frames: int, side: int) -> tuple[Tensor, Tensor]:
        """``[B, 3, frames, side, side]`` in -1 to 1, half of them in a mirror, and how much each pixel counts,
        ``[B, 1, frames, side, side]``. Of whole pictures the mean over each clip is 1."""
        crops, parts, corners = [], [], []
        for index in random.randint(len(self.clips_NFHW3), size=count):
            clip = self.clips_NFHW3[index]
            t, y, x = (
                random.randint(most - size + 1) for most, size in zip(clip.shape[:3], (frames, side, side), strict=True)
            )
            mirror = random.uniform() < 0.5
            crop = clip[t : t + frames, y : y + side, x : x + side].permute(3, 0, 1, 2)
            crops.append(crop.flip(-1) if mirror else crop)
            part = self.parts_NFK4[index, t : t + frames]
            parts.append(mirrored(part) if mirror else part)
            corners.append((y, SIZE - side - x if mirror else x))
        counts_BFHW = counts(torch.stack(parts))
        cut = [c[:, y : y + side, x : x + side] for c, (y, x) in zip(counts_BFHW, corners, strict=True)]
        return torch.stack(crops).float() / 127.5 - 1, torch.stack(cut)[:, None]


def train(
    pictures: Path, out: Path, *, minutes: float, clips: int, seed: int, start: Path | None, rate: float | None = None
) -> None:
    """Learn for so many minutes, from so many whole clips in an update.

    Args:
        rate: the highest, as a share of what a new VAE begins with; 1, or 0.5 where there is one to start from.
    """
    random, device = np.random.RandomState(seed), best_device()
    if rate is None:
        rate = 1.0 if start is None else 0.5
    noise = torch.Generator(device).manual_seed(seed)
    vae = new_vae(seed) if start is None else load_vae(start)
    vae.train().requires_grad_(True).to(device)
    whole = WholeClips(vae)
    drawn, portraits = _Pictures.read(drawn_files(pictures / "train"), device)
    optimizer = MatrixOptimizer(vae, matrix_rate=0.02, other_rate=3e-3)
    log = out.with_suffix(".log").open("a")
    started, step, running = time.monotonic(), 0, None

    def learn(wanted: Tensor, counted: Tensor, weight: float) -> float:
        with half(device):
            latents = whole.encode(wanted)
            spread = latents.detach().float().std()
            blur = torch.randn(latents.shape, generator=noise, device=device)
            decoded = whole.decode(latents + _NOISE * spread * blur)
        error = decoded.float() - wanted
        # Squares bring colours and large shapes in first; absolute errors then keep edges.
        loss = (counted * (error.square() + 0.1 * error.abs())).mean()
        if not bool(loss.isfinite()):
            raise FloatingPointError(f"loss {loss.item()} in step {step}")
        (weight * loss).backward()
        return error.detach().square().mean().item() / 4

    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        fine = share > _FINE_FROM or start is not None
        with nullcontext() if fine else _without_fine_branches(vae):
            side = SIZE if fine else 48
            learn(*portraits.crops(random, 2 * clips, 1, side), 0.2)
            # Colours drift beyond the length that was learned from, so the end sees whole clips.
            crops = (clips, FRAMES, side) if fine else (6 * clips, 9, side)
            found = learn(*drawn.crops(random, *crops), 1.0)
        optimizer.step(rate * min(1, (step + 1) / 20) * (0.02 + 0.98 * (1 - share)))
        running = found if running is None else 0.97 * running + 0.03 * found
        if step % 25 == 0:
            seconds = round(time.monotonic() - started)
            log.write(
                json.dumps({"step": step, "seconds": seconds, "psnr": round(-10 * math.log10(running), 2)}) + "\n"
            )
            log.flush()
        step += 1
        if step % 250 == 0:
            write(vae, out.with_suffix(".part.safetensors"), {"steps": step})
    fold(vae, drawn.clips_NFHW3[:100])
    facts = {"steps": step, "minutes": minutes, "clips": clips, "rate": rate, "seed": seed, "base_dim": BASE_DIM}
    facts["psnr"] = -10 * math.log10(running)
    write(vae, out, facts)


@torch.no_grad()
def fold(vae: AutoencoderKLWan, clips_NFHW3: Tensor) -> None:
    """Put an affine map into ``quant_conv``, and its inverse into ``post_quant_conv``, so that latents of these clips
    have Wan 2.1's mean and spread, in place. What is decoded stays as it was."""
    vae.eval()
    channels = len(WAN21_MEAN)
    device = vae.quant_conv.weight.device
    pixels = (clips.permute(0, 4, 1, 2, 3).to(device).float() / 127.5 - 1 for clips in clips_NFHW3.split(20))
    raw = torch.cat([vae.encode(clips_B3FHW).latent_dist.mean.cpu() for clips_B3FHW in pixels]).float()
    vae.cpu()
    mean_C, std_C = raw.mean((0, 2, 3, 4)), raw.std((0, 2, 3, 4))
    gain_C = torch.tensor(WAN21_STD) / std_C
    shift_C = torch.tensor(WAN21_MEAN) - gain_C * mean_C
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:channels] *= gain_C.view(-1, 1, 1, 1, 1)
    before.bias[:channels] = before.bias[:channels] * gain_C + shift_C
    after.bias += -(after.weight[:, :, 0, 0, 0] * (shift_C / gain_C)).sum(1)
    after.weight /= gain_C.view(1, -1, 1, 1, 1)


def write(vae: AutoencoderKLWan, out: Path, facts: dict) -> None:
    """One file under ComfyUI's names, float16: half the size, and more exact than what bfloat16 was trained with."""
    tensors = {vae_to_original(name): tensor.half().contiguous() for name, tensor in vae.state_dict().items()}
    write_model(out, tensors, facts)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--clips", type=int, default=1, help="in an update (1); a GPU has room for more")
    parser.add_argument("--rate", type=float, help="of learning, as a share of a new one's (1; 0.5 with --start)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="an earlier one to go on from")
    args = parser.parse_args(argv)
    # Shapes are few and come again and again: cuDNN looks for the fastest kernels, for as long as this learns.
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        train(
            args.pictures, args.out, minutes=args.minutes, clips=args.clips, seed=args.seed, start=args.start,
            rate=args.rate,
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
