"""A clip that takes no time to draw, for the tiny VAE and tests: a painted head that turns, blinks, smiles and talks.
It shows no real person.

The head is an ellipsoid with a face painted on it in its own coordinates, so turning it moves the features as on
a real head. Pure numpy and a function of its arguments.

Shape letters: F frames, H height, W width. Lengths are in half picture widths, x to the right, y down, z to the
viewer; angles in radians.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

FRAMES, SIZE, FPS = 65, 256, 16
# Where the face is, brow to chin, on average over the clip: left, top, right, bottom as shares of the picture.
FACE_BOX = (0.29, 0.37, 0.67, 0.71)
_RADII = np.array([0.43, 0.56, 0.47])
_LIGHT = np.array([-0.45, -0.55, 0.70])


@dataclass(frozen=True)
class _Look:
    """What tells one drawn person from another: colours (RGB in [0, 1]) and a few proportions."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    shirt: np.ndarray
    wall: np.ndarray
    width: float
    fringe: float
    eye_distance: float


def _look(seed: int) -> _Look:
    # Uniform draws only: numpy keeps their stream stable over versions (RandomState's is frozen).
    u = np.random.RandomState(seed).uniform(size=12)

    def colour(hue: float, saturation: float, value: float) -> np.ndarray:
        return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))

    return _Look(
        skin=colour(0.055 + 0.02 * u[0], 0.38 + 0.18 * u[1], 0.93 - 0.38 * u[2]),
        hair=colour(0.05 + 0.05 * u[3], 0.45 + 0.4 * u[4], 0.12 + 0.45 * u[5] ** 2),
        iris=colour(0.08 + 0.5 * u[6], 0.6, 0.45),
        shirt=colour(u[7], 0.5, 0.62),
        wall=colour(u[7] + 0.45, 0.20, 0.68),
        width=0.93 + 0.14 * u[8],
        fringe=-0.62 + 0.14 * u[9],
        eye_distance=0.35 + 0.05 * u[10],
    )


def _ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _over(picture_HW3: np.ndarray, colour: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    return picture_HW3 + alpha_HW[..., None] * (colour - picture_HW3)


def _ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float, soft: float = 0.12) -> np.ndarray:
    """Coverage of an ellipse at the origin with half axes a, b; ``soft`` is the edge as a share of its size."""
    return 1.0 - _ramp(np.sqrt((x / a) ** 2 + (y / b) ** 2), 1.0 - soft, 1.0 + soft)


