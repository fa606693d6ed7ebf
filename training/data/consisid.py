"""ConsisID-preview's layout::

    total_train_data.txt                                  # lines: folder of videos,captions.json,folder of annotation
    <annotation>/videos/<clip>.mp4
    <annotation>/captions/<name>.json                     # or captions/, or beside total_train_data.txt
    <annotation>/refine_bbox_jsons/<clip>.json            # boxes of faces, heads and people in every picture
    <annotation>/track_masks_data/<clip>/corresponding_data.json, valid_frame.json, control_sam2_frame.json
    <annotation>/track_masks_data/<clip>/tracking_mask_results/<object>/annotated_frame_%05d.png

Boxes say *who* is meant; faces are still searched, because a portrait is ranked by pose and expression, which a box
does not have, and because at inference there are no such boxes. Neither boxes nor masks have to be there: they save a
clip in which several faces are found, and give the portrait a better matte.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field, ValidationError

from slotid_core.errors import SlotIDError
from training.data.consisid_person import ConsisIDPerson, Part, first_problem
from training.data.names import PersonNames, name_of
from training.data.sources import Reject, SourceVideo, UnusableError
from training.settings import Settings

LIST = "total_train_data.txt"
_BOXES, _MASKS, _VIDEO = "refine_bbox_jsons", "track_masks_data", ".mp4"


class _Resolution(Part):
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class _Caption(Part):
    cap: str | None = None
    fps: float = Field(gt=0)
    resolution: _Resolution


class ConsisIDSource:
    """The whole dataset; see :class:`.sources.Source`."""

    def __init__(self, settings: Settings):
        assert settings.data.source is not None, "open_source has looked"
        self._root = Path(os.path.abspath(settings.data.source))
        self._person_of = PersonNames(settings.data.person)

    def videos(self) -> tuple[list[SourceVideo], list[Reject]]:
        """See :class:`.sources.Source`. Reads the captions and lists folders; annotation is read clip by clip later."""
        videos: dict[str, SourceVideo] = {}
        rejects: list[Reject] = []
        folders: dict[Path, set[str]] = {}
        captioned: dict[Path, set[str]] = defaultdict(set)
        for part in _parts(self._root):
            there = folders.setdefault(part.videos, _names(part.videos, _VIDEO))
            boxes, masks = _names(part.annotation / _BOXES, ".json"), _names(part.annotation / _MASKS, "")
            for number, entry in enumerate(part.entries(), start=1):
                clip = f"{name_of(part.captions, self._root)}#{number}"
                try:
                    path = part.videos / _file_name(entry)
                    captioned[part.videos].add(path.name)
                    clip = self._id(path)
                    if path.name not in there:
                        raise UnusableError("caption without a video", f"There is no {path}, which has a caption.")
                    caption = _caption(entry)
                    if caption.cap is None or not caption.cap.strip():
                        raise UnusableError("no caption", f"The caption of {clip} is empty.")
                    if clip in videos:
                        raise UnusableError("captioned twice", f"{clip} has another caption before this one.")
                    hint = None
                    if f"{path.stem}.json" in boxes:
                        hint = ConsisIDPerson(
                            boxes=part.annotation / _BOXES / f"{path.stem}.json",
                            masks=part.annotation / _MASKS / path.stem if path.stem in masks else None,
                            fps=caption.fps,
                            width=caption.resolution.width,
                            height=caption.resolution.height,
                        )
                    videos[clip] = SourceVideo(
                        id=clip,
                        path=path,
                        caption=caption.cap.strip(),
                        person=self._person_of(name_of(path, self._root), clip),
                        person_hint=hint,
                    )
                except UnusableError as error:
                    rejects.append(Reject(id=clip, reason=error.reason, detail=str(error)))
        for folder, names in folders.items():
            for name in names - captioned[folder]:
                clip = self._id(folder / name)
                rejects.append(Reject(id=clip, reason="no caption", detail=f"No captions.json names {clip}."))
        if not videos and not rejects:
            raise SlotIDError(
                f"{self._root / LIST} leads to no videos. Expected {_VIDEO} files in the folders it names."
            )
        return [videos[clip] for clip in sorted(videos)], sorted(rejects, key=lambda r: (r.id, r.reason))

    def _id(self, path: Path) -> str:
        return name_of(path, self._root).removesuffix(_VIDEO)


@dataclass(frozen=True)
class _Line:
    """One line of the list."""

    videos: Path
    captions: Path
    annotation: Path

    def entries(self) -> list[Any]:
        try:
            entries = json.loads(self.captions.read_bytes())
        except (OSError, ValueError) as error:
            raise SlotIDError(f"The captions {self.captions} can't be read: {error}.") from error
        if not isinstance(entries, list):
            raise SlotIDError(f"{self.captions} holds {type(entries).__name__}, expected a list of captions.")
        return entries


def _parts(root: Path) -> Iterator[_Line]:
    path = root / LIST
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SlotIDError(
            f"{path} can't be read ({error}). Layout consisid expects it in data.source, with lines of: folder of "
            "videos,captions.json,folder of annotation."
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 3 or not all(fields):
            raise SlotIDError(
                f"{path.name}, line {number}: got {line!r}, expected three paths: folder of videos,captions.json,"
                "folder of annotation."
            )
        # normpath: what ".." leads out of is not in the name of a clip.
        videos, captions, annotation = (Path(os.path.normpath(root / field)) for field in fields)
        for folder in (videos, annotation):
            if not folder.is_dir():
                raise SlotIDError(_missing(number, folder, "folder", root))
        places = (captions, root / "captions" / captions.name, annotation / "captions" / captions.name)
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise SlotIDError(_missing(number, captions, "file", root))
        yield _Line(videos, found, annotation)


def _missing(number: int, path: Path, what: str, root: Path) -> str:
    return (
        f"{LIST}, line {number}: there is no {what} {path}. Paths are relative to {root}, not to where ConsisID's "
        "trainer is started as in its own example, or absolute: edit the line."
    )


def _file_name(entry: Any) -> str:
    """The video of a caption, whose path may have folders in front and lack its suffix."""
    path = entry.get("path") if isinstance(entry, dict) else None
    name = PurePosixPath(path).name if isinstance(path, str) else ""
    if not name:
        raise UnusableError("malformed caption", "A caption has no path, expected path, cap, fps and resolution.")
    return name.removesuffix(_VIDEO) + _VIDEO


def _caption(entry: dict[str, Any]) -> _Caption:
    try:
        return _Caption.model_validate(entry)
    except ValidationError as error:
        raise UnusableError("malformed caption", first_problem(error)) from error


def _names(folder: Path, suffix: str) -> set[str]:
    """What a folder holds, one listing in place of a look-up a clip; a folder that is not there holds nothing."""
    if not folder.is_dir():
        return set()
    return {name for name in os.listdir(folder) if name.endswith(suffix) and not name.startswith(".")}
