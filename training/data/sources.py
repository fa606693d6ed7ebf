"""What a dataset is, whatever its layout: videos with a caption and a person, and what is known to be unusable."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from slotid_core.errors import SlotIDError
from training.settings import Settings


@dataclass(frozen=True, kw_only=True)
class TrackBox:
    """Where the person is said to be in one picture of the file."""

    second: float
    """From the video's first picture."""
    box_xyxy: tuple[float, float, float, float]
    """Left, top, right, bottom as shares of the picture's width and height, from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class TrackMask:
    """A picture file, above 0 where the person is in one picture of the video, of that picture's shape."""

    second: float
    path: Path


@dataclass(frozen=True, kw_only=True)
class PersonHint:
    """Who is meant, from a dataset's own annotation: faces are still searched, and this says whose count."""

    boxes: tuple[TrackBox, ...]
    """In the order of time, at least one."""
    masks: tuple[TrackMask, ...] = ()
    """In the order of time; ``training/data/masks.py`` reads them."""
    step_s: float
    """Seconds from one picture of the file to the next."""


class HintReader(Protocol):
    """Annotation of one clip that is not read yet: a large dataset has gigabytes of it."""

    def read(self) -> PersonHint | None:
        """The hint; ``None`` where the annotation holds no face.

        Raises:
            UnusableError: the annotation is broken, or does not say who is meant.
        """
        ...

    def digest(self) -> str:
        """SHA-256 of the annotation: with another one, the clip is prepared anew."""
        ...


def printable(text: str) -> str:
    """The text with an escape for every character that can't be printed: a file's name may hold bytes that are no text,
    which nothing can write, or line breaks, which would break every report."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class UnusableError(SlotIDError):
    """One clip can't be used; ``reason`` is the fixed wording of its :class:`Reject`."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class SourceVideo:
    """One video of a dataset."""

    id: str
    """Unique, stable and printable: the path relative to the dataset's folder, without suffix."""
    path: Path
    caption: str
    person: str
    """Who it shows; held-out people are told apart by this."""
    person_hint: HintReader | None = field(default=None)
    """Where the person is, if the dataset says so; ``None``: faces are searched and one person has to dominate."""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A clip that is left out, and why."""

    id: str
    reason: str
    """A fixed wording, so that rejects can be counted by it: "no face", "several people", "too short" ..."""
    detail: str
    """The whole message, made one printable line: it may name any file."""

    def __post_init__(self):
        object.__setattr__(self, "detail", printable(" ".join(self.detail.split())))


class Source(Protocol):
    """A dataset."""

    def videos(self) -> tuple[list[SourceVideo], list[Reject]]:
        """All videos, sorted by id, and what is known to be unusable without decoding anything, sorted by id.

        Raises:
            SlotIDError: the dataset is not there, is empty, or is not laid out as it should be.
        """
        ...


def open_source(settings: Settings) -> Source:
    """The dataset that the settings name; nothing is read yet.

    Raises:
        SlotIDError: its folder is not there.
    """
    data = settings.data
    if data.layout == "generated":
        from training.data.generated import GeneratedSource

        return GeneratedSource(settings)
    assert data.source is not None, "settings hold a source for every other layout"
    if not data.source.is_dir():
        raise SlotIDError(f"There is no folder {data.source}. Set data.source to the dataset's folder.")
    if data.layout == "world":
        from training.data.world import WorldSource

        return WorldSource(settings)
    if data.layout == "consisid":
        from training.data.consisid import ConsisIDSource

        return ConsisIDSource(settings)
    from training.data.folder import FolderSource

    return FolderSource(settings)
