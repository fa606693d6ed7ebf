"""What one picture shows of a head beside who it is: pose, expression, light, clothing, background and camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slotid_core.errors import SlotIDError
from slotid_core.reference.faces.face import Pose

from .ranges import Ranged, between

Colour = tuple[float, float, float]
"""Red, green and blue from 0 to 1, as on a screen."""

BACKGROUNDS = ("plain", "gradient", "stripes", "checks", "blobs", "bokeh", "foliage", "bricks")


@dataclass(frozen=True, kw_only=True)
class Expression(Ranged):
    """How far the face is from neutral."""

    smile: float = between(0, 1, 0.0)
    """None to broad; beyond one half the teeth show."""
    smile_skew: float = between(-1, 1, 0.0)
    """How much more the corner of the mouth on the right of a frontal picture smiles than the middle of both."""
    mouth_open: float = between(0, 1, 0.0)
    """Lips together to wide open."""
    eyes_open: float = between(0, 1, 0.75)
    """Closed to wide open; at rest 0.75."""
    brow_raise: float = between(-1, 1, 0.0)
    """Frowning to raised."""
    gaze_x: float = between(-1, 1, 0.0)
    """Where the eyes look, seen from the head: to the left of a frontal picture to the right."""
    gaze_y: float = between(-1, 1, 0.0)
    """Down to up."""


@dataclass(frozen=True, kw_only=True)
class Light(Ranged):
    """One main light, a sky around and a faint light from behind."""

    azimuth: float = between(-180, 180, -35.0)
    """Degrees from the camera; negative from the left of the picture."""
    elevation: float = between(-90, 90, 35.0)
    """Degrees above the eyes."""
    strength: float = between(0, 4, 1.0)
    """Of the main light."""
    warmth: float = between(-1, 1, 0.1)
    """Blue to orange main light."""
    ambient: float = between(0, 2, 1.0)
    """Of the light from everywhere."""


@dataclass(frozen=True, kw_only=True)
class Background:
    """What is behind the person."""

    kind: str = "gradient"
    """One of ``BACKGROUNDS``."""
    colour: Colour = (0.62, 0.70, 0.78)
    second: Colour = (0.85, 0.88, 0.90)
    """The other colour of gradients and patterns."""
    seed: int = 0
    """Of the places, sizes and angles of patterns."""

    def __post_init__(self) -> None:
        if self.kind not in BACKGROUNDS:
            raise SlotIDError(f"Got background kind {self.kind!r}, expected one of {', '.join(BACKGROUNDS)}.")


@dataclass(frozen=True, kw_only=True)
class Camera(Ranged):
    """Where the head comes to lie in the picture."""

    zoom: float = between(0.05, 4, 1.0)
    """At 1 a head is about half as high as the picture."""
    offset_x: float = between(-4, 4, 0.0)
    """Shift of the head to the right, in picture heights."""
    offset_y: float = between(-4, 4, 0.0)
    """Shift of the head downwards, in picture heights."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything in a picture but the person's traits."""

    pose: Pose = Pose(yaw=0.0, pitch=0.0, roll=0.0)
    """Degrees; the head nods first, then turns, then tilts in the picture plane."""
    expression: Expression = Expression()
    light: Light = Light()
    background: Background = Background()
    clothing: Colour = (0.25, 0.36, 0.50)
    """Of the shirt."""
    camera: Camera = Camera()


# Colours that go together behind and on a person: a quiet one and a lighter or darker one of its family.
_WALLS = (
    ((0.56, 0.65, 0.72), (0.80, 0.85, 0.88)),
    ((0.79, 0.73, 0.64), (0.90, 0.86, 0.79)),
    ((0.52, 0.61, 0.54), (0.72, 0.77, 0.68)),
    ((0.72, 0.51, 0.42), (0.85, 0.69, 0.58)),
    ((0.34, 0.42, 0.50), (0.50, 0.58, 0.65)),
    ((0.63, 0.56, 0.66), (0.80, 0.75, 0.82)),
    ((0.82, 0.66, 0.42), (0.92, 0.81, 0.62)),
    ((0.27, 0.46, 0.48), (0.48, 0.64, 0.64)),
    ((0.45, 0.42, 0.41), (0.63, 0.60, 0.57)),
    ((0.80, 0.62, 0.62), (0.91, 0.80, 0.78)),
)
_SHIRTS = (
    (0.25, 0.36, 0.50),
    (0.86, 0.83, 0.77),
    (0.55, 0.24, 0.23),
    (0.28, 0.42, 0.34),
    (0.79, 0.58, 0.26),
    (0.24, 0.25, 0.28),
    (0.40, 0.30, 0.44),
    (0.62, 0.72, 0.80),
    (0.80, 0.45, 0.36),
    (0.30, 0.52, 0.54),
)


def sample_scene(seed: int, *, pose: Pose | None = None, expression: Expression | None = None) -> Scene:
    """A random scene, the same for the same seed on every machine: a pleasant light, background and shirt.

    Args:
        pose: frontal and upright where left out.
        expression: neutral where left out.
    """
    random = np.random.RandomState(seed)
    u = random.uniform(size=16)
    colour, second = _WALLS[int(u[7] * len(_WALLS))]
    if u[8] < 0.5:
        colour, second = second, colour
    return Scene(
        pose=pose or Pose(yaw=0.0, pitch=0.0, roll=0.0),
        expression=expression or Expression(),
        light=Light(
            azimuth=float((-1 if u[0] < 0.5 else 1) * (15 + 45 * u[1])),
            elevation=float(15 + 35 * u[2]),
            strength=float(0.8 + 0.4 * u[3]),
            warmth=float(-0.2 + 0.7 * u[4]),
            ambient=float(0.8 + 0.4 * u[5]),
        ),
        background=Background(
            kind=BACKGROUNDS[int(u[6] * len(BACKGROUNDS))],
            colour=_varied(colour, u[9]),
            second=_varied(second, u[9]),
            seed=int(random.randint(2**31 - 1)),
        ),
        clothing=_varied(_SHIRTS[int(u[10] * len(_SHIRTS))], u[11]),
    )


def _varied(colour: Colour, share: float) -> Colour:
    """Darker to lighter by a tenth."""
    return tuple(float(min(value * (0.9 + 0.2 * share), 1.0)) for value in colour)
