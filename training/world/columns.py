"""Numbers of many heads or scenes side by side, as the renderer's tensor code wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from types import SimpleNamespace

import torch
from torch import Tensor


def columns(items: Sequence[object], device: torch.device) -> SimpleNamespace:
    """The fields of equal dataclasses as tensors ``[B, 1]``, and ``[B, C]`` where a field is a tuple."""
    stacked = {}
    for entry in fields(items[0]):
        values = [getattr(item, entry.name) for item in items]
        table = torch.tensor(values, dtype=torch.float32, device=device)
        stacked[entry.name] = table if table.ndim == 2 else table[:, None]
    return SimpleNamespace(**stacked)


def at_pixels(table: SimpleNamespace, picture_P: Tensor) -> SimpleNamespace:
    """The entries of each pixel's picture: ``[P]``, and ``[P, C]`` where a field has several numbers."""
    picked = {}
    for name, values in vars(table).items():
        value = values.index_select(0, picture_P)
        picked[name] = value[:, 0] if value.shape[1] == 1 else value
    return SimpleNamespace(**picked)


def smoothstep(low, high, x: Tensor) -> Tensor:
    """0 up to ``low``, 1 from ``high`` on, smooth between; falling where ``low`` is the larger."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def bump(x: Tensor, radius) -> Tensor:
    """A bell of height 1 around 0; ``radius`` is where it has fallen to 1 / e."""
    return torch.exp(-((x / radius) ** 2))


def smooth_max(a: Tensor, b: Tensor, blend: float) -> Tensor:
    """The larger of two, with the kink rounded over ``blend``."""
    return torch.maximum(a, b) + (blend - (a - b).abs()).clamp(min=0) ** 2 / (4 * blend)


def smooth_min(a: Tensor, b: Tensor, blend: float) -> Tensor:
    """The smaller of two, with the kink rounded over ``blend``."""
    return -smooth_max(-a, -b, blend)
