"""Hair: one surface over the skull that ends at the hairline in front and at the tips of the hair elsewhere.

Letters: B heads, R rows from the crown to the tips, C columns around the head. Centimetres, axes as in plan.py.
"""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace

import torch
from torch import Tensor

from .columns import bump, smoothstep
from .loft import loft, normalised, symmetric_angles
from .skin import roundness_at, skull_guides

_ROWS = 56


@cache
def hair_shares(step: int = 1) -> Tensor:
    """Share of the way from the crown to the tips of each row, ``[R]``; ``step`` 2 makes half as many rows."""
    rows = _ROWS // step
    return torch.arange(rows) / (rows - 1)


@cache
def hair_angles(step: int = 1) -> Tensor:
    """Angle of each column, ``[C]``; ``step`` as for the rows."""
    return symmetric_angles(front=44, back=30, focus=1.0)[::step]


def hair_points(front: SimpleNamespace, side: SimpleNamespace, plan: SimpleNamespace, step: int = 1) -> Tensor:
    """Vertices ``[B, R, C, 3]`` before the pose."""
    angle = hair_angles(step).to(front.face_width.device)
    hem_BC, opening_BC = _hem(front, side, angle)
    share_R = hair_shares(step).to(angle.device)[None, :, None]
    level_BRC = hem_BC[:, None] * share_R**0.9
    guides = _hanging(front, skull_guides(front, side, plan))
    skull_BRC3 = loft(guides, level_BRC, angle, roundness_at(level_BRC))
    outwards = skull_BRC3 - torch.tensor([0.0, 2.5, -1.0], device=angle.device)
    up = outwards[..., 1].clamp(min=0)
    outwards = normalised(torch.stack([outwards[..., 0], up, outwards[..., 2]], -1))
    thick = _thickness(front, side, angle, level_BRC, hem_BC[:, None], opening_BC[:, None])
    thick = thick + _waves(front, skull_BRC3, angle, level_BRC, thick)
    return skull_BRC3 + outwards * thick[..., None]


def scalp_cover(front: SimpleNamespace, side: SimpleNamespace, level_R: Tensor, angle_C: Tensor) -> Tensor:
    """How far hair covers the skin at a level and an angle, ``[B, R, C]`` from 0 to 1: soft at the hairline."""
    line, short, _ = _lines(front, side, angle_C)
    beside = smoothstep(76.0, 80.0, angle_C.abs() * (180 / math.pi))
    hem = line + (short - line) * beside
    return smoothstep(-0.28, 0.12, hem[:, None] - level_R[None, :, None])


def _lines(front, side, angle):
    """Levels where hair ends: in front, beside and behind if it is short, and beside and behind as it is."""
    a = angle.abs()[None]
    degrees = a * (180 / math.pi)
    length = front.hair_length
    # In front: over the forehead to the temple, down the sideburn; a fringe comes down to the brows.
    line = 3.05 - 0.45 * front.hairline + 0.85 * smoothstep(22.0, 52.0, degrees) - 0.22 * bump(degrees - 30, 12.0)
    line = line + 2.9 * smoothstep(54.0, 68.0, degrees)
    line = line + 0.035 * (torch.sin(angle * 19) + torch.sin(angle * 33 + 1))[None] * smoothstep(66.0, 50.0, degrees)
    fringe = 4.55 + 0.12 * torch.sin(angle * 21)[None] + 0.05 * torch.sin(angle * 47 + 1)[None]
    line = line + (fringe - line).clamp(min=0) * front.fringe * smoothstep(58.0, 40.0, degrees)
    # Beside and behind: around the ear, then down to the nape.
    short = 6.9 - 1.75 * smoothstep(77.0, 85.0, degrees) + 4.9 * smoothstep(101.0, 120.0, degrees)
    short = short + (0.9 - 0.6 * side.nape) * smoothstep(110.0, 160.0, degrees)
    long = 6.0 + 11.0 * length - 0.9 * bump(degrees - 70, 14.0)
    tips = 0.30 * torch.sin(angle * 17)[None] + 0.2 * torch.sin(angle * 31 + 2)[None]
    grown = smoothstep(0.30, 0.50, length) * _free(front, degrees)
    behind = short + (long + tips * (0.4 + 0.6 * front.hair_curl) - short).clamp(min=0) * grown
    return line, short, behind


