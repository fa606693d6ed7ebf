"""How the head is held and what the face does, frame by frame: what a probe can learn of every frame, drawn or not.

Letters: B performances, F frames, S state, I dynamics.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.world.identity import Identity, sample_identity
from training.world.performance import perform
from training.world.pictures import FRAMES, WorldClip
from training.world.population import SPLITS, person_seed
from training.world.scenario import Scenario, sample_scenarios

STATE = ("yaw", "pitch", "roll", "smile_left", "smile_right", "mouth_open", "eyes_open")
"""What a frame shows; turns are in units of a few degrees of their usual size. Left and right are the picture's where
somebody looks into it. The half of a smile that is turned away is taken for the other."""
_SEEN, _HIDDEN = 15.0, 50.0
"""Degrees of a turn up to which both cheeks are seen, and from which on one is."""


def states_of(identity: Identity, scenario: Scenario, seed: int) -> Tensor:
    """``[F, S]`` of a performance, as :data:`STATE`."""
    rows = []
    for scene in perform(identity, scenario, FRAMES, seed=seed):
        pose, face = scene.pose, scene.expression
        turns = (pose.yaw / 40, pose.pitch / 12, pose.roll / 8)
        left, right = face.smile - face.smile_skew, face.smile + face.smile_skew
        lost = min(max((abs(pose.yaw) - _SEEN) / (_HIDDEN - _SEEN), 0.0), 1.0) * (right - left)
        left, right = (left, right - lost) if pose.yaw > 0 else (left + lost, right)
        rows.append((*turns, left, right, face.mouth_open, face.eyes_open))
    return torch.tensor(rows)


def states_of_clip(clip: WorldClip) -> Tensor:
    """``[F, S]`` of a drawn clip."""
    return states_of(clip.identity, clip.scenario, clip.chance)


def undrawn(count: int, random: np.random.RandomState, first: int = 0) -> tuple[Tensor, Tensor]:
    """States and dynamics of so many performances of ``metric`` people from ``first`` on: ``[B, F, S]``, ``[B, I]``."""
    states, dynamics = [], []
    for index in random.randint(first, SPLITS["metric"], size=count):
        seed = person_seed("metric", int(index))
        identity, (scenario,) = sample_identity(seed), sample_scenarios(int(random.randint(2**31)), 1)
        states.append(states_of(identity, scenario, int(random.randint(2**31))))
        dynamics.append(identity.dynamics_D)
    return torch.stack(states), torch.tensor(dynamics)


def mirrored_states(state_FS: Tensor) -> Tensor:
    """The states seen in a mirror."""
    return state_FS[..., [0, 1, 2, 4, 3, 5, 6]] * torch.tensor([-1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0])
