"""Pose and expression from 68 points, on faces that were projected with a known pose.

Shape letters: P points (68).
"""

import numpy as np
import pytest

from slotid_core.errors import SlotIDError
from slotid_core.reference.faces.expression import expression_of
from slotid_core.reference.faces.face import Pose
from slotid_core.reference.faces.geometry import GENERIC_FACE, MIRRORED, box_of, fit_head, pose_of, rotation_of

CAMERA_MM = 700.0  # a selfie at arm's length


def turned(face_P3: np.ndarray, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The face after a nod, a turn and a tilt, written out by what each does to the tip of a nose (0, 0, -1)."""
    x, y, z = face_P3.T
    a = np.radians(pitch)  # up: the tip gets a negative y
    y, z = y * np.cos(a) + z * np.sin(a), -y * np.sin(a) + z * np.cos(a)
    a = np.radians(yaw)  # to the right: the tip gets a positive x
    x, z = x * np.cos(a) - z * np.sin(a), x * np.sin(a) + z * np.cos(a)
    a = np.radians(roll)  # clockwise: the top of the head goes right
    x, y = x * np.cos(a) - y * np.sin(a), x * np.sin(a) + y * np.cos(a)
    return np.stack([x, y, z], axis=1)


def seen(face_P3: np.ndarray, camera_mm: float | None = CAMERA_MM) -> np.ndarray:
    """Pixels ``[68, 2]`` of the face, by a camera with perspective or (``None``) without."""
    near_P1 = 1 if camera_mm is None else camera_mm / (camera_mm + face_P3[:, 2:])
    return face_P3[:, :2] * near_P1 * 1.7 + [310, 240]


def angles(points_P2: np.ndarray) -> np.ndarray:
    pose = fit_head(points_P2).pose
    return np.array([pose.yaw, pose.pitch, pose.roll])


def a_person(rng: np.random.Generator) -> np.ndarray:
    """A face with proportions of its own: each part of it moved and sized by some millimetres."""
    face_P3 = GENERIC_FACE * rng.normal(1, 0.05, 3)
    for part in (range(17), range(17, 27), range(27, 36), range(36, 48), range(48, 68)):
        face_P3[list(part), 1:] += rng.normal(0, 2.0, 2)
    return face_P3


POSES = [(yaw, pitch, roll) for yaw in (-40, -20, 0, 20, 40) for pitch in (-20, 0, 20) for roll in (-25, 0, 25)]


def test_the_generic_face_gives_its_pose_back_exactly():
    for pose in [*POSES, (75, 0, 0), (-75, 10, 120), (0, 40, -170)]:
        assert angles(seen(turned(GENERIC_FACE, *pose), camera_mm=None)) == pytest.approx(pose, abs=0.01)


def test_pose_through_a_near_camera():
    errors = np.array([angles(seen(turned(GENERIC_FACE, *pose))) - pose for pose in POSES])
    assert np.abs(errors).max() < 3


def test_pose_of_people_with_other_faces_and_noisy_landmarks():
    rng = np.random.default_rng(7)
    errors = []
    for _ in range(3):
        person_P3 = a_person(rng)
        for pose in POSES:
            points_P2 = seen(turned(person_P3, *pose)) + rng.normal(0, 1.0, (68, 2))
            errors.append(angles(points_P2) - pose)
    rms = np.sqrt(np.square(errors).mean(0))
    # Pitch is read from how far nose and ears lie below the eyes, which differs most between people.
    assert (rms < [2.5, 4, 1.5]).all(), rms


def test_landmarks_that_slide_along_the_far_cheek_do_not_pull_the_yaw():
    """2D landmarks of the hidden ear lie where the cheek ends in the picture."""
    for yaw in (-40, -30, 30, 40):
        face_P3 = GENERIC_FACE.copy()
        far = [15, 16] if yaw > 0 else [0, 1]
        face_P3[far, 0] *= 0.9
        face_P3[far, 2] = 18
        assert angles(seen(turned(face_P3, yaw, 0, 0))) == pytest.approx([yaw, 0, 0], abs=3)


def test_signs():
    """In the picture: where the tip of the nose (30) lies from the middle between the eyes' outer corners."""
    tip_2, middle_2 = (lambda p: p[30], lambda p: (p[36] + p[45]) / 2)
    frontal_P2 = seen(GENERIC_FACE)
    right_P2 = seen(turned(GENERIC_FACE, 20, 0, 0))
    up_P2 = seen(turned(GENERIC_FACE, 0, 20, 0))
    clockwise_P2 = seen(turned(GENERIC_FACE, 0, 0, 20))
    assert angles(right_P2)[0] > 15 and tip_2(right_P2)[0] > middle_2(right_P2)[0] + 10
    assert angles(up_P2)[1] > 15 and (tip_2(up_P2) - middle_2(up_P2))[1] < (tip_2(frontal_P2) - middle_2(frontal_P2))[1]
    assert angles(clockwise_P2)[2] > 15 and clockwise_P2[45, 1] > clockwise_P2[36, 1]


def test_turning_the_picture_changes_roll_alone():
    points_P2 = seen(turned(a_person(np.random.default_rng(1)), 25, -10, 5))
    before = angles(points_P2)
    a = np.radians(35)
    after = angles(points_P2 @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]))
    assert after - before == pytest.approx([0, 0, 35], abs=0.01)


def test_mirroring_flips_yaw_and_roll_and_keeps_the_rest():
    points_P2 = seen(turned(a_person(np.random.default_rng(2)), 18, -8, 6))
    mirrored_P2 = points_P2[MIRRORED] * [-1, 1] + [620, 0]
    assert angles(mirrored_P2) == pytest.approx(angles(points_P2) * [-1, 1, -1], abs=0.01)
    one, other = (expression_of(p, fit_head(p)) for p in (points_P2, mirrored_P2))
    assert [other.eyes_open, other.mouth_open, other.smile] == pytest.approx(
        [one.eyes_open, one.mouth_open, one.smile], abs=1e-6
    )


