"""How many rendered heads dlib finds, by how far they are turned.

    python benchmarks/bench_faces.py [--heads N] [--out FILE]

Every head is another person with another pose, expression, light and background, 256x256 pixels, drawn by
``training/world``. Half of each bin looks to the left. These are drawings: the figures say what tests and training data
can expect of dlib, not how it does on filmed people.
"""

import argparse
import json
from importlib import metadata
from pathlib import Path

import numpy as np
from machine import describe, run_facts

from slotid_core.reference import choose_backend
from slotid_core.reference.faces import Pose
from training.world.render import render
from training.world.scene import sample_scene
from training.world.traits import sample_traits

BINS = ((0, 7.5), (7.5, 20), (20, 27.5), (27.5, 35), (35, 47.5), (47.5, 60))
SIDE = 256
SEED = 5000


def heads(low: float, high: float, count: int, first: int):
    """Pictures ``[SIDE, SIDE, 3]`` uint8 with the true yaw and face box."""
    for n in range(count):
        rng = np.random.default_rng(first + n)
        yaw = float(rng.uniform(low, high)) * (1 if n % 2 else -1)
        pose = Pose(yaw=yaw, pitch=float(rng.uniform(-10, 10)), roll=float(rng.uniform(-10, 10)))
        drawn = render(sample_traits(first + n), sample_scene(first + n, pose=pose), SIDE, SIDE)
        yield (drawn.image_BHW3[0] * 255).round().byte().numpy(), yaw, drawn.face_box_B4[0].numpy()


def overlap(a, b) -> float:
    """Intersection over union of two boxes."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    inside = float(np.prod(sides))
    return inside / (float(np.prod(np.subtract(a[2:], a[:2])) + np.prod(np.subtract(b[2:], b[:2]))) - inside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=60, help="in each bin")
    parser.add_argument("--out", type=Path, help="JSON file; printed where left out")
    args = parser.parse_args()
    backend = choose_backend("dlib", frames=1)
    bins = []
    for number, (low, high) in enumerate(BINS):
        found, more, errors = 0, 0, []
        for picture_HWC, yaw, box in heads(low, high, args.heads, SEED + number * args.heads):
            faces = backend.detect(picture_HWC, 0)
            right = [face for face in faces if overlap(np.array(face.box_xyxy), box) > 0.4]
            found += bool(right)
            more += len(faces) - bool(right)
            errors += [abs(face.pose.yaw - yaw) for face in right[:1]]
        bins.append(
            {
                "yaw_deg": [low, high],
                "heads": args.heads,
                "found": found,
                "rate": found / args.heads,
                "false_faces": more,
                "median_yaw_error_deg": float(np.median(errors)) if errors else None,
            }
        )
    packages = {name: metadata.version(name) for name in ("dlib-bin", "face-recognition-models")}
    result = {
        "machine": describe("cpu") | {"face_packages": packages},
        "run": run_facts(__file__, seed=SEED),
        "side_px": SIDE,
        "bins": bins,
    }
    text = json.dumps(result, indent=2)
    if args.out is None:
        print(text)
    else:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
