"""How far a face is from neutral, from iBUG's 68 points of it.

Everything is measured on the points as a frontal view would show them, in millimetres of a generic face
(:meth:`.geometry.HeadFit.frontalised`), so neither size nor pose has a say. Shape letters: P points (68).
"""

import numpy as np

from .face import Expression
from .geometry import HeadFit

# Height of the lids' opening over the length of the eye: closed eyes have 0.05 to 0.1, open ones 0.25 to 0.4.
EYE_CLOSED, EYE_WIDE = 0.10, 0.38
# Millimetres between the lips: closed ones have up to 1.5, a smile with teeth 15, a shout 30 to 50.
LIPS_TOGETHER, LIPS_WIDE = 1.5, 30.0
# A smile widens the mouth and lifts its corners. In neutral faces it is 43 to 52 mm wide, in broad smiles 65 to 70;
# its corners lie 0 to 2 mm above the middle of the lips, in smiles 6 to 9. An open mouth lowers that middle as well.
MOUTH_NEUTRAL, MOUTH_SMILING = 52.0, 66.0
LIFT_SMILING, LIFT_BY_GAP = 8.0, 0.2

# Beyond this yaw the nose hides the inner half of the eye that turns away.
_FAR_EYE_HIDDEN_DEG = 30.0
# Seen at less than this share of their frontal size, features say nothing any more (a turn of 60 degrees).
_LEAST_FORESHORTENING = 0.5


def expression_of(points_P2: np.ndarray, fit: HeadFit) -> Expression | None:
    """Read the expression from the points of a face.

    Eyes are those of the picture: where the head is turned by more than 30 degrees, only the nearer one counts.

    Args:
        points_P2: ``[68, 2]`` pixels.
        fit: of the same points, by :func:`.geometry.fit_head`.

    Returns:
        ``None`` where the head is turned by more than about 60 degrees.
    """
    if fit.rotation_33[2, 2] < _LEAST_FORESHORTENING:
        return None
    face_P2 = fit.frontalised(points_P2)

    def apart(a: int, b: int) -> float:
        return float(np.linalg.norm(face_P2[a] - face_P2[b]))

    left_eye = (apart(37, 41) + apart(38, 40)) / (2 * apart(36, 39))
    right_eye = (apart(43, 47) + apart(44, 46)) / (2 * apart(42, 45))
    yaw = fit.pose.yaw
    if abs(yaw) > _FAR_EYE_HIDDEN_DEG:
        eye = left_eye if yaw > 0 else right_eye
    else:
        eye = min(left_eye, right_eye)

    gap = (apart(61, 67) + apart(62, 66) + apart(63, 65)) / 3
    corners_y, middle_y = (face_P2[48, 1] + face_P2[54, 1]) / 2, (face_P2[51, 1] + face_P2[57, 1]) / 2
    width = (apart(48, 54) - MOUTH_NEUTRAL) / (MOUTH_SMILING - MOUTH_NEUTRAL)
    lift = (middle_y - corners_y - LIFT_BY_GAP * gap) / LIFT_SMILING
    return Expression(
        eyes_open=_between(eye, EYE_CLOSED, EYE_WIDE),
        mouth_open=_between(gap, LIPS_TOGETHER, LIPS_WIDE),
        smile=_between((width + lift) / 2, 0.0, 1.0),
    )


def _between(value: float, low: float, high: float) -> float:
    return float(np.clip((value - low) / (high - low), 0, 1))
