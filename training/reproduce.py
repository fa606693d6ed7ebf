#!/usr/bin/env python3
"""Slot-ID World from nothing to its report: people, VAE, backbone, probe, every variant, and what came of it.

python training/reproduce.py                                   # everything; hours on two cores
python training/reproduce.py --variants slotid portrait_only --seeds 0
python training/reproduce.py --identity-seed 1                 # the same weights on people nobody has seen
python training/reproduce.py --report                          # only the report, from the results that are there

Whatever is there is kept: one command goes on where the last one ended, and adds to docs/results/world.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

from slotid_core.errors import SlotIDError
from training.world.experiment.variants import VARIANTS

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "training" / "configs" / "world.yaml"
RESULTS = ROOT / "docs" / "results" / "world"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        if not args.report:
            run(args)
        if args.results.is_dir():
            from training.world.experiment.report import write_report

            write_report(args.results)
    except SlotIDError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", type=Path, default=Path("outputs/world"), help="pictures, models, runs (%(default)s)")
    add("--results", type=Path, default=RESULTS, help="where figures go, a JSON for each variant and seed")
    add("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    add("--seeds", type=int, nargs="+", help="of the training; left out: as many as the variant is asked for")
    add("--people", type=int, default=1300, help="to train on (%(default)s)")
    add("--metric-people", type=int, default=1000, help="to train the probe on, a hundred of them to test it")
    add("--held-out", type=int, default=200, help="to report on (%(default)s)")
    add("--identity-seed", type=int, default=0, help="another number reports on other people")
    add("--vae-minutes", type=float, default=45)
    add("--backbone-minutes", type=float, default=60)
    add("--probe-minutes", type=float, default=45)
    add("--set", nargs="*", default=[], metavar="section.field=value", help="changes of world.yaml, for all variants")
    add("--report", action="store_true", help="nothing is trained or measured")
    return parser


def run(args: argparse.Namespace) -> None:
    """Make what is missing, in order."""
    from training.world.pictures import draw_missing, people

    pictures = args.folder / "pictures"
    for split, count, world in (
        ("train", args.people, 0),
        ("metric", args.metric_people, 0),
        ("held_out", args.held_out, args.identity_seed),
    ):
        draw_missing(pictures, list(people(split, count, world)), processes=2)
    models = {name: args.folder / f"{name}.safetensors" for name in ("vae", "backbone", "probe")}
    _make(models["vae"], "vae", pictures, "--minutes", args.vae_minutes)
    _make(models["backbone"], "backbone", pictures, models["vae"], "--minutes", args.backbone_minutes)
    _make(models["probe"], "probe", pictures, models["vae"], "--minutes", args.probe_minutes)

    from training.world.experiment.results import Bench

    bench = Bench(args.folder, models, people=args.held_out, world=args.identity_seed)
    bench.write_bounds(args.results)
    for name in args.variants:
        variant = VARIANTS[name]
        for seed in range(variant.seeds) if args.seeds is None else args.seeds:
            result = args.results / f"{name}-{seed}{_world(args)}.json"
            if result.is_file():
                continue
            folder = args.folder / "runs" / f"{name}-{seed}"
            cache = args.folder / (f"cache-{name}" if variant.own_cache else "cache")
            command = [
                str(CONFIG), *variant.changes, f"run.folder={folder}", f"run.seed={seed}", f"data.cache={cache}",
                f"data.source={pictures / 'train'}", f"model.vae={models['vae']}",
                f"model.transformer={models['backbone']}", *args.set,
            ]  # fmt: skip
            weights = folder / "weights" / "slotid.safetensors"
            if not weights.is_file():
                # The cache's own seed is fixed, so that all seeds of training share it.
                _python(ROOT / "training" / "prepare.py", *command)
                _python(ROOT / "training" / "train.py", *command)
            bench.write_result(result, name, seed, weights, command=_shared(command))


def _make(out: Path, module: str, *arguments: object) -> None:
    if not out.is_file():
        inputs = [argument for argument in arguments if isinstance(argument, Path)]
        rest = [str(argument) for argument in arguments if not isinstance(argument, Path)]
        _python("-m", f"training.world.models.{module}", *map(str, inputs), str(out), *rest)


def _python(*arguments: object) -> None:
    command = [sys.executable, *map(str, arguments)]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT)
    if done.returncode:
        raise SlotIDError(f"This ended with status {done.returncode}: {' '.join(command)}. Run it again to go on.")
    print(f"{time.monotonic() - started:.0f} s: {' '.join(command[1:3])}", flush=True)


def _world(args: argparse.Namespace) -> str:
    return f"-world{args.identity_seed}" if args.identity_seed else ""


def _shared(command: list[str]) -> list[str]:
    """The command as anybody would give it: without the folders of one machine."""
    return [part for part in command if not part.startswith(("run.folder", "data.", "model.vae", "model.transformer"))]


if __name__ == "__main__":
    sys.exit(main())
