"""What colour and finish each visible point of a person has, before any light falls on it.

Letters: P pixels. All arguments hold one entry for each pixel; places are head coordinates in centimetres (plan.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from .colour import dice, dye_colour, hair_colour, iris_colour, linear, mix, noise, skin_colour
from .columns import bump, smoothstep
from .loft import normalised
from .plan import brow_curve, eye_curves, mouth_curves


@dataclass(kw_only=True)
class Paint:
    """Material of each pixel."""

    colour_P3: Tensor
    """Share of light that is sent back, linear."""
    gloss_P: Tensor
    """Strength of the highlight."""
    sharpness_P: Tensor
    """Exponent of the highlight: larger is smaller and harder."""
    skin_P: Tensor
    """1 where light seeps through as in skin."""
    shade_P: Tensor
    """Share of the ambient light that reaches the point."""
    normal_P3: Tensor
    """Normals in head coordinates that replace the mesh's where ``ball_P`` is 1."""
    ball_P: Tensor
    """1 on the balls of the eyes and on teeth."""
    glow_P: Tensor
    """Light added on top: the reflection in the eyes."""


def plain(colour_P3: Tensor, *, gloss: float, sharpness: float, skin: float) -> Paint:
    """The same finish everywhere."""
    ones = torch.ones_like(colour_P3[:, 0])
    return Paint(
        colour_P3=colour_P3,
        gloss_P=gloss * ones,
        sharpness_P=sharpness * ones,
        skin_P=skin * ones,
        shade_P=ones,
        normal_P3=torch.zeros_like(colour_P3),
        ball_P=0 * ones,
        glow_P=0 * ones,
    )


def paint_skin(
    front: SimpleNamespace, side: SimpleNamespace, plan: SimpleNamespace, place_P3: Tensor, scalp_P: Tensor
) -> Paint:
    """Face and neck with eyes, brows, lips and beard."""
    x, y, z = place_P3.unbind(-1)
    face = smoothstep(2.0, 3.5, z)
    colour = _complexion(front, plan, x, y, z)
    colour = mix(colour, hair_colour(front) * 0.7, 0.85 * scalp_P)
    paint = plain(colour, gloss=0.16, sharpness=14, skin=1)
    if front.beard.max() > 0:
        _beard(front, plan, paint, x, y, z)
    _marks(front, side, paint, x, y, z)
    _brows(front, plan, paint, x, y, face)
    _mouth(front, plan, paint, x, y, face)
    _nostrils(plan, paint, x, y, face)
    _eyes(front, plan, paint, x, y, face)
    return paint


def _complexion(front, plan, x, y, z):
    a = x.abs()
    colour = skin_colour(front)
    cheeks = bump(a - 4.3, 1.7) * bump(y + 2.9 * plan.length, 1.5) * smoothstep(2.0, 4.0, z)
    nose = bump(a, 1.3) * bump(y - plan.nose_y - 0.8, 0.9) * smoothstep(8.0, 10.0, z) * 0.7
    red = (cheeks + nose) * front.blush * (1 - 0.5 * front.skin_depth)
    colour = colour * (1 - red[:, None] * torch.tensor([0.02, 0.34, 0.30], device=x.device))
    if plan.flush.max() > 0:
        smile = plan.smile + plan.smile_skew * (x / 1.5).tanh()
        round_cheeks = bump(a - 4.6, 2.9) * bump(y + 3.2 * plan.length, 2.5) * smoothstep(0.5, 2.5, z)
        rosy = linear(torch.tensor([0.93, 0.36, 0.36], device=x.device)).expand_as(colour)
        colour = mix(colour, rosy, (0.8 - 0.25 * front.skin_depth) * plan.flush * smile * round_cheeks)
    # Lids and the skin below the eyes are a little darker.
    lids = bump(a - plan.eye_x, 1.7) * bump(y - 0.25, 0.95) * smoothstep(2.0, 4.0, z)
    colour = colour * (1 - lids[:, None] * torch.tensor([0.10, 0.19, 0.19], device=x.device))
    colour = colour * (0.97 + 0.06 * noise(x * 1.7 + 50, y * 1.7 + 50, 2))[:, None]
    if front.freckles.max() > 0:
        colour = _freckled(front, colour, x, y, z)
    return colour


def _marks(front, side, paint, x, y, z):
    """Birthmarks before and below the ears, on which no beard grows."""
    for size, sign in ((side.mark_left, -1), (side.mark_right, 1)):
        if size.max() > 0:
            away = ((z / 1.15) ** 2 + (y + 5.4) ** 2).sqrt() + 0.35 * noise(2 * y, 2 * z, 3) - 0.17
            mark = smoothstep(0.25, -0.1, away - 2.7 * size) * smoothstep(0.02, 0.15, size) * (x * sign > 0)
            red = skin_colour(front) * torch.tensor([0.55, 0.34, 0.38], device=x.device)
            paint.colour_P3 = mix(paint.colour_P3, red, mark)


