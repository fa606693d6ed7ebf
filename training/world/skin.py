"""The shape of head and neck: a loft with the face's features raised on it. Centimetres, axes as in plan.py.

Letters: B heads, R rows (top to bottom) and C columns (around) of the grid of vertices.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import torch
from torch import Tensor

from .columns import bump, smooth_max, smooth_min, smoothstep
from .loft import loft, symmetric_angles
from .plan import HINGE_YZ, corner_y_at, eye_curves, mouth_curves, mouth_half_at

# front y z | side x y z | back y z, at each level; the average head.
GUIDES = (
    (12.1, -1.0, 0.01, 12.1, -1.0, 12.1, -1.0),  # 0 crown
    (11.4, 2.4, 3.2, 11.4, -1.0, 11.2, -4.6),
    (10.0, 5.5, 5.5, 9.8, -1.0, 9.6, -7.6),
    (7.6, 7.9, 6.95, 7.2, -1.0, 7.1, -9.4),  # 3 hairline
    (4.9, 9.1, 7.5, 4.6, -0.8, 4.4, -10.2),
    (2.2, 9.40, 7.5, 2.0, -0.5, 1.8, -10.0),  # 5 brows
    (0.2, 9.15, 7.25, 0.2, -0.2, -0.4, -9.3),  # 6 eyes
    (-2.1, 9.10, 7.0, -1.6, 0.2, -2.2, -8.4),
    (-4.3, 9.15, 6.65, -3.3, 0.3, -3.4, -7.6),  # 8 nose
    (-6.4, 9.20, 6.2, -4.8, 0.1, -4.3, -7.0),  # 9 mouth
    (-8.8, 8.85, 5.55, -6.3, -0.2, -5.2, -6.5),  # 10 chin
    (-10.6, 7.60, 4.85, -7.7, -0.6, -6.2, -6.2),  # 11 edge of the jaw
    (-11.2, 5.00, 4.35, -9.2, -1.2, -8.0, -6.0),
    (-12.0, 3.00, 4.20, -11.0, -1.7, -10.0, -6.1),  # 13 throat
    (-14.0, 2.20, 4.50, -13.8, -2.2, -13.4, -6.8),
    (-18.5, 2.10, 6.2, -18.5, -2.8, -18.5, -8.4),  # 15 inside the collar
)
JAW_LEVEL = 11
_ROUNDNESS = (1.0, 1.0, 0.97, 0.93, 0.92, 0.93, 0.96, 1.0, 1.04, 1.10, 1.16, 1.18, 1.05, 1.0, 1.0, 1.0)
_ROWS_AT = ((0.0, 16), (4.0, 10), (5.0, 42), (8.2, 40), (10.0, 12), (11.0, 16), (13.0, 12), (15.0, 0))


@cache
def skin_levels(step: int = 1) -> Tensor:
    """Level of each row: dense between brows and chin. ``[R]``.

    Args:
        step: 2 takes every second row only.
    """
    parts = [
        start + (end - start) * torch.arange(count) / count
        for (start, count), (end, _) in zip(_ROWS_AT, _ROWS_AT[1:], strict=False)
    ]
    return torch.cat([*parts, torch.tensor([15.0])])[::step]


@cache
def skin_angles(step: int = 1) -> Tensor:
    """Angle of each column, ``[C]``; ``step`` as for the rows."""
    return symmetric_angles(front=58, back=16, focus=1.12)[::step]


def skull_guides(front: SimpleNamespace, side: SimpleNamespace, plan: SimpleNamespace) -> Tensor:
    """The guides of these heads, ``[B, K, 7]``."""
    guides = torch.tensor(GUIDES, device=front.face_width.device)
    front_y, front_z, side_x, side_y, side_z, back_y, back_z = (
        column.expand(front.face_width.shape[0], -1) for column in guides.unbind(-1)
    )
    level = torch.arange(len(GUIDES), device=guides.device)[None]
    below = (level >= 6) & (level <= 12)
    front_y = torch.where(below, front_y * plan.length, front_y)
    side_y = torch.where(below, side_y * (1 + 0.6 * (plan.length - 1)), side_y)
    broad = 1 + 0.055 * front.face_width * (1 - smoothstep(11.0, 14.0, level))
    jaw = 1 + (0.075 * front.jaw_width + 0.03 * front.cheeks) * bump(level - 10.0, 2.0)
    side_x = side_x * broad * jaw
    slope = bump(level - 2.8, 1.3)
    front_z = front_z - 0.75 * side.forehead_slope * slope + 0.35 * side.forehead_slope * bump(level - 5.0, 0.8)
    front_z = front_z + 0.85 * side.chin_projection * bump(level - 10.4, 1.1)
    back_z = back_z - (0.9 * side.skull_depth) * bump(level - 4.0, 3.2)
    return torch.stack([front_y, front_z, side_x, side_y, side_z, back_y, back_z], -1)


def roundness_at(level: Tensor) -> Tensor:
    """Roundness of the sections at each level (a table, linearly between)."""
    table = torch.tensor(_ROUNDNESS, device=level.device)
    start = level.floor().clamp(0, len(_ROUNDNESS) - 2)
    index = start.long()
    return table[index] + (table[index + 1] - table[index]) * (level - start)


def skin_points(front: SimpleNamespace, side: SimpleNamespace, plan: SimpleNamespace, step: int = 1) -> Tensor:
    """Vertices of head and neck with the expression on, ``[B, R, C, 3]``, before the pose."""
    device = front.face_width.device
    level = skin_levels(step).to(device)[None, :, None]
    base = loft(skull_guides(front, side, plan), level, skin_angles(step).to(device), roundness_at(level))
    shape = base.shape[:-1]
    x, y, z = base.flatten(1, 2).unbind(-1)
    face = smoothstep(0.5, 4.0, z)
    x, z = _flesh(front, side, plan, x, y, z, face)
    z = z + face * _eyes(plan, x, y, z)
    z = z + face * _nose(side, plan, x, y)
    neck = smoothstep(11.0, 14.2, level).expand(shape).flatten(1)
    x, y, z = _drop_jaw(plan, x, y, z, 1 - neck)
    z = z + face * _mouth(plan, x, y)
    return torch.stack([x, y, z], -1).view(*shape, 3)


def _flesh(front, side, plan, x, y, z, face):
    """Brow, cheeks, muzzle and chin."""
    a = x.abs()
    smile = plan.smile + plan.smile_skew * (x / 1.5).tanh()
    ridge = bump(y - (plan.brow_y - 0.45), 0.85) * bump(a - 2.6, 2.6)
    z = z + face * ridge * (0.22 + 0.28 * side.brow_ridge)
    cheek_y = -2.75 * plan.length + 0.55 * smile
    cheek = bump(a - 4.15, 1.9) * bump(y - cheek_y, 1.7)
    full = 0.30 + 0.28 * front.cheeks
    z = z + face * cheek * (full + 0.5 * smile)
    x = x + x.sign() * face * cheek * (0.5 * full + 0.12 * smile)
    hollow = bump(a - 5.1, 1.5) * bump(y + 5.9, 2.0)
    x = x + x.sign() * hollow * face * (0.30 * front.cheeks - 0.1)
    muzzle = bump(a, 2.7) * bump(y - plan.mouth_y, 2.1)
    z = z + face * muzzle * (0.65 - 0.2 * smile)
    # From the wing of the nose past the corner of the mouth.
    fold_x = 2.0 + 0.41 * (plan.nose_y + 0.4 - y) + 0.25 * smile
    fold = bump(a - fold_x, 0.42) * smoothstep(-7.8, -5.8, y) * smoothstep(plan.nose_y + 0.7, plan.nose_y - 0.6, y)
    z = z - face * fold * (0.10 + 0.30 * smile)
    chin = bump(a, 1.35 + 0.45 * front.chin_width) * bump(y - plan.chin_y - 0.1, 1.15)
    z = z + face * chin * (0.60 + 0.15 * side.chin_projection)
    z = z - face * bump(a, 1.6) * bump(y - (plan.chin_y + 1.45), 0.6) * 0.28
    bulk = plan.beard_bulk * smoothstep(1.0, -1.0, y - plan.mouth_y - 0.9 - 0.3 * (a - 2.0).clamp(min=0))
    bulk = bulk * smoothstep(-12.5, -10.5, y) * smoothstep(0.0, 2.5, z)
    z, x = z + 0.55 * bulk * face, x + 0.45 * bulk * x.sign() * smoothstep(0.5, 3.0, a)
    temple = bump(y - 3.4, 2.3) * bump(a - 6.6, 1.4)
    x = x - x.sign() * temple * face * 0.25
    return x, z


def _eyes(plan, x, y, z):
    """Sockets, the balls of the eyes under the lids, and the fold of the upper lid."""
    dx, dy = (x.abs() - plan.eye_x), y - plan.eye_y
    size = plan.eye_ball / 1.32
    socket = bump(dx + 0.15, 1.95 * size) * bump(dy - 0.35, 1.35 * size)
    inner = bump(x.abs() - (plan.eye_x - 1.75), 0.75) * bump(dy - 0.2, 0.9)
    carved = -0.95 * socket - 0.35 * inner
    # The ball is an ellipsoid that the lids follow: wider than the opening.
    reach = 1 - (dx / (plan.eye_half + 0.35)) ** 2 - (dy / plan.eye_ball) ** 2
    ball = 6.15 + 1.62 * reach.clamp(min=0).sqrt() - 0.10 * dx
    lifted = smooth_max(z + carved, torch.where(reach > 0, ball, z - 5), 0.35) - z
    upper, _, s = eye_curves(plan, x)
    crease = bump(y - (upper + 0.33), 0.13) * smoothstep(1.25, 0.9, s.abs())
    return lifted - 0.15 * (1 - plan.lid_weight) * crease


def _nose(side, plan, x, y):
    """Height of the nose above the face."""
    a = x.abs()
    tip_y = plan.nose_y + 0.85 + 0.38 * side.nose_tip
    down = ((1.2 - y) / (1.2 - tip_y)).clamp(0, 1.0)
    # Of caricatures, whose relief is above 1, long noses are longer than short ones are short.
    tall = 2.1 + 0.7 * side.nose_projection + 0.4 * (side.nose_projection - 1).clamp(min=0)
    profile = tall * down**1.3 + 0.42 * side.nose_bridge * bump(down - 0.5, 0.28) - 0.8 * (y - 0.9).clamp(min=0)
    slope = 1.55 * (1.72 / plan.nose_half) * (tall / 2.1)
    ridge = profile - slope * ((a * a + 0.36).sqrt() - 0.6)
    tip = tall - 0.80 + 0.92 * (1 - ((x / 1.0) ** 2 + ((y - tip_y) / 0.95) ** 2)).clamp(min=-8.0)
    wing_x, wing_y = plan.nose_half - 0.55, plan.nose_y + 0.55
    wing = 0.45 + 0.85 * (1 - ((a - wing_x) / 0.72) ** 2 - ((y - wing_y) / 0.78) ** 2).clamp(min=-4.0)
    nose = smooth_max(smooth_max(ridge, tip, 0.5), wing, 0.35)
    under = (y - plan.nose_y + 0.15 * smoothstep(0.9, 0.2, a)) * 3.4 + 0.1
    return smooth_max(smooth_min(nose, under, 0.9), torch.zeros_like(nose), 0.7)


def _drop_jaw(plan, x, y, z, jaw):
    """The lower face turns about the joints before the ears; the cheeks follow in part."""
    hinge_y, hinge_z = HINGE_YZ
    below = smoothstep(plan.mouth_y + 1.3, plan.mouth_y - 1.1, y + 0.16 * (x.abs() - 1.5).clamp(min=0) ** 1.2)
    angle = plan.jaw * below * smoothstep(-0.5, 4.5, z) * jaw
    dy, dz = y - hinge_y, z - hinge_z
    cosine, sine = angle.cos(), angle.sin()
    return x, hinge_y + dy * cosine - dz * sine, hinge_z + dz * cosine + dy * sine


def _mouth(plan, x, y):
    """Lips, the line between them, and the hollow of an open mouth."""
    upper_outer, upper_inner, lower_inner, lower_outer, u = mouth_curves(plan, x)
    taper = (1 - u.clamp(max=1) ** 2.2) ** 0.7
    v_upper = ((y - upper_inner) / (upper_outer - upper_inner).clamp(min=0.05)).clamp(0, 1)
    v_lower = ((lower_inner - y) / (lower_inner - lower_outer).clamp(min=0.05)).clamp(0, 1)
    upper = (v_upper * (1 - v_upper) * 4) ** 0.85 * 0.30
    lower = (v_lower * (1 - v_lower) * 4) ** 0.85 * 0.38
    middle = (upper_inner + lower_inner) / 2
    lips = torch.where(y > middle, upper, lower) * taper
    line = bump(y - middle, 0.16) * smoothstep(1.25, 0.85, u) * 0.22
    gap = (upper_inner - lower_inner).clamp(min=1e-3)
    open_depth = smoothstep(0.0, 0.9, ((upper_inner - y) / gap).clamp(0, 1) * ((y - lower_inner) / gap).clamp(0, 1) * 4)
    hollow = open_depth * smoothstep(0.1, 0.9, gap) * taper * 0.9
    corner = (
        bump(x.abs() - mouth_half_at(plan, x) - 0.1, 0.4)
        * bump(y - corner_y_at(plan, x), 0.45)
        * (0.14 + 0.15 * plan.smile)
    )
    philtrum = bump(x, 0.3) * smoothstep(0.1, 0.4, y - upper_outer) * smoothstep(1.2, 0.5, y - upper_outer) * 0.13
    return lips - line - hollow - corner - philtrum
