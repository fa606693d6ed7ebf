"""Figures on the world, as JSON: ``python -m training.world.figures``."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import numpy as np
import torch

from slotid_core.reference.faces.face import Pose

from .identity import SIDE, Identity, head_traits, sample_identity
from .performance import pose_for_portrait
from .population import person_seed, world_clip
from .render import draw_frames
from .scenario import sample_scenarios


def trait_visibility(people: int, size: int, yaws: tuple[float, ...] = (0.0, -70.0, 70.0)) -> dict:
    """Mean change of a neutral picture (screen numbers from 0 to 1, all pixels) at each yaw when a part of the person
    is swapped for that of another, and when one side trait goes from 0 to 1."""

    def pictures(identity: Identity, seed: int) -> torch.Tensor:
        still = pose_for_portrait(sample_scenarios(seed, 1)[0])
        scenes = [replace(still, pose=Pose(yaw=yaw, pitch=0.0, roll=0.0)) for yaw in yaws]
        return draw_frames(head_traits(identity), scenes, size, size)

    def change(first: Identity, second: Identity, seed: int) -> np.ndarray:
        return (pictures(first, seed) - pictures(second, seed)).abs().mean((1, 2, 3)).numpy()

    changes: dict[str, list[np.ndarray]] = {}
    for index in range(people):
        seed = person_seed("metric", index)
        one, other = sample_identity(seed), sample_identity(person_seed("metric", index + people))
        for part in ("front_F", "side_S", "dynamics_D"):
            changed = replace(one, **{part: getattr(other, part)})
            changes.setdefault(part, []).append(change(one, changed, seed))
        for name in SIDE:
            low, high = (one.with_trait(name, value) for value in (0.0, 1.0))
            changes.setdefault(name, []).append(change(low, high, seed))
    return {
        name: {f"yaw {yaw:g}": round(float(value), 5) for yaw, value in zip(yaws, np.mean(each, 0), strict=True)}
        for name, each in changes.items()
    }


def clip_speed(size: int, frames: int, clips: int) -> dict:
    """Seconds for a clip on one thread: of the clock, and of the processor, which other programs do not lengthen."""
    torch.set_num_threads(1)
    wall, processor = [], []
    for index in range(clips + 1):
        seed = person_seed("metric", index)
        identity, scenario = sample_identity(seed), sample_scenarios(seed, 1)[0]
        started = time.perf_counter(), time.process_time()
        world_clip(identity, scenario, frames, size, seed)
        wall.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
    # The first one warms caches up.
    return {"wall_s": round(float(np.median(wall[1:])), 3), "processor_s": round(float(np.median(processor[1:])), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--clips", type=int, default=10, help="timed clips of each size")
    args = parser.parse_args()
    result = {
        "mean change of a 96 pixel picture": trait_visibility(args.people, 96),
        "time of a clip": {f"{size}x{size}x17": clip_speed(size, 17, args.clips) for size in (64, 96, 128)},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
