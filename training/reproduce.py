#!/usr/bin/env python3
"""Slot-ID World from nothing to its report: people, VAE, backbone, probe, every variant, and what came of it.

python training/reproduce.py                                   # everything; hours on two cores
python training/reproduce.py --variants slotid portrait_only --seeds 0
python training/reproduce.py --identity-seed 1                 # the same weights on people nobody has seen
python training/reproduce.py --further --vae-minutes 6         # better models than those in demo/, then everything
python training/reproduce.py --together 16                     # so many trainings at once: a GPU has room for them
python training/reproduce.py --report                          # only the report, from the results that are there

Whatever is there is kept: one command goes on where the last one ended. docs/results/world was made with --results
docs/results/world and the settings that docs/world.md names.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slotid_core.errors import SlotIDError
from training.atomic import atomic
from training.world.experiment.variants import VARIANTS

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "training" / "configs" / "world.yaml"
SHIPPED = ROOT / "demo"
"""Models that the repository holds: results can be compared where they were made with the same ones."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        args.folder = args.folder.resolve()
        args.results = args.folder / "results" if args.results is None else args.results.resolve()
        if not args.report:
            run(args)
        from training.world.experiment.report import write_report
        from training.world.experiment.sheet import show

        if not list(args.results.glob("bounds*.json")):
            raise SlotIDError(f"There are no results in {args.results}. Say with --results where they are.")
        show(args.folder, args.results, world=args.identity_seed)
        write_report(args.results)
    except SlotIDError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", type=Path, default=ROOT / "outputs" / "world", help="pictures, models, runs (outputs/world)")
    add("--results", type=Path, help="where figures go, a JSON for each variant and seed (results in that folder)")
    add("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    add("--seeds", type=int, nargs="+", help="of the training; left out: as many as the variant is asked for")
    add("--people", type=int, default=1300, help="to train on (%(default)s)")
    add(
        "--metric-people",
        type=int,
        default=1000,
        help="for a probe of its own: a tenth, at least two, to test it, the others to train it (%(default)s)",
    )
    add("--held-out", type=int, default=200, help="to report on (%(default)s)")
    add("--identity-seed", type=int, default=0, help="another number reports on other people")
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--from-scratch", action="store_true", help="train VAE, backbone and probe too, anew")
    models.add_argument("--further", action="store_true", help="take demo/'s VAE, backbone and probe further first")
    add("--vae-minutes", type=float, default=45)
    add("--backbone-minutes", type=float, default=60)
    add("--probe-minutes", type=float, default=45)
    add("--set", nargs="*", default=[], metavar="section.field=value", help="changes of world.yaml, for all variants")
    add("--workers", type=int, default=2, help="processes that draw and encode (%(default)s)")
    add("--together", type=int, default=1, help="trainings at once, each a process with a log of its own (%(default)s)")
    add("--report", action="store_true", help="nothing is trained or measured")
    return parser


def run(args: argparse.Namespace) -> None:
    """Make what is missing, in order."""
    from training import train
    from training.data.cache import cache_key
    from training.settings import Settings
    from training.settings_file import load
    from training.world.experiment.evaluate import SAMPLING
    from training.world.experiment.origin import check, check_weights, learned_from
    from training.world.models import backbone, probe, vae
    from training.world.models.device import best_device
    from training.world.models.files import read_facts, weights_id
    from training.world.pictures import draw_missing, people

    if args.held_out < 2:
        raise SlotIDError(f"Got --held-out {args.held_out}, expected at least 2: people are told from one another.")
    models = {name: args.folder / f"{name}.safetensors" for name in ("vae", "backbone", "probe")}
    for path in models.values():
        shipped, own = SHIPPED / f"world_{path.name}", args.from_scratch or args.further
        if own and path.is_file() and weights_id(path) == weights_id(shipped):
            raise SlotIDError(
                f"{path} is the one of {SHIPPED}, and whatever is there is kept, so that nothing would be made anew or "
                "taken further. Give an experiment with models of its own a folder of its own (--folder)."
            )
        if not (own or path.is_file()):
            with atomic(path) as temporary:
                shutil.copyfile(shipped, temporary)
    pictures = args.folder / "pictures"
    for split, count, world in (
        ("train", args.people, 0),
        ("metric", 0 if models["probe"].is_file() else args.metric_people, 0),
        ("held_out", args.held_out, args.identity_seed),
    ):
        draw_missing(pictures, list(people(split, count, world)), args.workers)
    start = {name: ["--start", SHIPPED / f"world_{name}.safetensors"] if args.further else [] for name in models}
    shared = [
        f"data.cache={args.folder / 'cache'}", f"data.source={pictures / 'train'}", f"model.vae={models['vae']}",
        f"model.transformer={models['backbone']}", *args.set,
    ]  # fmt: skip
    workers = "--workers", args.workers
    # A GPU takes many clips in the time of one.
    vae_clips, backbone_batch, probe_batch = (1, 24, 24) if best_device().type == "cpu" else (32, 192, 64)
    _make(
        models["vae"], vae.main, pictures, models["vae"],
        "--minutes", args.vae_minutes, "--clips", vae_clips, *start["vae"],
    )  # fmt: skip
    _prepare(args.folder / "cache", pictures / "train", CONFIG, *shared, *workers)
    _make(
        models["backbone"], backbone.main, CONFIG, models["backbone"], *shared,
        "--minutes", args.backbone_minutes, "--batch", backbone_batch, *start["backbone"],
    )  # fmt: skip
    held_back = max(2, args.metric_people // 10)
    if args.further:  # those whom the shipped one has not seen
        held_back = min(held_back, read_facts(SHIPPED / "world_probe.safetensors")["held_back"])
    _make(
        models["probe"], probe.main, pictures, models["vae"], models["probe"],
        "--minutes", args.probe_minutes, "--held-back", held_back, "--batch", probe_batch,
        *start["probe"],
    )  # fmt: skip

    from training.world.experiment.results import Bench

    bench = Bench(args.folder, models, people=args.held_out, world=args.identity_seed)
    wanted = [
        (name, seed)
        for name in args.variants
        for seed in (range(VARIANTS[name].seeds) if args.seeds is None else args.seeds)
    ]

    def settings(name: str, seed: int) -> list[object]:
        cache = [f"data.cache={args.folder / f'cache-{name}'}"] if VARIANTS[name].own_cache else []
        folder = f"run.folder={_run_folder(args, name, seed)}"
        return [CONFIG, *shared, *VARIANTS[name].changes, f"run.seed={seed}", *cache, folder]

    def loaded(name: str, seed: int) -> Settings:
        config, *changes = settings(name, seed)
        return load(config, changes)

    # Also for results that are there: what they are held against must not be an older cache, or none.
    for name, seed in {name: seed for name, seed in wanted if VARIANTS[name].own_cache}.items():
        _prepare(args.folder / f"cache-{name}", pictures / "train", *settings(name, seed), *workers)
    missing = []
    for name, seed in wanted:
        if not (path := _result(args, name, seed)).is_file():
            missing.append((name, seed))
            continue
        now = loaded(name, seed)
        made_of = {"settings": learned_from(now.to_dict()), "cache": cache_key(now.data.cache)}
        check(path, models=bench.made_with, people=args.held_out, sampling=SAMPLING, **made_of)
    bench.write_bounds(args.results)  # first: those of another experiment end this before hours of training
    if args.together > 1 and len(missing) > 1:
        _beside(args, missing)
        return
    for name, seed in missing:
        weights = _run_folder(args, name, seed) / "weights" / "slotid.safetensors"
        _make(weights, train.main, *settings(name, seed))
        check_weights(weights, loaded(name, seed))
        changes = [*args.set, *VARIANTS[name].changes, f"run.seed={seed}"]
        bench.write_result(_result(args, name, seed), name, seed, weights, changes=changes)


def _beside(args: argparse.Namespace, missing: list[tuple[str, int]]) -> None:
    """This command once for each variant and seed, so many at once. One that fails stops no other.

    Raises:
        SlotIDError: some failed; the others are done.
    """
    logs = args.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    common = [
        *("--folder", args.folder, "--results", args.results, "--people", args.people, "--held-out", args.held_out),
        *("--metric-people", args.metric_people, "--identity-seed", args.identity_seed, "--workers", args.workers),
    ]

    def run_one(pair: tuple[str, int]) -> str | None:
        name, seed = pair
        command = [sys.executable, __file__, *common, "--variants", name, "--seeds", seed, "--set", *args.set]
        with (logs / f"{name}-{seed}.log").open("a") as log:
            code = subprocess.call([str(part) for part in command], stdout=log, stderr=subprocess.STDOUT)
        print(f"{name}, seed {seed}: {f'ended with {code}' if code else 'done'}, {log.name}", flush=True)
        return f"{name}-{seed}" if code else None

    with ThreadPoolExecutor(args.together) as pool:
        failed = [name for name in pool.map(run_one, missing) if name]
    if failed:
        raise SlotIDError(f"Not done: {', '.join(failed)}; their logs are in {logs}. The same command goes on.")


def _prepare(cache: Path, clips: Path, *arguments: object) -> None:
    """The cache of all clips that are there, or what is missing of it."""
    from training import prepare
    from training.world.pictures import drawn_files

    manifest = cache / "manifest.json"
    if manifest.is_file():
        there = json.loads(manifest.read_text(encoding="utf-8"))
        if len(there["entries"]) + len(there["rejects"]) == len(drawn_files(clips)):
            return
    _call(prepare.main, *arguments)


def _make(file: Path, main: Callable[[list[str]], int], *arguments: object) -> None:
    """Run a program's ``main`` that makes the file, unless it is there."""
    if not file.is_file():
        _call(main, *arguments)


def _call(main: Callable[[list[str]], int], *arguments: object) -> None:
    started, argv = time.monotonic(), [str(argument) for argument in arguments]
    if main(argv):
        raise SlotIDError(f"{main.__module__} did not end well, see above. The same command goes on from here.")
    print(f"{time.monotonic() - started:.0f} s: {main.__module__}", flush=True)


def _run_folder(args: argparse.Namespace, name: str, seed: int) -> Path:
    return args.folder / "runs" / f"{name}-{seed}"


def _result(args: argparse.Namespace, name: str, seed: int) -> Path:
    from training.world.experiment.results import world_suffix

    return args.results / f"{name}-{seed}{world_suffix(args.identity_seed)}.json"


if __name__ == "__main__":
    sys.exit(main())
