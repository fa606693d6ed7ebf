"""Faces whose pose is known because they were made so.

Shape letters: P points (68), H W height and width, C channels (RGB).
"""

import importlib.util

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from slotid_core.reference.faces.face import Pose
from slotid_core.reference.faces.geometry import GENERIC_FACE, rotation_of

DLIB = all(importlib.util.find_spec(module) for module in ("dlib", "face_recognition_models"))
SIZE, PX_PER_MM, MIDDLE = 400, 1.6, np.array([200.0, 128.0])


@pytest.fixture(scope="session")
def dlib_faces():
    """One dlib backend for all tests: its models take a second to load."""
    if not DLIB:
        pytest.skip("needs dlib: pip install dlib-bin face-recognition-models")
    from slotid_core.reference.faces.dlib_faces import DlibFaces

    return DlibFaces()


@pytest.fixture(scope="session")
def drawn_face():
    """Draws a face that dlib detects: ``drawn_face(yaw, pitch, roll)`` gives the picture and its points [68, 2]."""
    return _draw


def _draw(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rotation_33 = rotation_of(Pose(yaw=yaw, pitch=pitch, roll=roll))

    def project(points_P3) -> np.ndarray:
        return (np.asarray(points_P3, float) @ rotation_33.T)[:, :2] * PX_PER_MM + MIDDLE

    points_P2 = project(GENERIC_FACE)
    image = Image.new("RGB", (SIZE, SIZE), (90, 110, 130))
    draw = ImageDraw.Draw(image)

    def corners(points) -> list[tuple[float, float]]:
        return [tuple(points_P2[point]) for point in points]

    def ellipse(centre_2, rx_mm: float, ry_mm: float, colour) -> None:
        (x, y), rx, ry = centre_2, rx_mm * PX_PER_MM, ry_mm * PX_PER_MM
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=colour)

    def line(points, width_mm: float, colour) -> None:
        draw.line(corners(points), fill=colour, width=round(width_mm * PX_PER_MM))

    hair_2, forehead_2 = project([(0, -25, 10), (0, -11, 10)])
    ellipse(hair_2, 76, 72, (50, 35, 30))
    ellipse(forehead_2, 68, 60, (205, 160, 135))
    draw.polygon(corners(range(17)), fill=(205, 160, 135))
    line(range(17, 22), 6, (60, 40, 30))
    line(range(22, 27), 6, (60, 40, 30))
    for eye in (range(36, 42), range(42, 48)):
        centre_2 = points_P2[list(eye)].mean(0)
        ellipse(centre_2, 22, 12, (165, 120, 100))
        draw.polygon(corners(eye), fill=(240, 240, 240))
        ellipse(centre_2, 5.5, 5, (30, 20, 20))
        line(list(eye)[:4], 2.5, (40, 25, 20))
    line((27, 28, 29), 8, (225, 185, 160))
    draw.polygon(corners(range(31, 36)), fill=(150, 100, 80))
    line(range(31, 36), 4, (120, 75, 60))
    draw.polygon(corners(range(48, 60)), fill=(165, 70, 70))
    line(range(60, 65), 2, (90, 30, 30))
    return np.array(image.filter(ImageFilter.GaussianBlur(1.5))), points_P2
