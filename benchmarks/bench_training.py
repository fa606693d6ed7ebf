"""Real training updates at a config's shape on random weights, against what the pre-flight predicts.

    python benchmarks/bench_training.py training/configs/wan2.1_14b.yaml --out benchmarks/results/training-14b.json
    python benchmarks/bench_training.py training/configs/wan2.1_14b_24gb.yaml --cap-gb 24

No file of the config is read: the backbone has the config's shape and random weights, and the clips are noise. What an
update costs does not depend on either. Peak memory and MFU exist on a GPU alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import machine
import torch
from diffusers import WanTransformer3DModel

from training.planner.decide import ingredients, largest_grid, predict
from training.planner.machine import GIB, this_machine
from training.planner.shapes import latent_grid
from training.settings import Settings
from training.settings_file import load
from training.text import context_length, most_text_tokens
from training.trainer.adapter import Adapter
from training.trainer.batches import Item, prefix_tokens
from training.trainer.checks import Reached, check_start
from training.trainer.draws import draw
from training.trainer.memory import apply_plan
from training.trainer.optim import AveragedWeights, make_optimizer
from training.trainer.processes import Processes
from training.trainer.state import State
from training.trainer.update import update
from training.wan_files import cast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.field=value")
    parser.add_argument("--updates", type=int, default=3, help="measured, after one that is not (%(default)s)")
    parser.add_argument("--cap-gb", type=float, help="pretend that the card has so many GB: more is an error")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    args = parser.parse_intermixed_args()
    settings = load(args.config, args.overrides)
    processes = Processes()
    on_gpu = processes.device.type == "cuda"
    here = this_machine(Path("."), on_cpu=not on_gpu)
    if args.cap_gb:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(args.cap_gb * 1e9 / total)
        here = replace(here, vram=int(args.cap_gb * 1e9))
    planned = predict(ingredients(settings), here)
    planned.refuse_if_too_large()
    measured = measure(settings, processes, planned, args.updates)
    flops = settings.optim.batch * sum(work.total for work in planned.work.values())
    result = {
        **machine.run_facts(__file__, settings.run.seed),
        "machine": machine.describe(processes.device.type),
        "memory_plan": planned.memory_plan,
        "clip": planned.clip,
        "tokens": planned.tokens,
        "predicted": {
            "seconds_a_step": planned.seconds_a_step,
            "card_gib": planned.choice.need.card_total / GIB,
            "pflop_a_step": flops / 1e15,
        },
        "measured": measured,
    }
    if here.peak_flops:
        useful = settings.optim.batch * sum(work.forward + work.backward for work in planned.work.values())
        result["measured"]["mfu"] = useful / measured["seconds_a_step"] / here.peak_flops
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


def measure(settings: Settings, processes: Processes, planned, updates: int) -> dict:
    """Seconds an update (median), and the peak of the card's memory."""
    device, optim = processes.device, settings.optim
    precision = torch.bfloat16 if settings.memory.precision == "bf16" else torch.float32
    adapter = Adapter(
        settings.model.slotid_config(), random_transformer(settings, planned, device, precision),
        context_length=context_length(settings), seed=0, device=device, precision=precision,
    )  # fmt: skip
    apply_plan(adapter.injected, planned.memory_plan, device)
    trainable = adapter.trainable()
    state = State(trainable, AveragedWeights(optim.ema, trainable), make_optimizer(optim, trainable))
    item = noise_item(settings)
    batches = itertools.repeat([item] * optim.micro_batch)
    reached = Reached(list(trainable))
    check_start(adapter, [item])
    seconds = []
    for index in range(updates + 1):
        if index == 1 and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        figures = update(adapter, state, batches, settings, processes, reached)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        print(f"update {index}: {seconds[-1]:.2f} s, {figures}", flush=True)
    measured = {"seconds_a_step": sorted(seconds[1:])[len(seconds[1:]) // 2], "seconds": seconds[1:]}
    if device.type == "cuda":
        measured["allocated_gib"] = torch.cuda.max_memory_allocated() / GIB
        measured["reserved_gib"] = torch.cuda.max_memory_reserved() / GIB
    return measured


def random_transformer(settings: Settings, planned, device: torch.device, precision: torch.dtype):
    """A Wan of the config's shape. Made block by block where it will stay, so that no second copy is ever there."""
    from training.planner.shapes import read_shape

    config = read_shape(settings).config()
    stays = torch.device("cpu") if planned.memory_plan in ("fp8", "streamed") else device
    torch.manual_seed(0)
    with stays:
        transformer = cast(WanTransformer3DModel(**{**config, "num_layers": 1}), precision)
        for _ in range(config["num_layers"] - 1):
            one = cast(WanTransformer3DModel(**{**config, "num_layers": 1}), precision)
            transformer.blocks.append(one.blocks[0])
    transformer.register_to_config(num_layers=config["num_layers"])
    return transformer


def noise_item(settings: Settings) -> Item:
    """A clip of the largest shape, all noise."""
    config, data = settings.model.slotid_config(), settings.data
    channels, random = config.backbone.latent_channels, torch.Generator().manual_seed(0)
    target = largest_grid(settings)
    tokens = prefix_tokens(settings)
    text = min(200, most_text_tokens(settings))
    drawn = draw(settings, 0, 0, "noise", (channels, *target), prefix_tokens=tokens, references=1, variants=1)
    return Item(
        entry=SimpleNamespace(id="noise"),
        target_CTHW=torch.randn(channels, *target, generator=random),
        reference_CTHW=torch.randn(
            channels, *latent_grid(data.reference_frames, data.reference_side, data.reference_side), generator=random
        ),
        portrait_CTHW=torch.randn(channels, 1, data.portrait_side // 8, data.portrait_side // 8, generator=random),
        text_LE=torch.randn(text, config.backbone.text_dim, generator=random),
        draw=replace(drawn, keep_identity=True),
    )


if __name__ == "__main__":
    main()
