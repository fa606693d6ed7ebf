"""Where eyes and mouths are is where the renderer draws them, and there errors count."""

import pytest
import torch

from training.world.identity import head_traits
from training.world.models.focus import counts, mirrored, parts_of_clips, parts_of_portraits
from training.world.performance import perform, pose_for_portrait
from training.world.pictures import FRAMES, SIZE, WorldClip
from training.world.render import render

CLIPS = [WorldClip(split="metric", index=index, clip=0) for index in range(6)]
# iBUG's points of the eye on the left of a frontal picture, of the other, and of the mouth.
FEATURES = (range(36, 42), range(42, 48), range(48, 68))


@pytest.fixture(scope="module")
def parts():
    return parts_of_clips(CLIPS)


def test_parts_are_where_the_renderer_draws_them(parts):
    compared = 0
    for clip, parts_FK4 in zip(CLIPS, parts, strict=True):
        scenes = perform(clip.identity, clip.scenario, FRAMES, seed=clip.chance)
        facing = [f for f, scene in enumerate(scenes) if abs(scene.pose.yaw) < 40]
        drawn = render([head_traits(clip.identity)] * len(facing), [scenes[f] for f in facing], SIZE, SIZE)
        for part, points in enumerate(FEATURES, start=1):
            centre_F2 = drawn.landmarks_B682[:, list(points)].mean(1)
            away_F = (parts_FK4[facing, part, :2] - centre_F2).norm(dim=-1)
            assert bool((away_F < parts_FK4[facing, part, 2]).all()), (clip.name, part, away_F)
            assert float(away_F.mean()) < 3.5, (clip.name, part)
            compared += len(facing)
    assert compared > 100
    drawn = render(head_traits(CLIPS[0].identity), pose_for_portrait(CLIPS[0].scenario), SIZE, SIZE)
    for part, points in enumerate(FEATURES, start=1):
        middle = drawn.landmarks_B682[0, list(points)].mean(0)
        assert float((parts_of_portraits(CLIPS[:1])[0, 0, part, :2] - middle).norm()) < 3


def test_what_turns_away_counts_no_longer(parts):
    yaw_NF = torch.tensor([[s.pose.yaw for s in perform(c.identity, c.scenario, FRAMES, seed=c.chance)] for c in CLIPS])
    left_NF, right_NF = parts[:, :, 1, 3], parts[:, :, 2, 3]
    assert bool((left_NF[yaw_NF.abs() < 10] > 7).all()) and bool((right_NF[yaw_NF.abs() < 10] > 7).all())
    ends = yaw_NF.abs() > 66
    hidden = torch.where(yaw_NF > 0, right_NF, left_NF)[ends]
    shown = torch.where(yaw_NF > 0, left_NF, right_NF)[ends]
    assert bool((hidden < 2).all()) and bool((shown > 6).all())


def test_eyes_and_mouth_count_most_and_a_clip_as_much_as_before(parts):
    counts_NFHW = counts(parts)
    assert counts_NFHW.shape == (len(CLIPS), FRAMES, SIZE, SIZE)
    assert torch.allclose(counts_NFHW.mean((1, 2, 3)), torch.ones(len(CLIPS)))
    middle = FRAMES // 2
    for clip in range(len(CLIPS)):
        for part in (1, 2, 3):
            column, row = parts[clip, middle, part, :2].long().clamp(0, SIZE - 1)
            assert float(counts_NFHW[clip, middle, row, column]) > 4 * float(counts_NFHW[clip, middle].min())


def test_in_a_mirror_the_same_counts_on_the_other_side(parts):
    assert torch.allclose(counts(mirrored(parts)), counts(parts).flip(-1), atol=1e-5)
