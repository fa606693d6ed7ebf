"""Who is in a clip, and where, frame by frame.

Shape letters: F frames, H W height and width, C channels (RGB), D embedding width.

A *tracklet* is a run of detections in one shot that belong together by place. A *person* is one or more tracklets
that belong together by embedding; a backend without embeddings cannot join across a cut, so there each shot has its
own people.
"""

from collections.abc import Callable
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
# Embeddings compared per tracklet: enough to outvote a bad one.
_EMBEDDINGS = 7


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person of the clip."""

    faces: dict[int, Face]
    """By index of the frame it was detected in."""
    embedding_D: np.ndarray | None
    """Mean of a few faces, a unit vector; ``None`` where the backend has no embeddings."""
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
    tracklets: list[_Tracklet] = []
    for done, index in enumerate(looked_at):
        progress(done, len(looked_at))
        shot = sum(cut <= index for cut in cuts)
        faces = backend.detect(frames_FHWC[index].numpy(), index)
        open_tracklets = [t for t in tracklets if t.shot == shot and index - t.last <= max(_MAX_GAP_S * fps, every)]
        tracklets += _extend(open_tracklets, faces, index, shot)
    persons = [
        Person(faces=faces, embedding_D=embedding_D, dominance=_dominance(faces, len(looked_at), width, height))
        for faces, embedding_D in _join(tracklets, frames_FHWC, backend)
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
        centre, size = centre_and_size(tracklet.faces[tracklet.last])
        for f, face in enumerate(faces):
            new_centre, new_size = centre_and_size(face)
            step = float(np.linalg.norm(new_centre - centre)) / max(size, new_size)
            if step < _MAX_STEP and max(size, new_size) < _MAX_GROWTH * min(size, new_size):
                pairs.append((step, t, f))
    taken: set[int] = set()
    placed: set[int] = set()
    for _, t, f in sorted(pairs):
        if t not in taken and f not in placed:
            open_tracklets[t].faces[index] = faces[f]
            taken.add(t)
            placed.add(f)
    return [_Tracklet(shot, {index: face}) for f, face in enumerate(faces) if f not in placed]


def _join(
    tracklets: list[_Tracklet], frames_FHWC: Tensor, backend: FaceBackend
) -> list[tuple[dict[int, Face], np.ndarray | None]]:
    """Tracklets to people: the longest first, each takes in those that are the same person by embedding."""
    if backend.same_person is None:
        return [(tracklet.faces, None) for tracklet in tracklets]
    parts = [part for tracklet in tracklets for part in _split_by_person(tracklet.faces, frames_FHWC, backend)]
    parts.sort(key=lambda part: -len(part[0]))
    people: list[tuple[dict[int, Face], np.ndarray]] = []
    for faces, embedding_D in parts:
        for i, (known, known_D) in enumerate(people):
            # One person is not twice in one frame, however alike two faces are.
            if not faces.keys() & known.keys() and float(known_D @ embedding_D) >= backend.same_person:
                people[i] = ({**known, **faces}, known_D)
                break
        else:
            people.append((faces, embedding_D))
    return people


def _split_by_person(
    faces: dict[int, Face], frames_FHWC: Tensor, backend: FaceBackend
) -> list[tuple[dict[int, Face], np.ndarray]]:
    """One tracklet, cut where the face becomes another person's in the same place (a dissolve, or a cut not found)."""
    indices = sorted(faces)
    sampled = [indices[i] for i in np.unique(np.linspace(0, len(indices) - 1, _EMBEDDINGS).round().astype(int))]
    embedding_of = {i: backend.embed(frames_FHWC[i].numpy(), faces[i]) for i in sampled}
    runs: list[list[int]] = [[sampled[0]]]
    for index in sampled[1:]:
        mean_D = _unit(np.mean([embedding_of[i] for i in runs[-1]], axis=0))
        # One odd embedding is a turned or blurred face; another person stays odd, so the next one decides as well.
        following = [i for i in sampled if i >= index][:2]
        if all(float(embedding_of[i] @ mean_D) < backend.same_person for i in following) and len(following) > 1:
            runs.append([])
        runs[-1].append(index)
    starts = [run[0] for run in runs]
    parts = []
    for n, run in enumerate(runs):
        begin = 0 if n == 0 else starts[n]
        end = starts[n + 1] if n + 1 < len(runs) else indices[-1] + 1
        part = {i: faces[i] for i in indices if begin <= i < end}
        parts.append((part, _unit(np.mean([embedding_of[i] for i in run], axis=0))))
    return parts


def _unit(vector_D: np.ndarray) -> np.ndarray:
    return vector_D / np.linalg.norm(vector_D)


def _dominance(faces: dict[int, Face], looked_at: int, width: int, height: int) -> float:
    total = 0.0
    for face in faces.values():
        centre, size = centre_and_size(face)
        off_centre = float(np.linalg.norm(centre / np.array([width, height]) - 0.5)) / np.sqrt(0.5)
        total += size / max(width, height) * (1 - 0.5 * min(1.0, off_centre))
    return min(1.0, total / looked_at)
