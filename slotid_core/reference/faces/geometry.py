"""Where a head points, from iBUG's 68 points of its face.

A generic face in millimetres is laid over the points by rotating, scaling and shifting it (a camera so far away that
perspective does not matter). The pose is how it had to be rotated.

Axes of the face and of the picture are the same for a frontal face: x to the right edge of the picture, y down, z away
from the camera. Shape letters: P points (68), N points that are fitted.
"""

from dataclasses import dataclass

import numpy as np

from ...errors import SlotIDError
from .face import Pose

# Half of a face and its midline: point -> millimetres from the middle between the eyes' outer corners. Round numbers of
# an adult face (90 mm between those corners), with depths that bring the poses of filmed faces within about 3 degrees
# of those from a dense 3D mesh. Points of the jaw are where the outline is seen, not where the bone is.
_HALF_FACE_MM = {
    **{0: (-72, 5, 55), 1: (-71, 24, 53), 2: (-68, 44, 50), 3: (-64, 62, 35), 4: (-57, 79, 31)},
    **{5: (-47, 93, 20), 6: (-33, 105, 12), 7: (-17, 114, 1), 8: (0, 116, -2)},
    **{17: (-59, -15, 3), 18: (-50, -24, -3), 19: (-38, -28, -11), 20: (-25, -27, -16), 21: (-13, -22, -20)},
    **{27: (0, -4, -18), 28: (0, 8, -26), 29: (0, 20, -34), 30: (0, 32, -40)},
    **{31: (-14, 44, -23), 32: (-7, 46, -26), 33: (0, 47, -29)},
    **{36: (-45, 0, 0), 37: (-37, -4.5, -5.5), 38: (-27.5, -4.5, -7)},
    **{39: (-19.5, 1.5, -5.5), 40: (-28, 3, -6), 41: (-37.5, 3, -5)},
    **{48: (-27, 69, -5), 49: (-17, 62, -20), 50: (-7, 60, -26), 51: (0, 61, -27)},
    **{57: (0, 79, -21), 58: (-8, 78, -20), 59: (-16, 75, -16)},
    **{60: (-23, 69, -7), 61: (-7.5, 68, -22), 62: (0, 68, -23), 66: (0, 68, -21), 67: (-7.5, 68, -21)},
}

MIRRORED = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65]
)
"""``[68]``: which point of a mirrored face each point becomes."""

# What a point counts for in the fit. The nose and the eyes' corners do not move with the expression.
_WEIGHTS = {1.0: [*range(27, 36), 36, 39, 42, 45], 0.3: [48, 51, 54, 17, 21, 22, 26], 0.2: [0, 1, 15, 16]}
_LEFT_EAR, _RIGHT_EAR = [0, 1], [15, 16]

# 2D points slide along the outline of the cheek that turns away: at this yaw its ear has no say any more.
_EAR_HIDDEN_DEG = 30.0
_ITERATIONS = 4


def _generic_face() -> np.ndarray:
    face_P3 = np.zeros((68, 3))
    for point, (x, y, z) in _HALF_FACE_MM.items():
        face_P3[MIRRORED[point]] = (-x, y, z)
        face_P3[point] = (x, y, z)
    return face_P3


GENERIC_FACE = _generic_face()
"""``[68, 3]`` millimetres, neutral, frontal: see the axes above."""


@dataclass(frozen=True, kw_only=True)
class HeadFit:
    """The generic face as laid over 68 points: ``point = scale * (rotation @ model)[:2] + origin``."""

    rotation_33: np.ndarray
    scale: float
    """Pixels per millimetre of the generic face."""
    origin_2: np.ndarray
    """Pixels, of the point midway between the eyes' outer corners."""

    @property
    def pose(self) -> Pose:
        """The rotation as angles."""
        return pose_of(self.rotation_33)

    def frontalised(self, points_P2: np.ndarray) -> np.ndarray:
        """The points as a frontal view would show them, ``[68, 2]`` in millimetres of the generic face.

        Each point is given the depth that it has in the generic face.
        """
        depth_P2 = np.outer(GENERIC_FACE[:, 2], self.rotation_33[:2, 2])
        flat_P2 = (points_P2 - self.origin_2) / self.scale - depth_P2
        return np.linalg.solve(self.rotation_33[:2, :2], flat_P2.T).T


