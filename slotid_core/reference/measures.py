"""What can be measured of one face in one frame: size, sharpness, light. And how good a portrait it would make.

Shape letters: H W height and width of a frame, C channels (RGB), h w of a face crop, N candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from .faces.face import Face
from .gaze import gaze_of
from .portrait import LAPLACIAN, LUMA

# Sharpness is measured on faces brought to one size, or a nearer face would always seem sharper.
_FACE_SIDE = 96
# ... and on brows, eyes and nose only: teeth and an open mouth are sharper than closed lips.
_ABOVE_MOUTH = 0.6
# From this share of the sharpest faces' sharpness on, more of it is expression and noise.
_SHARP_ENOUGH = 0.85
# A portrait's score falls to 1/e of itself at these angles.
_YAW, _PITCH, _ROLL = 18.0, 25.0, 30.0
# ... and where the eyes look that many degrees past the camera. Pixels tell to some 10 degrees.
_GAZE = 22.0
# A face whose cosine is this much below the best is another one, or hidden; a backend may tell people apart by less.
_UNLIKE = 0.1
# Features are held against those of the most neutral frames: not the best one, which may be a wrong measurement.
_MOST = 0.8
# The eyes' contrast as a share of that: shut, open. How much darker the mouth is, and how much wider: neutral, not at
# all. Narrower counts half.
_EYES_SHUT, _MOUTH_OPEN, _MOUTH_DRAWN = (0.4, 0.85), (0.035, 0.08), (0.06, 0.45)
# Smiles are wider than a mouth at rest, pouts narrower; there is more smiling than pouting.
_AT_REST = 0.35
# A mouth is dark below this share of the skin's luma.
_DARK_MOUTH = 0.7


@dataclass(frozen=True, kw_only=True)
class FaceMeasures:
    """Measured on the pixels inside a face box."""

    size_px: float
    """Longer side of the box."""
    sharpness: float
    """Standard deviation of the luma's Laplacian above the mouth, at one face size; compares frames of one clip."""
    brightness: float
    """Mean luma, 0 to 1."""
    clipped: float
    """Share of pixels that are black or white."""
    inside: float
    """Share of the box that lies inside the frame."""
    features: "Features | None" = None
    """Where the backend has landmarks."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Of eyes and mouth, seen in the pixels; compares frames of one clip. Landmarks alone often take closed eyes for
    open ones and a beard's edge for a lip."""

    eyes: float
    """Range of luma across the eye that has less of it, over the skin's luma: white and iris, or a lid."""
    mouth: float
    """How dark it is in and around the mouth, over the skin's luma: hardly with lips that are closed."""
    mouth_width: float
    """Over the distance of the eyes' outer corners."""
    gaze: float | None = None
    """Degrees past the camera, see :func:`.gaze.gaze_of`; ``None`` where the eyes are too narrow to tell."""


def measure_face(frame_HWC: Tensor, face: Face) -> FaceMeasures:
    """Measure one face of a uint8 frame. The face's box has to overlap the frame."""
    height, width = frame_HWC.shape[:2]
    x0, y0, x1, y1 = face.box_xyxy
    # at least one pixel, also of a box whose last half pixel is in the frame
    left, top = min(width - 1, max(0, round(x0))), min(height - 1, max(0, round(y0)))
    right, bottom = min(width, max(left + 1, round(x1))), min(height, max(top + 1, round(y1)))
    face_hwC = frame_HWC[top:bottom, left:right].float() / 255
    luma_11hw = (face_hwC @ face_hwC.new_tensor(LUMA))[None, None]
    standard_11hw = F.interpolate(luma_11hw, (_FACE_SIDE, _FACE_SIDE), mode="bilinear", antialias=True)
    kernel_1133 = luma_11hw.new_tensor(LAPLACIAN)[None, None]
    return FaceMeasures(
        size_px=max(x1 - x0, y1 - y0),
        sharpness=float(F.conv2d(standard_11hw[..., : round(_ABOVE_MOUTH * _FACE_SIDE), :], kernel_1133).std()),
        brightness=float(luma_11hw.mean()),
        clipped=float(((luma_11hw < 0.02) | (luma_11hw > 0.98)).float().mean()),
        inside=min(1.0, (right - left) * (bottom - top) / max(1.0, (x1 - x0) * (y1 - y0))),
        features=None
        if face.landmarks_68x2 is None
        else _features(
            luma_11hw[0, 0].numpy(), replace(face, landmarks_68x2=face.landmarks_68x2 - np.array([left, top]))
        ),
    )


