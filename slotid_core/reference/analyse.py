"""The reference pipeline, put together once: frames -> the person, a stable path, portrait candidates, a report.

Shape letters: F frames, H W height and width, C channels (RGB).
"""

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from ..errors import SlotIDError
from .coverage import Coverage, cover
from .cuts import find_cuts
from .faces.face import Face, FaceBackend
from .measures import FaceMeasures, PortraitScore, measure_face, score_portraits
from .stabilise import CropPath, stable_path
from .track import People, Person, find_people

# A person this much less dominant than the first is in the background and no reason to ask.
_BACKGROUND = 0.25
# Frames at the edges of a gap this long are another part of the clip; a shorter gap is a turned or covered face.
_MAX_GAP_S = 1.0
_MIN_FACE_PX = 48
_MIN_FRAMES = 5
_DARK = 0.12
# Frames asked for a likeness of a face when none was found.
_LIKENESSES = 4
# An embedding costs more than a detection, so only portraits that are good otherwise are compared, until one stays
# the best with its likeness known.
_COMPARED = 4
# Cosines that differ by less say nothing of what covers a face.
_AS_LIKE = 0.01
_log = logging.getLogger("slotid")


class UnusableClipError(SlotIDError):
    """The clip shows nobody who could be followed. ``reason`` says why in two words, so that clips can be counted."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


class SeveralPeopleError(UnusableClipError):
    """More than one person could be meant. ``people`` says who; nodes show them with their numbers."""

    def __init__(self, message: str, people: People):
        super().__init__(message, "several people")
        self.people = people


@dataclass(frozen=True, kw_only=True)
class FrameReport:
    """What became of one frame."""

    index: int
    dropped: str | None
    """Why it is not in the clip; ``None`` for a frame that is."""
    face: Face | None
    """The person's face where it was detected in this frame."""
    measures: FaceMeasures | None
    score: PortraitScore | None
    """How good a portrait it would make."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All that is known of one reference clip and the person in it."""

    backend: str
    people: People
    person: int
    """Number of the person that is followed, from 1."""
    cuts: tuple[int, ...]
    frames: tuple[FrameReport, ...]
    kept: range
    """The frames that make the clip: one stretch of 4n+1."""
    path: CropPath
    """Squares for the kept frames."""
    coverage: Coverage

    @property
    def candidates(self) -> list[FrameReport]:
        """Kept frames with a face that was detected, best portrait first."""
        scored = [f for f in self.frames if f.score is not None]
        return sorted(scored, key=lambda f: -f.score.total)

    def describe(self) -> str:
        """A few lines for people."""
        found = len(self.people.persons[self.person - 1].faces)
        lines = [
            f"Faces by {self.backend}. Person {self.person} of {len(self.people.persons)}, found in {found} of "
            f"{len(self.people.looked_at)} frames that were searched.",
            f"{len(self.kept)} frames kept, from frame {self.kept.start}.",
        ]
        if self.cuts:
            lines.append(_say_cuts(self.cuts).strip())
        lines += [f"Missing: {sentence}." for sentence in self.coverage.missing]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A clip with its analysis."""

    frames_FHWC: Tensor
    """``[F, H, W, 3]`` uint8."""
    fps: float
    analysis: Analysis


def analyse(
    frames_FHWC: Tensor,
    backend: FaceBackend,
    *,
    fps: float,
    person_index: int = 0,
    on_break: Literal["refuse", "longest part"] = "refuse",
    margin: float = 1.8,
    every: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Analysis:
    """Find the person, follow the face, and judge every frame.

    Args:
        frames_FHWC: ``[F, H, W, 3]`` uint8, as a :class:`Clip` has them.
        backend: finds faces.
        fps: frames per second.
        person_index: who is meant, numbered from 1; 0 is the one person who dominates the clip, if there is one.
        on_break: what to do when the person is not in the whole clip (a hard cut, another person, a long gap):
            ``refuse``, or take the ``longest part`` of 4n+1 frames.
        margin: side of the square crop as a multiple of the face.
        every: faces are searched in every so-manieth frame.
        progress: called as ``progress(done, total)``; what it raises passes through.

    Raises:
        SlotIDError: no face, a face that is too small, several people and none asked for, a person who is not there,
            or a break that is refused. Each says what was found and what to try.
    """
    cuts = find_cuts(frames_FHWC, fps=fps)
    people = find_people(frames_FHWC, backend, cuts=cuts, fps=fps, every=every, progress=progress)
    number = _choose(people, person_index, cuts, frames_FHWC, backend)
    person = people.persons[number - 1]
    _check_size(person)
    present = _present(person, cuts, len(frames_FHWC), fps, every)
    kept, reasons = _keep(present, cuts, people, number, on_break)

    faces = {i: face for i, face in person.faces.items() if i in kept}
    measures = {i: measure_face(frames_FHWC[i], face) for i, face in faces.items()}
    scores = dict(zip(faces, _score(faces, measures, person, frames_FHWC, backend), strict=True))
    height, width = frames_FHWC.shape[1:3]
    path = stable_path(
        {i - kept.start: face.box_xyxy for i, face in faces.items()},
        frames=len(kept), width=width, height=height, fps=fps, margin=margin,
    )  # fmt: skip
    analysis = Analysis(
        backend=backend.name,
        people=people,
        person=number,
        cuts=tuple(cuts),
        frames=tuple(
            FrameReport(
                index=i,
                dropped=reasons[i],
                face=person.faces.get(i),
                measures=measures.get(i),
                score=scores.get(i),
            )
            for i in range(len(frames_FHWC))
        ),
        kept=kept,
        path=path,
        coverage=cover(list(faces.values()), list(measures.values()), backend=backend.name, kept=kept),
    )
    _log.info("%s", analysis.describe())
    return analysis


def _choose(people: People, person_index: int, cuts: list[int], frames_FHWC: Tensor, backend: FaceBackend) -> int:
    persons = people.persons
    if not persons:
        raise _no_face(people, frames_FHWC, backend)
    if not 0 <= person_index <= len(persons):
        raise SlotIDError(
            f"Person {person_index} was asked for, and the people found have the numbers 1 to {len(persons)}. Use one "
            "of these, or 0 where one person dominates the clip."
        )
    if person_index:
        return person_index
    rivals = [n for n, p in enumerate(persons[1:], start=2) if p.dominance > _BACKGROUND * persons[0].dominance]
    if rivals:
        raise SeveralPeopleError(
            f"{1 + len(rivals)} people could be meant (numbers 1, {', '.join(map(str, rivals))}).{_say_cuts(cuts)} Set "
            "person_index to one of these numbers.",
            people,
        )
    return 1


def _say_cuts(cuts: Sequence[int]) -> str:
    if not cuts:
        return ""
    return (
        f" Hard cut{'s' if len(cuts) > 1 else ''} at frame{'s' if len(cuts) > 1 else ''} {', '.join(map(str, cuts))}."
    )


def _no_face(people: People, frames_FHWC: Tensor, backend: FaceBackend) -> UnusableClipError:
    few = people.looked_at[:: max(1, len(people.looked_at) // _LIKENESSES)]
    likest = [score for i in few if (score := backend.best_score(frames_FHWC[i].numpy())) is not None]
    said = f"the likeliest place scored {max(likest):.2f}" if likest else "no place looked like one"
    brightness = float(frames_FHWC[list(few)].float().mean()) / 255
    dark = f" The picture is dark (brightness {brightness:.2f} of 1): lighten it." if brightness < _DARK else ""
    return UnusableClipError(
        f"No face was found in {len(people.looked_at)} frames; {said}. {backend.limits(*frames_FHWC.shape[1:3])}."
        f"{dark} Try another start, a clip with a larger and more frontal face, another face backend, or "
        "a box of your own around the face.",
        "no face",
    )


def _check_size(person: Person) -> None:
    sizes = [max(f.box_xyxy[2] - f.box_xyxy[0], f.box_xyxy[3] - f.box_xyxy[1]) for f in person.faces.values()]
    if np.median(sizes) < _MIN_FACE_PX:
        raise UnusableClipError(
            f"The face is {np.median(sizes):.0f} pixels large, at least {_MIN_FACE_PX} are needed to tell a person. "
            "Use a closer clip, or one of higher resolution.",
            "small face",
        )


def _present(person: Person, cuts: list[int], count: int, fps: float, every: int) -> np.ndarray:
    """Frames the person is in: between detections that are not too far apart and in one shot."""
    present = np.zeros(count, dtype=bool)
    indices = sorted(person.faces)
    present[indices] = True
    longest = max(_MAX_GAP_S * fps, every)
    for a, b in zip(indices, indices[1:], strict=False):
        if b - a <= longest and not any(a < cut <= b for cut in cuts):
            present[a:b] = True
    return present


def _keep(
    present: np.ndarray, cuts: list[int], people: People, number: int, on_break: str
) -> tuple[range, list[str | None]]:
    """The stretch that makes the clip, and why each other frame does not."""
    count = len(present)
    edges = sorted({0, count, *cuts, *(int(i) + 1 for i in np.flatnonzero(np.diff(present)))})
    stretches = [range(a, b) for a, b in zip(edges, edges[1:], strict=False) if present[a]]
    longest = max(stretches, key=len)
    kept = range(longest.start, longest.start + (len(longest) - 1) // 4 * 4 + 1)
    others = {i for n, p in enumerate(people.persons, start=1) if n != number for i in p.faces}
    looked_at = sorted(people.looked_at)

    def shot(i: int) -> int:
        return sum(cut <= i for cut in cuts)

    def reason(i: int) -> str | None:
        if i in kept:
            return None
        if present[i]:
            return "rounded to 4n+1" if i in longest else "other shot" if shot(i) != shot(kept.start) else "other part"
        after = bisect_left(looked_at, i)
        beside = looked_at[max(0, after - 1) : after + 1]
        near = [j for j in beside if abs(j - i) == min(abs(k - i) for k in beside)]
        return "another person" if any(j in others for j in near) else "no face"

    reasons = [reason(i) for i in range(count)]
    whole = count - (count - 1) % 4
    if len(kept) < whole and on_break == "refuse":
        counted = {why: reasons.count(why) for why in reasons if why is not None}
        found = ", ".join(f"{n} x {why}" for why, n in counted.items())
        raise UnusableClipError(
            f"The person is not in the whole clip: of {count} frames {found}.{_say_cuts(cuts)} The longest part has "
            f"{len(kept)} frames from frame {kept.start}. Take it with on_break 'longest part', or choose another "
            "start.",
            "broken up",
        )
    if len(kept) < _MIN_FRAMES:
        raise UnusableClipError(
            f"The longest part that shows the person has {len(kept)} frames, at least {_MIN_FRAMES} are needed. Choose "
            "another start or another clip.",
            "broken up",
        )
    return kept, reasons


def _score(
    faces: dict[int, Face],
    measures: dict[int, FaceMeasures],
    person: Person,
    frames_FHWC: Tensor,
    backend: FaceBackend,
) -> list[PortraitScore]:
    """Scores in the order of ``faces``. What covers a face makes it unlike itself, where there are embeddings."""
    ordered = list(faces.values()), [measures[i] for i in faces]
    scores = score_portraits(*ordered, likeness={})
    if person.embedding_D is None:
        return scores
    likeness = {
        n: float(person.embeddings[index] @ person.embedding_D)
        for n, index in enumerate(faces)
        if index in person.embeddings
    }
    for rank, n in enumerate(sorted(range(len(scores)), key=lambda n: -scores[n].total), start=1):
        if n not in likeness:
            index = list(faces)[n]
            likeness[n] = float(backend.embed(frames_FHWC[index].numpy(), faces[index]) @ person.embedding_D)
        scores_now = score_portraits(*ordered, likeness=likeness, same_person=backend.same_person)
        best = max(range(len(scores)), key=lambda m: scores_now[m].total)
        # Never one that was not compared: its half may be more than what a hidden face has left.
        like_enough = best == n and likeness[n] > max(likeness.values()) - _AS_LIKE
        if best in likeness and (like_enough or rank >= _COMPARED):
            break
    return scores_now