def fit_head(points_P2: np.ndarray) -> HeadFit:
    """Lay the generic face over iBUG's 68 points of a face.

    Args:
        points_P2: ``[68, 2]`` pixels.

    Raises:
        SlotIDError: the points all lie in one place or on one line.
    """
    assert points_P2.shape == (68, 2), points_P2.shape
    weights_P = np.zeros(68)
    for weight, points in _WEIGHTS.items():
        weights_P[points] = weight
    fit = _fit(points_P2, weights_P)
    yaw = fit.pose.yaw
    hidden = _RIGHT_EAR if yaw > 0 else _LEFT_EAR
    weights_P[hidden] *= max(0.0, 1 - abs(yaw) / _EAR_HIDDEN_DEG)
    return _fit(points_P2, weights_P)


def pose_of(rotation_33: np.ndarray) -> Pose:
    """Angles of a rotation of the face: first pitch, then yaw, then roll.

    Roll comes last, so turning the picture changes roll alone.
    """
    r = rotation_33
    return Pose(
        yaw=float(np.degrees(np.arctan2(r[2, 0], np.hypot(r[0, 0], r[1, 0])))),
        pitch=float(np.degrees(np.arctan2(-r[2, 1], r[2, 2]))),
        roll=float(np.degrees(np.arctan2(r[1, 0], r[0, 0]))),
    )


def rotation_of(pose: Pose) -> np.ndarray:
    """The ``[3, 3]`` rotation that :func:`pose_of` takes apart."""
    yaw, pitch, roll = np.radians([pose.yaw, pose.pitch, pose.roll])
    pitched = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    yawed = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    rolled = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return rolled @ yawed @ pitched


def box_of(points_P2: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the points: brow to chin and ear to ear."""
    (left, top), (right, bottom) = points_P2.min(0).tolist(), points_P2.max(0).tolist()
    return left, top, right, bottom


def _fit(points_P2: np.ndarray, weights_P: np.ndarray) -> HeadFit:
    used_P = weights_P > 0
    weights_N = weights_P[used_P] / weights_P[used_P].sum()
    model_mean_3, points_mean_2 = weights_N @ GENERIC_FACE[used_P], weights_N @ points_P2[used_P]
    model_N3, points_N2 = GENERIC_FACE[used_P] - model_mean_3, points_P2[used_P] - points_mean_2

    # The best affine map, brought to the nearest scaled rotation, is where Gauss-Newton starts.
    weighted_3N = model_N3.T * weights_N
    affine_32 = np.linalg.solve(weighted_3N @ model_N3, weighted_3N @ points_N2)
    u_22, sizes_2, v_23 = np.linalg.svd(affine_32.T, full_matrices=False)
    if sizes_2[1] <= 1e-6 * sizes_2[0]:
        raise SlotIDError(
            "The landmarks of a face all lie in one place or on one line, so no pose can be read from them. "
            "Use another face backend, or a box."
        )
    rows_23, scale = u_22 @ v_23, float(sizes_2.mean())
    rotation_33 = np.vstack([rows_23, np.cross(rows_23[0], rows_23[1])])
    root_N1 = np.sqrt(weights_N)[:, None]
    for _ in range(_ITERATIONS):
        turned_N3 = model_N3 @ rotation_33.T
        x_N, y_N, z_N = turned_N3.T
        zero_N = np.zeros_like(x_N)
        # How x and y of a point answer to: scale, and a small turn about the x, y and z axis.
        by_x_N4 = np.stack([x_N, zero_N, scale * z_N, -scale * y_N], axis=1)
        by_y_N4 = np.stack([y_N, -scale * z_N, zero_N, scale * x_N], axis=1)
        jacobian = np.concatenate([by_x_N4 * root_N1, by_y_N4 * root_N1])
        miss_N2 = (points_N2 - scale * turned_N3[:, :2]) * root_N1
        step_4 = np.linalg.lstsq(jacobian, miss_N2.T.ravel(), rcond=None)[0]
        scale += float(step_4[0])
        rotation_33 = _turn(step_4[1:]) @ rotation_33
    origin_2 = points_mean_2 - scale * (rotation_33 @ model_mean_3)[:2]
    return HeadFit(rotation_33=rotation_33, scale=scale, origin_2=origin_2)


def _turn(axis_3: np.ndarray) -> np.ndarray:
    """Rotation about an axis by its length in radians (Rodrigues)."""
    x, y, z = axis_3
    cross_33 = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = float(np.linalg.norm(axis_3))
    # np.sinc(t) is sin(pi t) / (pi t), and 1 at 0.
    sine, cosine = np.sinc(angle / np.pi), np.sinc(angle / (2 * np.pi)) ** 2 / 2
    return np.eye(3) + sine * cross_33 + cosine * cross_33 @ cross_33
