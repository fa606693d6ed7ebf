"""States of a performance: what the probe is told of every frame, drawn or not."""

import numpy as np
import torch

from training.world.identity import DYNAMICS
from training.world.models.states import STATE, mirrored_states, states_of, states_of_clip, undrawn
from training.world.performance import perform
from training.world.pictures import FRAMES, WorldClip


def test_a_clips_states_are_what_is_drawn():
    """Where the frames say that the head turns is where it was turned to when they were drawn."""
    for index in range(6):
        clip = WorldClip(split="metric", index=index, clip=0)
        yaw_F = states_of_clip(clip)[:, STATE.index("yaw")]
        assert yaw_F.shape == (FRAMES,)
        assert bool(yaw_F[-1] > yaw_F[0]) == ("rightwards" in clip.scenario.action)


def test_a_mirror_turns_what_has_a_side():
    states_FS = states_of_clip(WorldClip(split="metric", index=0, clip=0))
    seen_FS = mirrored_states(states_FS)
    turned = {name for i, name in enumerate(STATE) if not torch.equal(states_FS[:, i], seen_FS[:, i])}
    assert turned == {"yaw", "roll", "smile_left", "smile_right"}
    left, right = STATE.index("smile_left"), STATE.index("smile_right")
    assert torch.equal(seen_FS[:, left], states_FS[:, right])
    assert torch.equal(mirrored_states(seen_FS), states_FS)


def test_a_half_of_a_smile_is_told_where_it_is_seen():
    clip = WorldClip(split="metric", index=0, clip=0)
    lopsided = clip.identity.with_trait("smile_lead", 1.0)
    seed = 2 * clip.seed + clip.clip
    states_FS = states_of(lopsided, clip.scenario, seed)
    faces = [scene.expression for scene in perform(lopsided, clip.scenario, FRAMES, seed=seed)]
    both_F2 = torch.tensor([(face.smile - face.smile_skew, face.smile + face.smile_skew) for face in faces])
    told_F2 = states_FS[:, [STATE.index("smile_left"), STATE.index("smile_right")]]
    yaw_F = 40 * states_FS[:, STATE.index("yaw")]
    front_F, away_F = yaw_F.abs() < 15, yaw_F.abs() > 50
    assert int(front_F.sum()) > 1 and int(away_F.sum()) > 4
    assert torch.allclose(told_F2[front_F], both_F2[front_F])
    # Who turns rightwards shows the left of their face, and nothing tells what the right does.
    shown_F = torch.where(yaw_F > 0, both_F2[:, 0], both_F2[:, 1])
    assert torch.allclose(told_F2[away_F], shown_F[away_F, None].expand(-1, 2))
    assert float((both_F2[:, 0] - both_F2[:, 1])[away_F].abs().max()) > 0.1


def test_performances_that_nobody_drew():
    states_BFS, dynamics_BI = undrawn(64, np.random.RandomState(3))
    assert states_BFS.shape == (64, FRAMES, len(STATE)) and dynamics_BI.shape == (64, len(DYNAMICS))
    assert torch.equal(states_BFS, undrawn(64, np.random.RandomState(3))[0])
    assert float(dynamics_BI.min()) >= 0 and float(dynamics_BI.max()) <= 1 and float(dynamics_BI.std(0).min()) > 0.2
