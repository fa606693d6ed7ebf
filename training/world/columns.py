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


def trait_columns(items: Sequence[object], relief: Sequence[float], device: torch.device) -> SimpleNamespace:
    """As ``columns``, with measures of shape multiplied by each head's relief."""
    table = columns(items, device)
    factor = torch.tensor(relief, dtype=torch.float32, device=device)[:, None]
    for entry in fields(items[0]):
        if entry.metadata["shape"]:
            setattr(table, entry.name, getattr(table, entry.name) * factor)
    return table


class AtPixels:
    """The entries of each pixel's picture: ``[P]``, and ``[P, C]`` where a field has several numbers.

    Fields are picked when they are first asked for: paint reads few of a head's many traits.
    """

    def __init__(self, table: SimpleNamespace, picture_P: Tensor):
        self.table, self.picture_P = table, picture_P

    def __getattr__(self, name: str) -> Tensor:
        value = getattr(self.table, name).index_select(0, self.picture_P)
        value = value[:, 0] if value.shape[1] == 1 else value
        setattr(self, name, value)
        return value


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
