"""Pictures of the world's people: repeatable, and each part of a person visible where it should be and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slotid_core.reference.faces.face import Pose
from training.world.identity import SIDE, head_traits, sample_identity
from training.world.performance import perform, pose_for_portrait
from training.world.pictures import WorldClip, draw_clips, people
from training.world.population import person_seed, world_clip, world_portrait
from training.world.render import draw_frames, render
from training.world.scenario import sample_scenarios
from training.world.scene import Expression, Scene

SIZE = 48


def person(index):
    seed = person_seed("held_out", index)
    return sample_identity(seed), sample_scenarios(seed)


def test_a_clip_is_the_same_for_the_same_arguments_and_no_others():
    (identity, (scenario, other)), frames = person(0), 5
    clip = world_clip(identity, scenario, frames, SIZE, 3)
    assert clip.dtype == np.uint8 and clip.shape == (frames, SIZE, SIZE, 3)
    assert np.array_equal(clip, world_clip(identity, scenario, frames, SIZE, 3))
    for changed in (
        world_clip(identity, scenario, frames, SIZE, 4),
        world_clip(identity, other, frames, SIZE, 3),
        world_clip(person(1)[0], scenario, frames, SIZE, 3),
    ):
        assert np.abs(clip.astype(int) - changed).mean() > 2


def test_clips_are_the_renderers_pictures_but_for_fine_detail():
    identity, (scenario, _) = person(2)
    scenes = perform(identity, scenario, frames=3, seed=1)
    quick = draw_frames(head_traits(identity), scenes, 64, 64)
    fine = render(head_traits(identity), scenes, 64, 64).image_BHW3
    assert (quick - fine).abs().mean() < 0.01
    one_by_one = draw_frames(head_traits(identity), scenes, 64, 64, together=1)
    assert (quick - one_by_one).abs().mean() < 1e-4


def test_clips_drawn_in_one_go_are_those_drawn_by_themselves():
    """As a GPU draws them; here on the CPU, with as many frames together."""
    heads, scenes = [], []
    for index, (clip, frames) in enumerate(((0, 3), (1, 2))):
        identity, scenarios = person(index)
        scenes += perform(identity, scenarios[clip], frames, seed=7)
        heads += [head_traits(identity)] * frames
    together = draw_frames(heads, scenes, SIZE, SIZE, together=5)
    for part in (slice(0, 3), slice(3, 5)):
        alone = draw_frames(heads[part.start], scenes[part], SIZE, SIZE)
        assert (together[part] - alone).abs().mean() < 1e-4
    assert (together[:2] - together[3:]).abs().mean() > 0.02
    both = draw_clips([WorldClip(split="held_out", index=i, clip=0) for i in (0, 1)])
    for index, drawn in enumerate(both):
        alone = WorldClip(split="held_out", index=index, clip=0).draw()
        for name in ("clip", "portrait"):
            assert (drawn[name].int() - alone[name].int()).abs().max() <= 1, name


def test_a_portrait_is_on_white_in_the_clips_shirt_and_knows_no_dynamics():
    identity, (scenario, other) = person(3)
    portrait = world_portrait(identity, scenario, SIZE)
    assert portrait.shape == (SIZE, SIZE, 3) and (portrait[0, 0] == 255).all()
    mover = replace(identity, dynamics_D=person(4)[0].dynamics_D)
    assert np.array_equal(portrait, world_portrait(mover, scenario, SIZE))
    assert not np.array_equal(world_clip(mover, scenario, 5, SIZE, 0), world_clip(identity, scenario, 5, SIZE, 0))
    shirts = portrait[-2].astype(int) - world_portrait(identity, other, SIZE)[-2]
    assert np.abs(shirts).max() > 40


def _change(one, other, yaw):
    """Mean change of a neutral picture, screen numbers from 0 to 1."""
    still = replace(pose_for_portrait(person(0)[1][0]), pose=Pose(yaw=yaw, pitch=0.0, roll=0.0))
    return (
        draw_frames(head_traits(one), [still], SIZE, SIZE) - draw_frames(head_traits(other), [still], SIZE, SIZE)
    ).abs()


def test_the_side_of_a_person_is_hidden_in_front_and_plain_from_the_side():
    pairs = [(person(i)[0], replace(person(i)[0], side_S=person(i + 10)[0].side_S)) for i in range(4)]
    front, side = (np.mean([_change(*pair, yaw).mean().item() for pair in pairs]) for yaw in (0.0, 60.0))
    assert front < 0.0015 and side > 0.008
    others = np.mean([_change(person(i)[0], person(i + 10)[0], 0.0).mean().item() for i in range(4)])
    assert front < 0.03 * others


@pytest.mark.parametrize("name", SIDE)
def test_each_trait_of_the_side_shows_from_the_side(name):
    identity, _ = person(5)
    low, high = (identity.with_trait(name, value) for value in (0.0, 1.0))
    front, side = _change(low, high, 0.0), max((_change(low, high, yaw) for yaw in (-60.0, 60.0)), key=torch.sum)
    assert side.max() > 0.1
    assert side.mean() > 4 * front.mean()


def test_a_lopsided_smile_lifts_the_corner_that_it_says():
    def corners(skew):
        scene = Scene(expression=Expression(smile=0.5, smile_skew=skew))
        return render(head_traits(person(0)[0]), scene, SIZE, SIZE, supersample=1).landmarks_B682[0][[48, 54]]

    even, right = corners(0.0), corners(0.5)
    assert abs(even[0, 1] - even[1, 1]) < 0.1
    assert right[1, 1] < even[1, 1] - 0.5 and right[0, 1] > even[0, 1] + 0.5
    assert torch.allclose(corners(-0.5)[:, 1], right[:, 1].flip(0), atol=0.1)


def test_people_may_be_drawn_in_fewer_clips():
    assert [clip.name for clip in people("metric", 2, clips=1)] == ["metric0-00000-0", "metric0-00001-0"]
    assert [clip.name for clip in people("metric", 1)] == ["metric0-00000-0", "metric0-00000-1"]
