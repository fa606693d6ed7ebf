"""Smooth surfaces stretched over a few guide points, and what meshes need: triangles, normals, hollows.

Letters: B heads, K levels of the guides, R rows and C columns of a grid of vertices, F triangles.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def loft(guides_BK7: Tensor, level: Tensor, angle: Tensor, roundness: Tensor) -> Tensor:
    """Points on a body whose outline in front, at the side and behind is given level by level.

    Args:
        guides_BK7: at each level y and z in front, x, y and z at the side, y and z behind.
        level: ``[B or 1, R, C]``, from 0 to K - 1, fractions between levels.
        angle: ``[C]`` radians around the body: 0 in front, positive to the right of a frontal picture.
        roundness: broadcasts with ``level``; 1 makes ellipses, more makes pointed, less makes boxy sections.

    Returns:
        ``[B, R, C, 3]``.
    """
    guides = _curve(guides_BK7, level)
    front_y, front_z, side_x, side_y, side_z, back_y, back_z = guides.unbind(-1)
    cosine, sine = angle.cos(), angle.sin()
    ahead = cosine > 0
    end_y, end_z = torch.where(ahead, front_y, back_y), torch.where(ahead, front_z, back_z)
    along = cosine.abs()
    x = side_x * sine.abs() ** roundness * sine.sign()
    y = side_y + along * (end_y - side_y)
    z = side_z + along * (end_z - side_z)
    return torch.stack([x, y, z], -1)


def _curve(guides_BK7: Tensor, level: Tensor) -> Tensor:
    """Catmull-Rom through the guide points."""
    batch, last = guides_BK7.shape[0], guides_BK7.shape[1] - 1
    level = level.expand(batch, *level.shape[1:]).clamp(0, last)
    start = level.floor().clamp(max=last - 1)
    t = (level - start)[..., None]
    index = start.long()
    picture = torch.arange(batch, device=level.device)[:, None, None]
    before, here, there, after = (guides_BK7[picture, (index + step).clamp(0, last)] for step in (-1, 0, 1, 2))
    return here + 0.5 * t * (
        there - before + t * (2 * before - 5 * here + 4 * there - after + t * (3 * (here - there) + after - before))
    )


def symmetric_angles(front: int, back: int, focus: float) -> Tensor:
    """Angles around the body from behind over the left to behind, mirrored exactly; ``[2 * (front + back)]``.

    Args:
        front: columns from straight ahead to the side.
        back: columns from the side to behind.
        focus: above 1, columns are denser straight ahead.
    """
    half = torch.cat(
        [
            math.pi / 2 * (torch.arange(front, dtype=torch.float32) / front) ** focus,
            math.pi / 2 * (1 + torch.arange(back, dtype=torch.float32) / back),
        ]
    )
    return torch.cat([torch.tensor([-math.pi]), -half[1:].flip(0), half])


def grid_triangles(rows: int, columns: int, start: int = 0, wrap: bool = True) -> Tensor:
    """Triangles ``[F, 3]`` of a grid of vertices, mirrored in the middle; seen from outside when rows go down and
    columns to the right.

    Args:
        start: index of the grid's first vertex.
        wrap: whether the last column meets the first.
    """
    row = torch.arange(rows - 1)[:, None]
    column = torch.arange(columns if wrap else columns - 1)[None, :]
    following = (column + 1) % columns
    upper_left, upper_right = row * columns + column, row * columns + following
    lower_left, lower_right = (row + 1) * columns + column, (row + 1) * columns + following
    falling = torch.stack([upper_left, upper_right, lower_right, upper_left, lower_right, lower_left], -1)
    rising = torch.stack([upper_left, upper_right, lower_left, upper_right, lower_right, lower_left], -1)
    left_half = (column < columns // 2)[..., None].expand_as(falling)
    return start + torch.where(left_half, falling, rising).reshape(-1, 3)


def grid_normals(points_BRC3: Tensor, wrap: bool = True) -> Tensor:
    """Unit normals of a grid of vertices, outwards as in ``grid_triangles``."""
    across = _tangent(points_BRC3, 2, wrap)
    down = _tangent(points_BRC3, 1, False)
    return normalised(cross(down, across))


def _tangent(points_BRC3: Tensor, dim: int, wrap: bool) -> Tensor:
    """Direction of the grid's lines at its vertices, also where the spacing changes."""
    count = points_BRC3.shape[dim]
    step = points_BRC3.roll(-1, dim) - points_BRC3
    length = dot(step, step).sqrt().clamp(min=1e-6)[..., None]
    before, length_before = step.roll(1, dim), length.roll(1, dim)
    tangent = step * (length_before / length) + before * (length / length_before)
    if wrap:
        return tangent
    first, last = step.narrow(dim, 0, 1), before.narrow(dim, count - 1, 1)
    return torch.cat([first, tangent.narrow(dim, 1, count - 2), last], dim)


def hollows(points_BRC3: Tensor, normals_BRC3: Tensor, rounds: int) -> Tensor:
    """How deep each vertex lies below its smoothed neighbourhood, ``[B, R, C]``; negative on ridges."""
    smooth = points_BRC3
    for _ in range(rounds):
        smooth = (smooth.roll(1, 2) + smooth + smooth.roll(-1, 2)) / 3
        padded = torch.cat([smooth[:, :1], smooth, smooth[:, -1:]], 1)
        smooth = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
    return dot(smooth - points_BRC3, normals_BRC3)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Over the last of three components; always added in the same order, unlike a matrix product."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Of vectors in the last dimension."""
    ax, ay, az = a.unbind(-1)
    bx, by, bz = b.unbind(-1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def normalised(vectors: Tensor) -> Tensor:
    """To length 1."""
    return vectors / dot(vectors, vectors).sqrt().clamp(min=1e-8)[..., None]
