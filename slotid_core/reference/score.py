"""Identity Score: how much frames of any method look like the person of a reference clip.

Shape letters: F frames, H W height and width, C channels (RGB), D embedding width, P the two halves of the clip.

A cosine of two faces means little by itself: backends differ, and so do clips. So two yardsticks are measured along
with it. The *ceiling* is what frames of the reference clip itself reach: the clip is cut in two in time, and each
half's faces are held against the mean embedding of the *other* half, which has never seen them. The *floor* is what
other people reach. Frames to be scored are held against both halves' means, and the two cosines averaged, so that all
three numbers come from means of equally many faces.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import SlotIDError
from .analyse import Reference
from .faces.face import Face, FaceBackend
from .track import centre_and_size, unit

# Frames of the reference that are looked at, spread over the clip, and faces that each half needs at least.
_REFERENCE_FRAMES, _FACES_PER_HALF = 32, 2
# Below this distance of floor and ceiling the score would be noise.
_APART = 0.01
# Two detectors' boxes of one face: their centres are nearer than this share of the crop's side.
_SAME_FACE = 0.35
# Degrees to either side, and when a face counts as having that expression.
_FRONTAL, _TURNED = 10.0, 25.0
_CLOSED, _OPEN, _SMILE = 0.25, 0.2, 0.4

YAW_BINS = (
    f"over {_TURNED:g} left", f"{_FRONTAL:g}-{_TURNED:g} left", f"within {_FRONTAL:g}",
    f"{_FRONTAL:g}-{_TURNED:g} right", f"over {_TURNED:g} right",
)  # fmt: skip
"""Degrees, left and right as in the picture."""
EXPRESSION_BINS = ("neutral", "smiling", "mouth open", "eyes closed")


@dataclass(frozen=True, kw_only=True)
class ScoredFrame:
    """One frame that was looked at."""

    index: int
    faces: int
    """How many faces were found."""
    face: Face | None
    """The one that is most like the person; ``None`` where none was found."""
    similarity: float | None
    """Its cosine with the person, -1 to 1."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Frames that show the face alike."""

    name: str
    frames: int
    similarity: float | None
    """Mean of the scored frames; ``None`` where there are none."""
    held_out_frames: int
    held_out: float | None
    """Mean of the reference's own; ``None`` where the clip does not show the face like that."""