def _freckled(front, colour, x, y, z):
    dots = torch.zeros_like(x)
    for grid, seed in ((2.3, 5), (3.1, 9)):
        cell_x, cell_y = (x * grid).floor(), (y * grid).floor()
        ix, iy = cell_x.long(), cell_y.long()
        dx = x * grid - cell_x - 0.25 - 0.5 * dice(ix, iy, seed)
        dy = y * grid - cell_y - 0.25 - 0.5 * dice(ix, iy, seed + 1)
        dots = dots + bump((dx * dx + dy * dy).sqrt(), 0.16) * (dice(ix, iy, seed + 2) < 0.62)
    spread = bump(x.abs() - 2.4, 2.8) * bump(y + 2.6, 1.9) * smoothstep(3.0, 6.0, z)
    freckles = (dots * spread * front.freckles).clamp(max=1)
    return colour * (1 - freckles[:, None] * torch.tensor([0.30, 0.46, 0.52], device=x.device))


def _beard(front, plan, paint, x, y, z):
    a = x.abs()
    upper_outer, upper_inner, lower_inner, lower_outer, u = mouth_curves(plan, x)
    cheek_line = plan.mouth_y + 1.1 + 0.30 * (a - 2.0).clamp(min=0) + 0.10 * (a - 2.0).clamp(min=0) ** 2
    below = smoothstep(0.9, -0.7, y - cheek_line) * smoothstep(-0.9, 0.3, z)
    top = plan.nose_y - 0.35 - 0.16 * a - 0.10 * (a - 1.6).clamp(min=0) ** 2
    moustache = smoothstep(0.3, -0.3, y - top) * smoothstep(3.4, 2.2, a)
    area = torch.maximum(below, moustache * smoothstep(1.0, 2.0, z))
    under = smoothstep(-12.2, -10.8, y - 0.65 * (5.0 - z).clamp(min=0) * smoothstep(-7.0, -9.0, y))
    lips = smoothstep(-0.12, 0.1, torch.minimum(upper_outer - y, y - lower_outer)) * smoothstep(1.08, 0.95, u)
    soul = bump(a, 1.4) * bump(y - (lower_outer - 0.15), 0.25)
    area = area * under * (1 - lips) * (1 - 0.5 * soul)
    grain = noise(x * 9, y * 5, 11) * 0.6 + noise(x * 17, y * 9, 12) * 0.4
    stubble = front.beard.clamp(max=0.35) / 0.35 * 0.36
    full = smoothstep(0.35, 0.8, front.beard)
    cover = area * (stubble + (0.92 - stubble) * full * (0.75 + 0.5 * grain).clamp(max=1))
    paint.colour_P3 = mix(paint.colour_P3, hair_colour(front) * (0.55 + 0.5 * grain)[:, None], cover)
    paint.gloss_P = paint.gloss_P * (1 - 0.7 * cover)
    paint.skin_P = paint.skin_P * (1 - cover)


def _brows(front, plan, paint, x, y, face):
    middle, half, s = brow_curve(plan, x)
    # Hairs lean outwards and up.
    comb = noise(x.abs() * 4.5 - y * 3.0, y * 1.2 + x.abs() * 0.8, 21)
    edge = half * (0.75 + 0.5 * comb)
    cover = (
        smoothstep(0.12, -0.10, (y - middle).abs() - edge)
        * smoothstep(1.08, 0.96, s)
        * smoothstep(-0.05, 0.08, s)
        * face
    )
    hair = hair_colour(front) * (0.40 + 0.25 * comb)[:, None]
    paint.colour_P3 = mix(paint.colour_P3, hair, cover * (0.78 + 0.14 * (front.hair_depth - front.hair_grey)))
    paint.gloss_P = paint.gloss_P * (1 - 0.6 * cover)


