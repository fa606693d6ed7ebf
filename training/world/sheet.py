"""A contact sheet of people of the world: ``python -m training.world.sheet docs/images/world_people.jpg``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from slotid_core.reference.faces.face import Pose

from .identity import head_traits, sample_identity
from .performance import perform
from .population import person_seed
from .render import render
from .scenario import sample_scenarios
from .scene import Camera, Expression, Scene

_VIEWS = (
    (0.0, Expression()),
    (-38.0, Expression(gaze_x=0.6)),
    (-74.0, Expression()),
    (12.0, Expression(smile=1.0, brow_raise=0.2)),
    (20.0, Expression(mouth_open=0.55, smile=0.15, gaze_x=-0.3)),
)


def contact_sheet(people: list[int], size: int) -> np.ndarray:
    """``[H, W, 3]`` uint8: held-out people, two a row: from the front, three quarters, profile, smiling, talking."""
    rows = []
    for index in people:
        seed = person_seed("held_out", index)
        identity, scenario = sample_identity(seed), sample_scenarios(seed, 1)[0]
        still = perform(identity, scenario, frames=2, seed=seed)[0]
        camera = Camera(zoom=1.3, offset_y=0.02)
        scenes: list[Scene] = [
            replace(still, pose=Pose(yaw=yaw, pitch=0.0, roll=0.0), expression=expression, camera=camera)
            for yaw, expression in _VIEWS
        ]
        rows.append(torch.cat(list(render(head_traits(identity), scenes, size, size, supersample=3).image_BHW3), 1))
    pairs = [torch.cat(rows[start : start + 2], 1) for start in range(0, len(rows), 2)]
    return (torch.cat(pairs) * 255).round().byte().numpy()


def main() -> None:
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--people", type=int, nargs="+", default=[10, 3, 1, 2, 8, 5, 14, 16], help="indices of held-out people"
    )
    parser.add_argument("--size", type=int, default=128, help="pixels of each picture")
    args = parser.parse_args()
    Image.fromarray(contact_sheet(args.people, args.size)).save(args.out, quality=80)


if __name__ == "__main__":
    main()
