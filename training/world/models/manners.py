"""The probe's dynamics: how fast and how lopsidedly somebody moves, learned on frames that stay as they are.

A performance needs no drawing, so there are as many as one likes. But what a network reads of frames is not what was
performed: motions come out smaller, and errors last for several frames. How it errs is known from the clips that were
drawn, and performances that nobody drew are read as wrongly.

Letters: N clips, B rows, F frames, H W height and width, S state, I dynamics, C numbers of a curve, F times S.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.world.identity import DYNAMICS
from training.world.models.device import half
from training.world.models.states import undrawn
from training.world.models.truth import VIEWS, Truth

if TYPE_CHECKING:
    from training.world.models.probe import Probe

MANNERS_SHARE = 0.06
"""Of the time that the frames take: so long manners are learned, after them."""
_PERFORMING = 0.25
"""Of that time: so long performances are thought of, which nobody draws."""
_DRAWN, _UNDRAWN = 128, 256
"""Curves in an update."""
_SURENESS = (0.6, 1.6)
"""Errors are so many times as large as on the clips that the frames were learned from, which are read better than
others."""
_RIDGE = 0.5


@dataclass(frozen=True)
class Reading:
    """How states are read: a linear map of all that was performed in a clip, and errors."""

    weights_CC: Tensor
    """With a row more, of what is read whatever is performed."""
    errors_NC: Tensor

    @classmethod
    def of(cls, performed_NFS: Tensor, read_NFS: Tensor) -> Reading:
        """By ridge regression."""
        performed_NC, read_NC = _with_one(performed_NFS), read_NFS.flatten(1)
        ridge = _RIDGE * torch.eye(performed_NC.shape[1], device=read_NC.device)
        weights_CC = torch.linalg.solve(performed_NC.T @ performed_NC + ridge, performed_NC.T @ read_NC)
        return cls(weights_CC, read_NC - performed_NC @ weights_CC)

    def __call__(self, performed_BFS: Tensor) -> Tensor:
        """What might be read of a performance, ``[B, F, S]``: each with the errors of some clip."""
        count, device = len(performed_BFS), performed_BFS.device
        errors_BC = self.errors_NC[torch.randint(len(self.errors_NC), (count,), device=device)]
        low, high = _SURENESS
        errors_BC = errors_BC * (low + (high - low) * torch.rand(count, 1, device=device))
        return (_with_one(performed_BFS) @ self.weights_CC + errors_BC).view_as(performed_BFS)


def learn_manners(probe: Probe, clips_NFHW3: Tensor, truth: Truth, *, minutes: float, seed: int, first: int) -> None:
    """Learn dynamics from the states that the probe reads, and leave all else of it as it is.

    Args:
        clips_NFHW3: uint8 after the VAE.
        truth: of these clips.
        first: of the ``metric`` people who perform without being drawn.
    """
    started = time.monotonic()
    random, device = np.random.RandomState(seed), next(probe.parameters()).device
    torch.manual_seed(seed)
    read_NFS = torch.cat([_read(probe, view.clips(clips_NFHW3)) for view in VIEWS])
    reading = Reading.of(truth.states_4NFS.flatten(0, 1), read_NFS)
    theirs_NI = truth.traits_4NI.flatten(0, 1)[:, -len(DYNAMICS) :]
    reading_took = time.monotonic() - started
    parts = [_performances(random, first)]
    while time.monotonic() - started - reading_took < 60 * minutes * _PERFORMING:
        parts.append(_performances(random, first))
    performed_NFS, dynamics_NI = (torch.cat(tensors).to(device) for tensors in zip(*parts, strict=True))
    optimizer = torch.optim.AdamW(probe.dynamics.parameters(), lr=2e-3, weight_decay=0.05)
    begun = time.monotonic()
    while (share := (time.monotonic() - begun) / (60 * minutes * (1 - _PERFORMING))) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        drawn_B = torch.randint(len(read_NFS), (_DRAWN,), device=device)
        other_B = torch.randint(len(performed_NFS), (_UNDRAWN,), device=device)
        seen_BFS = torch.cat([read_NFS[drawn_B], reading(performed_NFS[other_B])])
        true_BI = torch.cat([theirs_NI[drawn_B], dynamics_NI[other_B]])
        (probe.dynamics(seen_BFS) - true_BI).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _performances(random: np.random.RandomState, first: int, count: int = 200) -> tuple[Tensor, Tensor]:
    """States and dynamics of performances, each looked at in one of the ways."""
    states_BFS, dynamics_BI = undrawn(count, random, first)
    rows = [
        (view.states(states_BFS[k :: len(VIEWS)]), view.traits(dynamics_BI[k :: len(VIEWS)], DYNAMICS))
        for k, view in enumerate(VIEWS)
    ]
    return tuple(torch.cat(tensors) for tensors in zip(*rows, strict=True))


@torch.no_grad()
def _read(probe: Probe, clips_NFHW3: Tensor) -> Tensor:
    """States, ``[N, F, S]``, on the probe's device."""
    parts, device = [], next(probe.parameters()).device
    for clips_BFHW3 in clips_NFHW3.split(20):
        with half(device):
            parts.append(probe.state(probe.see(clips_BFHW3.to(device).float() / 255)).float())
    return torch.cat(parts)


def _with_one(states_NFS: Tensor) -> Tensor:
    return functional.pad(states_NFS.flatten(1), (0, 1), value=1.0)