def _features(luma_hw: np.ndarray, face: Face) -> Features:
    points_P2 = face.landmarks_68x2
    across_2 = points_P2[45] - points_P2[36]
    apart = max(1.0, float(np.linalg.norm(across_2)))
    axes_22 = np.stack([across_2, [-across_2[1], across_2[0]]]) / apart

    def patch(middle_2: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
        """``[24, 24]`` luma around a point, along the line through the eyes; the border's beyond the border."""
        steps = np.linspace(-1, 1, 24)
        places = middle_2 + steps[:, None, None] * half_height * axes_22[1] + steps[:, None] * half_width * axes_22[0]
        x, y = np.moveaxis(places.round().astype(int), -1, 0)
        return luma_hw[np.clip(y, 0, luma_hw.shape[0] - 1), np.clip(x, 0, luma_hw.shape[1] - 1)]

    skin = max(0.02, float(np.median(patch(points_P2[30], 0.3 * apart, 0.2 * apart))))
    ranges = []
    for eye_62 in (points_P2[36:42], points_P2[42:48]):
        length = float(np.linalg.norm(eye_62[3] - eye_62[0]))
        low, high = np.quantile(patch(eye_62.mean(0), 0.5 * length, 0.28 * length), [0.05, 0.95])
        ranges.append(float(high - low))
    mouth_width = float(np.linalg.norm(points_P2[54] - points_P2[48]))
    lips = float(np.linalg.norm(points_P2[57] - points_P2[51]))
    mouth = patch((points_P2[51] + points_P2[57]) / 2, 0.3 * mouth_width, max(0.35 * mouth_width, 0.6 * lips))
    dark = float(np.clip(_DARK_MOUTH * skin - mouth, 0, None).mean())
    return Features(
        eyes=min(ranges) / skin,
        mouth=dark / skin,
        mouth_width=mouth_width / apart,
        gaze=gaze_of(luma_hw, face, skin),
    )


@dataclass(frozen=True, kw_only=True)
class PortraitScore:
    """How good a portrait a frame makes; each part from 0 to 1, and their weighted geometric mean."""

    sharp: float
    frontal: float
    neutral: float
    eyes: float
    """Open; they count as a part of neutral."""
    looking: float
    """Into the camera; frames whose gaze is unknown count like the clip's middle."""
    large: float
    exposed: float
    unhidden: float
    total: float


_WEIGHTS = {"sharp": 1.0, "frontal": 2.0, "neutral": 1.0, "looking": 1.0, "large": 0.3, "exposed": 0.6, "unhidden": 1.0}
# What sets diverse portraits apart: neither a turned head nor a smile is a fault there. Shut eyes still are.
_APART = ("frontal", "looking", "neutral")
# Portraits are as different as they need be at this many degrees, or at this share of a broad smile or a wide mouth.
_APART_DEG, _APART_EXPRESSION = 20.0, 0.4


def score_portraits(
    faces: Sequence[Face],
    measures: Sequence[FaceMeasures],
    likeness: Mapping[int, float],
    same_person: float | None = None,
) -> list[PortraitScore]:
    """Score candidates of one person against each other.

    Args:
        faces: the detected faces.
        measures: of the same faces.
        likeness: cosine of a face's embedding with the person's mean, by position in ``faces``, for those that were
            compared. The others count as half hidden once any is compared, so that they can't overtake them.
        same_person: cosine from which on two faces are the same person, where the backend has one.
    """
    sharpness_N = np.array([m.sharpness for m in measures])
    size_N = np.array([m.size_px for m in measures])
    # Against the best few and not the best one, so that a single noisy frame does not make all others seem bad.
    sharp_N = np.clip(sharpness_N / max(1e-9, _SHARP_ENOUGH * np.quantile(sharpness_N, 0.9)), 0, 1)
    large_N = np.clip(size_N / np.quantile(size_N, 0.9), 0, 1)
    (eyes_N, mouth_N), looking_N = _neutral(faces, measures), _looking(measures)
    likest = max(likeness.values(), default=0.0)
    # Where cosines of two people lie close together, those of a covered and an open face lie closer.
    unlike = _UNLIKE if same_person is None else min(_UNLIKE, 1 - same_person)
    scores = []
    for i, (face, measured) in enumerate(zip(faces, measures, strict=True)):
        alike = 1.0
        if likeness:
            alike = np.clip(1 - (likest - likeness[i]) / unlike, 0, 1) if i in likeness else 0.5
        parts = {
            "sharp": float(sharp_N[i]) ** 1.5,
            "frontal": _frontal(face),
            "neutral": float(eyes_N[i] * mouth_N[i]),
            "looking": float(looking_N[i]),
            "large": float(large_N[i]),
            "exposed": _exposed(measured),
            "unhidden": float(alike) * measured.inside,
        }
        logs = [weight * _log(parts[name]) for name, weight in _WEIGHTS.items()]
        total = float(np.exp(sum(logs) / sum(_WEIGHTS.values())))
        scores.append(PortraitScore(**parts, eyes=float(eyes_N[i]), total=total))
    return scores


def _frontal(face: Face) -> float:
    if face.pose is None:
        return 1.0
    angles = face.pose.yaw / _YAW, face.pose.pitch / _PITCH, face.pose.roll / _ROLL
    return float(np.exp(-sum(angle**2 for angle in angles)))


def _neutral(faces: Sequence[Face], measures: Sequence[FaceMeasures]) -> tuple[np.ndarray, np.ndarray]:
    """Eyes and mouth, ``[N]`` 0 to 1 each, against the most neutral faces of the clip: at rest, people differ by more
    than they show."""
    eyes_N, mouth_N, smile_N = np.ones((3, len(faces)))
    expressed = [i for i, face in enumerate(faces) if face.expression is not None]
    if expressed:
        eyes_open, mouth_open, smile = np.array([astuple(faces[i].expression) for i in expressed]).T
        eyes_N[expressed] = np.clip(eyes_open / 0.5, 0, 1)
        mouth_N[expressed] = 1 - _above_least(mouth_open)
        smile_N[expressed] = 1 - 0.6 * _above_least(smile)
    seen = [i for i, measured in enumerate(measures) if measured.features is not None]
    if seen:
        eyes, mouth, width = np.array([astuple(measures[i].features)[:3] for i in seen]).T
        eyes_N[seen] *= _ramp(_of(eyes, np.quantile(eyes, _MOST)), *_EYES_SHUT)
        mouth_N[seen] *= 1 - _ramp(_above_least(mouth), *_MOUTH_OPEN)
        wider = _of(width, np.quantile(width, _AT_REST)) - 1
        smile_N[seen] *= 1 - _ramp(np.maximum(wider, -wider / 2), *_MOUTH_DRAWN)
    return eyes_N, mouth_N * smile_N


def _looking(measures: Sequence[FaceMeasures]) -> np.ndarray:
    """``[N]`` 0 to 1. Lids that hide where the eyes look are neither here nor there: they count in neutral."""
    gaze_N = [None if m.features is None else m.features.gaze for m in measures]
    known = [float(np.exp(-((gaze / _GAZE) ** 2))) for gaze in gaze_N if gaze is not None]
    middle = float(np.median(known)) if known else 1.0
    return np.array([middle if gaze is None else np.exp(-((gaze / _GAZE) ** 2)) for gaze in gaze_N])


def _of(values_N: np.ndarray, reference: float) -> np.ndarray:
    """As shares of the reference; 1 where that is 0, since then nothing was seen."""
    return values_N / reference if reference > 0 else np.ones_like(values_N)


def _above_least(values_N: np.ndarray) -> np.ndarray:
    return np.clip(values_N - np.quantile(values_N, 1 - _MOST), 0, 1)


def _ramp(values_N: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values_N - low) / (high - low), 0, 1)


