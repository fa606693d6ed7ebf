"""Dataset -> cache: latents and text tokens that training reads, rejects with reasons, a summary to look at."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from slotid_core.errors import SlotIDError
from training.data.make import make_cache, what_is_there
from training.settings_file import load


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code: 0, 1 after a message, 130 when stopped."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="docs/data.md says how to lay a dataset out.")
    parser.add_argument("config", type=Path, help="a file as in training/configs")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value", help="changes of the config")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="what makes shards (local)")
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="processes; each loads the models (1)")
    args = parser.parse_intermixed_args(argv)
    try:
        settings = load(args.config, args.overrides)
        manifest = make_cache(settings, engine=args.engine, workers=args.workers)
    except SlotIDError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what is finished is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    print(what_is_there(manifest, settings.data.cache))
    return 0


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"got {count}, expected 1 or more")
    return count


if __name__ == "__main__":
    sys.exit(main())
