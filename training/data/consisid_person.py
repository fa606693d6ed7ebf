"""ConsisID's annotation of one clip: whose face is where, and masks of that person. :mod:`.consisid` has the layout."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from training.data.sources import PersonHint, TrackBox, TrackMask, UnusableError

# As where faces are searched: a person this much less dominant than the first is in the background.
_BACKGROUND = 0.25
T = TypeVar("T")
_Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """What is read of a JSON object; the rest of it is not looked at."""

    model_config = ConfigDict(allow_inf_nan=False)


class _Box(Part):
    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def size(self) -> float:
        return max(self.x2 - self.x1, self.y2 - self.y1)


class _Found(Part):
    box: _Box
    track_id: int | None = None
    new_track_id: int | None = None


class _Picture(Part):
    face: list[_Found] = []


_PICTURES = TypeAdapter(dict[_Count, _Picture])
_OBJECTS = TypeAdapter(dict[int, dict[str, _Count]])
_VALID = TypeAdapter(dict[int, dict[str, list[_Count]]])
# Which number a track goes by ("new_track_id", else "track_id", else its rank by size in the picture), and the number.
_Track = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class ConsisIDPerson:
    """Where one clip's annotation lies; see :class:`.sources.HintReader`."""

    boxes: Path
    masks: Path | None
    """Folder of the clip's masks."""
    fps: float
    width: int
    height: int

    def read(self) -> PersonHint | None:
        """The person whose face is large for long; see :class:`.sources.HintReader`."""
        tracks = _tracks(_read_json(self.boxes, _PICTURES))
        if not tracks:
            return None
        dominance = {track: sum(box.size for box in faces.values()) for track, faces in tracks.items()}
        track = max(dominance, key=dominance.__getitem__)
        # One person often has several tracks, one after the other; people in one picture are different people.
        rivals = [
            other
            for other, amount in dominance.items()
            if other != track
            and amount > _BACKGROUND * dominance[track]
            and tracks[other].keys() & tracks[track].keys()
        ]
        if rivals:
            raise UnusableError(
                "several people",
                f"{self.boxes.name} follows {1 + len(rivals)} people at once, of whom none dominates the clip.",
            )
        return PersonHint(
            boxes=tuple(self._box(index, box) for index, box in sorted(tracks[track].items())),
            masks=self._masks_of(track),
            step_s=1 / self.fps,
        )

    def digest(self) -> str:
        """Of boxes and records; the masks themselves, gigabytes of pictures, are taken to go with their records."""
        digest = hashlib.sha256(repr((self.fps, self.width, self.height)).encode())
        for path in (self.boxes, *(() if self.masks is None else self._records())):
            digest.update(path.read_bytes() if path.is_file() else b"")
        return digest.hexdigest()

    def _records(self) -> tuple[Path, Path]:
        assert self.masks is not None
        return self.masks / "corresponding_data.json", self.masks / "valid_frame.json"

    def _box(self, index: int, box: _Box) -> TrackBox:
        if not (box.x1 < box.x2 and box.y1 < box.y2 and box.x1 < self.width and box.y1 < self.height):
            raise UnusableError(
                "broken annotation",
                f"{self.boxes.name}: the face of picture {index} is at {box.x1:g}, {box.y1:g} to {box.x2:g}, "
                f"{box.y2:g}, expected a box inside of {self.width}x{self.height}, which the captions give.",
            )
        left, right = (min(max(x / self.width, 0.0), 1.0) for x in (box.x1, box.x2))
        top, bottom = (min(max(y / self.height, 0.0), 1.0) for y in (box.y1, box.y2))
        return TrackBox(second=index / self.fps, box_xyxy=(left, top, right, bottom))

    def _masks_of(self, track: _Track) -> tuple[TrackMask, ...]:
        """Masks of the whole person; empty where the track has none."""
        if self.masks is None or track[0] != "new_track_id":
            return ()
        objects, valid = self._records()
        if not (objects.is_file() and valid.is_file()):
            return ()
        number = _read_json(objects, _OBJECTS).get(track[1], {}).get("person")
        folder = self.masks / "tracking_mask_results" / str(number)
        if number is None or not folder.is_dir():
            return ()
        there = set(os.listdir(folder))
        named = {
            i: f"annotated_frame_{i:05d}.png" for i in _read_json(valid, _VALID).get(track[1], {}).get("person", ())
        }
        return tuple(
            TrackMask(second=i / self.fps, path=folder / name) for i, name in sorted(named.items()) if name in there
        )


def _tracks(pictures: Mapping[int, _Picture]) -> dict[_Track, dict[int, _Box]]:
    """Faces by track and picture; where a track is twice in a picture, the larger one."""
    renamed = {
        face.track_id: face.new_track_id
        for picture in pictures.values()
        for face in picture.face
        if face.track_id is not None and face.new_track_id is not None
    }
    tracks: dict[_Track, dict[int, _Box]] = defaultdict(dict)
    for index, picture in pictures.items():
        for rank, face in enumerate(sorted(picture.face, key=lambda face: -face.box.size)):
            track = ("size", rank)
            if face.track_id is not None:
                track = ("track_id", face.track_id)
            person = face.new_track_id if face.new_track_id is not None else renamed.get(face.track_id)
            if person is not None:
                track = ("new_track_id", person)
            tracks[track].setdefault(index, face.box)
    return tracks


def _read_json(path: Path, kind: TypeAdapter[T]) -> T:
    try:
        return kind.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        said = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise UnusableError("broken annotation", f"{path.parent.name}/{path.name}: {said}") from error


def first_problem(error: ValidationError) -> str:
    """Where it is and what, in words."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}".removeprefix(": ") + "."