def _exposed(measured: FaceMeasures) -> float:
    dark, bright = measured.brightness / 0.3, (1 - measured.brightness) / 0.15
    return float(np.clip(min(dark, bright), 0, 1) * (1 - measured.clipped))


def pick_diverse(scores: Sequence[PortraitScore], faces: Sequence[Face], count: int) -> list[int]:
    """Indices of the best candidate and then of ``count - 1`` more that differ from those before: in where they look,
    or in the mouth.

    Each further one trades quality against distance in yaw, pitch, smile and mouth, 1 at most: at 20 degrees, or 0.4 of
    an expression.
    """
    angles_N2 = np.array([[f.pose.yaw, f.pose.pitch] if f.pose else [0.0, 0.0] for f in faces]) / _APART_DEG
    mouths_N2 = np.array([[e.mouth_open, e.smile] if (e := f.expression) else [0.0, 0.0] for f in faces])
    looks_N4 = np.concatenate([angles_N2, mouths_N2 / _APART_EXPRESSION], axis=1)
    # What sets them apart is taken out of the score again.
    apart_N = np.array([sum(_WEIGHTS[part] * _log(getattr(s, part)) for part in _APART) for s in scores])
    eyes_N = np.array([_WEIGHTS["neutral"] * _log(s.eyes) for s in scores])
    quality_N = np.array([s.total for s in scores]) * np.exp((eyes_N - apart_N) / sum(_WEIGHTS.values()))
    chosen = [int(np.argmax([s.total for s in scores]))]
    while len(chosen) < min(count, len(scores)):
        distance_N = np.linalg.norm(looks_N4[:, None] - looks_N4[chosen][None], axis=-1).min(axis=1)
        gain_N = quality_N * np.minimum(distance_N, 1.0)
        gain_N[chosen] = -np.inf
        chosen.append(int(np.argmax(gain_N)))
    return chosen


def _log(part: float) -> float:
    return float(np.log(max(part, 1e-6)))
