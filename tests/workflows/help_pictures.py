"""Draws the pictures of the nodes' help pages from rendered heads, with the nodes' own code.

    python tests/workflows/help_pictures.py

Needs the project installed with a face backend (``pip install -e ".[dlib]"``). Shape letters: F frames, H W height and
width, C channels (RGB).
"""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from thumbnails import ANN, BEN, ROOT, write_jpeg
from torch import Tensor

from slotid_core.config import GateConfig
from slotid_core.gate_view import gate_plot, gate_steps
from slotid_core.reference import (
    Reference,
    analyse,
    contact_sheet,
    head_portraits,
    score_identity,
    score_plot,
)
from slotid_core.reference.faces.choose import choose_backend
from slotid_core.reference.faces.face import Face
from slotid_core.reference.faces.landmarks import face_from_landmarks
from training.world.clips import HeadClip, Motion, head_clip, move
from training.world.scene import sample_scene
from training.world.traits import sample_traits

FOLDER = ROOT / "web" / "docs" / "images"
FPS, FRAMES, HEIGHT, WIDTH, MOST = 16.0, 33, 216, 384, 58_000


@dataclass
class TrueFaces:
    """A face backend that knows where the renderer has drawn the face."""

    clip: HeadClip
    name = "the renderer"
    licence = "none"
    same_person = None
    strangers = None

    def detect(self, frame_HWC, index: int, smallest_px: float = 0.0) -> list[Face]:
        return [face_from_landmarks(self.clip.people[0].landmarks_F682[index], 1.0)]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    clip = _clip(ANN, scene=3, seed=1, motion=Motion(yaw=32.0, swing=1.6, smile=1.0))
    frames_FHWC = torch.from_numpy(clip.frames_FHWC)
    analysis = analyse(frames_FHWC, TrueFaces(clip), fps=FPS)
    reference = Reference(frames_FHWC=frames_FHWC, fps=FPS, analysis=analysis)

    _save("reference_report", contact_sheet(analysis, frames_FHWC))
    _save("load_reference_clip", _path(reference))
    portraits = head_portraits(frames_FHWC, analysis, count=4, size=224)
    _save("extract_portrait", (torch.cat([p.image_HWC for p in portraits], dim=1) * 255).round().byte())
    # Sigmas of 20 steps of a linear schedule under shift 5, as KSampler's "simple" has them on Wan.
    u = torch.linspace(1, 0, 21)
    _save("gate_preview", gate_plot(gate_steps(5 * u / (1 + 4 * u), GateConfig())))

    score = score_identity(
        torch.from_numpy(_clip(ANN, scene=5, seed=2, motion=Motion(yaw=18.0)).frames_FHWC),
        reference,
        choose_backend("dlib", frames=FRAMES),
        other_people_FHWC=torch.from_numpy(_clip(BEN, scene=5, seed=3, motion=Motion(yaw=18.0)).frames_FHWC[::4]),
        every=2,
    )
    _save("identity_score", score_plot(score))


def _clip(person: int, *, scene: int, seed: int, motion: Motion) -> HeadClip:
    scenes = move(sample_scene(scene), motion, frames=FRAMES, seed=seed)
    return head_clip(sample_traits(person), scenes, height=HEIGHT, width=WIDTH)


def _path(reference: Reference) -> Tensor:
    """Three whole frames with the square that is cut out of them."""
    shown, path = [], reference.analysis.path
    for index in (0, FRAMES // 2, FRAMES - 1):
        picture = Image.fromarray(reference.frames_FHWC[index].numpy())
        (x, y), half = path.centre_F2[index], path.side_F[index] / 2
        ImageDraw.Draw(picture).rectangle([x - half, y - half, x + half, y + half], outline=(255, 200, 60), width=3)
        shown.append(np.asarray(picture))
    return torch.from_numpy(np.concatenate(shown, axis=1))


def _save(name: str, pixels_HWC: Tensor) -> None:
    picture = Image.fromarray(pixels_HWC.numpy())
    picture.thumbnail((760, 1200))
    write_jpeg(FOLDER / f"{name}.jpg", picture, MOST)


if __name__ == "__main__":
    sys.exit(main())
