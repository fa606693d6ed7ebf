"""How the head is held and what the face does, frame by frame: what a probe can learn of every frame, drawn or not.

Letters: B performances, F frames, S state, I dynamics.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.world.identity import Identity, sample_identity
from training.world.performance import perform
from training.world.pictures import FRAMES, WorldClip
from training.world.population import SPLITS, person_seed
from training.world.scenario import Scenario, sample_scenarios

STATE = ("yaw", "pitch", "roll", "smile", "smile_skew", "mouth_open", "eyes_open")
"""What a frame says; turns are in units of a few degrees of their usual size."""


def states_of(identity: Identity, scenario: Scenario, seed: int) -> Tensor:
    """``[F, S]`` of a performance, as :data:`STATE`."""
    rows = []
    for scene in perform(identity, scenario, FRAMES, seed=seed):
        pose, face = scene.pose, scene.expression
        turns = (pose.yaw / 40, pose.pitch / 12, pose.roll / 8)
        rows.append((*turns, face.smile, 2 * face.smile_skew, face.mouth_open, face.eyes_open))
    return torch.tensor(rows)


def states_of_clip(clip: WorldClip) -> Tensor:
    """``[F, S]`` of a drawn clip."""
    return states_of(clip.identity, clip.scenario, clip.chance)


def undrawn(count: int, random: np.random.RandomState, first: int = 0) -> tuple[Tensor, Tensor]:
    """States and dynamics of so many performances of ``metric`` people from ``first`` on: ``[B, F, S]``, ``[B, I]``.

    What a network reads from frames is not exact, so neither are these.
    """
    states, dynamics = [], []
    for index in random.randint(first, SPLITS["metric"], size=count):
        seed = person_seed("metric", int(index))
        identity, (scenario,) = sample_identity(seed), sample_scenarios(int(random.randint(2**31)), 1)
        states.append(states_of(identity, scenario, int(random.randint(2**31))))
        dynamics.append(identity.dynamics_D)
    exact_BFS = torch.stack(states)
    unsure_B11 = torch.from_numpy(0.25 * random.uniform(size=(count, 1, 1)))
    noise_BFS = torch.from_numpy(random.standard_normal(exact_BFS.shape)) * unsure_B11
    return (exact_BFS + noise_BFS).float(), torch.tensor(dynamics)


class _Undrawn(IterableDataset):
    def __init__(self, count: int, seed: int, first: int):
        self._count, self._seed, self._first = count, seed, first

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        random = np.random.RandomState([self._seed, worker.id if worker else 0])
        while True:
            yield undrawn(self._count, random, self._first)


def undrawn_batches(count: int, seed: int, *, workers: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """:func:`undrawn` without end, made by so many processes beside this one."""
    return iter(DataLoader(_Undrawn(count, seed, first), batch_size=None, num_workers=workers))


def mirrored_states(state_FS: Tensor) -> Tensor:
    """The states seen in a mirror."""
    return state_FS * torch.tensor([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0])
