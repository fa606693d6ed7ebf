"""Clips of moving heads: the truth that comes with a clip is the clip's."""

from dataclasses import replace

import numpy as np
import pytest

from slotid_core.errors import SlotIDError
from training.world.clips import STILL, Motion, cut_together, head_clip, move, side_by_side
from training.world.scene import Camera, Expression, Scene
from training.world.traits import HeadTraits, sample_traits

SIZE = 48


def clip(motion, frames=5, traits=None, scene=None, seed=0, **options):
    scenes = move(scene or Scene(), motion, frames=frames, seed=seed)
    return head_clip(traits or HeadTraits(), scenes, height=SIZE, width=SIZE, **options)


def test_nothing_moves_when_nothing_is_to_move():
    still = clip(STILL, frames=3)
    assert still.frames_FHWC.dtype == np.uint8 and still.frames_FHWC.shape == (3, SIZE, SIZE, 3)
    assert (still.frames_FHWC == still.frames_FHWC[0]).all()
    assert still.people[0].shown_F.all()


def test_the_same_seed_moves_the_same_way():
    assert move(Scene(), Motion(), frames=40, seed=3) == move(Scene(), Motion(), frames=40, seed=3)
    assert move(Scene(), Motion(), frames=40, seed=3) != move(Scene(), Motion(), frames=40, seed=4)


@pytest.mark.parametrize("seed", range(5))
def test_motion_is_smooth_within_its_bounds_and_shows_everything_in_time(seed):
    fps = 16.0
    motion = Motion(yaw=30, pitch=10, roll=6, swing=2.5)
    scenes = move(Scene(), motion, frames=320, fps=fps, seed=seed)
    yaw, pitch, roll = (np.array([getattr(scene.pose, name) for scene in scenes]) for name in ("yaw", "pitch", "roll"))
    for angles, most in ((yaw, 30), (pitch, 10), (roll, 6)):
        assert np.abs(angles).max() <= most + 1e-6
        assert angles.max() > 0.5 * most and angles.min() < -0.5 * most
    assert np.abs(np.diff(yaw)).max() < 10
    eyes = np.array([scene.expression.eyes_open for scene in scenes])
    blinks = ((eyes[1:] < 0.2) & (eyes[:-1] >= 0.2)).sum()
    # 20 a minute in 20 seconds, at irregular times.
    assert 4 <= blinks <= 12 and np.median(eyes) == 0.75
    smile = np.array([scene.expression.smile for scene in scenes])
    mouth = np.array([scene.expression.mouth_open for scene in scenes])
    assert smile.min() == 0 and smile.max() > 0.7
    assert mouth.min() < 0.02 and 0.3 < mouth.max() <= 0.5


def test_the_camera_carries_the_face_as_far_as_it_is_told():
    moving = clip(replace(STILL, shift_x=0.3, shift_y=-0.1, zoom=1.0), frames=4).people[0]
    way = moving.landmarks_F682[-1] - moving.landmarks_F682[0]
    assert np.allclose(way, [0.3 * SIZE, -0.1 * SIZE], atol=1e-3)
    growing = clip(replace(STILL, zoom=1.4), frames=3).people[0].face_box_F4
    assert np.allclose((growing[-1, 2:] - growing[-1, :2]) / (growing[0, 2:] - growing[0, :2]), 1.4, atol=1e-3)


def test_two_people_stand_side_by_side_each_with_their_own_truth():
    scenes = move(Scene(camera=Camera(zoom=0.9)), replace(STILL, yaw=10), frames=3, seed=1)
    people = [(sample_traits(1), scenes), (sample_traits(102), scenes)]
    both = side_by_side(people, height=SIZE, width=2 * SIZE)
    assert both.frames_FHWC.shape == (3, SIZE, 2 * SIZE, 3)
    left, right = both.people
    assert (left.face_box_F4[:, 2] < SIZE).all() and (right.face_box_F4[:, 0] > SIZE).all()
    assert np.allclose(left.landmarks_F682.mean(1)[:, 0], SIZE / 2, atol=3)
    assert np.allclose(right.landmarks_F682.mean(1)[:, 0] - left.landmarks_F682.mean(1)[:, 0], SIZE, atol=3)
    assert (left.mask_FHW + right.mask_FHW).max() <= 1 + 1e-5
    assert (left.traits, right.traits) == (people[0][0], people[1][0])
    alone = side_by_side(people[:1], height=SIZE, width=SIZE).frames_FHWC
    # The first person is the same as alone, except where the other's shirt comes in.
    face = (slice(None), slice(4, 30), slice(10, 38))
    assert np.abs(both.frames_FHWC[face].astype(int) - alone[face]).mean() < 1


def test_whoever_stands_in_front_hides_whoever_stands_behind():
    apart = [Scene(camera=Camera(offset_x=offset)) for offset in (0.45, -0.55)]
    both = side_by_side([(sample_traits(1), [apart[0]]), (sample_traits(2), [apart[1]])], height=SIZE, width=2 * SIZE)
    behind, before = both.people
    assert before.mask_FHW.sum() > behind.mask_FHW.sum() * 2
    assert before.visible_F68.sum() > 50 and behind.visible_F68.sum() < 10


def test_clips_cut_together_say_who_is_shown_when():
    first = clip(STILL, frames=2, traits=sample_traits(1))
    second = clip(STILL, frames=3, traits=sample_traits(2), scene=Scene(expression=Expression(smile=1.0)))
    whole = cut_together([first, second])
    assert np.array_equal(whole.frames_FHWC, np.concatenate([first.frames_FHWC, second.frames_FHWC]))
    one, two = whole.people
    assert one.shown_F.tolist() == [True, True, False, False, False]
    assert two.shown_F.tolist() == [False, False, True, True, True]
    assert np.array_equal(two.landmarks_F682[2:], second.people[0].landmarks_F682)
    assert np.isnan(two.face_box_F4[:2]).all() and two.mask_FHW[:2].max() == 0 and not two.visible_F68[:2].any()
    assert two.expressions[2].smile == 1.0 and two.expressions[0] is None


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(SlotIDError, match="2 sizes"):
        cut_together([clip(STILL, frames=1), clip(STILL, frames=1, fps=25.0)])
    with pytest.raises(SlotIDError, match=r"\[1, 2\] scenes"):
        side_by_side([(HeadTraits(), [Scene()]), (HeadTraits(), [Scene()] * 2)], height=32, width=64)
    with pytest.raises(SlotIDError, match="swing"):
        Motion(swing=0.0)
