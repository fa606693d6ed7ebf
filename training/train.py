#!/usr/bin/env python3
"""Train Slot-ID on a frozen Wan: settings and a prepared cache -> weights that load in ComfyUI.

python training/train.py training/configs/tiny.yaml
python training/train.py training/configs/wan2.1_14b.yaml optim.lr=2e-4 run.folder=outputs/other
accelerate launch --config_file training/accelerate_gpus.yaml training/train.py CONFIG
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slotid_core.errors import SlotIDError

if TYPE_CHECKING:
    from training.settings import Settings


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for an error, 130 after an interruption."""
    args = _parser().parse_intermixed_args(argv)
    try:
        return run(args)
    except SlotIDError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # where no update is at hand, or for the second time
        print("\nInterrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train Slot-ID. A run folder with checkpoints is gone on with as if it had never stopped.",
        epilog="Every setting can be overridden: section.field=value, such as optim.lr=2e-4. What the settings mean: "
        "training/settings.py and docs/training.md.",
    )
    parser.add_argument("config", type=Path, help="settings, such as training/configs/tiny.yaml")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value", help="changes of the settings")
    parser.add_argument("--device", choices=["cpu"], help="train on the CPU though there is a GPU")
    return parser


def run(args: argparse.Namespace) -> int:
    """Plan, then train.

    Raises:
        SlotIDError: whatever can't be used, with what to do.
    """
    from training.settings_file import load

    settings = load(args.config, args.overrides)  # before the slow imports: a slip of the pen is told at once
    import torch

    from training.data.cache import MANIFEST
    from training.data.clip import Bench
    from training.data.make import make_cache, what_is_there
    from training.planner import plan
    from training.planner.machine import this_machine
    from training.trainer.processes import Processes
    from training.trainer.run import train

    processes = Processes(args.device)
    machine = processes.leanest(this_machine(settings.run.folder, on_cpu=processes.device.type == "cpu"))
    planned = plan(settings, machine, processes=processes.count)
    if processes.is_first:
        print(planned.describe())
    planned.refuse_if_too_large()
    # People who are rendered need no data of anybody's, so nothing is lost by preparing them along the way.
    if settings.data.layout == "generated" and processes.is_first and not (settings.data.cache / MANIFEST).is_file():
        bench = Bench(settings, device=processes.device)
        print(what_is_there(make_cache(settings, bench=bench), settings.data.cache))
    processes.wait()
    try:
        outcome = train(settings, processes, planned.memory_plan, ideal_seconds=planned.ideal_seconds)
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(planned.memory_plan, error) from error
    if processes.is_first and outcome.finished:
        print("\n".join(_what_to_do_with(outcome.written, settings)))
    processes.close()
    return 0 if outcome.finished else 130


def _out_of_memory(plan: str, error: Exception) -> SlotIDError:
    from training.trainer.memory import PLANS

    leaner = [f"memory.plan={name}" for name in PLANS[PLANS.index(plan) + 1 :][:1]]
    advice = ", ".join([*leaner, "with validation.samples=0 if a sample was being made"])
    return SlotIDError(
        f"The card has too little memory for the memory plan {plan!r}, which was predicted to fit: {error} Start the "
        f"same command with {advice}, or end what else is on the card; it goes on from the last checkpoint."
    )


def _what_to_do_with(written: Sequence[Path], settings: Settings) -> list[str]:
    slotid, *lora = written
    lines = [f"{slotid}  for ComfyUI/models/slotid"]
    lines += [f"{path}  its LoRA alone, for ComfyUI/models/loras" for path in lora]
    if settings.model.transformer == "tiny":
        lines.append(
            "They fit the random tiny Wan alone, whose pictures are noise: "
            f"python training/sample.py --demo --transformer tiny --vae tiny --weights {slotid}"
        )
    if settings.validation.samples:
        lines.append(f"{settings.run.folder / 'samples'}  what held-out people looked like on the way")
    if settings.log.tensorboard:
        lines.append(f"Curves: tensorboard --logdir {settings.run.folder}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
