"""What the probe says of one video: whose face it is like, whether it shows what its caption says, and what no portrait
could have told.

Letters: F frames, H W height and width.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from training.world.identity import TRAITS
from training.world.models.files import read_facts
from training.world.models.probe import load_probe, measure
from training.world.pictures import FRAMES, SIZE
from training.world.scenario import SLOTS

CLIP_ALONE = {"dye_hue": "hue behind the ears", "turn_pace": "pace of the turn"}
"""What only other views show and what only the order of frames shows, one trait each: those that are read best."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Of one video."""

    face: float
    """Likeness of the face with the reference, a cosine."""
    floor: float
    """Mean likeness of different people's real clips ..."""
    ceiling: float
    """... and of two real clips of one person."""
    asked: dict[str, str]
    """What the caption says, by slot; a slot that it does not name is left out."""
    seen: dict[str, str]
    """What the probe sees, by the same slots."""
    told: dict[str, tuple[float, float]]
    """Traits of :data:`CLIP_ALONE`, about 0 to 1: as read from the video, and from the reference."""

    @property
    def share(self) -> float:
        """How far the face is on the way from the floor to the ceiling; 1 is as like as a real clip."""
        return (self.face - self.floor) / (self.ceiling - self.floor)

    @property
    def followed(self) -> int:
        return sum(self.seen[slot] == asked for slot, asked in self.asked.items())

    @property
    def astray(self) -> float:
        """How far the trait of ``told`` that is farthest off is from the reference's."""
        return max(abs(video - reference) for video, reference in self.told.values())

    def __str__(self) -> str:
        said = (
            f"face {self.face:.2f}, {100 * self.share:.0f} % of the way from other people ({self.floor:.2f}) to a real "
        )
        said += f"clip ({self.ceiling:.2f}); {self.followed} of {len(self.asked)} attributes of the prompt"
        wrong = [
            f"{slot} {self.seen[slot]!r} for {asked!r}"
            for slot, asked in self.asked.items()
            if self.seen[slot] != asked
        ]
        said += f" ({'; '.join(wrong)})" if wrong else ""
        told = [f"{CLIP_ALONE[name]} {video:.2f} for {its:.2f}" for name, (video, its) in self.told.items()]
        return f"{said}; what only the clip tells: {', '.join(told)}"


def named(prompt: str) -> dict[str, str]:
    """The choice that a prompt names for each slot, by the captions' own words; the longest where several fit."""
    found = {}
    for slot, known in SLOTS.items():
        fitting = [choice for choice in known if re.search(rf"\b{re.escape(choice)}\b", prompt, re.IGNORECASE)]
        if fitting:
            found[slot] = max(fitting, key=len)
    return found


def score(probe_file: Path, videos: list[np.ndarray], reference_FHW3: np.ndarray, prompt: str) -> list[Score]:
    """Read videos.

    Args:
        videos: uint8, 17 frames of 80x80, which is all that the probe knows.
        reference_FHW3: of the same kind, after the VAE, which the videos went through as well.
    """
    assert all(video.shape == (FRAMES, SIZE, SIZE, 3) for video in (*videos, reference_FHW3)), "not a clip of the world"
    probe, asked = load_probe(probe_file), named(prompt)
    bounds = read_facts(probe_file)["face"]
    measured = measure(probe, torch.from_numpy(np.stack([*videos, reference_FHW3])))
    alike = (measured.face_BE[:-1] @ measured.face_BE[-1]).tolist()
    traits = {name: measured.traits_BI[:, TRAITS.index(name)].tolist() for name in CLIP_ALONE}
    return [
        Score(
            face=alike[i],
            floor=bounds["other"],
            ceiling=bounds["same"],
            asked=asked,
            seen={slot: SLOTS[slot][int(measured.slots[slot][i].argmax())] for slot in asked},
            told={name: (read[i], read[-1]) for name, read in traits.items()},
        )
        for i in range(len(videos))
    ]
