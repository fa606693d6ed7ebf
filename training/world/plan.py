"""Where the features of a face lie, in centimetres, from its traits and its expression.

Geometry, paint and landmarks all read the same plan, so that they can't disagree.

The head's axes: x to the right of a frontal picture, y up, z to the viewer; the origin is inside the skull, at the
eyes' height and between the ears. Letters: B heads. Curves take x and y of any shape and a plan whose fields broadcast
with them.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from .columns import smoothstep

MOUTH_Y = -6.45
"""Height of the closed lips of the average head."""
HINGE_YZ = (-1.5, 0.2)
"""Where the jaw turns, before the ears."""
JAW_ANGLE = 0.27
"""Radians that the jaw turns for a mouth wide open."""


def face_plan(
    front: SimpleNamespace, expression: SimpleNamespace, size: Tensor | float = 1.0, flush: Tensor | float = 0.0
) -> SimpleNamespace:
    """Measures of the face as fields ``[B, 1]``.

    Args:
        front, expression: columns of ``FrontTraits`` and ``Expression``.
        size: each head's ``feature_size``.
        flush: each head's.
    """
    e, more = expression, size - 1
    differ = size**2  # people with large features differ in them more, too
    length = 1 + 0.07 * front.face_length
    mouth_y = MOUTH_Y * length
    eye_half = 1.66 * size + 0.13 * differ * front.eye_size
    eye_x = torch.maximum(3.2 + 0.28 * front.eye_spacing, eye_half + 0.6)
    wide = e.eyes_open / 0.75
    smile_wide = smoothstep(0.5, 1.0, e.smile)
    jaw = e.mouth_open * JAW_ANGLE * (1 + 1.5 * more)
    return SimpleNamespace(
        length=length,
        smile=e.smile,
        smile_skew=e.smile_skew,
        flush=flush * torch.ones_like(e.smile),
        jaw=jaw,
        # eyes
        eye_x=eye_x,
        eye_y=torch.zeros_like(eye_x),
        eye_half=eye_half,
        eye_tilt=0.08 + 0.14 * front.eye_tilt,
        eye_upper=0.86 * size + 0.14 * differ * front.eye_size - 0.10 * front.lid_weight,
        eye_lower=(0.52 * size + 0.08 * differ * front.eye_size) * (1 - 0.35 * e.smile),
        eye_wide=wide,
        eye_ball=1.32 * size,
        iris=0.86 * size + 0.06 * differ * front.eye_size,
        gaze_x=e.gaze_x,
        gaze_y=e.gaze_y,
        lid_weight=front.lid_weight,
        # brows
        brow_y=2.15 + 1.3 * more + 0.28 * front.brow_height + 0.5 * (1 + 2 * more) * e.brow_raise,
        brow_lift=3.0 * more,
        brow_frown=(-e.brow_raise).clamp(min=0),
        brow_inner=1.25 + 0.7 * (eye_x - 3.2),
        brow_outer=5.25 + 0.9 * (eye_x - 3.2),
        brow_arch=0.55 + 0.35 * front.brow_arch,
        brow_half=(0.36 * size + 0.45 * more + 0.17 * differ * front.brow_thickness).clamp(min=0.04),
        # nose
        nose_y=-4.35 * (1 + 0.09 * front.nose_length + 0.05 * front.face_length),
        nose_half=1.72 + 0.34 * front.nose_width,
        # mouth
        mouth_y=mouth_y,
        mouth_half=2.45 * size + 0.25 * size * differ * front.mouth_width + 0.55 * e.smile - 0.25 * e.mouth_open,
        mouth_skew=0.80 * differ,
        corner_y=mouth_y + 0.12 + 0.80 * differ * e.smile - 0.55 * e.mouth_open,
        line_y=mouth_y - 0.22 * e.smile + 0.03,
        gap_upper=0.30 * e.mouth_open + 0.30 * smile_wide,
        gap_lower=1.9 * size * e.mouth_open + 0.38 * smile_wide,
        lip_upper=(0.62 * size + 0.22 * front.lip_fullness) * (1 - 0.22 * e.smile),
        lip_lower=(0.80 * size + 0.26 * front.lip_fullness) * (1 - 0.22 * e.smile),
        chin_y=-9.0 * length,
        beard_bulk=smoothstep(0.35, 1.0, front.beard),
    )


def eye_curves(plan: SimpleNamespace, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Upper and lower edge of the eye's opening at x, and the place between inner (-1) and outer (1) corner."""
    s = (x.abs() - plan.eye_x) / plan.eye_half
    axis = plan.eye_y + plan.eye_tilt * s
    inside = s.clamp(-1, 1)
    lower = axis - plan.eye_lower * (1 - (inside + 0.12 * (1 - inside**2)) ** 2) - 0.06 * (1 - inside**2)
    shape = 1 - (inside - 0.16 * (1 - inside**2)).abs() ** 2.3
    upper = lower + (axis + plan.eye_upper * shape - lower) * plan.eye_wide
    return upper, lower, s


def brow_curve(plan: SimpleNamespace, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Middle height and half thickness of the eyebrow at x, and the place from inner (0) to outer end (1)."""
    s = (x.abs() - plan.brow_inner) / (plan.brow_outer - plan.brow_inner)
    inside = s.clamp(0, 1)
    # Highest at two thirds of the way; frowning pulls the inner ends down.
    arch = 1 - ((inside - 0.64) / 0.64).abs() ** 2 * (1 + 0.9 * smoothstep(0.64, 1.0, inside))
    lift = plan.brow_lift * (plan.smile + plan.smile_skew * x.sign())
    middle = plan.brow_y + lift + plan.brow_arch * arch - 0.35 - plan.brow_frown * 0.5 * (1 - inside)
    half = plan.brow_half * (1 - 0.72 * inside**1.6) * smoothstep(-0.06, 0.1, s)
    return middle, half, s


def mouth_half_at(plan: SimpleNamespace, x: Tensor) -> Tensor:
    """Width of the half of the mouth that x lies in: a smile may be broader on one side."""
    return plan.mouth_half + 0.55 * plan.smile_skew * x.sign()


def corner_y_at(plan: SimpleNamespace, x: Tensor) -> Tensor:
    """Height of the corner of the mouth on the side of x."""
    return plan.corner_y + plan.mouth_skew * plan.smile_skew * x.sign()


def mouth_curves(plan: SimpleNamespace, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Heights at x of the upper lip's outer and inner edge, and the lower lip's inner and outer edge; |x| in half
    mouths."""
    u = x.abs() / mouth_half_at(plan, x)
    inside = u.clamp(0, 1)
    bow = 1 - inside**2
    corner_y = corner_y_at(plan, x)
    line = corner_y + (plan.line_y - corner_y) * bow
    upper_inner = line + plan.gap_upper * bow**0.7
    lower_inner = line - plan.gap_lower * bow**0.6
    cupid = 0.80 + 0.34 * torch.exp(-(((inside - 0.24) / 0.17) ** 2))
    upper_outer = upper_inner + plan.lip_upper * cupid * bow**0.8
    lower_outer = lower_inner - plan.lip_lower * (1 - inside**2.6) ** 0.9
    return upper_outer, upper_inner, lower_inner, lower_outer, u