def _mouth(front, plan, paint, x, y, face):
    upper_outer, upper_inner, lower_inner, lower_outer, u = mouth_curves(plan, x)
    inside = smoothstep(1.05, 0.97, u) * face
    lip = smoothstep(-0.05, 0.06, upper_outer - y) * smoothstep(-0.05, 0.08, y - lower_outer) * inside
    rose = linear(torch.tensor([0.74, 0.25, 0.28], device=x.device))
    skin = skin_colour(front)
    natural = skin * torch.tensor([0.80, 0.52, 0.52], device=x.device)
    lips = mix(
        natural, mix(natural, rose.expand_as(skin), 0.25 + 0.6 * front.lip_redness), 0.2 + 0.8 * front.lip_redness
    )
    # The upper lip looks down and is darker.
    lips = lips * (1 - 0.16 * smoothstep(-0.1, 0.1, y - (upper_inner + lower_inner) / 2))[:, None]
    paint.colour_P3 = mix(paint.colour_P3, lips, lip)
    paint.gloss_P = paint.gloss_P + (0.32 - paint.gloss_P) * lip
    paint.sharpness_P = paint.sharpness_P + 22 * lip

    middle = (upper_inner + lower_inner) / 2
    line = smoothstep(0.11, 0.02, (y - middle).abs() - (upper_inner - lower_inner) / 2 + 0.02) * smoothstep(
        1.06, 0.9, u
    )
    dark = linear(torch.tensor([0.20, 0.06, 0.06], device=x.device)).expand_as(skin)
    paint.colour_P3 = mix(paint.colour_P3, paint.colour_P3 * 0.28 + dark * 0.3, line * face * 0.85)

    gap = upper_inner - lower_inner
    mouth = (
        smoothstep(-0.03, 0.05, torch.minimum(upper_inner - y, y - lower_inner)) * smoothstep(0.06, 0.2, gap) * inside
    )
    depth = smoothstep(0.0, 0.9, torch.minimum(upper_inner - y, y - lower_inner))
    cave = mix(dark * 1.6, dark * 0.35, depth)
    tongue = smoothstep(0.25, -0.35, y - lower_inner - 0.45) * smoothstep(0.75, 0.45, u) * smoothstep(0.6, 1.4, gap)
    cave = mix(cave, linear(torch.tensor([0.62, 0.26, 0.27], device=x.device)).expand_as(skin) * 0.6, tongue)
    edge = upper_inner - 0.46 + 0.10 * (u * 1.6) ** 2
    seams = (0.5 + 0.5 * torch.cos(x * 9.0)).clamp(min=0) ** 12
    tooth = smoothstep(-0.05, 0.05, y - edge) * smoothstep(0.97, 0.80, u)
    white = linear(torch.tensor([0.95, 0.93, 0.89], device=x.device)).expand_as(skin)
    white = white * (1 - 0.18 * seams - 0.35 * u.clamp(max=1) ** 3)[:, None]
    white = white * (0.78 + 0.22 * smoothstep(0.0, 0.2, upper_inner - y))[:, None]
    cave = mix(cave, white, tooth)
    paint.colour_P3 = mix(paint.colour_P3, cave, mouth)
    paint.gloss_P = paint.gloss_P * (1 - mouth)
    paint.skin_P = paint.skin_P * (1 - mouth)
    paint.ball_P = mouth * tooth
    paint.normal_P3 = normalised(torch.stack([0.12 * x, torch.zeros_like(x) + 0.1, torch.ones_like(x)], -1))


def _nostrils(plan, paint, x, y, face):
    away_x = (x.abs() - 0.42 * plan.nose_half) / (0.23 * plan.nose_half)
    away_y = (y - plan.nose_y - 0.20 - 0.12 * away_x) / 0.17
    hole = smoothstep(1.25, 0.65, (away_x**2 + away_y**2).sqrt()) * face
    dark = paint.colour_P3 * torch.tensor([0.20, 0.12, 0.12], device=x.device)
    paint.colour_P3 = mix(paint.colour_P3, dark, hole * 0.9)
    paint.gloss_P = paint.gloss_P * (1 - hole)


