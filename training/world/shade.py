"""Light on the visible points: a main light with soft shadows, a sky, a weak light from the other side and one behind.

Letters: B pictures, P pixels, V vertices.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import Tensor

from .loft import cross, dot, normalised
from .mesh import Mesh, Topology, turn
from .paint import Paint
from .raster import rasterize

_REACH = 19.0
_MAP_DISTANCE = 500.0


def light_directions(light: SimpleNamespace) -> Tensor:
    """Unit vectors to the main light, ``[B, 3]``."""
    azimuth, elevation = light.azimuth[:, 0] * (math.pi / 180), light.elevation[:, 0] * (math.pi / 180)
    flat = elevation.cos()
    return torch.stack([azimuth.sin() * flat, elevation.sin(), azimuth.cos() * flat], -1)


def _light_frame(towards_B3: Tensor) -> Tensor:
    """Rotations into axes across, up, towards the light."""
    up = torch.zeros_like(towards_B3)
    up[:, 1], up[:, 2] = 1.0, 1e-3
    across = normalised(cross(up, towards_B3))
    return torch.stack([across, cross(towards_B3, across), towards_B3], 1)


def shadow_maps(mesh: Mesh, topology: Topology, towards_B3: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """What the light sees: depths ``[B, N, N]``, and every vertex in the map's coordinates ``[B, V, 3]``.

    Args:
        size: N.
    """
    seen = turn(_light_frame(towards_B3), mesh.lit_BV3)
    scale = size / 2 / _REACH
    points = torch.stack(
        [size / 2 + seen[..., 0] * scale, size / 2 - (seen[..., 1] + 3.0) * scale, _MAP_DISTANCE - seen[..., 2]], -1
    )
    casts = topology.casts_F
    fragments = rasterize(points, topology.triangles_F3[casts], topology.two_sided_F[casts], size, size)
    return fragments.depth_BHW, points


def lit_share(depth_BNN: Tensor, picture_P: Tensor, seen_P3: Tensor, facing_P: Tensor) -> Tensor:
    """How much of the main light reaches each point, from 0 to 1."""
    flat, size = depth_BNN.flatten(), depth_BNN.shape[1]
    x, y = seen_P3[:, 0] - 0.5, seen_P3[:, 1] - 0.5
    depth = seen_P3[:, 2] - (0.35 + 1.5 * (1 - facing_P.clamp(0, 1)))
    inside = (x > 2) & (x < size - 3) & (y > 2) & (y < size - 3)
    total = torch.zeros_like(x)
    for oy in (-1.8, 0.0, 1.8):
        for ox in (-1.8, 0.0, 1.8):
            px, py = (x + ox).clamp(0, size - 2), (y + oy).clamp(0, size - 2)
            left, top = px.floor(), py.floor()
            tx, ty = px - left, py - top
            start = (picture_P * size + top.long()) * size + left.long()
            a, b, c, d = ((flat.index_select(0, start + step) > depth).float() for step in (0, 1, size, size + 1))
            upper, lower = a + (b - a) * tx, c + (d - c) * tx
            total = total + upper + (lower - upper) * ty
    return torch.where(inside, total / 9, torch.ones_like(total))


def shade(
    paint: Paint,
    light: SimpleNamespace,
    towards_P3: Tensor,
    normal_P3: Tensor,
    view_P3: Tensor,
    lit_P: Tensor,
    strand_P3: Tensor,
    is_hair_P: Tensor,
) -> Tensor:
    """Linear light that reaches the camera, ``[P, 3]``.

    Args:
        light: of each pixel's picture.
        towards_P3: to the main light.
        view_P3: to the camera.
        lit_P: share of the main light that arrives.
        strand_P3: direction of the hair.
    """
    device = normal_P3.device
    warm = light.warmth[:, None] * torch.tensor([0.16, 0.0, -0.24], device=device)
    main = (1 + warm) * (1.6 * light.strength)[:, None]
    facing = dot(normal_P3, towards_P3)
    # In skin red light travels farthest: the edge of the shadow is wide and red.
    wrap = torch.tensor([0.34, 0.16, 0.10], device=device) * paint.skin_P[:, None]
    diffuse = ((facing[:, None] + wrap) / (1 + wrap)).clamp(min=0)
    seep = torch.tensor([0.16, 0.05, 0.03], device=device) * paint.skin_P[:, None]
    lit = lit_P[:, None] + (1 - lit_P[:, None]) * seep
    from_main = main * diffuse * lit

    above = normal_P3[:, 1:2] * 0.5 + 0.5
    sky = torch.tensor([0.42, 0.45, 0.50], device=device)
    ground = torch.tensor([0.24, 0.20, 0.175], device=device)
    ambient = (ground + (sky - ground) * above) * (light.ambient * paint.shade_P)[:, None]
    other = towards_P3 * torch.tensor([-1.0, 0.15, 0.0], device=device) + torch.tensor([0.0, 0.1, 0.75], device=device)
    fill = dot(normal_P3, normalised(other)).clamp(min=0) * 0.30 * light.ambient * paint.shade_P
    result = paint.colour_P3 * (from_main + ambient + fill[:, None])

    half = normalised(towards_P3 + view_P3)
    seen = dot(normal_P3, view_P3).clamp(0, 1)
    shine = dot(normal_P3, half).clamp(0, 1) ** paint.sharpness_P * paint.gloss_P * (facing > 0)
    along = dot(strand_P3, half)
    across = (1 - along * along).clamp(min=0).sqrt()
    band = (across**80 * 0.36 + across**14 * 0.09) * paint.gloss_P * (facing * 0.8 + 0.4).clamp(0, 1)
    highlight = torch.where(is_hair_P, band, shine)
    tint = torch.where(is_hair_P[:, None], paint.colour_P3**0.5 * 1.3, torch.ones_like(paint.colour_P3))
    result = result + highlight[:, None] * tint * main * lit * 0.55
    # A light from behind draws the outline.
    rim = (1 - seen) ** 4 * 0.30 * (0.5 + 0.5 * normal_P3[:, 1]).clamp(min=0) * light.ambient
    result = result + rim[:, None] * (0.25 + paint.colour_P3) * sky
    return result + paint.glow_P[:, None] * 1.6
