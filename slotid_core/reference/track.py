"""Who is in a clip, and where, frame by frame.

Shape letters: F frames, H W height and width, C channels (RGB), D embedding width.

A *tracklet* is a run of detections in one shot that belong together by place. A *person* is one or more tracklets
that belong together by embedding, or by place where the backend has no embeddings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from .faces.face import Face, FaceBackend

# Seconds after which a face that was lost is a new tracklet; a blink of the detector or a turned head is shorter.
_MAX_GAP_S = 1.0
# Two detections belong together when their centres are nearer than this many face widths ...
_MAX_STEP = 0.6
# ... and neither is more than this many times as large as the other.
_MAX_GROWTH = 1.6
# Where all faces of the frame before are found again, new ones that are smaller than this share of them are looked for
# every two seconds only: a large picture takes four times as long to search as half of it.
_SMALLER = 0.75
_SEARCH_ALL_S = 2.0
# Embeddings compared per tracklet: enough to outvote a bad one, and one every two seconds in long ones.
_EMBEDDINGS, _EMBED_EVERY_S = 5, 2.0
# And the first and last detections, for two have to agree: somebody who is gone before the second sample, or comes
# after the last but one, would never be told from another.
_ENDS = 2
# Degrees: a face that looks so much farther away than another says nothing about being the same person's.
_TURNED_FURTHER = 15.0


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person of the clip."""

    faces: dict[int, Face]
    """By index of the frame it was detected in."""
    embedding_D: np.ndarray | None
    """Median of a few faces, a unit vector; ``None`` where the backend has no embeddings."""
    embeddings: dict[int, np.ndarray]
    """Those few, ``[D]`` unit vectors by index of the frame; empty where the backend has no embeddings."""
    dominance: float
    """Time x size x centrality, from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class People:
    """Everybody in the clip."""

    persons: tuple[Person, ...]
    """The most dominant first; people are numbered from 1 in this order."""
    looked_at: tuple[int, ...]
    """Indices of the frames in which faces were searched."""


@dataclass
class _Tracklet:
    shot: int
    faces: dict[int, Face] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return max(self.faces)


def find_people(
    frames_FHWC: Tensor,
    backend: FaceBackend,
    *,
    cuts: list[int],
    fps: float,
    every: int,
    progress: Callable[[int, int], None],
) -> People:
    """Detect faces in every ``every``-th frame (and around every cut), join them to people, most dominant first.

    Args:
        frames_FHWC: ``[F, H, W, 3]`` uint8.
        backend: finds faces and tells people apart.
        cuts: first frames of new shots; nothing is joined by place across them.
        fps: frames per second.
        every: distance of the frames that are looked at.
        progress: called as ``progress(frames done, frames)``; what it raises passes through.
    """
    count, height, width = frames_FHWC.shape[:3]
    looked_at = sorted({*range(0, count, every), count - 1, *cuts, *(cut - 1 for cut in cuts)})
    samples = max(_EMBEDDINGS, round(count / fps / _EMBED_EVERY_S))
    tracklets: list[_Tracklet] = []
    before, searched = -1, -count
    for done, index in enumerate(looked_at):
        progress(done, len(looked_at) + min(samples + 2 * _ENDS, len(looked_at)))
        shot = sum(cut <= index for cut in cuts)
        open_tracklets = [t for t in tracklets if t.shot == shot and index - t.last <= max(_MAX_GAP_S * fps, every)]
        frame_HWC = frames_FHWC[index].numpy()
        known = [centre_and_size(t.faces[before])[1] for t in open_tracklets if t.last == before]
        faces = []
        if known and index - searched < _SEARCH_ALL_S * fps:
            faces = backend.detect(frame_HWC, index, _SMALLER * min(known))
        if not known or len(faces) < len(known):
            faces, searched = backend.detect(frame_HWC, index), index
        tracklets += _extend(open_tracklets, faces, index, shot)
        before = index
    if backend.same_person is None:
        found = [_Part(faces, {}) for faces in _join_by_place(tracklets)]
    else:
        embedder = _Embedder(frames_FHWC, backend, len(looked_at), progress)
        found = _join_by_likeness(tracklets, embedder, samples, backend.same_person)
    progress(1, 1)
    persons = [
        Person(
            faces=part.faces,
            embedding_D=part.typical_D if part.embeddings else None,
            embeddings=part.embeddings,
            dominance=_dominance(part.faces, len(looked_at), width, height),
        )
        for part in found
    ]
    persons.sort(key=lambda person: -person.dominance)
    return People(persons=tuple(persons), looked_at=tuple(looked_at))


def centre_and_size(face: Face) -> tuple[np.ndarray, float]:
    """Centre (x, y) of the face's box and its longer side, in pixels."""
    x0, y0, x1, y1 = face.box_xyxy
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2]), max(x1 - x0, y1 - y0)


