"""The update: optimizer, learning rate, clipping, averaged weights.

Each is a function of the trained tensors, the gradients and the step, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from slotid_core.errors import SlotIDError
from training.settings import OptimSettings
from training.torch_version import require_torch


class MuonAndAdamW:
    """Muon for matrices, AdamW for every other shape; rates mean the same to both.

    Muon's steps are orthogonal: they go as far along what differs from person to person as along what all have in
    common, which otherwise is learned first.
    """

    def __init__(self, settings: OptimSettings, trainable: Mapping[str, nn.Parameter]):
        matrices = [p for p in trainable.values() if p.ndim == 2]
        require_torch("2.9", "optim.optimizer=muon")
        from training.muon import Muon  # not to be had of an older torch

        others = _groups([p for p in trainable.values() if p.ndim != 2], settings.weight_decay)
        self._parts = [
            Muon(matrices, lr=settings.lr, weight_decay=settings.weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=settings.lr, betas=settings.betas),
        ]
        # No parameter is in both, so one mapping holds what either keeps of it.
        self.state = self._parts[0].state
        self._parts[1].state = self.state

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self._parts for group in part.param_groups]

    def step(self) -> None:
        for part in self._parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none)


def make_optimizer(
    settings: OptimSettings, trainable: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer | MuonAndAdamW:
    """The optimizer on the trained tensors in their order; vectors (norms, biases, queries' scales) are not decayed.

    Raises:
        SlotIDError: ``adamw8bit`` without the package bitsandbytes.
    """
    if settings.optimizer == "muon":
        return MuonAndAdamW(settings, trainable)
    groups = _groups(list(trainable.values()), settings.weight_decay)
    options = {"lr": settings.lr, "betas": settings.betas}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, **options)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise SlotIDError(
            f"optim.optimizer is adamw8bit, which needs the package bitsandbytes ({error}). Install it (pip install "
            "bitsandbytes), or use adamw."
        ) from error
    return AdamW8bit(groups, **options)


SCALES = ("qmap1", "qmap2", "absmax1", "absmax2")
"""What bitsandbytes keeps besides of larger tensors: in shapes of its own, another with each version."""


def kept_shapes(optimizer: torch.optim.Optimizer | MuonAndAdamW, parameter: nn.Parameter) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what the optimizer keeps of a parameter that it has moved, without :data:`SCALES`."""
    shape = tuple(parameter.shape)
    if isinstance(optimizer, MuonAndAdamW) and parameter.ndim == 2:
        return {"momentum_buffer": shape}
    if isinstance(optimizer, (torch.optim.AdamW, MuonAndAdamW)):
        return {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
    return {"step": (), "state1": shape, "state2": shape}  # bitsandbytes


def _groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def learning_rate(settings: OptimSettings, step: int) -> float:
    """Of update ``step``, counted from 0: a linear rise over the warm-up, then the schedule down to the floor."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    left = 0.5 * (1 + math.cos(math.pi * done)) if settings.schedule == "cosine" else 1.0 - done
    return settings.lr * (settings.floor + (1 - settings.floor) * left)


def set_learning_rate(optimizer: torch.optim.Optimizer | MuonAndAdamW, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip(trainable: Mapping[str, nn.Parameter], limit: float) -> float:
    """Scale the gradients down to a joint norm of ``limit``; returns the norm that they had."""
    return float(nn.utils.clip_grad_norm_(list(trainable.values()), limit))


class AveragedWeights:
    """Exponential moving average of the trained tensors (EMA), with the rise of its decay that the first updates need.

    A decay of 0 makes it the weights themselves.
    """

    def __init__(self, decay: float, trainable: Mapping[str, nn.Parameter]):
        self.decay = decay
        self.tensors = {name: p.detach().clone() for name, p in trainable.items()} if decay else {}

    @torch.no_grad()
    def update(self, trainable: Mapping[str, nn.Parameter], step: int) -> None:
        """After update ``step``, counted from 0."""
        if self.tensors:
            follow = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
            follow(list(self.tensors.values()), [trainable[name].detach() for name in self.tensors], None)

    def swap(self, trainable: Mapping[str, nn.Parameter]) -> None:
        """Exchange averaged and trained values; doing it twice leaves everything as it was."""
        for name, average in self.tensors.items():
            mine, self.tensors[name] = average, trainable[name].data
            trainable[name].data = mine


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether there is neither infinity nor NaN."""
    return all(bool(t.isfinite().all()) for t in tensors.values())
