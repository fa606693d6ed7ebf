"""Rotary position embedding over (time, height, width), with the axis split of Wan's backbone.

Shape letters: B batch, H heads, L tokens, d head width.
"""

import torch
from torch import Tensor

THETA = 10000.0


def axis_widths(head_width: int) -> tuple[int, int, int]:
    """Head channels given to time, height and width: ``d - 4 (d // 6)``, ``2 (d // 6)``, ``2 (d // 6)``, as in Wan."""
    spatial = 2 * (head_width // 6)
    return head_width - 2 * spatial, spatial, spatial


def grid_positions(grid_THW: tuple[int, int, int]) -> Tensor:
    """Integer (t, h, w) of every token of a T x H x W grid in row-major order. Shape ``[L, 3]``, on the CPU."""
    axes = [torch.arange(n) for n in grid_THW]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def rotation_angles(positions_L3: Tensor, head_width: int, temporal: bool = True) -> Tensor:
    """Rotation angle of each channel pair, ``[L, d / 2]`` in float64, on the CPU (Apple's GPUs have no float64).

    ``temporal=False`` leaves the time channels unrotated.
    """
    angles = []
    for axis, width in enumerate(axis_widths(head_width)):
        frequency = THETA ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        if axis == 0 and not temporal:
            frequency = torch.zeros_like(frequency)
        angles.append(positions_L3[:, axis, None].to(torch.float64) * frequency)
    return torch.cat(angles, dim=-1)


def rotate(x_BHLd: Tensor, angles_Ld: Tensor) -> Tensor:
    """Rotate neighbouring channel pairs by their angle (angles ``[L, d / 2]``). At least float32 inside, dtype kept."""
    dtype = torch.promote_types(x_BHLd.dtype, torch.float32)
    cos, sin = (f(angles_Ld).to(x_BHLd.device, dtype) for f in (torch.cos, torch.sin))
    even, odd = x_BHLd.to(dtype).unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return rotated.flatten(-2).to(x_BHLd.dtype)