def _hem(front, side, angle):
    """Level of the tips in each column, and how far the column belongs to the opening for the face (0 or 1)."""
    line, _, behind = _lines(front, side, angle)
    degrees = angle.abs()[None] * (180 / math.pi)
    edge = 78.0 - 8.0 * smoothstep(0.30, 0.50, front.hair_length) * (1 - front.tuck)
    opening = smoothstep(edge + 2.0, edge - 2.0, degrees)
    return line * opening + behind * (1 - opening), opening


def _free(front, degrees):
    """Whether long hair hangs down here: not over the ears where it is tucked behind them."""
    return 1 - front.tuck * smoothstep(118.0, 106.0, degrees)


def _hanging(front, guides):
    """Below the widest part of the skull hair hangs instead of following face and neck."""
    level = torch.arange(guides.shape[1], device=guides.device, dtype=torch.float32)[None]
    front_y, front_z, side_x, side_y, side_z, back_y, back_z = guides.unbind(-1)
    hang = smoothstep(0.30, 0.55, front.hair_length)
    below = smoothstep(4.2, 8.6, level) * hang
    side_x = side_x + (8.3 - 1.2 * smoothstep(12.0, 16.0, level) - side_x) * below
    side_z = side_z + (-1.2 - side_z) * below
    back_z = back_z + (-9.0 + 0.6 * smoothstep(9.0, 13.0, level) - back_z) * below * 0.9
    front_z = front_z + (8.6 - front_z) * below * smoothstep(9.0, 11.0, level)
    return torch.stack([front_y, front_z, side_x, side_y, side_z, back_y, back_z], -1)


def _thickness(front, side, angle, level, hem, opening):
    """How far the hair stands out from the skull."""
    degrees = angle.abs() * (180 / math.pi)
    volume = 0.35 + 1.55 * front.hair_volume * (0.35 + 0.65 * smoothstep(0.0, 0.3, front.hair_length))
    volume = (volume * (1 + 0.6 * front.hair_curl))[..., None]
    grows = (0.3 + 0.7 * smoothstep(0.0, 0.3, front.hair_length))[..., None]
    behind = smoothstep(85.0, 140.0, degrees) * smoothstep(2.0, 4.5, level)
    full = volume + (0.25 + 1.4 * grows - volume) * behind
    # People differ where the head hides it from the front.
    far_back = smoothstep(118.0, 155.0, degrees) * smoothstep(2.0, 4.5, level)
    full = full + 1.6 * (side.hair_back[..., None] - 0.5) * grows * far_back
    knot = 1 - ((degrees - 180) / 27) ** 2 - ((level - 4.7) / 1.6) ** 2
    full = full + 6.0 * side.bun[..., None] * knot.clamp(min=0) ** 0.6
    to_edge = (hem - level) / hem
    short_edge = smoothstep(-0.04, 0.40, to_edge)
    grown = (smoothstep(0.30, 0.55, front.hair_length) * _free(front, degrees[None]))[:, None]
    edge = short_edge + (1.0 - 0.55 * smoothstep(0.10, 0.0, to_edge) - short_edge) * grown * (1 - opening)
    # Combed-back hair rises steeply behind the hairline; a fringe lies off the forehead.
    rise = smoothstep(-0.02, 0.42, to_edge)
    edge = edge + (rise - edge) * opening
    fringe = (front.fringe[..., None] * smoothstep(60.0, 40.0, degrees)) * smoothstep(2.6, 3.4, level)
    full = full * (1 - 0.45 * fringe) + 0.25 * fringe
    # Curtains beside the face curve in towards it.
    curtain = bump(degrees - 70, 9.0) * grown * (1 - opening)
    return full * edge * (1 - 0.6 * curtain) + 0.08


def _waves(front, skull, angle, level, thick):
    """Locks, curls and the parting."""
    x, y, z = skull.unbind(-1)
    curl = front.hair_curl[..., None]
    locks = torch.sin(angle * 23 + 0.35 * y) + 0.6 * torch.sin(angle * 41 - 0.5 * y + 1.3)
    curls = torch.sin(1.9 * x + 1.1 * y) * torch.sin(2.1 * y + 0.7 * z + 1) * torch.sin(1.7 * z - 1.3 * x + 2)
    parting = 3.2 * front.parting[..., None]
    groove = bump(x + parting, 0.6) * smoothstep(-2.0, 3.0, z) * smoothstep(7.0, 9.0, y)
    strength = smoothstep(0.15, 0.6, thick) * smoothstep(0.3, 2.0, level)
    return strength * ((0.05 + 0.05 * (1 - curl)) * locks + 0.55 * curl * curls) - groove * thick * 0.35 * (
        1 - curl
    ) * smoothstep(0.5, 2.0, z + 2)
