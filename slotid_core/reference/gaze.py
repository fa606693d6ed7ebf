"""Where the eyes look, by the dark iris between the corners of each eye.

Eyes that look into the camera show the iris in front of the eyeball's middle, however the head is turned. That middle
lies behind the line between the corners, so a turn of the head moves it between them.

Shape letters: h w of a picture, S samples along an eye, R rows of them.
"""

import numpy as np

from .faces.face import Face

# Below this much of open eyes, and beyond this yaw, lids or nose hide too much of an iris.
_NARROW, _TURNED_DEG = 0.25, 30.0
# Less luma than this between the dark and the light of an eye, over the skin's, is a lid or a shadow.
_FAINT = 0.12
# Millimetres: between an eye's corners, from the middle of that line back to the eyeball's, from there to the iris.
_CORNERS_MM, _DEPTH_MM, _IRIS_MM = 25.5, 6.0, 11.0
_SAMPLES, _ROWS = 41, 11
# Lashes darken the edges of an eye, above more than below.
_MIDDLE = 0.7


def gaze_of(luma_hw: np.ndarray, face: Face, skin: float) -> float | None:
    """How far the eyes look past the camera, sideways.

    Args:
        luma_hw: from 0 to 1.
        face: with landmarks, in pixels of that picture; what its backend says of the gaze goes before pixels.
        skin: luma of the face's skin.

    Returns:
        Degrees, 0 into the camera, positive to the right edge of the picture, from -90 to 90; good to some 10 degrees.
        ``None`` with narrow or closed eyes, which show no iris, and heads that are turned by more than 30 degrees.
    """
    points_P2, pose, expression = face.landmarks_68x2, face.pose, face.expression
    if pose is None or expression is None or expression.eyes_open < _NARROW or abs(pose.yaw) > _TURNED_DEG:
        return None
    if face.gaze is not None:
        return face.gaze
    places = [_iris(luma_hw, eye_62, skin) for eye_62 in (points_P2[36:42], points_P2[42:48])]
    if None in places:
        return None
    # Both eyes together: what they squint, and what landmarks take off one side of both, cancels.
    yaw = np.radians(pose.yaw)
    aside_mm = np.mean(places) * _CORNERS_MM * np.cos(yaw) + _DEPTH_MM * np.sin(yaw)
    return float(np.degrees(np.arcsin(np.clip(aside_mm / _IRIS_MM, -1, 1))))


def _iris(luma_hw: np.ndarray, eye_62: np.ndarray, skin: float) -> float | None:
    """From the corners' middle, -0.5 to 0.5 of their distance; ``None`` without contrast between the lids."""
    first_2, along_2 = eye_62[0], eye_62[3] - eye_62[0]
    length = max(1.0, float(np.linalg.norm(along_2)))
    axes_22 = np.stack([along_2, [-along_2[1], along_2[0]]]) / length
    lids_62 = (eye_62 - first_2) @ axes_22.T / length
    along_S = np.linspace(0, 1, _SAMPLES)
    upper_S, lower_S = (
        np.interp(along_S, [0, *np.clip(lids_62[pair, 0], 0.05, 0.95), 1], [0, *lids_62[pair, 1], 0])
        for pair in ([1, 2], [5, 4])
    )
    share_R1 = np.linspace(0.5 - _MIDDLE / 2, 0.5 + _MIDDLE / 2, _ROWS)[:, None]
    across_RS = upper_S + (lower_S - upper_S) * share_R1
    places_RS2 = first_2 + length * (along_S[:, None] * axes_22[0] + across_RS[..., None] * axes_22[1])
    x_RS, y_RS = np.moveaxis(places_RS2.round().astype(int), -1, 0)
    seen_RS = luma_hw[np.clip(y_RS, 0, luma_hw.shape[0] - 1), np.clip(x_RS, 0, luma_hw.shape[1] - 1)]
    dark, light = np.quantile(seen_RS, [0.1, 0.9])
    if light - dark < _FAINT * skin:
        return None
    # Rows are closer where the lids are: without their distance the corners would count for too much.
    darkness_S = np.clip((dark + light) / 2 - seen_RS, 0, None).sum(0) * np.abs(lower_S - upper_S)
    return float(darkness_S @ along_S / darkness_S.sum() - 0.5)
