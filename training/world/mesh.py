"""All surfaces of a person as one mesh: skin, ears, hair and shirt, posed.

Letters: B pictures, V vertices, F triangles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

import torch
from torch import Tensor

from .body import EAR_RINGS, EAR_SPOKES, ear_points, shirt_points
from .columns import smoothstep
from .hair import hair_angles, hair_points, hair_shares, scalp_cover
from .loft import grid_normals, grid_triangles, hollows
from .skin import skin_angles, skin_levels, skin_points

SKIN, EAR, HAIR, SHIRT = range(4)
_PIVOT = (0.0, -5.0, -1.5)
_SHIRT_GRID = (33, 72)


@dataclass(frozen=True, kw_only=True)
class Topology:
    """What is the same for every head."""

    triangles_F3: Tensor
    part_F: Tensor
    """``SKIN``, ``EAR``, ``HAIR`` or ``SHIRT``."""
    two_sided_F: Tensor
    casts_F: Tensor
    """Whether the triangle casts shadows."""
    skin_grid: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """The vertices of each picture's person."""

    world_BV3: Tensor
    """Posed, in centimetres around the upright head."""
    lit_BV3: Tensor
    """The same with the profile that light and shadow fall on."""
    head_BV3: Tensor
    """The same before the pose."""
    normal_BV3: Tensor
    hollow_BV: Tensor
    """How far the vertex lies below its surroundings; shades creases."""
    strand_BV5: Tensor
    """On hair: the strand's direction (3), the angle around the head, the share of the way to the tip. On skin the
    first says how far hair grows there."""


@cache
def topology(device: torch.device, step: int = 1) -> Topology:
    """Triangles of the mesh that ``build_mesh`` makes."""
    skin_grid = (len(skin_levels(step)), len(skin_angles(step)))
    parts, kinds, start = [], [], 0
    grids = [
        (SKIN, skin_grid, False),
        (EAR, (EAR_RINGS, EAR_SPOKES), False),
        (EAR, (EAR_RINGS, EAR_SPOKES), True),
        (HAIR, (len(hair_shares(step)), len(hair_angles(step))), False),
        (SHIRT, _SHIRT_GRID, False),
    ]
    for kind, (rows, count), mirrored in grids:
        triangles = grid_triangles(rows, count, start)
        parts.append(triangles.flip(1) if mirrored else triangles)
        kinds.append(torch.full((len(triangles),), kind))
        start += rows * count
    part_F = torch.cat(kinds).to(device)
    return Topology(
        triangles_F3=torch.cat(parts).to(device),
        part_F=part_F,
        two_sided_F=(part_F == HAIR) | (part_F == SHIRT),
        casts_F=part_F != SHIRT,
        skin_grid=skin_grid,
    )


def rotation(pose: SimpleNamespace) -> Tensor:
    """Rotation of the head ``[B, 3, 3]``: nods, then turns, then tilts. Signs as in ``Pose``."""
    yaw, pitch, roll = (angle[:, 0] * (math.pi / 180) for angle in (pose.yaw, pose.pitch, pose.roll))
    cy, sy, cp, sp, cr, sr = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin(), roll.cos(), roll.sin()
    turned = [[cy, -sy * sp, sy * cp], [torch.zeros_like(cy), cp, sp], [-sy, -cy * sp, cy * cp]]
    first, second, third = turned
    rows = [
        [cr * a + sr * b for a, b in zip(first, second, strict=True)],
        [cr * b - sr * a for a, b in zip(first, second, strict=True)],
        third,
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], 1)


def turn(rotation_B33: Tensor, vectors_BN3: Tensor) -> Tensor:
    """Rotate vectors; added in one order however many there are."""
    x, y, z = vectors_BN3.unbind(-1)
    return torch.stack(
        [
            rotation_B33[:, i, 0, None] * x + rotation_B33[:, i, 1, None] * y + rotation_B33[:, i, 2, None] * z
            for i in range(3)
        ],
        -1,
    )


def pose_points(rotation_B33: Tensor, points_BN3: Tensor) -> Tensor:
    """Points turned about the top of the neck."""
    pivot = torch.tensor(_PIVOT, device=points_BN3.device)
    return turn(rotation_B33, points_BN3 - pivot) + pivot


