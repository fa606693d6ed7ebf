#!/usr/bin/env python3
"""What a training would need, before anything is loaded: memory, disk, work and time, all PREDICTED.

python training/plan.py training/configs/wan2.1_14b.yaml
python training/plan.py training/configs/wan2.1_14b_24gb.yaml --machine 1x24 data.lengths=[49]
python training/plan.py training/configs/wan2.1_14b.yaml --machine 8x80 memory.shard=true --json plan.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from slotid_core.errors import SlotIDError


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 where it fits, 1 where not or for an error."""
    args = _parser().parse_intermixed_args(argv)  # overrides may follow options
    try:
        return run(args)
    except SlotIDError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="plan.py",
        description="Predict what a training needs on this machine and on four common ones. Nothing is measured.",
        epilog="How the figures come about: docs/cost.md.",
    )
    parser.add_argument("config", type=Path, help="settings, such as training/configs/wan2.1_14b.yaml")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value", help="changes of the settings")
    parser.add_argument("--machine", choices=["1x24", "1x80", "1x141", "8x80"], help="in detail, instead of this one")
    parser.add_argument("--processes", type=int, help="cards that train together; all of the machine's, if not given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Predict and print.

    Raises:
        SlotIDError: settings or a transformer that can't be used, or the JSON can't be written.
    """
    from training.atomic import atomic
    from training.settings_file import load

    settings = load(args.config, args.overrides)  # before the slow imports: a slip of the pen is told at once
    from training.planner.decide import ingredients, predict
    from training.planner.machine import COMMON, this_machine
    from training.planner.report import compare, describe

    machine = COMMON[args.machine] if args.machine else this_machine(settings.run.folder)
    processes = machine.cards if args.processes is None else args.processes
    if not 1 <= processes <= machine.cards:
        raise SlotIDError(f"Got --processes {processes}, expected 1 to {machine.cards}, the cards of {machine.name}.")
    found = ingredients(settings)
    planned = predict(found, machine, processes)
    common = {name: predict(found, other, other.cards) for name, other in COMMON.items()}
    print(describe(planned))
    print()
    print(compare(list(common.values())))
    if args.json is not None:
        data = {"machine": planned.to_dict(), "common": {name: other.to_dict() for name, other in common.items()}}
        with atomic(args.json) as temporary:
            temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")
    try:
        planned.refuse_if_too_large()
    except SlotIDError as error:
        print(f"\n{error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