@dataclass(frozen=True, kw_only=True)
class IdentityScore:
    """What was measured. Everything in means of cosines but for :attr:`score`."""

    backend: str
    frames: tuple[ScoredFrame, ...]
    """In their order."""
    held_out: tuple[ScoredFrame, ...]
    """Of the reference clip; indices count its frames."""
    others: tuple[ScoredFrame, ...]
    """Of other people; none where none were given."""
    floor: float
    """Of ``others``; without them the backend's own mean for two different people."""
    limits: str
    """What the backend says that it can find in frames of this size."""

    @property
    def similarity(self) -> float:
        """Mean over the frames with a face; NaN where no frame has one."""
        return _mean(self.frames)

    @property
    def ceiling(self) -> float:
        """Mean of the held-out frames."""
        return _mean(self.held_out)

    @property
    def score(self) -> float:
        """``(similarity - floor) / (ceiling - floor)``, not clamped: 0 is as another person, 1 as the clip; or NaN."""
        return (self.similarity - self.floor) / (self.ceiling - self.floor)

    @property
    def without_face(self) -> list[int]:
        """Indices of the frames in which no face was found. They are in no mean."""
        return [frame.index for frame in self.frames if frame.face is None]

    @property
    def worst(self) -> list[ScoredFrame]:
        """The frames with a face, the least like the person first."""
        return sorted(with_face(self.frames), key=lambda frame: frame.similarity)

    @property
    def nearer_floor(self) -> list[int]:
        """Indices of the frames that are nearer to the floor than to the ceiling, which a mean may hide."""
        return [f.index for f in with_face(self.frames) if f.similarity < (self.floor + self.ceiling) / 2]

    def by_yaw(self) -> list[Bin]:
        """Where the head points, :data:`YAW_BINS`."""
        return self._bins(YAW_BINS, _yaw_bin)

    def by_expression(self) -> list[Bin]:
        """What the face does, :data:`EXPRESSION_BINS`."""
        return self._bins(EXPRESSION_BINS, _expression_bin)

    def _bins(self, names: Sequence[str], name_of: Callable[[Face], str | None]) -> list[Bin]:
        def inside(frames: Sequence[ScoredFrame], name: str) -> list[ScoredFrame]:
            return [frame for frame in with_face(frames) if name_of(frame.face) == name]

        bins = []
        for name in names:
            ours, theirs = inside(self.frames, name), inside(self.held_out, name)
            bins.append(
                Bin(
                    name=name,
                    frames=len(ours),
                    similarity=_mean(ours) if ours else None,
                    held_out_frames=len(theirs),
                    held_out=_mean(theirs) if theirs else None,
                )
            )
        return bins

    def describe(self) -> list[str]:
        """A few lines for people."""
        found, lost = with_face(self.frames), self.without_face
        floor = f"other people's {len(with_face(self.others))} frames" if self.others else "two people's usual"
        ceiling = f"{self.ceiling:.3f} ({len(with_face(self.held_out))} held-out frames)"
        if not found:
            return [
                f"NO FACE FOUND in any of {len(self.frames)} frames by {self.backend}, so there is no score.",
                f"{self.limits}. Look at the frames: if they do show a face, try the other backend.",
                f"Ceiling {ceiling}, floor {self.floor:.3f} ({floor}).",
            ]
        lines = [
            f"Score {self.score:.2f} (0 = another person, 1 = the clip's own held-out frames), by {self.backend}.",
            f"Similarity {self.similarity:.3f}; ceiling {ceiling}, floor {self.floor:.3f} ({floor}).",
            f"A face in {len(found)} of {len(self.frames)} frames.",
        ]
        if lost:
            lines.append(f"NO FACE FOUND in {len(lost)} frames, which are in no mean: {_say_indices(lost)}.")
        if near := self.nearer_floor:
            lines.append(f"Nearer to another person in {len(near)} frames: {_say_indices(near)}.")
        several = [frame.index for frame in self.frames if frame.faces > 1]
        if several:
            lines.append(f"Several faces in {len(several)} frames: the one most like the person counts.")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON; ``None`` for what was not measured."""
        seen = bool(with_face(self.frames))
        return {
            "score": self.score if seen else None,
            "similarity": self.similarity if seen else None,
            "ceiling": self.ceiling,
            "floor": self.floor,
            "floor_from": "other people" if self.others else "backend",
            "backend": self.backend,
            "frames": len(self.frames),
            "frames_with_face": len(with_face(self.frames)),
            "frames_without_face": self.without_face,
            "frames_nearer_floor": self.nearer_floor,
            "held_out_frames": len(with_face(self.held_out)),
            "other_frames": len(with_face(self.others)),
            "by_yaw": [vars(part) for part in self.by_yaw()],
            "by_expression": [vars(part) for part in self.by_expression()],
            "worst": [frame.index for frame in self.worst[:12]],
            "per_frame": [_plain(frame) for frame in self.frames],
        }


def score_identity(
    frames_FHWC: Tensor,
    reference: Reference,
    backend: FaceBackend,
    *,
    other_people_FHWC: Tensor | None = None,
    every: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> IdentityScore:
    """Measure how much the faces of some frames are the person's.

    Frames without any face are a result too, without a score: other methods' videos are to get theirs.

    Args:
        frames_FHWC: ``[F, H, W, 3]`` uint8, of any size and number.
        reference: the person.
        backend: with embeddings; need not be the one that found the reference.
        other_people_FHWC: ``[F, H, W, 3]`` uint8 of anybody else, for the floor.
        every: every so-manieth of the frames is looked at; at least 1.
        progress: called as ``progress(done, total)``; what it raises passes through.

    Raises:
        SlotIDError: a backend without embeddings, other people without any face, too few faces in the reference, or
            other people who are as much like the person as the clip's own frames.
    """
    if backend.same_person is None:
        raise SlotIDError(
            f"The face backend {backend.name} has no embeddings, so it can't tell how alike two faces are. Choose "
            "insightface or dlib; the reference may be found by any backend."
        )
    assert every >= 1, "the node's widget begins at 1"
    kept = reference.analysis.kept
    shown = [kept[i] for i in sorted({*np.linspace(0, len(kept) - 1, _REFERENCE_FRAMES).round().astype(int).tolist()})]
    others_F = range(0 if other_people_FHWC is None else len(other_people_FHWC))
    indices = range(0, len(frames_FHWC), every)
    total = len(shown) + len(others_F) + len(indices)
    ticks = iter(range(1, total + 1))

    def detected(pictures_FHWC: Tensor, which: Sequence[int]) -> Iterator[tuple[int, np.ndarray, list[Face]]]:
        for index in which:
            picture_HWC = pictures_FHWC[index].numpy()
            yield index, picture_HWC, backend.detect(picture_HWC, index)
            progress(next(ticks), total)

    halves_PD, held_out = _halves(detected(reference.frames_FHWC, shown), reference, backend)

    def scored(pictures_FHWC: Tensor, which: Sequence[int]) -> tuple[ScoredFrame, ...]:
        frames = []
        for index, picture_HWC, faces in detected(pictures_FHWC, which):
            cosines = [float((halves_PD @ backend.embed(picture_HWC, face)).mean()) for face in faces]
            best = int(np.argmax(cosines)) if faces else None
            frames.append(
                ScoredFrame(
                    index=index,
                    faces=len(faces),
                    face=None if best is None else faces[best],
                    similarity=None if best is None else cosines[best],
                )
            )
        return tuple(frames)

    # The yardsticks first: what is wrong with them is said before the long part.
    others = scored(other_people_FHWC, others_F) if others_F else ()
    if others and not with_face(others):
        raise SlotIDError(
            f"No face was found in the frames of other people ({len(others)} looked at). "
            f"{backend.limits(*other_people_FHWC.shape[1:3])}. Try the other backend, or disconnect them."
        )
    floor, ceiling = _mean(others) if others else backend.strangers, _mean(held_out)
    if ceiling - floor < _APART:
        raise SlotIDError(
            f"Other people are as much like the person (cosine {floor:.3f}) as held-out frames of the person's own "
            f"clip ({ceiling:.3f}), so there is nothing to measure by. Check that other_people shows somebody else "
            "and that the reference follows one person, or choose another face backend."
        )
    frames, limits = scored(frames_FHWC, indices), backend.limits(*frames_FHWC.shape[1:3])
    return IdentityScore(
        backend=backend.name, frames=frames, held_out=held_out, others=others, floor=floor, limits=limits
    )


def _halves(
    detected: Iterator[tuple[int, np.ndarray, list[Face]]], reference: Reference, backend: FaceBackend
) -> tuple[np.ndarray, tuple[ScoredFrame, ...]]:
    """The mean embedding of each half of the clip, ``[2, D]`` unit vectors, and its frames against the other half's."""
    analysis = reference.analysis
    middle = analysis.kept.start + len(analysis.kept) / 2
    found: list[tuple[int, Face | None, np.ndarray | None, int]] = []
    for index, picture_HWC, faces in detected:
        place = index - analysis.kept.start
        far = [np.linalg.norm(centre_and_size(face)[0] - analysis.path.centre_F2[place]) for face in faces]
        at = int(np.argmin(far)) if faces else None
        if at is None or far[at] > _SAME_FACE * analysis.path.side_F[place]:
            found.append((index, None, None, len(faces)))
        else:
            found.append((index, faces[at], backend.embed(picture_HWC, faces[at]), len(faces)))
    parts = [[e for i, _, e, _ in found if e is not None and (i >= middle) == late] for late in (False, True)]
    if min(map(len, parts)) < _FACES_PER_HALF:
        raise SlotIDError(
            f"{backend.name} found the person in {len(parts[0])} frames of the reference's first half and "
            f"{len(parts[1])} of its second, at least {_FACES_PER_HALF} are needed in each. Use a longer reference "
            "clip, one with a more frontal face, or another face backend."
        )
    halves_PD = np.stack([unit(np.mean(part, axis=0)) for part in parts])
    held_out = tuple(
        ScoredFrame(
            index=index,
            faces=faces,
            face=face,
            similarity=None if embedding_D is None else float(halves_PD[int(index < middle)] @ embedding_D),
        )
        for index, face, embedding_D, faces in found
    )
    return halves_PD, held_out


