"""The world's Wan: a small text-to-video transformer that knows what captions say and nothing of who is who.

    python -m training.world.models.backbone training/configs/world.yaml OUT.safetensors --minutes 60

or the same behind ``accelerate launch -m`` for several processes.

Written under ComfyUI's names, so that its *Load Diffusion Model* reads it. Trained by flow matching on the targets of
the prepared cache, without any identity; it stays frozen afterwards.

Letters: N clips, B rows, C latent channels, T h w latent frames, height, width, L text tokens, E text-token width.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from slotid_core.demo_text import LENGTH, embed_prompt
from slotid_core.errors import SlotIDError
from training.data.cache import open_cache
from training.settings import Settings
from training.settings_file import load
from training.trainer.processes import Processes
from training.wan_diffusers import HEAD_WIDTH, WanTransformer3DModel, load_transformer
from training.wan_keys import transformer_to_original
from training.world.models.device import half
from training.world.models.files import write_model
from training.world.models.optimizer import MatrixOptimizer

DIM, BLOCKS, FFN = 256, 6, 1024
_EMA, _DROP_TEXT = 0.999, 0.1
_SHIFT = 3.0
"""Of the noise levels: what a video shows is decided at high noise, and the sampler spends its steps there."""


def new_backbone(seed: int) -> WanTransformer3DModel:
    """A Wan of the world's size whose velocity is 0 everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WanTransformer3DModel(
            num_attention_heads=DIM // HEAD_WIDTH, attention_head_dim=HEAD_WIDTH, in_channels=16, out_channels=16,
            text_dim=4096, ffn_dim=FFN, num_layers=BLOCKS,
        )  # fmt: skip
        nn.init.zeros_(model.proj_out.weight), nn.init.zeros_(model.proj_out.bias)
    return model


def train(
    settings: Settings, out: Path, *, minutes: float, batch: int, seed: int, start: Path | None, processes: Processes,
    rate: float = 1.0,
) -> None:  # fmt: skip
    """Learn for so many minutes from the cache of the settings, held-out people left out.

    Args:
        batch: clips in one update, over all processes.
        rate: of learning at most, as a share of a new one's.

    Raises:
        SlotIDError: the processes can't share the batch evenly.
    """
    if batch < 1 or batch % processes.count:
        raise SlotIDError(
            f"Got a batch of {batch} clips for {processes.count} processes, expected a multiple of {processes.count}."
        )
    device, rows = processes.device, batch // processes.count
    random = np.random.RandomState([seed, processes.rank])
    noise = torch.Generator(device).manual_seed(1000 * seed + processes.rank)
    cache = open_cache(settings)
    entries = [entry for entry in cache.entries if not entry.held_out]
    latents_NCThw = torch.stack([cache.load(entry).target_CTHW.float() for entry in tqdm(entries, desc="reading")])
    latents_NCThw = latents_NCThw.to(device)
    prompts_NLE = torch.stack([embed_prompt(entry.caption)[0].bfloat16() for entry in entries]).to(device)
    model = new_backbone(seed) if start is None else load_transformer(start)
    model.train().requires_grad_(True).to(device)
    averaged = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    optimizer = MatrixOptimizer(model, matrix_rate=0.02, other_rate=2e-3)
    started, step, running = time.monotonic(), 0, None
    log = out.with_suffix(".log").open("a")
    while True:
        # The first process's clock is everybody's.
        clock = torch.tensor(time.monotonic() - started if processes.is_first else 0.0, device=device)
        share = float(processes.sum(clock)) / (60 * minutes)
        if share >= 1:
            break
        chosen = random.randint(len(entries), size=rows)
        clean, context_BLE = latents_NCThw[chosen], prompts_NLE[chosen]
        context_BLE[torch.from_numpy(random.uniform(size=rows) < _DROP_TEXT).to(device)] = 0
        # Levels evenly over the batch: the loss then says more about the step than about the draw.
        places_B = torch.from_numpy(random.permutation(rows)).to(device)
        sigma_B = (places_B + torch.rand(rows, generator=noise, device=device)) / rows
        sigma_B = _SHIFT * sigma_B / (1 + (_SHIFT - 1) * sigma_B)
        eps = torch.randn(clean.shape, generator=noise, device=device)
        mix = sigma_B.view(-1, 1, 1, 1, 1)
        with half(device):
            velocity = model((1 - mix) * clean + mix * eps, 1000 * sigma_B, context_BLE, return_dict=False)[0]
        loss = (velocity.float() - (eps - clean)).square().mean() / processes.count
        if not bool(loss.isfinite()):
            raise FloatingPointError(f"loss {loss.item()} in step {step}")
        loss.backward()
        processes.sum_gradients(dict(model.named_parameters()))
        optimizer.step(rate * min(1, (step + 1) / 50) * (0.02 + 0.98 * (1 - share)))
        follow = get_ema_multi_avg_fn(min(_EMA, (1 + step) / (10 + step)))
        follow(list(averaged.values()), list(model.state_dict().values()), None)
        found = processes.sum(loss.detach()).item()
        running = found if running is None else 0.98 * running + 0.02 * found
        step += 1
        if processes.is_first and step % 20 == 0:
            told = {"step": step, "seconds": round(time.monotonic() - started), "loss": round(running, 4)}
            log.write(json.dumps(told) + "\n")
            log.flush()
        if processes.is_first and step % 500 == 0:
            write(averaged, out.with_suffix(".part.safetensors"), {"steps": step})
    if processes.is_first:
        facts = {
            "steps": step,
            "batch": batch,
            "minutes": minutes,
            "rate": rate,
            "clips": len(entries),
            "seed": seed,
            "loss": running,
        }
        write(averaged, out, facts)


def write(tensors: dict[str, Tensor], out: Path, facts: dict) -> None:
    """One file under ComfyUI's names, float16."""
    named = {transformer_to_original(name): tensor.half().cpu().contiguous() for name, tensor in tensors.items()}
    write_model(out, named, {**facts, "text_length": LENGTH})


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.field=value")
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1.0, help="of learning, as a share of a new one's (1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="an earlier one to go on from")
    args = parser.parse_intermixed_args(argv)
    settings = load(args.config, args.overrides)
    processes = Processes()
    train(
        settings, args.out, minutes=args.minutes, batch=args.batch, seed=args.seed, start=args.start,
        processes=processes, rate=args.rate,
    )  # fmt: skip
    processes.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
