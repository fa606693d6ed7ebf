"""Faces out of FACE_LANDMARKS, which ComfyUI's own node "Detect Face Landmarks (MediaPipe)" gives.

No face library and no non-commercial weights are involved. Shape letters: M points of the mesh (478), P points (68).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import SlotIDError
from .face import Face
from .frame import check_frame
from .landmarks import face_from_landmarks

# Blendshapes of eyes that look to the right edge of the picture, and to the left: left is the person's own.
_LOOK_RIGHT, _LOOK_LEFT = ("eyeLookOutLeft", "eyeLookInRight"), ("eyeLookInLeft", "eyeLookOutRight")
# Degrees at which such a blendshape is 1.
_FAR_ASIDE_DEG = 35.0

# Which point of MediaPipe's face mesh lies where each of iBUG's 68 does.
_IBUG_68 = (
    *(127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356),  # jaw
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),  # brows
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # lips, outside
    *(78, 82, 13, 312, 308, 317, 14, 87),  # lips, inside
)


class MediaPipeFaces:
    """The faces that the node found, frame by frame.

    Pose and expression are read from 68 of the mesh's points, like those of the other backends, and the gaze from the
    blendshapes, where the node gives any. The node's own
    transformation matrix is not used: it is relative to a camera with a field of view of 63 degrees, so a face that is
    frontal in the picture is turned in it by up to 5 degrees off the picture's centre.

    Args:
        landmarks: the node's output: ``frames`` holds a list of faces for each frame, each with ``landmarks_xy``
            ``[478, 2]`` in pixels and a ``score``; ``image_size`` is (height, width).
        frames: how many frames the clip has.

    Raises:
        SlotIDError: this is not the node's output, or not of as many frames.
    """

    name = "mediapipe"
    licence = "MediaPipe's face landmarker weights are Apache-2.0, commercial use included"
    same_person: float | None = None
    strangers: float | None = None

    def __init__(self, landmarks: Mapping[str, Any], *, frames: int):
        if not (isinstance(landmarks, Mapping) and {"frames", "image_size"} <= landmarks.keys()):
            what = sorted(map(str, landmarks)) if isinstance(landmarks, Mapping) else type(landmarks).__name__
            raise SlotIDError(
                f"Got {what} as face landmarks, expected a mapping with 'frames' and 'image_size'. Connect the output "
                "face_landmarks of ComfyUI's node Detect Face Landmarks (MediaPipe)."
            )
        if len(landmarks["frames"]) != frames:
            raise SlotIDError(
                f"Got face landmarks of {len(landmarks['frames'])} frames for a clip of {frames}. Connect the images "
                "of this very clip to the landmark node."
            )
        self._frames = landmarks["frames"]
        self._height, self._width = (int(side) for side in landmarks["image_size"])

    def detect(self, frame_HWC: np.ndarray, index: int, smallest_px: float = 0.0) -> list[Face]:
        """See :class:`.face.FaceBackend`; scores are the detector's, from 0 to 1. What lies wholly outside of the frame
        is no face in it: the detector follows faces out."""
        check_frame(frame_HWC)
        height, width = frame_HWC.shape[:2]
        if (height, width) != (self._height, self._width):
            raise SlotIDError(
                f"Got face landmarks of images of {self._width}x{self._height} for frames of {width}x{height}. "
                "Connect the images of this very clip to the landmark node, before any resizing or cropping."
            )
        faces = (_face(face) for face in self._frames[index])
        seen = [face for face in faces if _overlaps(face, height, width)]
        return sorted(seen, key=lambda face: -face.score)

    def embed(self, frame_HWC: np.ndarray, face: Face) -> np.ndarray:
        """Never called: there are no embeddings."""
        raise AssertionError("MediaPipe's landmarks have no embeddings")

    def best_score(self, frame_HWC: np.ndarray) -> float | None:
        """``None``: the node keeps no face below its threshold."""
        return None

    def limits(self, height: int, width: int) -> str:
        """In words, which faces are not found."""
        return (
            "the landmark node has its own limits: detector_variant 'full' or 'both' finds smaller faces, a lower "
            "min_confidence less clear ones, a larger num_faces more of them"
        )


def _face(given: Mapping[str, Any]) -> Face:
    face = face_from_landmarks(_points(given), float(given["score"]))
    shapes = given.get("blendshapes", {})
    if not shapes:
        return face
    # Blendshapes turn the eyes in the head.
    right, left = (sum(float(shapes[name]) for name in names) / 2 for names in (_LOOK_RIGHT, _LOOK_LEFT))
    return replace(face, gaze=float(np.clip(face.pose.yaw + _FAR_ASIDE_DEG * (right - left), -90, 90)))


def _overlaps(face: Face, height: int, width: int) -> bool:
    left, top, right, bottom = face.box_xyxy
    return left < width and right > 0 and top < height and bottom > 0


def _points(face: Mapping[str, Any]) -> np.ndarray:
    mesh_M2 = np.asarray(face["landmarks_xy"], float)
    if mesh_M2.ndim != 2 or mesh_M2.shape[0] < 468 or mesh_M2.shape[1] != 2 or not np.isfinite(mesh_M2).all():
        raise SlotIDError(
            f"Got a face mesh of shape {list(mesh_M2.shape)}, expected [478, 2] finite numbers. Connect the output "
            "face_landmarks of ComfyUI's node Detect Face Landmarks (MediaPipe)."
        )
    return mesh_M2[list(_IBUG_68)]
