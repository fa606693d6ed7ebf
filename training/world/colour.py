"""Colours of skin, hair and eyes, and the way between a screen's numbers and amounts of light.

Letters: P pixels. Paint is linear light; only pictures are in a screen's numbers.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from .loft import dot

# From fair to very dark.
_SKIN = (
    (0.945, 0.785, 0.700),
    (0.890, 0.695, 0.580),
    (0.780, 0.560, 0.425),
    (0.565, 0.375, 0.275),
    (0.360, 0.230, 0.175),
)
# From light blond to black.
_HAIR = (
    (0.890, 0.770, 0.550),
    (0.700, 0.520, 0.310),
    (0.450, 0.295, 0.175),
    (0.235, 0.155, 0.110),
    (0.085, 0.075, 0.075),
)
# Dark brown, hazel, green, blue, grey.
_IRIS = (
    (0.250, 0.140, 0.085),
    (0.480, 0.330, 0.150),
    (0.330, 0.470, 0.270),
    (0.240, 0.460, 0.680),
    (0.500, 0.570, 0.620),
)
# From blue over violet and red to orange.
_DYE = (
    (0.180, 0.450, 0.960),
    (0.470, 0.300, 0.930),
    (0.860, 0.220, 0.720),
    (0.930, 0.200, 0.240),
    (0.980, 0.620, 0.120),
)


def linear(colour: Tensor) -> Tensor:
    """Screen numbers (sRGB, 0 to 1) to amounts of light."""
    return torch.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055).clamp(min=0) ** 2.4)


def on_screen(light: Tensor) -> Tensor:
    """Amounts of light to screen numbers."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def exposed(light: Tensor) -> Tensor:
    """Amounts of light to 0 to 1, as film does: the brightest parts are pressed together, not cut."""
    white = 2.6
    return (light * (1 + light / white**2) / (1 + light) * 1.42).clamp(0, 1)


def mix(a: Tensor, b: Tensor, share_P: Tensor) -> Tensor:
    """From colours ``a`` (share 0) to ``b`` (share 1), ``[P, 3]``."""
    return a + (b - a) * share_P[:, None]


def skin_colour(front: SimpleNamespace) -> Tensor:
    """``[P, 3]``."""
    base = _palette(_SKIN, front.skin_depth)
    golden = torch.tensor([-0.01, 0.03, -0.11], device=base.device)
    return base * (1 + front.skin_warmth[:, None] * golden)


def hair_colour(front: SimpleNamespace) -> Tensor:
    """``[P, 3]``."""
    base = _palette(_HAIR, front.hair_depth)
    red = torch.tensor([0.32, -0.16, -0.42], device=base.device)
    ash = dot(base, torch.tensor([0.3, 0.55, 0.15], device=base.device))[:, None].expand_as(base)
    coloured = mix(base, ash, 0.5 * (-front.hair_warmth).clamp(min=0))
    coloured = coloured * (1 + front.hair_warmth.clamp(min=0)[:, None] * red)
    grey = linear(torch.tensor([0.70, 0.70, 0.71], device=base.device))
    return mix(coloured, grey.expand_as(coloured), front.hair_grey)


def dye_colour(side: SimpleNamespace) -> Tensor:
    """``[P, 3]``."""
    return _palette(_DYE, side.dye_hue) * (1 - 0.85 * side.dye_depth)[:, None]


def iris_colour(front: SimpleNamespace) -> Tensor:
    """``[P, 3]``."""
    return _palette(_IRIS, front.eye_hue)


def _palette(colours: tuple, place_P: Tensor) -> Tensor:
    table = linear(torch.tensor(colours, device=place_P.device))
    along = place_P * (len(colours) - 1)
    index = along.floor().clamp(0, len(colours) - 2)
    start = index.long()
    lower, upper = table.index_select(0, start), table.index_select(0, start + 1)
    return lower + (upper - lower) * (along - index)[:, None]


def noise(x: Tensor, y: Tensor, seed: Tensor | int = 0) -> Tensor:
    """Smooth random numbers from 0 to 1 over a grid of unit cells."""
    cell_x, cell_y = x.floor(), y.floor()
    tx, ty = x - cell_x, y - cell_y
    tx, ty = tx * tx * (3 - 2 * tx), ty * ty * (3 - 2 * ty)
    ix, iy = cell_x.long(), cell_y.long()
    upper = dice(ix, iy, seed) + (dice(ix + 1, iy, seed) - dice(ix, iy, seed)) * tx
    lower = dice(ix, iy + 1, seed) + (dice(ix + 1, iy + 1, seed) - dice(ix, iy + 1, seed)) * tx
    return upper + (lower - upper) * ty


def dice(ix: Tensor, iy: Tensor, seed: Tensor | int = 0) -> Tensor:
    """A number from 0 to 1 for each pair of integers; integer arithmetic only, so equal on every machine."""
    value = (ix * 374761393 + iy * 668265263 + seed * 362437) & 0x7FFFFFFF
    value = ((value ^ (value >> 13)) * 1274126177) & 0x7FFFFFFF
    value = ((value ^ (value >> 16)) * 60493) & 0x7FFFFFFF
    return ((value >> 7) & 0xFFFF).float() / 65535