def test_size_and_place_do_not_matter():
    points_P2 = seen(turned(GENERIC_FACE, 12, 7, -3))
    assert angles(points_P2 * 0.11 + [1500, -20]) == pytest.approx(angles(points_P2), abs=1e-6)


def test_rotation_and_angles_are_inverse():
    for yaw, pitch, roll in POSES:
        pose = pose_of(rotation_of(Pose(yaw=yaw, pitch=pitch, roll=roll)))
        assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((yaw, pitch, roll))
        expected_P3 = turned(GENERIC_FACE, yaw, pitch, roll)
        assert np.allclose(GENERIC_FACE @ rotation_of(Pose(yaw=yaw, pitch=pitch, roll=roll)).T, expected_P3)


def test_the_generic_face_is_symmetric_and_complete():
    assert (GENERIC_FACE[MIRRORED] == GENERIC_FACE * [-1, 1, 1]).all()
    assert (MIRRORED[MIRRORED] == np.arange(68)).all()
    assert len(np.unique(GENERIC_FACE, axis=0)) > 60  # closed lips share places


def test_the_box_goes_from_brow_to_chin_and_ear_to_ear():
    points_P2 = seen(GENERIC_FACE, camera_mm=None)
    assert box_of(points_P2) == (points_P2[0, 0], points_P2[19, 1], points_P2[16, 0], points_P2[8, 1])


@pytest.mark.parametrize("points_P2", [np.full((68, 2), 5.0), np.linspace([0, 0], [9, 18], 68)], ids=["point", "line"])
def test_points_without_an_area_are_refused(points_P2):
    with pytest.raises(SlotIDError, match="one place or on one line"):
        fit_head(points_P2)


def with_lids(share: float) -> np.ndarray:
    """The generic face with eyes opened to this share of the eye's length."""
    face_P3 = GENERIC_FACE.copy()
    for upper, lower, outer, inner in (((37, 38), (41, 40), 36, 39), ((44, 43), (46, 47), 45, 42)):
        length = np.linalg.norm(face_P3[outer] - face_P3[inner])
        for top, bottom in zip(upper, lower, strict=True):
            middle = (face_P3[top, 1] + face_P3[bottom, 1]) / 2
            face_P3[top, 1], face_P3[bottom, 1] = middle - share * length / 2, middle + share * length / 2
    return face_P3


def with_mouth(gap_mm: float = 0.0, width_mm: float = 50.0, lift_mm: float = 0.0) -> np.ndarray:
    """The generic face with lips apart; the jaw takes the corners along by a third."""
    face_P3 = GENERIC_FACE.copy()
    face_P3[[55, 56, 57, 58, 59, 65, 66, 67], 1] += gap_mm
    face_P3[[48, 60, 54, 64], 1] += 0.3 * gap_mm
    for corner in (48, 60, 54, 64):
        face_P3[corner, 0] = np.sign(face_P3[corner, 0]) * width_mm / 2
        face_P3[corner, 1] -= lift_mm
    return face_P3


def expression(face_P3: np.ndarray, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0):
    points_P2 = seen(turned(face_P3, yaw, pitch, roll))
    return expression_of(points_P2, fit_head(points_P2))


def test_eyes_go_from_closed_to_wide():
    values = [expression(with_lids(share)).eyes_open for share in (0.05, 0.15, 0.25, 0.35, 0.45)]
    assert values[0] == 0 and values[-1] == 1
    assert values == sorted(values) and 0.4 < values[2] < 0.7


def test_one_closed_eye_counts():
    face_P3 = with_lids(0.35)
    face_P3[[37, 38, 41, 40]] = with_lids(0.05)[[37, 38, 41, 40]]
    assert expression(face_P3).eyes_open == 0


def test_the_far_eye_of_a_turned_head_does_not_count():
    face_P3 = with_lids(0.35)
    face_P3[[43, 44, 46, 47]] = with_lids(0.05)[[43, 44, 46, 47]]  # the eye at the right of the picture
    assert expression(face_P3, yaw=45).eyes_open > 0.7
    assert expression(face_P3, yaw=-45).eyes_open < 0.1


def test_the_mouth_opens():
    values = [expression(with_mouth(gap_mm=gap)).mouth_open for gap in (0, 8, 16, 40)]
    assert values[0] == 0 and values[-1] == 1
    assert values == sorted(values) and values[1] > 0.1


def test_a_smile_is_told_from_an_open_mouth():
    neutral, broad = with_mouth(), with_mouth(width_mm=67, lift_mm=7)
    toothy, shout = with_mouth(gap_mm=12, width_mm=67, lift_mm=4), with_mouth(gap_mm=35, width_mm=46)
    assert expression(neutral).smile < 0.1 and expression(shout).smile < 0.3
    assert expression(broad).smile > 0.7 and expression(toothy).smile > 0.6


@pytest.mark.parametrize("pose", [(30, 0, 0), (-30, 10, 15), (0, 20, -20), (0, -20, 90)])
def test_expression_does_not_depend_on_the_pose(pose):
    face_P3 = with_mouth(gap_mm=10, width_mm=60, lift_mm=3)
    frontal, other = expression(face_P3), expression(face_P3, *pose)
    for name in ("eyes_open", "mouth_open", "smile"):
        assert getattr(other, name) == pytest.approx(getattr(frontal, name), abs=0.15), name


def test_a_profile_has_no_expression():
    assert expression(GENERIC_FACE, yaw=50) is not None
    assert expression(GENERIC_FACE, yaw=70) is None
