"""The 68 points of a face, in iBUG's order, as places on the head.

Letters: B heads, R C rows and columns of the skin's grid, N points.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import Tensor

from .plan import brow_curve, eye_curves, mouth_curves, mouth_half_at
from .skin import JAW_LEVEL, skin_angles, skin_levels

# Level and angle in degrees of the jaw's points from the ear to the chin: down the side, then along the jaw's edge.
_JAW = (
    (6.2, 84),
    (7.2, 82),
    (8.2, 80),
    (9.2, 77),
    (10.2, 70),
    (10.8, 56),
    (JAW_LEVEL, 39),
    (JAW_LEVEL, 20),
    (JAW_LEVEL, 0),
)


def face_landmarks(skin_BRC3: Tensor, plan: SimpleNamespace) -> Tensor:
    """``[B, 68, 3]`` in head coordinates.

    Args:
        skin_BRC3: the skin's vertices before the pose.
    """
    right = [_on_grid(skin_BRC3, level, angle) for level, angle in _JAW]
    left = [_on_grid(skin_BRC3, level, -angle) for level, angle in _JAW[:-1]]
    jaw = torch.stack([*left, *reversed(right)], 1)
    flat_BN2 = torch.stack([point.expand(len(skin_BRC3), 2) for point in _face_points(plan)], 1)
    return torch.cat([jaw, _lift(skin_BRC3, flat_BN2)], 1)


def _on_grid(skin_BRC3: Tensor, level: float, degrees: float) -> Tensor:
    """The surface at a level and an angle."""
    row, row_share = _between(skin_levels(), level)
    column, column_share = _between(skin_angles(), math.radians(degrees))
    upper = skin_BRC3[:, row, column] * (1 - column_share) + skin_BRC3[:, row, column + 1] * column_share
    lower = skin_BRC3[:, row + 1, column] * (1 - column_share) + skin_BRC3[:, row + 1, column + 1] * column_share
    return upper * (1 - row_share) + lower * row_share


def _between(knots: Tensor, value: float) -> tuple[int, float]:
    index = int((knots <= value + 1e-6).sum()) - 1
    index = min(index, len(knots) - 2)
    return index, float((value - knots[index]) / (knots[index + 1] - knots[index]))


def _face_points(plan: SimpleNamespace) -> list[Tensor]:
    """x and y of points 17 to 67, each ``[B, 2]``."""

    def at(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], -1)

    def on_mouth(share: float, curve: int) -> Tensor:
        x = share * mouth_half_at(plan, torch.full_like(plan.eye_x, share))
        return at(x, mouth_curves(plan, x)[curve])

    zero = torch.zeros_like(plan.eye_x)
    points = []
    brow = [plan.brow_inner + (plan.brow_outer - plan.brow_inner) * s for s in (0.97, 0.75, 0.5, 0.26, 0.04)]
    for sign, xs in ((-1, brow), (1, brow[::-1])):
        for x in xs:
            middle, half, _ = brow_curve(plan, x)
            points.append(at(sign * x, middle + 0.3 * half))
    tip_y = plan.nose_y + 0.85
    points += [at(zero, tip_y + (0.35 - tip_y) * share) for share in (1.0, 0.667, 0.333, 0.0)]
    for share in (-0.82, -0.42, 0.0, 0.42, 0.82):
        points.append(at(plan.nose_half * share, plan.nose_y + 0.25 * abs(share) + 0.05))
    for sign in (-1, 1):
        corner = (-1.0, 1.0) if sign > 0 else (1.0, -1.0)
        places = [corner[0], corner[0] * 0.36, corner[1] * 0.36, corner[1], corner[1] * 0.36, corner[0] * 0.36]
        for index, s in enumerate(places):
            x = plan.eye_x + plan.eye_half * s
            upper, lower, _ = eye_curves(plan, x)
            y = (upper + lower) / 2 if index in (0, 3) else upper if index < 3 else lower
            points.append(at(sign * x, y))
    # Lips: outer edge from the corner over the top and back below, then the inner edge.
    outer = (-1.0, -0.62, -0.25, 0.0, 0.25, 0.62, 1.0)
    for share in outer:
        points.append(on_mouth(share, 0))
    for share in outer[-2:0:-1]:
        points.append(on_mouth(share, 3))
    inner = (-0.86, -0.35, 0.0, 0.35, 0.86)
    for share in inner:
        points.append(on_mouth(share, 1))
    for share in inner[-2:0:-1]:
        points.append(on_mouth(share, 2))
    return points


def _lift(skin_BRC3: Tensor, flat_BN2: Tensor) -> Tensor:
    """Points of the face's plane onto the skin: its z, averaged over the closest vertices."""
    columns = (skin_angles().abs() < math.radians(68)).to(skin_BRC3.device)
    rows = ((skin_levels() > 4.0) & (skin_levels() < JAW_LEVEL)).to(skin_BRC3.device)
    near = skin_BRC3[:, rows][:, :, columns].flatten(1, 2)
    away = (flat_BN2[:, :, None, 0] - near[:, None, :, 0]) ** 2 + (flat_BN2[:, :, None, 1] - near[:, None, :, 1]) ** 2
    closest, index = away.topk(4, dim=-1, largest=False, sorted=True)
    weight = torch.exp(-closest / 0.02)
    z = near[..., 2].gather(1, index.flatten(1)).view_as(weight)
    lifted = (weight * z).sum(-1) / weight.sum(-1)
    return torch.cat([flat_BN2, lifted[..., None]], -1)
