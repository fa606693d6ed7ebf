"""What a clip shows of a person, as data and in words, and what it lacks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .faces.face import Face
from .measures import FaceMeasures

# A turn is seen from this yaw on, a profile from the second; both are worth having for a video.
_TURNED, _PROFILE = 25.0, 50.0
_NODDED = 12.0
_FRONTAL = 15.0
_DARK, _BRIGHT = 0.2, 0.85
_SMALL_PX = 96
_BLINK = 0.25


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Ranges over the frames in which the face was found. Angles in degrees, see :class:`Pose`; the rest from 0 to 1.

    A range is ``(lowest, highest)``, ``None`` where the backend can't tell.
    """

    faces: int
    yaw: tuple[float, float] | None
    pitch: tuple[float, float] | None
    mouth_open: tuple[float, float] | None
    smile: tuple[float, float] | None
    eyes_open: tuple[float, float] | None
    brightness: tuple[float, float]
    size_px: tuple[float, float]
    missing: tuple[str, ...]
    """What is not in the clip and what to expect from that, in sentences."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON."""
        return asdict(self)


def cover(faces: Sequence[Face], measures: Sequence[FaceMeasures]) -> Coverage:
    """Sum up detected faces of one person; at least one."""
    poses = [face.pose for face in faces if face.pose is not None]
    expressions = [face.expression for face in faces if face.expression is not None]
    ranges = {
        "yaw": _range([p.yaw for p in poses]),
        "pitch": _range([p.pitch for p in poses]),
        "mouth_open": _range([e.mouth_open for e in expressions]),
        "smile": _range([e.smile for e in expressions]),
        "eyes_open": _range([e.eyes_open for e in expressions]),
    }
    blinked = any(e.eyes_open < _BLINK for e in expressions)  # short: a percentile would miss it
    brightness = _range([m.brightness for m in measures])
    size_px = _range([m.size_px for m in measures])
    assert brightness is not None and size_px is not None, "coverage of no face"
    return Coverage(
        faces=len(faces),
        **ranges,
        brightness=brightness,
        size_px=size_px,
        missing=tuple(_missing(ranges, [p.yaw for p in poses], blinked, brightness, size_px)),
    )


def _range(values: list[float]) -> tuple[float, float] | None:
    """5th to 95th percentile, so that one bad landmark fit is no view of a profile."""
    if not values:
        return None
    low, high = np.quantile(values, [0.05, 0.95])
    return float(low), float(high)


def _missing(
    ranges: dict[str, tuple[float, float] | None],
    yaws: list[float],
    blinked: bool,
    brightness: tuple[float, float],
    size_px: tuple[float, float],
) -> list[str]:
    said = []
    if ranges["yaw"] is not None:
        if min(abs(yaw) for yaw in yaws) > _FRONTAL:
            said.append(f"no view within {_FRONTAL:g} degrees of frontal: the portrait is a turned face")
        for side, reach in (("left", -ranges["yaw"][0]), ("right", ranges["yaw"][1])):
            if reach < _TURNED:
                said.append(f"no view beyond {max(0, reach):.0f} degrees to the {side}: expect drift in turned shots")
            elif reach < _PROFILE:
                said.append(f"no view beyond {reach:.0f} degrees to the {side}: expect drift in profile shots")
    if ranges["pitch"] is not None:
        for side, reach in (("down", -ranges["pitch"][0]), ("up", ranges["pitch"][1])):
            if reach < _NODDED:
                said.append(f"never looks more than {max(0, reach):.0f} degrees {side}: expect drift in such shots")
    if ranges["smile"] is not None and ranges["smile"][1] < 0.4:
        said.append("no smile: the smile will be somebody else's")
    if ranges["mouth_open"] is not None and ranges["mouth_open"][1] < 0.3:
        said.append("the mouth stays closed: talking and teeth will be guessed")
    if ranges["eyes_open"] is not None and not blinked:
        said.append("no blink")
    if brightness[1] < _DARK:
        said.append(f"dark throughout (face brightness {brightness[1]:.2f} at most): skin and eyes will be guessed")
    if brightness[0] > _BRIGHT:
        said.append(f"too bright throughout (face brightness {brightness[0]:.2f} at least): detail is burnt out")
    if size_px[1] < _SMALL_PX:
        said.append(f"the face is never larger than {size_px[1]:.0f} pixels: use a closer clip, {_SMALL_PX} or more")
    return said