def with_face(frames: Sequence[ScoredFrame]) -> list[ScoredFrame]:
    """Those in which a face was found."""
    return [frame for frame in frames if frame.face is not None]


def _mean(frames: Sequence[ScoredFrame]) -> float:
    found = with_face(frames)
    return float(np.mean([frame.similarity for frame in found])) if found else math.nan


def _yaw_bin(face: Face) -> str | None:
    if face.pose is None:
        return None
    return YAW_BINS[int(np.digitize(face.pose.yaw, (-_TURNED, -_FRONTAL, _FRONTAL, _TURNED)))]


def _expression_bin(face: Face) -> str | None:
    """The first that holds of eyes, mouth, smile: an open mouth is more of a change than the smile around it."""
    expression = face.expression
    if expression is None:
        return None
    if expression.eyes_open < _CLOSED:
        return "eyes closed"
    if expression.mouth_open > _OPEN:
        return "mouth open"
    return "smiling" if expression.smile > _SMILE else "neutral"


def _say_indices(indices: Sequence[int]) -> str:
    few = ", ".join(map(str, indices[:12]))
    return f"{few}, ..." if len(indices) > 12 else few


def _plain(frame: ScoredFrame) -> dict[str, Any]:
    face = frame.face
    return {
        "frame": frame.index,
        "faces": frame.faces,
        "similarity": frame.similarity,
        "yaw": face.pose.yaw if face is not None and face.pose is not None else None,
        "expression": _expression_bin(face) if face is not None else None,
    }
