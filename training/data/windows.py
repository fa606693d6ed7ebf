"""Which stretches of a video become reference and target, and which part of the picture the target is.

Letters: F frames, H W height and width of the frames, h w of the target. Pixels; x to the right, y down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slotid_core.reference import Box

DISJOINT, OVERLAPPING, SAME = "disjoint", "overlapping", "same"
MOST_ENLARGED = 1.5
"""Targets are not enlarged beyond this: a backbone would learn blur."""
_AROUND_FACE = 0.25
"""Room that the target leaves around the face where the picture has it, in face sizes."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Two stretches of frames."""

    reference: range
    target: range

    @property
    def kind(self) -> str:
        """How they lie: ``disjoint``, ``overlapping`` or ``same``."""
        if self.reference == self.target:
            return SAME
        apart = self.reference.stop <= self.target.start or self.target.stop <= self.reference.start
        return DISJOINT if apart else OVERLAPPING


def longest_length(stretch: range, lengths: Sequence[int]) -> int | None:
    """The longest of ``lengths`` that the stretch fills; ``None`` where it fills none."""
    return max((length for length in lengths if length <= len(stretch)), default=None)


def candidate_windows(stretch: range, faces: Sequence[int], *, reference: int, target: int) -> list[Windows]:
    """Pairs of windows to try, the best first: as far from each other as they fit.

    A reference begins and ends in a frame whose face was found, since the reference pipeline keeps what lies between
    faces that were found. Of equally distant pairs the earlier reference comes first.

    Args:
        stretch: frames that show the person without a break.
        faces: frames of the stretch in which the face was found.
        reference: frames of the reference.
        target: frames of the target, at most those of the stretch.
    """
    found = {index for index in faces if index in stretch}
    starts = [start for start in sorted(found) if start + reference - 1 in found]
    ends = range(stretch.start, stretch.start + target), range(stretch.stop - target, stretch.stop)
    pairs = [Windows(reference=range(s, s + reference), target=end) for s in starts for end in dict.fromkeys(ends)]

    def apart(pair: Windows) -> float:
        return abs((pair.reference.start + pair.reference.stop) - (pair.target.start + pair.target.stop))

    return sorted(pairs, key=lambda pair: (-apart(pair), pair.reference.start))


def nearest_size(height: int, width: int, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The height and width of the nearest aspect; the first of equals."""
    return min(sizes, key=lambda size: abs(math.log(size[1] / size[0]) - math.log(width / height)))


def target_box(
    height: int, width: int, size: tuple[int, int], face_boxes: Sequence[tuple[float, float, float, float]]
) -> Box | str:
    """The largest part of the picture of the target's aspect, near the middle, with all the face boxes inside.

    Returns:
        The part; or why there is none, in words: ``too small`` or ``face leaves the crop``.
    """
    enlarged = max(size[0] / height, size[1] / width)
    if enlarged > MOST_ENLARGED:
        return "too small"
    box_height, box_width = min(height, round(size[0] / enlarged)), min(width, round(size[1] / enlarged))
    lefts, tops, rights, bottoms = zip(*face_boxes, strict=True)
    x = _place(width, box_width, min(lefts), max(rights))
    y = _place(height, box_height, min(tops), max(bottoms))
    return "face leaves the crop" if x is None or y is None else Box(x, y, box_width, box_height)


def _place(whole: int, part: int, low: float, high: float) -> int | None:
    """Where the part begins: in the middle, or moved so that low to high lies inside, with room around."""
    low, high = max(0.0, low), min(float(whole), high)
    if high - low > part:
        return None
    room = min(_AROUND_FACE * (high - low), (part - (high - low)) / 2)
    begin = min(max((whole - part) / 2, high + room - part), low - room)
    begin = min(max(math.floor(begin), 0), whole - part)
    # Whole pixels and the picture's edges come before the room; the face itself stays inside.
    return max(begin, math.ceil(high) - part)