def rotate_shoulders(pose: SimpleNamespace) -> Tensor:
    """The shoulders turn along with a part of the head's yaw, ``[B, 3, 3]``."""
    still = torch.zeros_like(pose.yaw)
    return rotation(SimpleNamespace(yaw=0.35 * pose.yaw, pitch=still, roll=still))


def build_mesh(
    front: SimpleNamespace,
    side: SimpleNamespace,
    lit_side: SimpleNamespace,
    plan: SimpleNamespace,
    pose: SimpleNamespace,
    step: int = 1,
) -> Mesh:
    """The mesh of each picture.

    Args:
        lit_side: the side traits of the face that light falls on; the same object as ``side`` unless it is another.
        step: 2 leaves out every second row and column of skin and hair, which small pictures do not show.
    """
    head_B33, body_B33 = rotation(pose), rotate_shoulders(pose)
    device, batch = head_B33.device, head_B33.shape[0]
    skin = skin_points(front, side, plan, step)
    level, angle = skin_levels(step).to(device), skin_angles(step).to(device)
    ear_row, ear_column = int((level < 6.3).sum()), int((angle < math.pi / 2 - 1e-6).sum())
    right_ear = ear_points(front, side, skin[:, ear_row, ear_column, :1])
    left_ear = right_ear * torch.tensor([-1.0, 1.0, 1.0], device=device)
    hair = hair_points(front, side, plan, step)
    shirt = shirt_points(batch, device)
    neck = 1 - smoothstep(11.0, 14.6, level)[None, :, None].expand(batch, -1, skin.shape[2])
    loose = 1 - 0.85 * smoothstep(-9.0, -19.0, hair[..., 1])
    nothing, everything = torch.zeros_like(shirt[..., 0]), torch.ones_like(right_ear[..., 0])
    grids = [(skin, neck, False), (right_ear, everything, False), (left_ear, everything, True), (hair, loose, False)]
    grids.append((shirt, nothing, False))

    def posed_points(points_BRC3: Tensor, follow_BRC: Tensor) -> Tensor:
        flat = points_BRC3.flatten(1, 2)
        still, moved = pose_points(body_B33, flat), pose_points(head_B33, flat)
        return (still + (moved - still) * follow_BRC.flatten(1)[..., None]).view_as(points_BRC3)

    world, lit, normals, hollow, strands = [], [], [], [], []
    for index, (points, follow, mirrored) in enumerate(grids):
        rows, count = points.shape[1:3]
        posed = posed_points(points, follow)
        world.append(posed.flatten(1, 2))
        if index == 0 and lit_side is not side:
            posed = posed_points(skin_points(front, lit_side, plan, step), follow)
        lit.append(posed.flatten(1, 2))
        normal = -grid_normals(posed) if mirrored else grid_normals(posed)
        normals.append(normal.flatten(1, 2))
        # Creases are as wide in centimetres on a coarse grid: smoothing reaches with the square of the rounds.
        rounds = (max(14 // step**2, 1), 2, 2, max(4 // step**2, 1), 4)[index]
        hollow.append(hollows(posed, normal, rounds).flatten(1))
        strand = _strands(posed, step) if index == 3 else torch.zeros(batch, rows * count, 5, device=device)
        if index == 0:
            strand[..., 0] = scalp_cover(front, side, level, angle).flatten(1)
        strands.append(strand)
    return Mesh(
        world_BV3=torch.cat(world, 1),
        lit_BV3=torch.cat(lit, 1),
        head_BV3=torch.cat([points.flatten(1, 2) for points, _, _ in grids], 1),
        normal_BV3=torch.cat(normals, 1),
        hollow_BV=torch.cat(hollow, 1),
        strand_BV5=torch.cat(strands, 1),
    )


def _strands(hair_BRC3: Tensor, step: int) -> Tensor:
    batch, rows, count = hair_BRC3.shape[:3]
    down = torch.cat([hair_BRC3[:, 1:] - hair_BRC3[:, :-1], hair_BRC3[:, -1:] - hair_BRC3[:, -2:-1]], 1)
    down = down / down.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-6)
    angle = hair_angles(step).to(hair_BRC3.device).expand(batch, rows, count)
    share = hair_shares(step).to(hair_BRC3.device)[None, :, None].expand(batch, rows, count)
    return torch.cat([down, angle[..., None], share[..., None]], -1).flatten(1, 2)
