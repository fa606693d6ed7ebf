"""What is behind the person, drawn from a few numbers.

Letters: B pictures, H W height and width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .colour import noise
from .columns import smoothstep
from .scene import Background


def draw_background(background: Background, height: int, width: int, device: torch.device) -> Tensor:
    """``[H, W, 3]`` screen numbers from 0 to 1."""
    y = ((torch.arange(height, device=device) + 0.5) / height)[:, None].expand(height, width)
    x = ((torch.arange(width, device=device) + 0.5) / height)[None, :].expand(height, width)
    first, second = (torch.tensor(colour, device=device) for colour in (background.colour, background.second))
    share = _KINDS[background.kind](x, y, background.seed)
    return first + (second - first) * share.clamp(0, 1)[..., None]


def _plain(x: Tensor, y: Tensor, seed: int) -> Tensor:
    return torch.zeros_like(x)


def _gradient(x: Tensor, y: Tensor, seed: int) -> Tensor:
    return smoothstep(0.0, 1.0, y + 0.15 * (x - 0.5))


def _stripes(x: Tensor, y: Tensor, seed: int) -> Tensor:
    u = _uniform(seed, 3)
    angle, width = math.pi * u[0], 0.05 + 0.07 * u[1]
    along = (x * math.cos(angle) + y * math.sin(angle)) / width + u[2]
    return smoothstep(-0.35, 0.35, torch.sin(2 * math.pi * along))


def _checks(x: Tensor, y: Tensor, seed: int) -> Tensor:
    u = _uniform(seed, 3)
    size = 0.10 + 0.12 * u[0]
    return smoothstep(-0.08, 0.08, torch.sin(math.pi * (x / size + u[1])) * torch.sin(math.pi * (y / size + u[2])))


def _blobs(x: Tensor, y: Tensor, seed: int) -> Tensor:
    field = noise(x * 3.1, y * 3.1, seed) * 0.65 + noise(x * 6.3, y * 6.3, seed + 1) * 0.35
    return smoothstep(0.36, 0.64, field)


def _bokeh(x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Discs of light out of focus."""
    share = 0.25 * (1 - y)
    for cx, cy, size, bright in _uniform(seed, 4 * 26).reshape(26, 4).tolist():
        radius = 0.025 + 0.055 * size
        away = ((x - 2.2 * cx + 0.3) ** 2 + (y - cy) ** 2).sqrt()
        share = share + (0.25 + 0.5 * bright) * smoothstep(radius + 0.012, radius - 0.012, away)
    return share


def _foliage(x: Tensor, y: Tensor, seed: int) -> Tensor:
    field = sum(noise(x * s, y * s, seed + s) / w for s, w in ((4, 2), (9, 3), (19, 6)))
    return smoothstep(0.25, 0.75, field)


def _bricks(x: Tensor, y: Tensor, seed: int) -> Tensor:
    u = _uniform(seed, 2)
    tall = 0.06 + 0.02 * u[0]
    row = (y / tall).floor()
    along = x / (2.6 * tall) + 0.5 * (row % 2) + u[1]
    in_y, in_x = y / tall - row, along - along.floor()
    joint = torch.minimum(torch.minimum(in_y, 1 - in_y), 2.6 * torch.minimum(in_x, 1 - in_x))
    tint = noise(along.floor() * 7.3 + 0.5, row * 5.1 + 0.5, seed)
    return 1 - smoothstep(0.05, 0.11, joint) * (0.65 + 0.35 * tint)


def _uniform(seed: int, count: int) -> np.ndarray:
    return np.random.RandomState(seed).uniform(size=count)


_KINDS = {
    "plain": _plain,
    "gradient": _gradient,
    "stripes": _stripes,
    "checks": _checks,
    "blobs": _blobs,
    "bokeh": _bokeh,
    "foliage": _foliage,
    "bricks": _bricks,
}