def _extend(open_tracklets: list[_Tracklet], faces: list[Face], index: int, shot: int) -> list[_Tracklet]:
    """Put each face on the nearest tracklet that it fits; faces that fit none begin new ones, which are returned."""
    pairs = []
    for t, tracklet in enumerate(open_tracklets):
        for f, face in enumerate(faces):
            step = _step(tracklet.faces[tracklet.last], face)
            if step is not None:
                pairs.append((step, t, f))
    taken: set[int] = set()
    placed: set[int] = set()
    for _, t, f in sorted(pairs):
        if t not in taken and f not in placed:
            open_tracklets[t].faces[index] = faces[f]
            taken.add(t)
            placed.add(f)
    return [_Tracklet(shot, {index: face}) for f, face in enumerate(faces) if f not in placed]


def _step(a: Face, b: Face) -> float | None:
    """Distance of two detections in face widths; ``None`` where they are too far apart or too unlike in size."""
    (centre_a, size_a), (centre_b, size_b) = centre_and_size(a), centre_and_size(b)
    larger, smaller = max(size_a, size_b), min(size_a, size_b)
    step = float(np.linalg.norm(centre_a - centre_b)) / larger
    return step if step < _MAX_STEP and larger < _MAX_GROWTH * smaller else None


def _join_by_place(tracklets: list[_Tracklet]) -> list[dict[int, Face]]:
    """Tracklets to people: one that begins where another ended, however much later, goes on with it."""
    people: list[dict[int, Face]] = []
    for tracklet in sorted(tracklets, key=lambda t: min(t.faces)):
        first = tracklet.faces[min(tracklet.faces)]
        steps = {
            i: step
            for i, known in enumerate(people)
            if max(known) < min(tracklet.faces) and (step := _step(known[max(known)], first)) is not None
        }
        if steps:
            people[min(steps, key=steps.get)].update(tracklet.faces)
        else:
            people.append(dict(tracklet.faces))
    return people


@dataclass
class _Part:
    """Faces of one person, and the embeddings of some."""

    faces: dict[int, Face]
    embeddings: dict[int, np.ndarray]

    @property
    def typical_D(self) -> np.ndarray:
        return _typical(list(self.embeddings.values()))


class _Embedder:
    """Embeds faces and reports each as one step after the ``done`` detections."""

    def __init__(self, frames_FHWC: Tensor, backend: FaceBackend, done: int, progress: Callable[[int, int], None]):
        self._frames_FHWC, self._backend = frames_FHWC, backend
        self._done, self._total, self._progress = done, done, progress

    def expect(self, count: int) -> None:
        self._total = self._done + count

    def __call__(self, index: int, face: Face) -> np.ndarray:
        self._progress(self._done, max(self._total, self._done + 1))
        self._done += 1
        return self._backend.embed(self._frames_FHWC[index].numpy(), face)


def _join_by_likeness(tracklets: list[_Tracklet], embedder: _Embedder, samples: int, same_person: float) -> list[_Part]:
    """Tracklets to people: the longest first, each takes in those that are the same person by embedding."""
    embedder.expect(sum(min(samples + 2 * _ENDS, len(tracklet.faces)) for tracklet in tracklets))
    parts = [part for t in tracklets for part in _split_by_person(t.faces, embedder, samples, same_person)]
    parts.sort(key=lambda part: -len(part.faces))
    people: list[_Part] = []
    for part in parts:
        # One person is not twice in one frame, however alike two faces are.
        free = [known for known in people if not part.faces.keys() & known.faces.keys()]
        likest = max(free, key=lambda known: float(known.typical_D @ part.typical_D), default=None)
        if likest is not None and float(likest.typical_D @ part.typical_D) >= same_person:
            likest.faces.update(part.faces)
            likest.embeddings.update(part.embeddings)
        else:
            people.append(part)
    return people


