"""Which triangle of a mesh each pixel sees: a z-buffer in batched torch.

Letters: B pictures, V vertices, F triangles, H W height and width of the picture, P pixels that see a triangle,
K candidate (triangle, pixel) pairs.

Which pictures are drawn together makes no difference: only element-wise operations, gathers and minima.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Depth is kept in the upper bits of an integer whose lower bits are the triangle, so that one minimum finds both.
_TRIANGLE_BITS = 24
_NEARNESS_STEPS = 2**36


@dataclass(frozen=True, kw_only=True)
class Fragments:
    """The visible surface, one entry for each pixel that sees one."""

    picture_P: Tensor
    """Index of the picture."""
    pixel_P: Tensor
    """Index into the flattened ``[B, H, W]``."""
    triangle_P: Tensor
    """Index of the triangle seen."""
    weights_P3: Tensor
    """Perspective-correct shares of the triangle's three vertices."""
    depth_BHW: Tensor
    """Distance from the camera plane, infinite where nothing is seen."""


def rasterize(points_BV3: Tensor, triangles_F3: Tensor, two_sided_F: Tensor, height: int, width: int) -> Fragments:
    """Draw triangles into pixels.

    Args:
        points_BV3: x and y in pixels (the centre of the first pixel is 0.5), and the distance from the camera plane,
            which must be above 1.
        triangles_F3: vertex indices. Triangles whose corners go clockwise on the picture face the viewer.
        two_sided_F: True for triangles that are also seen from behind.
    """
    batch, vertices = points_BV3.shape[:2]
    x_BV, y_BV, depth_BV = (part.contiguous() for part in points_BV3.unbind(-1))
    first_F, second_F, third_F = triangles_F3.unbind(-1)
    ax, bx, cx = (x_BV.index_select(1, corner_F) for corner_F in (first_F, second_F, third_F))
    ay, by, cy = (y_BV.index_select(1, corner_F) for corner_F in (first_F, second_F, third_F))
    # Pixel centres inside the triangle's bounding box.
    left_BF = (torch.minimum(torch.minimum(ax, bx), cx) - 0.5).ceil().clamp(0, width)
    right_BF = (torch.maximum(torch.maximum(ax, bx), cx) - 0.5).floor().clamp(-1, width - 1)
    top_BF = (torch.minimum(torch.minimum(ay, by), cy) - 0.5).ceil().clamp(0, height)
    bottom_BF = (torch.maximum(torch.maximum(ay, by), cy) - 0.5).floor().clamp(-1, height - 1)
    area_BF = _edge(ax, ay, bx, by, cx, cy)
    drawn_BF = (right_BF >= left_BF) & (bottom_BF >= top_BF) & ((area_BF > 0) | (two_sided_F & (area_BF < 0)))

    drawn_N = drawn_BF.flatten().nonzero()[:, 0]
    left_N, right_N, top_N, bottom_N = (
        edge.flatten().index_select(0, drawn_N).int() for edge in (left_BF, right_BF, top_BF, bottom_BF)
    )
    picture_N = torch.div(drawn_N, len(triangles_F3), rounding_mode="floor")
    triangle_N = drawn_N - picture_N * len(triangles_F3)
    columns_N = right_N - left_N + 1
    counts_N = columns_N * (bottom_N - top_N + 1)
    owner_K = torch.repeat_interleave(torch.arange(len(counts_N), device=counts_N.device), counts_N)
    place_K = torch.arange(len(owner_K), dtype=torch.int32, device=owner_K.device)
    place_K = place_K - (counts_N.cumsum(0, dtype=torch.int32) - counts_N).index_select(0, owner_K)
    down_K = torch.div(place_K, columns_N.index_select(0, owner_K), rounding_mode="floor")
    column_K = left_N.index_select(0, owner_K) + place_K - down_K * columns_N.index_select(0, owner_K)
    row_K = top_N.index_select(0, owner_K) + down_K

    corner_N = picture_N * vertices
    corners_N = [(corner_N + part.index_select(0, triangle_N)) for part in (first_F, second_F, third_F)]
    x_flat, y_flat, near_flat = x_BV.flatten(), y_BV.flatten(), 1 / depth_BV.flatten()
    planes_N = _planes([x_flat.index_select(0, c) for c in corners_N], [y_flat.index_select(0, c) for c in corners_N])
    shares_K = _shares(planes_N, owner_K, column_K + 0.5, row_K + 0.5)
    inside_K = (torch.minimum(torch.minimum(shares_K[0], shares_K[1]), shares_K[2]) >= 0).nonzero()[:, 0]
    owner_K = owner_K.index_select(0, inside_K)
    near_K = sum(
        share.index_select(0, inside_K) * near_flat.index_select(0, c.index_select(0, owner_K))
        for share, c in zip(shares_K, corners_N, strict=True)
    )
    pixel_K = (picture_N.index_select(0, owner_K) * height + row_K.index_select(0, inside_K)) * width
    pixel_K = pixel_K + column_K.index_select(0, inside_K)

    steps_K = _NEARNESS_STEPS - (near_K * float(_NEARNESS_STEPS)).long()
    nothing = torch.iinfo(torch.int64).max
    nearest = torch.full((batch * height * width,), nothing, dtype=torch.int64, device=points_BV3.device)
    nearest.scatter_reduce_(0, pixel_K, (steps_K << _TRIANGLE_BITS) | triangle_N.index_select(0, owner_K), "amin")

    pixel_P = (nearest != nothing).nonzero()[:, 0]
    triangle_P = nearest[pixel_P] & (2**_TRIANGLE_BITS - 1)
    picture_P = torch.div(pixel_P, height * width, rounding_mode="floor")
    row_P = torch.div(pixel_P, width, rounding_mode="floor")
    column_P, row_P = pixel_P - row_P * width, row_P - picture_P * height
    corners_P = [picture_P * vertices + part.index_select(0, triangle_P) for part in (first_F, second_F, third_F)]
    planes_P = _planes([x_flat.index_select(0, c) for c in corners_P], [y_flat.index_select(0, c) for c in corners_P])
    shares_P = _shares(planes_P, None, column_P + 0.5, row_P + 0.5)
    nearness_P = [share * near_flat.index_select(0, c) for share, c in zip(shares_P, corners_P, strict=True)]
    depth_P = 1 / (nearness_P[0] + nearness_P[1] + nearness_P[2])
    depth_BHW = torch.full((batch * height * width,), torch.inf, device=points_BV3.device)
    depth_BHW[pixel_P] = depth_P
    return Fragments(
        picture_P=picture_P,
        pixel_P=pixel_P,
        triangle_P=triangle_P,
        weights_P3=torch.stack(nearness_P, -1) * depth_P[:, None],
        depth_BHW=depth_BHW.view(batch, height, width),
    )


