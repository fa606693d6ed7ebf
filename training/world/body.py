"""Ears and shoulders. Centimetres, axes as in plan.py.

Letters: B heads, R rows and C columns of each grid of vertices.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import Tensor

from .columns import bump, smoothstep
from .loft import loft, symmetric_angles

EAR_RINGS, EAR_SPOKES = 18, 44

# As in skin.py: front y z | side x y z | back y z.
_SHIRT = (
    (-15.7, 2.6, 5.35, -13.9, -2.5, -13.0, -7.2),  # 0 inside of the collar
    (-15.6, 3.2, 5.7, -13.7, -2.5, -12.8, -7.6),
    (-16.0, 3.6, 6.1, -14.1, -2.6, -13.2, -8.0),
    (-17.0, 4.5, 7.9, -15.2, -2.8, -14.5, -9.0),  # 3 seam
    (-19.0, 6.4, 12.0, -16.9, -3.0, -16.8, -10.3),
    (-21.2, 7.8, 16.2, -18.9, -3.2, -19.4, -11.2),
    (-24.3, 8.9, 19.2, -22.4, -3.2, -23.6, -11.8),
    (-30.0, 10.0, 20.6, -29.0, -3.2, -30.0, -12.2),
    (-44.0, 10.6, 21.2, -44.0, -3.2, -44.0, -12.4),
    (-150.0, 10.6, 21.2, -150.0, -3.2, -150.0, -12.4),  # far below any picture that is filled by a head
)


def ear_points(front: SimpleNamespace, side: SimpleNamespace, skull_x: Tensor) -> Tensor:
    """The ear on the right of a frontal picture, ``[B, R, C, 3]``: from the middle over the rim to its back.

    Args:
        skull_x: ``[B, 1]`` how far the skull is from the middle where the ear sits.
    """
    device = skull_x.device
    turn = -(2 * math.pi * torch.arange(EAR_SPOKES, device=device) / EAR_SPOKES)[None, None]
    ring = torch.cat([torch.linspace(0.02, 1.0, EAR_RINGS - 4), torch.tensor([1.01, 0.96, 0.85, 0.7])]).to(device)
    behind = torch.cat([torch.zeros(EAR_RINGS - 4), torch.tensor([0.15, 0.4, 0.75, 1.6])]).to(device)
    ring, behind = ring[None, :, None], behind[None, :, None]
    cosine, sine = turn.cos(), turn.sin()
    # Forward is +u, up is +v; egg-shaped, the lobe narrow.
    u = ring * cosine * 1.75 * (1 + 0.20 * sine)
    v = ring * (sine * 3.05 + 0.15)
    rear = smoothstep(0.75, -0.2, cosine)
    lobe = smoothstep(-0.55, -0.85, sine)
    helix = bump(ring - 0.90, 0.10) * 0.34 * (0.35 + 0.65 * rear) * (1 - 0.8 * lobe)
    scapha = bump(ring - 0.75, 0.08) * 0.16 * rear * (1 - lobe)
    antihelix = bump(ring - 0.58, 0.12) * 0.30 * rear * (1 - lobe)
    concha = smoothstep(0.52, 0.25, ring) * 0.55 * smoothstep(-0.9, -0.3, sine * ring)
    tragus = bump(u - 1.05, 0.35) * bump(v + 0.55, 0.5) * 0.45
    root = smoothstep(0.55, 1.0, cosine * ring) * 0.55
    out = 0.25 + helix - scapha + antihelix - concha + tragus - root - behind
    lean = 0.22
    u, v = u * math.cos(lean) - v * math.sin(lean), v * math.cos(lean) + u * math.sin(lean)
    size = (0.93 + 0.15 * side.ear_size)[..., None]
    u, v, out = u * size, v * size, out * size
    # Long hair presses the ears to the head.
    stand = (0.34 - 0.30 * smoothstep(0.28, 0.42, front.hair_length) * (1 - front.tuck))[..., None]
    x = skull_x[..., None] + 0.05 + out * stand.cos() + (1.3 - u) * stand.sin()
    y = -1.15 + 0.6 * side.ear_height[..., None] + v
    z = -1.0 - 0.8 * side.ear_set[..., None] + u * stand.cos() + out * stand.sin()
    return torch.stack([x, y, z], -1)


def shirt_points(batch: int, device: torch.device) -> Tensor:
    """A shirt with a round collar, ``[B, R, C, 3]``, not turned."""
    guides = torch.tensor(_SHIRT, device=device)[None].expand(batch, -1, -1)
    level = torch.linspace(0, len(_SHIRT) - 1, 33, device=device)[None, :, None]
    angle = symmetric_angles(front=22, back=14, focus=1.0).to(device)
    # Shoulders are boxes rather than ellipses.
    roundness = 1 - 0.25 * smoothstep(3.0, 6.0, level)
    return loft(guides, level, angle, roundness)
