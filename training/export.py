#!/usr/bin/env python3
"""From a checkpoint or a Slot-ID file to files: Slot-ID weights, the LoRA alone, or a Wan with the LoRA merged in.

python training/export.py outputs/RUN/checkpoints/step_001000 --slotid slotid.safetensors
python training/export.py slotid.safetensors --lora slotid_lora.safetensors
python training/export.py slotid.safetensors --merge WAN.safetensors --out-wan wan_with_lora.safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from slotid_core.errors import SlotIDError


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="export.py",
        description="Turn what training made into files for other uses.",
        epilog="Merging reads the Wan from the disk as it writes: in memory it holds the layers that the LoRA changes "
        "(4 GB of Wan 14B in bfloat16); safetensors before 0.8 needs room for the whole file besides. With a merged "
        "Wan set the LoRA strength of Slot-ID to 0, or the LoRA counts twice.",
    )
    parser.add_argument("source", type=Path, help="a checkpoint folder of a run, or a Slot-ID .safetensors file")
    parser.add_argument("--slotid", type=Path, metavar="FILE", help="write the Slot-ID weights here")
    parser.add_argument(
        "--half", action="store_true",
        help="--slotid in float16: half the size. Identities that the whole weights encoded have to be encoded again",
    )  # fmt: skip
    parser.add_argument("--lora", type=Path, metavar="FILE", help="write the LoRA alone here, for any LoRA loader")
    parser.add_argument(
        "--merge", type=Path, metavar="WAN", help="a Wan transformer to merge the LoRA into: one .safetensors file"
    )
    parser.add_argument("--out-wan", type=Path, metavar="FILE", help="where the merged transformer goes")
    parser.add_argument("--raw", action="store_true", help="of a checkpoint: the last weights, not the averaged ones")
    args = parser.parse_args(argv)
    if (args.merge is None) != (args.out_wan is None):
        parser.error("--merge and --out-wan belong together")
    if not (args.slotid or args.lora or args.merge):
        parser.error("nothing to write: give --slotid, --lora, or --merge with --out-wan")
    if args.half and not args.slotid:
        parser.error("--half is for --slotid")
    if args.raw and not args.source.is_dir():
        parser.error("--raw is for a checkpoint folder; a file holds one kind of weights")
    try:
        for path in export(args):
            print(path)
    except SlotIDError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


def export(args: argparse.Namespace) -> list[Path]:
    """Write what was asked for; returns the files.

    Raises:
        SlotIDError: a source that can't be read, no LoRA where one is asked for, a transformer that is not the one the
            LoRA is for, or a folder that can't be written.
    """
    import torch

    from slotid_core.checkpoint import load_weights, save_weights
    from training.trainer.weights import merge_lora, weights_of_checkpoint, write_lora

    if args.source.is_dir():
        weights = weights_of_checkpoint(args.source, averaged=not args.raw)
    else:
        weights = load_weights(args.source)
    if (args.lora or args.merge) and weights.lora.is_zero():
        why = "it is untrained" if weights.lora.pairs else "lora.rank is 0"
        raise SlotIDError(f"{args.source} has no LoRA that changes anything ({why}): nothing to write or to merge.")
    written = []
    if args.slotid:
        save_weights(args.slotid, weights, torch.float16 if args.half else torch.float32)
        written.append(args.slotid)
    if args.lora:
        write_lora(args.lora, weights.lora)
        written.append(args.lora)
    if args.merge:
        merge_lora(args.merge, weights, args.out_wan)
        written.append(args.out_wan)
    return written


if __name__ == "__main__":
    sys.exit(main())