def _split_by_person(faces: dict[int, Face], embedder: _Embedder, samples: int, same_person: float) -> list[_Part]:
    """One tracklet, cut where the face becomes another person's in the same place (a dissolve, or a cut not found)."""
    indices = sorted(faces)
    turned = [_turned(faces[i]) for i in indices]
    parts = np.array_split(np.arange(len(indices)), min(samples, len(indices)))
    least_turned = {min(part.tolist(), key=lambda n: turned[n]) for part in parts}
    chosen = sorted(least_turned | {*range(len(indices))[:_ENDS], *range(len(indices))[-_ENDS:]})
    embeddings = {n: embedder(indices[n], faces[indices[n]]) for n in chosen}

    def is_somebody_else(n: int, run: list[int], usual_D: np.ndarray) -> bool:
        """``n`` and the next sample are like each other, and unlike two of the run that are like each other. A blurred
        face is like nobody, and a turned one is unlike the same person's, so all four look about equally far away."""
        pair = [n, *(m for m in chosen if m > n)][:2]
        known = [m for m in run if float(embeddings[m] @ usual_D) >= same_person]
        aside = [turned[m] for m in known], [turned[m] for m in pair]
        return (
            len(known) >= 2
            and len(pair) == 2
            and max(aside[1]) <= max(aside[0]) + _TURNED_FURTHER
            and sorted(aside[0])[1] <= max(aside[1]) + _TURNED_FURTHER
            and all(float(embeddings[m] @ usual_D) < same_person for m in pair)
            and float(embeddings[pair[0]] @ embeddings[pair[1]]) >= same_person
        )

    runs: list[list[int]] = [[chosen[0]]]
    begins = [0]
    for n in chosen[1:]:
        run = runs[-1]
        # The first half alone: in a slow dissolve the later ones are a bit of both.
        usual_D = _typical([embeddings[m] for m in run[: (len(run) + 1) // 2]])
        if is_somebody_else(n, run, usual_D):
            other_D = _typical([embeddings[m] for m in chosen if m >= n][:2])
            begin = _first_of_other(run[0], n, usual_D, other_D, indices, faces, embedder)
            begins.append(begin)
            runs[-1] = [m for m in run if m < begin]
            runs.append([m for m in run if m >= begin])
        runs[-1].append(n)
    return [
        _Part({indices[n]: faces[indices[n]] for n in range(begin, end)}, {indices[n]: embeddings[n] for n in run})
        for begin, end, run in zip(begins, [*begins[1:], len(indices)], runs, strict=True)
    ]


def _turned(face: Face) -> float:
    """How far the head looks away, in degrees: turned faces are less like the same person."""
    return abs(face.pose.yaw) + abs(face.pose.pitch) if face.pose is not None else 0.0


def _first_of_other(
    before: int,
    after: int,
    usual_D: np.ndarray,
    other_D: np.ndarray,
    indices: list[int],
    faces: dict[int, Face],
    embedder: _Embedder,
) -> int:
    """The first detection that is more like the other person, by halving what lies between two samples."""
    while after - before > 1:
        middle = (before + after) // 2
        embedding_D = embedder(indices[middle], faces[indices[middle]])
        if float(embedding_D @ usual_D) >= float(embedding_D @ other_D):
            before = middle
        else:
            after = middle
    return after


def _typical(embeddings: Sequence[np.ndarray]) -> np.ndarray:
    """Component by component the median, so that one turned or covered face among three changes little."""
    return unit(np.median(embeddings, axis=0))


def unit(vector_D: np.ndarray) -> np.ndarray:
    """Of length 1."""
    return vector_D / np.linalg.norm(vector_D)


def _dominance(faces: dict[int, Face], looked_at: int, width: int, height: int) -> float:
    total = 0.0
    for face in faces.values():
        centre, size = centre_and_size(face)
        off_centre = float(np.linalg.norm(centre / np.array([width, height]) - 0.5)) / np.sqrt(0.5)
        total += size / max(width, height) * (1 - 0.5 * min(1.0, off_centre))
    return float(min(1.0, total / looked_at))
