"""What the probe says of one video: whose face it is like, and whether it shows what its caption says.

Letters: F frames, H W height and width.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from training.world.models.probe import load_probe, measure
from training.world.pictures import FRAMES, SIZE
from training.world.scenario import SLOTS


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

    @property
    def share(self) -> float:
        """How far the face is on the way from the floor to the ceiling; 1 is as like as a real clip."""
        return (self.face - self.floor) / (self.ceiling - self.floor)

    @property
    def followed(self) -> int:
        return sum(self.seen[slot] == asked for slot, asked in self.asked.items())

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
        return f"{said} ({'; '.join(wrong)})" if wrong else said


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
    with safe_open(probe_file, "pt") as file:
        bounds = json.loads(file.metadata()["facts"])["face"]
    measured = measure(probe, torch.from_numpy(np.stack([*videos, reference_FHW3])))
    alike = (measured.face_BE[:-1] @ measured.face_BE[-1]).tolist()
    return [
        Score(
            face=alike[i],
            floor=bounds["other"],
            ceiling=bounds["same"],
            asked=asked,
            seen={slot: SLOTS[slot][int(measured.slots[slot][i].argmax())] for slot in asked},
        )
        for i in range(len(videos))
    ]
