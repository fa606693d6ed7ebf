"""What a face backend says about one face in one frame, in the same terms for every backend."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a head points, in degrees. A frontal, upright face is 0, 0, 0."""

    yaw: float
    """Positive when the nose points to the right edge of the picture."""
    pitch: float
    """Positive when the nose points up."""
    roll: float
    """Positive when the head is tilted clockwise in the picture."""


@dataclass(frozen=True, kw_only=True)
class Expression:
    """How far a face is from neutral, each from 0 to 1."""

    eyes_open: float
    """0 closed, 1 wide open, of the eye that is more closed."""
    mouth_open: float
    """0 lips together, 1 wide open."""
    smile: float
    """0 none, 1 broad."""


@dataclass(frozen=True, kw_only=True)
class Face:
    """One face in one frame. Pixels are those of the frame, x to the right and y down."""

    box_xyxy: tuple[float, float, float, float]
    """Left, top, right, bottom: brow to chin and ear to ear, whatever the backend's own box covers."""
    score: float
    """Confidence of the detection; comparable within one backend only."""
    landmarks_68x2: np.ndarray | None = None
    """iBUG's 68 points, where the backend has them."""
    pose: Pose | None = None
    expression: Expression | None = None
    gaze: float | None = None
    """Degrees that the eyes look past the camera, positive to the right edge of the picture, where the backend itself
    tells; elsewhere the pixels are asked."""


class FaceBackend(Protocol):
    """Finds faces, and tells people apart where it can."""

    name: str
    licence: str
    """One line on the licence of the weights."""
    same_person: float | None
    """Cosine similarity of embeddings from which on two faces are the same person; ``None`` without embeddings."""
    strangers: float | None
    """Cosine similarity that the faces of two people have on average; ``None`` without embeddings."""

    def detect(self, frame_HWC: np.ndarray, index: int, smallest_px: float = 0.0) -> list[Face]:
        """Faces of one uint8 RGB frame, the best first; ``index`` counts frames of the clip from 0.

        Faces whose box is smaller than ``smallest_px`` may be left out, where that makes the search quicker.
        """
        ...

    def best_score(self, frame_HWC: np.ndarray) -> float | None:
        """Score of the likeliest face of a frame, also below what counts as found; ``None`` without any likeness."""
        ...

    def limits(self, height: int, width: int) -> str:
        """In words, which faces it does not find in frames of this size."""
        ...

    def embed(self, frame_HWC: np.ndarray, face: Face) -> np.ndarray:
        """A unit vector ``[D]`` that is close for faces of one person. Only where ``same_person`` is not ``None``."""
        ...
