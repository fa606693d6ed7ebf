"""Where the eyes look: on drawn eyes, on rendered heads, and what it is worth in a portrait.

Shape letters: H W height and width, C channels (RGB).
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slotid_core.reference.faces.face import Expression as SeenExpression
from slotid_core.reference.faces.face import Face, Pose
from slotid_core.reference.faces.geometry import GENERIC_FACE, rotation_of
from slotid_core.reference.faces.landmarks import face_from_landmarks
from slotid_core.reference.gaze import gaze_of
from slotid_core.reference.measures import FaceMeasures, Features, measure_face, pick_diverse, score_portraits
from training.world.render import render
from training.world.scene import Expression, sample_scene
from training.world.traits import sample_traits

SKIN = 0.6


def drawn(shift_mm: float, yaw: float = 0.0, roll: float = 0.0, iris: float = 0.1, lids: float = 1.0):
    """Luma of light eyes with a dark iris ``shift_mm`` beside the corners' middle, and their face. ``[H, W]``."""
    pose = Pose(yaw=yaw, pitch=0.0, roll=roll)
    model_P3 = GENERIC_FACE.copy()
    model_P3[36:48, 1] = model_P3[36:48, 1] * lids
    points_P2 = 2.0 * (model_P3 @ rotation_of(pose).T)[:, :2] + np.array([200.0, 120.0])
    luma_HW = np.full((400, 400), 0.9)
    y_HW, x_HW = np.mgrid[:400, :400]
    for eye_62 in (points_P2[36:42], points_P2[42:48]):
        along_2 = (eye_62[3] - eye_62[0]) / np.linalg.norm(eye_62[3] - eye_62[0])
        x, y = eye_62.mean(0) + 2.0 * shift_mm * along_2
        luma_HW[np.hypot(x_HW - x, y_HW - y) < 2.0 * 5.5] = iris
    return luma_HW, face_from_landmarks(points_P2, 1.0)


@pytest.mark.parametrize("roll", [0.0, 20.0])
def test_an_iris_in_the_middle_looks_into_the_camera_and_one_beside_it_does_not(roll):
    degrees = [gaze_of(*drawn(shift, roll=roll), SKIN) for shift in (-5.0, -2.5, 0.0, 2.5, 5.0)]
    assert abs(degrees[2]) < 3
    assert degrees[0] < degrees[1] - 8 < degrees[2] - 16 and degrees[4] > degrees[3] + 8 > degrees[2] + 16


def test_a_turned_head_may_look_into_the_camera():
    """Eyes that stay in the middle of a turned head look where it points; towards the camera they lie beside it."""
    assert gaze_of(*drawn(0.0, yaw=20.0), SKIN) > 7
    assert abs(gaze_of(*drawn(-2.2, yaw=20.0), SKIN)) < 5
    assert gaze_of(*drawn(0.0, yaw=35.0), SKIN) is None


def test_narrow_eyes_and_eyes_without_contrast_do_not_tell():
    assert gaze_of(*drawn(5.0, lids=0.3), SKIN) is None
    assert gaze_of(*drawn(5.0, iris=0.88), SKIN) is None


def test_what_the_backend_says_goes_before_pixels_but_not_before_lids():
    luma_HW, face = drawn(5.0)
    assert gaze_of(luma_HW, replace(face, gaze=-12.0), SKIN) == -12.0
    turned = replace(face, gaze=-12.0, pose=replace(face.pose, yaw=35.0))
    assert gaze_of(luma_HW, turned, SKIN) is None, "no backend sees both irises of a turned head"
    luma_HW, shut = drawn(5.0, lids=0.3)
    assert gaze_of(luma_HW, replace(shut, gaze=-12.0), SKIN) is None


def test_rendered_eyes():
    """The renderer's eyes move by 2.8 mm at most, which is some 15 degrees."""
    seeds, asides = (500, 503, 505), (-1.0, 0.0, 1.0)
    scenes = [replace(sample_scene(seed), expression=Expression(gaze_x=aside)) for seed in seeds for aside in asides]
    heads = render([sample_traits(seed) for seed in seeds for _ in asides], scenes, 224, 224)
    frames = (heads.image_BHW3 * 255).round().byte()
    gaze = [
        measure_face(frame_HWC, face_from_landmarks(points_P2.numpy(), 1.0)).features.gaze
        for frame_HWC, points_P2 in zip(frames, heads.landmarks_B682, strict=True)
    ]
    for left, ahead, right in torch.tensor(gaze).view(-1, 3).tolist():
        assert abs(ahead) < 8 and left < ahead - 8 and right > ahead + 8


def seen(gaze: float | None, *, smile: float = 0.0, sharpness: float = 0.05, yaw: float = 0.0):
    face = Face(
        box_xyxy=(0, 0, 200, 200),
        score=1.0,
        pose=Pose(yaw=yaw, pitch=0.0, roll=0.0),
        expression=SeenExpression(eyes_open=0.7, mouth_open=0.0, smile=smile),
    )
    width = 0.52 * (1 + 0.2 * smile)
    features = Features(eyes=0.9, mouth=0.02, mouth_width=width, gaze=gaze)
    return face, FaceMeasures(
        size_px=200, sharpness=sharpness, brightness=0.5, clipped=0.0, inside=1.0, features=features
    )


def totals(*pairs) -> list[float]:
    return [score.total for score in score_portraits(*zip(*pairs, strict=True), likeness={})]


def test_a_slight_smile_into_the_camera_beats_a_neutral_mouth_with_eyes_aside():
    smiling, *aside = totals(seen(2.0, smile=0.4), *[seen(degrees) for degrees in (-35.0, 30.0, 45.0, -30.0)])
    assert smiling > 1.1 * max(aside)


def test_some_degrees_are_the_camera_and_both_sides_are_alike():
    ahead, near, left, right, far = totals(*map(seen, (0.0, 4.0, -25.0, 25.0, 45.0)))
    assert near > 0.99 * ahead and left == pytest.approx(right) and ahead > 1.15 * left > 1.15 * far


def test_who_never_looks_at_the_camera_still_gets_the_best_frame():
    best, blurred, farther = totals(seen(40.0), seen(40.0, sharpness=0.02), seen(55.0))
    assert best > blurred and best > farther


def test_an_unknown_gaze_neither_wins_nor_loses():
    ahead, _, unknown, _, aside = totals(seen(0.0), seen(0.0), seen(None), seen(20.0), seen(40.0))
    assert ahead >= unknown > aside
    (alone,) = score_portraits(*zip(seen(None), strict=True), likeness={})
    assert alone.looking == 1


def test_eyes_that_go_with_a_turned_head_do_not_spoil_diverse_portraits():
    pairs = [seen(0.0), seen(30.0, yaw=30.0), seen(-30.0, yaw=-30.0), seen(0.0, yaw=2.0)]
    faces, measures = zip(*pairs, strict=True)
    assert set(pick_diverse(score_portraits(faces, measures, likeness={}), faces, 3)) == {0, 1, 2}