def interpolate(values_BVC: Tensor, triangles_F3: Tensor, fragments: Fragments) -> Tensor:
    """Values given at vertices, at the visible pixels: ``[P, C]``."""
    vertices, channels = values_BVC.shape[1:]
    rows = values_BVC.reshape(-1, channels)
    result = 0
    for corner_F, share_P in zip(triangles_F3.unbind(-1), fragments.weights_P3.unbind(-1), strict=True):
        corner_P = fragments.picture_P * vertices + corner_F.index_select(0, fragments.triangle_P)
        result = result + rows.index_select(0, corner_P) * share_P[:, None]
    return result


def _edge(ax: Tensor, ay: Tensor, bx: Tensor, by: Tensor, px: Tensor, py: Tensor) -> Tensor:
    return (bx - ax) * (py - ay) - (by - ay) * (px - ax)


def _planes(x: list[Tensor], y: list[Tensor]) -> list[Tensor]:
    """Each corner's share as a plane over the picture, ``share = p * (column - x0) + q * (row - y0)``, and x0, y0."""
    (ax, bx, cx), (ay, by, cy) = x, y
    area = _edge(ax, ay, bx, by, cx, cy)
    return [ax, ay, (cy - ay) / area, (ax - cx) / area, (ay - by) / area, (bx - ax) / area]


def _shares(planes: list[Tensor], owner_K: Tensor | None, x_K: Tensor, y_K: Tensor) -> list[Tensor]:
    """Barycentric shares of points in the picture plane."""
    x0, y0, pb, qb, pc, qc = planes if owner_K is None else [plane.index_select(0, owner_K) for plane in planes]
    dx, dy = x_K - x0, y_K - y0
    second, third = pb * dx + qb * dy, pc * dx + qc * dy
    return [1 - second - third, second, third]
