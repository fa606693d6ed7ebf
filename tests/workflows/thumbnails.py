"""Draws the pictures of the shipped workflows: rendered heads that go in, the graph in outline. No result is shown.

    python tests/workflows/thumbnails.py

Needs the project installed (``pip install -e .``): the heads come from ``training.world``.
"""

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from slotid_core.reference.faces.face import Pose  # noqa: E402
from training.world.render import render  # noqa: E402
from training.world.scene import Expression, sample_scene  # noqa: E402
from training.world.traits import sample_traits  # noqa: E402

SIDE, EDGE, HEAD = 512, 24, 110
PAPER, INK, QUIET, GROUP = (32, 34, 38), (236, 238, 242), (150, 156, 166), (63, 120, 158)
ANN, BEN = 11, 4
"""Two people who do not exist."""
VIEWS = [
    (Pose(yaw=-28.0, pitch=2.0, roll=0.0), Expression()),
    (Pose(yaw=0.0, pitch=0.0, roll=0.0), Expression()),
    (Pose(yaw=10.0, pitch=-4.0, roll=3.0), Expression(smile=0.9)),
    (Pose(yaw=30.0, pitch=4.0, roll=0.0), Expression(mouth_open=0.4)),
]


@dataclass(frozen=True)
class Card:
    title: str
    below: str
    rows: tuple[tuple[int, int, bool], ...]
    """Strips of four views: person, seed of the scene, on white."""


CARDS = {
    "slotid_demo": Card("Slot-ID demo", "tiny models, any CPU", ((ANN, 3, False),)),
    "slotid_identity_guidance": Card("Guide apart", "text and identity", ((ANN, 3, False),)),
    "slotid_identity_save": Card("Save an identity", "encode a person once", ((ANN, 3, False),)),
    "slotid_identity_load": Card("Load an identity", "nothing is encoded again", ((ANN, 3, True),)),
    "slotid_identity_merge": Card("Merge clips", "one person, several clips", ((ANN, 3, False), (ANN, 8, False))),
    "slotid_wan2.1_t2v_14b": Card("Wan 2.1 text to video", "14B", ((ANN, 3, False),)),
    "slotid_wan2.1_t2v_14b_lightning": Card("Wan 2.1 in four steps", "14B, lightx2v LoRA", ((ANN, 3, False),)),
    "slotid_wan2.2_t2v_14b": Card("Wan 2.2 A14B", "two experts, one identity", ((ANN, 3, False),)),
    "slotid_wan2.1_i2v_14b": Card("Wan 2.1 image to video", "14B", ((ANN, 3, False),)),
    "slotid_two_people_14b": Card("Two people", "each in a region", ((ANN, 3, False), (BEN, 5, False))),
    "slotid_phantom_day_one": Card(
        "Portraits for Phantom", "no Slot-ID weights needed", ((ANN, 3, False), (ANN, 3, True))
    ),
    "slotid_compare_phantom_14b": Card("Score and compare", "Slot-ID and Phantom, 14B", ((ANN, 3, False),)),
    "slotid_score_videos": Card("Score two videos", "of any method", ((ANN, 3, False), (BEN, 5, False))),
}


def main() -> None:
    strips = {row: strip(*row) for card in CARDS.values() for row in card.rows}
    for name, card in CARDS.items():
        workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
        write_jpeg(ROOT / "workflows" / f"{name}.jpg", draw(card, workflow, strips))


def strip(person: int, scene: int, on_white: bool) -> Image.Image:
    """Four views of a person."""
    scenes = [sample_scene(scene, pose=pose, expression=expression) for pose, expression in VIEWS]
    behind = torch.ones(len(VIEWS), HEAD, HEAD, 3) if on_white else None
    drawn = render([sample_traits(person)] * len(VIEWS), scenes, HEAD, HEAD, behind_BHW3=behind)
    pictures = (drawn.image_BHW3 * 255).round().byte().numpy()
    gap = np.full((HEAD, 8, 3), PAPER, np.uint8)
    return Image.fromarray(np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=1))


def draw(card: Card, workflow: dict, strips: dict) -> Image.Image:
    """Title, strips, graph."""
    picture = Image.new("RGB", (SIDE, SIDE), PAPER)
    pen = ImageDraw.Draw(picture)
    # The template browser lays a badge over the upper left corner.
    pen.text((SIDE - EDGE, 44), "Slot-ID", QUIET, ImageFont.load_default(30), anchor="rm")
    y = 84
    for row in card.rows:
        picture.paste(strips[row], (EDGE, y))
        y += HEAD + 8
    outline(pen, workflow, (EDGE, y + 8, SIDE - EDGE, SIDE - 96))
    pen.text((EDGE, SIDE - 58), card.title, INK, ImageFont.load_default(34), anchor="lm")
    pen.text((EDGE, SIDE - 24), card.below, QUIET, ImageFont.load_default(22), anchor="lm")
    return picture


def outline(pen: ImageDraw.ImageDraw, workflow: dict, area: tuple[int, int, int, int]) -> None:
    """Groups, nodes and links, as they lie on the canvas."""
    boxes = np.array([group["bounding"] for group in workflow["groups"]], float)
    low, high = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    scale = min((area[2] - area[0]) / (high[0] - low[0]), (area[3] - area[1]) / (high[1] - low[1]))
    corner = np.array([(area[0] + area[2]) / 2, (area[1] + area[3]) / 2]) - (high - low) * scale / 2

    def place(x: float, y: float) -> tuple[float, float]:
        return tuple((np.array([x, y]) - low) * scale + corner)

    for x, y, width, height in boxes:
        pen.rectangle([place(x, y), place(x + width, y + height)], (38, 56, 70), GROUP)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for _, source, _, target, _, _ in workflow["links"]:
        start, end = nodes[source], nodes[target]
        right, left = start["pos"][0] + start["size"][0], end["pos"][0]
        pen.line([place(right, start["pos"][1] + 20), place(left, end["pos"][1] + 20)], (120, 150, 175))
    for node in workflow["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        (x, y), (width, height) = node["pos"], node["size"]
        ours = node["type"].startswith("SlotID")
        pen.rectangle([place(x, y - 30), place(x + width, y + height)], (92, 146, 98) if ours else (86, 90, 98))


def write_jpeg(path: Path, picture: Image.Image, most: int = 60_000) -> None:
    """As good as fits into ``most`` bytes."""
    for quality in range(90, 40, -5):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() < most:
            path.write_bytes(buffer.getvalue())
            return
    raise SystemExit(f"{path}: does not fit into {most} bytes")


if __name__ == "__main__":
    main()
