"""States of a performance: what the probe is told of every frame, drawn or not."""

import numpy as np
import torch

from training.world.identity import DYNAMICS
from training.world.models.states import STATE, mirrored_states, states_of_clip, undrawn
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
    assert turned == {"yaw", "roll", "smile_skew"}
    assert torch.equal(mirrored_states(seen_FS), states_FS)


def test_performances_that_nobody_drew():
    states_BFS, dynamics_BI = undrawn(64, np.random.RandomState(3))
    assert states_BFS.shape == (64, FRAMES, len(STATE)) and dynamics_BI.shape == (64, len(DYNAMICS))
    assert torch.equal(states_BFS, undrawn(64, np.random.RandomState(3))[0])
    assert float(dynamics_BI.min()) >= 0 and float(dynamics_BI.max()) <= 1 and float(dynamics_BI.std(0).min()) > 0.2