def _spot(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    return np.exp(-((x / a) ** 2) - (y / b) ** 2)


def _paint_face(skin_HW3, lon, lat, look: _Look, blink: float, smile: float, talk: float, gaze: float):
    """Paint features at longitude and latitude of the head (0, 0 is between nose and eyes)."""
    face = _over(skin_HW3, look.skin * [1.0, 0.62, 0.60], 0.35 * _spot(np.abs(lon) - 0.52, lat - 0.30, 0.24, 0.16))
    for side in (-1.0, 1.0):
        x, y = lon - side * look.eye_distance, lat + 0.10
        face = _over(face, look.skin * 0.72, 0.45 * _ellipse(x, y, 0.24, 0.17, 0.5))
        opening = 0.012 + 0.072 * (1.0 - blink) * (1.0 - 0.25 * smile)
        lid = _ellipse(x, y, 0.165, opening, 0.10)
        eye = _over(face, np.array([0.92, 0.90, 0.88]), np.ones_like(lid))
        eye = _over(eye, look.iris, _ellipse(x - gaze, y, 0.076, 0.076))
        eye = _over(eye, np.array([0.04, 0.03, 0.03]), _ellipse(x - gaze, y, 0.038, 0.038))
        eye = _over(eye, np.ones(3), _ellipse(x - gaze + 0.025, y + 0.028, 0.016, 0.016, 0.4))
        eye = eye * (1.0 - 0.35 * _ramp(-y, 0.0, 0.09))[..., None]
        face = face + lid[..., None] * (eye - face)
        lash = _spot(np.zeros_like(x), y + opening * np.sqrt(np.clip(1 - (x / 0.18) ** 2, 0, 1)), 1.0, 0.018)
        face = _over(face, look.hair * 0.4, 0.8 * lash * _ellipse(x, y, 0.18, 0.2, 0.05))
        brow = y + 0.19 + 0.03 * smile - 1.1 * (x - side * 0.02) ** 2
        face = _over(face, look.hair * 0.7, 0.9 * _ellipse(x, brow, 0.20, 0.030, 0.35))
    nostrils = _spot(np.abs(lon) - 0.075, lat - 0.275, 0.030, 0.020)
    face = _over(face, look.skin * 0.35, 0.75 * nostrils)
    wide = 0.20 + 0.07 * smile
    bend = lat - 0.52 + smile * (1.6 * lon**2 - 0.03)
    face = _over(face, look.skin * [0.82, 0.48, 0.46], _ellipse(lon, bend, wide, 0.052 + 0.085 * talk, 0.18))
    inside = _ellipse(lon, bend, wide * 0.84, 0.010 + 0.080 * max(talk, 0.35 * smile), 0.25)
    face = _over(face, np.array([0.22, 0.06, 0.07]), inside)
    teeth = inside * (1.0 - _ramp(bend, -0.012, 0.012)) * min(1.0, 2.0 * talk + smile)
    return _over(face, np.array([0.95, 0.94, 0.90]), 0.9 * teeth)


def draw_frame(look: _Look, size: int, phase: float) -> np.ndarray:
    """One frame, float ``[H, W, 3]`` in [0, 1]; ``phase`` runs from 0 to 1 over the clip."""
    wave = np.sin(2.0 * np.pi * phase)
    yaw, pitch = 0.62 * wave, 0.12 * np.sin(4.0 * np.pi * phase + 0.6)
    blink = max(np.exp(-(((phase - when) / 0.022) ** 2)) for when in (0.22, 0.56, 0.90))
    smile = float(_ramp(np.array(phase), 0.28, 0.42) - _ramp(np.array(phase), 0.62, 0.72))
    talk = max(0.0, np.sin(34.0 * phase)) ** 1.5 * float(_ramp(np.array(phase), 0.66, 0.74))
    axis = (np.arange(size) + 0.5) / size * 2.0 - 1.0
    y, x = np.meshgrid(axis, axis, indexing="ij")
    edge = 2.5 / size

    picture = look.wall * (1.06 - 0.22 * (y + 0.35 * x))[..., None]
    body = _ellipse(x, y - 1.18, 0.92, 0.52, 0.03)
    picture = _over(picture, look.shirt * (1.0 - 0.35 * _ramp(x, -0.5, 0.9))[..., None], body)
    centre_x, centre_y = 0.05 * wave, -0.08 + 0.02 * pitch
    neck = 1.0 - _ramp(np.abs(x - 0.5 * centre_x) - 0.19 - 0.10 * _ramp(y, 0.5, 0.85), -edge, edge)
    neck = neck * _ramp(y, 0.2, 0.3) * (1.0 - _ramp(y + 0.3 * x**2, 0.78, 0.81))
    picture = _over(picture, look.skin * (0.72 - 0.22 * _ramp(-y, -0.62, -0.42))[..., None], neck)

    radii = _RADII * [look.width, 1.0, 1.0]
    u, v = (x - centre_x) / radii[0], (y - centre_y) / radii[1]
    hair_shell = 1.0 - _ramp(np.sqrt(u**2 + (v + 0.03) ** 2), 1.115 - 2 * edge, 1.115 + 2 * edge)
    picture = _over(picture, look.hair * (0.75 - 0.25 * u)[..., None], hair_shell * (1.0 - _ramp(v, 0.25, 0.45)))

    r = np.sqrt(u**2 + v**2)
    z = np.sqrt(np.clip(1.0 - r**2, 0.0, 1.0))
    # Into the head's own frame: undo pitch about x, then yaw about y.
    v1, z1 = v * np.cos(pitch) - z * np.sin(pitch), v * np.sin(pitch) + z * np.cos(pitch)
    u2, z2 = u * np.cos(yaw) - z1 * np.sin(yaw), u * np.sin(yaw) + z1 * np.cos(yaw)
    lon, lat = np.arctan2(u2, z2), np.arcsin(np.clip(v1, -1.0, 1.0))

    face = _paint_face(np.broadcast_to(look.skin, (size, size, 3)), lon, lat, look, blink, smile, talk, -0.045 * wave)
    strands = 0.85 + 0.15 * np.sin(38.0 * lon + 9.0 * np.sin(5.0 * lat))
    hairline = look.fringe + 0.10 * np.cos(3.0 * lon) + 1.05 * _ramp(np.abs(lon), 0.75, 1.45)
    hair = 1.0 - _ramp(lat - hairline, -0.05, 0.05)
    head = _over(face, look.hair * strands[..., None] * 1.15, hair)

    # A nose: the surface tilted along a bump's slope, which shading then shows.
    ridge = 0.85 * _spot(lon, lat - 0.13, 0.085, 0.17) * (1.0 - hair)
    normal = np.stack([u / radii[0], v / radii[1], z / radii[2]], axis=-1)
    normal = normal + ridge[..., None] * np.stack([lon / 0.06, (lat - 0.13) / 0.14, np.zeros_like(u)], axis=-1)
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    light = np.clip(normal @ (_LIGHT / np.linalg.norm(_LIGHT)), -0.4, 1.0)
    shine = 0.10 * np.clip(normal @ np.array([-0.24, -0.30, 0.92]), 0.0, 1.0) ** 24
    head = head * (0.58 + 0.46 * light)[..., None] + shine[..., None]
    return np.clip(_over(picture, head, 1.0 - _ramp(r, 1.0 - 2 * edge, 1.0 + 2 * edge)), 0.0, 1.0)


def demo_clip(seed: int = 0, frames: int = FRAMES, size: int = SIZE) -> np.ndarray:
    """The clip, uint8 RGB ``[F, H, W, 3]``; another seed is another drawn person. It plays at ``FPS``."""
    look = _look(seed)
    clip = [draw_frame(look, size, index / frames) for index in range(frames)]
    return np.rint(np.stack(clip) * 255.0).astype(np.uint8)
