"""People of the world on disk: each clip with a portrait and a caption, drawn once and read by everything that learns.

    python -m training.world.pictures FOLDER --split train --people 1200

Pixels are kept as they were drawn. Files are written whole or not at all, and those that are there are kept, so that
the same command goes on where it was ended.

Letters: F frames, H W height and width.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from slotid_core.errors import SlotIDError
from training.atomic import atomic
from training.world.identity import Identity, sample_identity
from training.world.models.device import best_device
from training.world.population import SPLITS, person_seed, world_clips, world_portraits
from training.world.scenario import Scenario, caption, sample_scenarios

FRAMES, SIZE, CLIPS = 17, 80, 2
"""Of a clip, of its square, of each person."""
_FORMAT = "slotid-world-2"
_TOGETHER = 6
"""Clips that a process draws in one go on a GPU."""


@dataclass(frozen=True, kw_only=True)
class WorldClip:
    """One clip of one person. Everything but the pixels follows from the numbers."""

    split: str
    index: int
    """Of the person."""
    clip: int
    world: int = 0

    @cached_property
    def seed(self) -> int:
        return person_seed(self.split, self.index, self.world)

    @cached_property
    def identity(self) -> Identity:
        return sample_identity(self.seed)

    @cached_property
    def scenario(self) -> Scenario:
        return sample_scenarios(self.seed, CLIPS)[self.clip]

    @property
    def chance(self) -> int:
        """Seed of what neither the person nor the caption says, as ``perform`` takes it."""
        return 2 * self.seed + self.clip

    @property
    def caption(self) -> str:
        return caption(self.scenario)

    @property
    def person(self) -> str:
        return f"{self.split}{self.world}-{self.index:05d}"

    @property
    def name(self) -> str:
        return f"{self.person}-{self.clip}"

    def draw(self, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """``clip`` ``[F, H, W, 3]`` and ``portrait`` ``[H, W, 3]``, uint8. Another device may round otherwise."""
        return draw_clips([self], device)[0]


def draw_clips(clips: Sequence[WorldClip], device: torch.device | str = "cpu") -> list[dict[str, Tensor]]:
    """What :meth:`WorldClip.draw` draws of each."""
    performances = [(clip.identity, clip.scenario, clip.chance) for clip in clips]
    drawn = zip(
        world_clips(performances, FRAMES, SIZE, device=device),
        world_portraits([performance[:2] for performance in performances], SIZE, device=device),
        strict=True,
    )
    return [{"clip": torch.from_numpy(clip), "portrait": torch.from_numpy(portrait)} for clip, portrait in drawn]


def clip_of_name(name: str) -> WorldClip:
    """The clip that a file's stem names."""
    try:
        person, index, clip = name.split("-")
        split = person.rstrip("0123456789")
        found = WorldClip(split=split, index=int(index), clip=int(clip), world=int(person[len(split) :]))
        assert found.name == name and found.clip < CLIPS and found.split in SPLITS
    except (ValueError, AssertionError) as error:
        raise SlotIDError(f"{name!r} names no clip of the world, such as train0-00012-1.") from error
    return found


def people(split: str, count: int, world: int = 0, clips: int = CLIPS) -> Iterator[WorldClip]:
    """The first ``clips`` clips of each of the first ``count`` people."""
    for index in range(count):
        for clip in range(clips):
            yield WorldClip(split=split, index=index, clip=clip, world=world)


def picture_path(folder: Path, clip: WorldClip) -> Path:
    return folder / clip.split / f"{clip.name}.safetensors"


def drawn_files(folder: Path) -> list[Path]:
    """What is there of one split, by name. The name of what a killed run left half written begins with a dot."""
    return sorted(folder.glob("[!.]*.safetensors"))


def read_pictures(path: Path) -> dict[str, Tensor]:
    """What :meth:`WorldClip.draw` drew.

    Raises:
        SlotIDError: the file is not there, damaged or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("format") != _FORMAT:
                raise SlotIDError(f"{path} is no picture file of the world ({_FORMAT}). Draw it again.")
            return {name: file.get_tensor(name).clone() for name in ("clip", "portrait")}
    except (SafetensorError, OSError) as error:
        raise SlotIDError(f"{path} can't be read ({error}). Delete it and draw it again.") from error


def draw_missing(folder: Path, clips: list[WorldClip], processes: int = 1) -> int:
    """Draw what is not there yet, on a GPU where there is one; returns how many clips that were."""
    missing = [(picture_path(folder, clip), clip) for clip in clips if not picture_path(folder, clip).is_file()]
    if not missing:
        return 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order have other last bits
    try:
        with tqdm(total=len(missing), desc="drawing", unit="clip") as bar, ExitStack() as stack:
            each = map
            if processes > 1:
                pool = multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,))
                each = stack.enter_context(pool).imap
            size = 1 if best_device().type == "cpu" else _TOGETHER
            for count in each(_draw, [missing[start : start + size] for start in range(0, len(missing), size)]):
                bar.update(count)
    finally:
        torch.set_num_threads(threads)
    return len(missing)


def _draw(jobs: list[tuple[Path, WorldClip]]) -> int:
    pictures = draw_clips([clip for _, clip in jobs], best_device())
    for (path, clip), drawn in zip(jobs, pictures, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            temporary.write_bytes(save(drawn, metadata={"format": _FORMAT, "caption": clip.caption}))
    return len(jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=list(SPLITS), required=True)
    parser.add_argument("--people", type=int, required=True)
    parser.add_argument("--clips", type=int, choices=range(1, CLIPS + 1), default=CLIPS, help="of each person")
    parser.add_argument("--world", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    draw_missing(args.folder, list(people(args.split, args.people, args.world, args.clips)), args.processes)


if __name__ == "__main__":
    main()
