"""The z-buffer against a slow and obvious one."""

import numpy as np
import pytest
import torch

from training.world.raster import interpolate, rasterize


def _slow(points, triangles, two_sided, height, width):
    """Nearest triangle and depth of each pixel, one triangle and one pixel at a time, in double precision."""
    nearest = np.full((height, width), -1)
    depth = np.full((height, width), np.inf)
    for index, corners in enumerate(triangles):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = points[corners].astype(np.float64)
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0 or (area < 0 and not two_sided[index]):
            continue
        for row in range(height):
            for column in range(width):
                x, y = column + 0.5, row + 0.5
                a = ((cx - bx) * (y - by) - (cy - by) * (x - bx)) / area
                b = ((ax - cx) * (y - cy) - (ay - cy) * (x - cx)) / area
                c = 1 - a - b
                if min(a, b, c) < 0:
                    continue
                here = 1 / (a / az + b / bz + c / cz)
                if here < depth[row, column]:
                    nearest[row, column], depth[row, column] = index, here
    return nearest, depth


@pytest.mark.parametrize("seed", range(4))
def test_same_triangles_as_a_slow_reference(seed):
    random = np.random.RandomState(seed)
    height, width, triangles = 19, 23, 30
    points = random.uniform(-6, 30, size=(2, 3 * triangles, 3)).astype(np.float32)
    points[..., 2] = random.uniform(50, 100, size=points.shape[:2])
    faces = np.arange(3 * triangles).reshape(-1, 3)
    two_sided = random.uniform(size=triangles) < 0.5
    fragments = rasterize(torch.from_numpy(points), torch.from_numpy(faces), torch.from_numpy(two_sided), height, width)
    drawn = np.full(2 * height * width, -1)
    drawn[fragments.pixel_P.numpy()] = fragments.triangle_P.numpy()
    drawn = drawn.reshape(2, height, width)
    for picture in range(2):
        nearest, depth = _slow(points[picture], faces, two_sided, height, width)
        assert (nearest >= 0).sum() > 50
        # Single precision may decide differently exactly on an edge.
        same = drawn[picture] == nearest
        assert same.mean() > 0.995
        assert np.allclose(fragments.depth_BHW[picture].numpy()[same], depth[same], rtol=1e-4)


def test_interpolation_is_perspective_correct():
    # A floor that runs away from the viewer: its own coordinates, not the picture's, are linear in space.
    corners = torch.tensor([[-1.0, -1.0, 2.0], [1.0, -1.0, 2.0], [1.0, -1.0, 10.0], [-1.0, -1.0, 10.0]])
    x, y, z = corners.unbind(-1)
    points = torch.stack([16 + 16 * x / z, 16 - 16 * y / z, z], -1)[None]
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    fragments = rasterize(points, faces, torch.ones(2, dtype=torch.bool), 32, 32)
    place = interpolate(corners[None], faces, fragments)
    row = (fragments.pixel_P // 32).float() + 0.5
    column = (fragments.pixel_P % 32).float() + 0.5
    depth = 16 / (row - 16)
    assert len(row) > 60
    assert torch.allclose(place[:, 2], depth, rtol=1e-4)
    assert torch.allclose(place[:, 0], (column - 16) * depth / 16, atol=1e-4)
    assert torch.allclose(place[:, 1], torch.tensor(-1.0).expand_as(depth), atol=1e-5)


def test_a_pixel_on_a_shared_edge_is_not_lost():
    # Two triangles of a square whose diagonal runs through pixel centres.
    points = torch.tensor([[[0.0, 0.0, 5.0], [8.0, 0.0, 5.0], [8.0, 8.0, 5.0], [0.0, 8.0, 5.0]]])
    fragments = rasterize(points, torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.zeros(2, dtype=torch.bool), 8, 8)
    assert len(fragments.pixel_P) == 64