def _eyes(front, plan, paint, x, y, face):
    upper, lower, s = eye_curves(plan, x)
    side = x.sign()
    near = smoothstep(1.06, 1.0, s.abs()) * face
    ball = smoothstep(-0.03, 0.03, torch.minimum(upper - y, y - lower)) * near

    dx = x - side * (plan.eye_x - 0.06) - 0.42 * plan.gaze_x
    dy = y - plan.eye_y - 0.06 - 0.25 * plan.gaze_y
    away = (dx * dx + dy * dy).sqrt() / plan.iris
    white = linear(torch.tensor([0.93, 0.92, 0.90], device=x.device)).expand(len(x), 3)
    rosy = linear(torch.tensor([0.85, 0.62, 0.56], device=x.device)).expand(len(x), 3)
    eye = mix(white, rosy, 0.55 * smoothstep(0.55, 1.05, s.abs()))
    eye = eye * (1 - 0.30 * s.abs().clamp(max=1) ** 2)[:, None]
    iris = iris_colour(front)
    angle = torch.atan2(dy, dx)
    streaks = noise(angle * 5.1 + 40, away * 2.2, 31)
    lit = 1.0 + 0.75 * smoothstep(0.5, -0.9, dy / plan.iris) * smoothstep(0.95, 0.55, away)
    iris = iris * (lit * (0.78 + 0.5 * streaks))[:, None]
    iris = mix(iris, iris * 0.22, smoothstep(0.72, 0.98, away))
    iris = mix(iris, torch.full_like(iris, 0.004), smoothstep(0.47, 0.39, away))
    eye = mix(eye, iris, smoothstep(1.04, 0.96, away))
    # The upper lid's shadow.
    eye = eye * (1 - 0.55 * smoothstep(0.40, 0.0, upper - y))[:, None]
    paint.colour_P3 = mix(paint.colour_P3, eye, ball)
    paint.gloss_P = paint.gloss_P + (0.5 - paint.gloss_P) * ball
    paint.sharpness_P = paint.sharpness_P + (160 - paint.sharpness_P) * ball
    paint.skin_P = paint.skin_P * (1 - ball)
    glint = smoothstep(0.25, 0.16, ((dx + 0.24) ** 2 + (dy - 0.26) ** 2).sqrt())
    small = smoothstep(0.13, 0.06, ((dx - 0.22) ** 2 + (dy + 0.24) ** 2).sqrt()) * 0.35
    paint.glow_P = (glint + small) * ball * smoothstep(1.1, 0.95, away)
    paint.ball_P = torch.maximum(paint.ball_P, ball)
    bulge = normalised(
        torch.stack([(x - side * plan.eye_x) / 3.2, (y - plan.eye_y) / 2.4, torch.full_like(x, 0.9)], -1)
    )
    paint.normal_P3 = mix(paint.normal_P3, bulge, (y > plan.mouth_y + 3).float())

    # Lashes along the upper edge, longer outside; a soft line below.
    outer = smoothstep(-0.6, 0.9, s)
    lash = smoothstep(0.05, -0.03, (y - upper - 0.03).abs() - 0.075 - 0.07 * outer) * smoothstep(1.14, 1.02, s.abs())
    below = smoothstep(0.07, 0.0, (y - lower + 0.02).abs()) * smoothstep(1.0, 0.9, s.abs()) * 0.40
    dark = mix(hair_colour(front), torch.zeros_like(eye), torch.full_like(x, 0.75)) * 0.4
    paint.colour_P3 = mix(paint.colour_P3, dark, lash * face * 0.92)
    paint.colour_P3 = mix(paint.colour_P3, paint.colour_P3 * 0.45, below * face)
    paint.gloss_P = paint.gloss_P * (1 - lash * face)
    paint.glow_P = paint.glow_P * (1 - lash)


def paint_ear(front: SimpleNamespace) -> Paint:
    """Ears: skin, redder."""
    colour = skin_colour(front)
    red = 0.35 + 0.45 * front.blush
    colour = colour * (1 - red[:, None] * torch.tensor([0.04, 0.24, 0.22], device=colour.device))
    return plain(colour, gloss=0.10, sharpness=14, skin=1)


def paint_hair(
    front: SimpleNamespace, side: SimpleNamespace, angle_P: Tensor, share_P: Tensor, place_P3: Tensor
) -> Paint:
    """Strands, darker at the roots and inside of locks."""
    fine = noise(angle_P * 60 + 400, share_P * 4, 41) * 0.55 + noise(angle_P * 130 + 900, share_P * 7, 42) * 0.45
    locks = noise(angle_P * 14 + 100, share_P * 2.5, 43)
    colour = hair_colour(front)
    if side.dye.max() > 0:
        # Behind the widest line of the head, and above where hair hangs beside the neck.
        hangs = smoothstep(0.30, 0.50, front.hair_length)
        above = smoothstep(0.0, 2.3, place_P3[:, 1] + 5.0 - 2.6 * hangs)
        hidden = smoothstep(-1.6, -2.8, place_P3[:, 2]) * above
        colour = mix(colour, dye_colour(side), side.dye * hidden)
    colour = colour * (0.62 + 0.42 * fine + 0.30 * locks)[:, None]
    colour = colour * (0.72 + 0.28 * smoothstep(0.0, 0.45, share_P))[:, None]
    paint = plain(colour, gloss=0, sharpness=40, skin=0)
    paint.gloss_P = 0.5 + 0.5 * fine
    return paint


def paint_shirt(clothing_P3: Tensor, place_P3: Tensor) -> Paint:
    """Knitted cloth."""
    weave = noise(place_P3[:, 0] * 3.0, place_P3[:, 1] * 3.0, 51) * 0.10 + 0.95
    return plain(linear(clothing_P3) * weave[:, None], gloss=0.03, sharpness=8, skin=0)
