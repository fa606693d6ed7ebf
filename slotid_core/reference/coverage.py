"""What a clip shows of a person, as data and in words, and what it lacks."""

import reprlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ..errors import SlotIDError
from .faces.face import Face
from .measures import FaceMeasures

# A turn is seen from this yaw on, a profile from the second; both are worth having for a video.
_TURNED, _PROFILE = 25.0, 50.0
_NODDED = 12.0
_FRONTAL = 15.0
_DARK, _BRIGHT = 0.2, 0.85
_SMALL_PX = 96
_BLINK = 0.25
# Teeth shown with the jaw shut came to 0.3 in a real clip, its closed lips to 0.02.
_OPEN = 0.2

# How two of the sentences begin that are told from single frames.
_NO_FRONTAL, _NO_BLINK = "no view within", "no blink"
_AND = " + "

# What is believed of a file: lowest and highest number of each range, with some room for rounding.
_SHARE, _ANGLE = (-0.001, 1.001), (-180.0, 180.0)
_BELIEVED = {
    "yaw": _ANGLE,
    "pitch": _ANGLE,
    "mouth_open": _SHARE,
    "smile": _SHARE,
    "eyes_open": _SHARE,
    "brightness": _SHARE,
    "sharpness": (0.0, 4.0),
    "size_px": (0.0, 1e6),
}
_ALWAYS_MEASURED = ("brightness", "sharpness", "size_px")
_MOST_FRAMES, _MOST_SENTENCES, _LONGEST_SENTENCE = 1_000_000, 32, 200


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Ranges over the frames in which the face was found. Angles in degrees, see :class:`Pose`; the rest from 0 to 1.

    A range is ``(lowest, highest)``, ``None`` where the backend can't tell.
    """

    backend: str
    """Which face backend measured."""
    first_frame: int
    """Which of the frames that were read is the clip's first."""
    frames: int
    """How many frames the clip has."""
    faces: int
    """In how many of them the face was measured."""
    yaw: tuple[float, float] | None
    pitch: tuple[float, float] | None
    mouth_open: tuple[float, float] | None
    smile: tuple[float, float] | None
    eyes_open: tuple[float, float] | None
    brightness: tuple[float, float]
    sharpness: tuple[float, float]
    """See :class:`FaceMeasures`; compares frames of one clip."""
    size_px: tuple[float, float]
    missing: tuple[str, ...]
    """What is not in the clip and what to expect from that, in sentences."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> "Coverage":
        """What :meth:`to_dict` gave, after a file that may come from anywhere.

        Raises:
            SlotIDError: a name is missing or too much, or a value is no such number, range or sentence.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or data.keys() != names:
            raise SlotIDError(f"got {reprlib.repr(data)}, expected a mapping with the names {', '.join(sorted(names))}")
        if not _is_text(data["backend"]):
            raise SlotIDError(f"backend is {reprlib.repr(data['backend'])}, expected a short text")
        for name, lowest in (("first_frame", 0), ("frames", 1), ("faces", 1)):
            if type(data[name]) is not int or not lowest <= data[name] <= _MOST_FRAMES:
                got = reprlib.repr(data[name])
                raise SlotIDError(f"{name} is {got}, expected a whole number from {lowest} to {_MOST_FRAMES}")
        if data["faces"] > data["frames"]:
            raise SlotIDError(f"faces is {data['faces']}, and there are {data['frames']} frames")
        ranges = {name: _believe(name, data[name]) for name in _BELIEVED}
        missing = data["missing"]
        if not isinstance(missing, list | tuple) or len(missing) > _MOST_SENTENCES or not all(map(_is_text, missing)):
            raise SlotIDError(
                f"missing is {reprlib.repr(missing)}, expected at most {_MOST_SENTENCES} texts of one line and "
                f"{_LONGEST_SENTENCE} letters"
            )
        return cls(**{**data, **ranges, "missing": tuple(missing)})


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_SENTENCE and value.isprintable()


def _believe(name: str, value: Any) -> tuple[float, float] | None:
    if value is None and name not in _ALWAYS_MEASURED:
        return None
    lowest, highest = _BELIEVED[name]
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(type(side) in (int, float) for side in value)
    if not (pair and lowest <= value[0] <= value[1] <= highest):  # NaN is in no order
        raise SlotIDError(
            f"{name} is {reprlib.repr(value)}, expected a lowest and a highest number from {lowest:g} to {highest:g}"
        )
    return float(value[0]), float(value[1])


def cover(faces: Sequence[Face], measures: Sequence[FaceMeasures], *, backend: str, kept: range) -> Coverage:
    """Sum up detected faces of one person; at least one. ``kept`` are the frames that make the clip."""
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
    sharpness = _range([m.sharpness for m in measures])
    size_px = _range([m.size_px for m in measures])
    assert brightness is not None and sharpness is not None and size_px is not None, "coverage of no face"
    return Coverage(
        backend=backend,
        first_frame=kept.start,
        frames=len(kept),
        faces=len(faces),
        **ranges,
        brightness=brightness,
        sharpness=sharpness,
        size_px=size_px,
        missing=tuple(_missing(ranges, [p.yaw for p in poses], blinked, brightness, size_px)),
    )


def join(parts: Sequence[Coverage]) -> Coverage:
    """What several clips of one person show together: ranges from the lowest to the highest; at least one part."""
    ranges = {}
    for name in _BELIEVED:
        known = [value for part in parts if (value := getattr(part, name)) is not None]
        ranges[name] = (min(low for low, _ in known), max(high for _, high in known)) if known else None
    # Both are told from single frames, which a range does not hold: what one part has, the whole has.
    frontal = any(part.yaw is not None and not _said(part, _NO_FRONTAL) for part in parts)
    blinked = any(part.eyes_open is not None and not _said(part, _NO_BLINK) for part in parts)
    backends = {name for part in parts for name in part.backend.split(_AND)}
    return Coverage(
        backend=_AND.join(sorted(backends))[:_LONGEST_SENTENCE],
        first_frame=parts[0].first_frame,
        frames=sum(part.frames for part in parts),
        faces=sum(part.faces for part in parts),
        **ranges,
        missing=tuple(_missing(ranges, [0.0 if frontal else 90.0], blinked, ranges["brightness"], ranges["size_px"])),
    )


def _said(part: Coverage, beginning: str) -> bool:
    return any(sentence.startswith(beginning) for sentence in part.missing)


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
            said.append(f"{_NO_FRONTAL} {_FRONTAL:g} degrees of frontal: the portrait is a turned face")
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
    if ranges["mouth_open"] is not None and ranges["mouth_open"][1] < _OPEN:
        said.append("the mouth stays closed: talking and teeth will be guessed")
    if ranges["eyes_open"] is not None and not blinked:
        said.append(_NO_BLINK)
    unknown = [name for name, key in (("angles", "yaw"), ("expression", "smile")) if ranges[key] is None]
    if unknown:
        said.append(f"{' and '.join(unknown)} of the face are not known: another face backend can tell")
    if brightness[1] < _DARK:
        said.append(f"dark throughout (face brightness {brightness[1]:.2f} at most): skin and eyes will be guessed")
    if brightness[0] > _BRIGHT:
        said.append(f"too bright throughout (face brightness {brightness[0]:.2f} at least): detail is burnt out")
    if size_px[1] < _SMALL_PX:
        said.append(f"the face is never larger than {size_px[1]:.0f} pixels: use a closer clip, {_SMALL_PX} or more")
    return said
