"""Held-out people side by side: what Slot-ID was shown, what each variant made of it, and the real clip.

    python -m training.world.experiment.sheet outputs/world OUT.png --runs slotid-0 portrait_only-0

Letters: N people, F frames, H W height and width.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from training.media import SheetRow, contact_sheet
from training.world.pictures import WorldClip, picture_path, read_pictures


def side_by_side(
    path: Path, pictures: Path, videos: Mapping[str, np.ndarray], *, people: int, world: int, captions: list[str]
) -> None:
    """A PNG with rows for each of the first held-out people.

    Args:
        pictures: the folder that :mod:`training.world.pictures` draws into.
        videos: uint8 ``[N, F, H, W, 3]`` by label, at least as many as people.
        captions: lines below.
    """
    rows = []
    for index in range(people):
        reference, asked = (WorldClip(split="held_out", index=index, clip=clip, world=world) for clip in (0, 1))
        shown, real = (read_pictures(picture_path(pictures, clip)) for clip in (reference, asked))
        frames = np.concatenate([shown["portrait"].numpy()[None], shown["clip"].numpy()[:: len(shown["clip"]) // 6]])
        rows.append(SheetRow(label=f"Person {index + 1}: portrait and reference clip", frames_FHWC=frames))
        rows += [SheetRow(label=label, frames_FHWC=video[index]) for label, video in videos.items()]
        rows.append(SheetRow(label=f"The person's real clip of: {asked.caption}", frames_FHWC=real["clip"].numpy()))
    contact_sheet(path, title="Slot-ID World: held-out people", rows=rows, captions=captions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="reproduce.py's")
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", nargs="+", required=True, metavar="VARIANT-SEED", help="none is no identity")
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--world", type=int, default=0)
    args = parser.parse_args()
    videos = {run: load_file(args.folder / "videos" / f"{run}.safetensors")["videos"] for run in args.runs}
    side_by_side(
        args.out, args.folder / "pictures", videos, people=args.people, world=args.world,
        captions=["Every video has the noise and the caption of the real clip below it."],
    )  # fmt: skip


if __name__ == "__main__":
    main()
