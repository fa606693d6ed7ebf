"""Videos in a folder and its sub-folders, each with its caption beside it in a text file of the same name."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from slotid_core.errors import SlotIDError
from training.data.names import PersonNames, name_of
from training.data.sources import Reject, SourceVideo, UnusableError
from training.settings import Settings

VIDEOS = (".mp4", ".mov", ".mkv", ".webm")
"""In upper case too."""
CAPTION = ".txt"


class FolderSource:
    """The whole dataset; see :class:`.sources.Source`.

    Without ``data.person``, a video in a sub-folder shows the person that the sub-folder (the first below the dataset's
    folder) is named after, and a video beside the sub-folders one of its own.
    """

    def __init__(self, settings: Settings):
        assert settings.data.source is not None, "open_source has looked"
        self._root = Path(os.path.abspath(settings.data.source))
        self._person_of = PersonNames(settings.data.person)

    def videos(self) -> tuple[list[SourceVideo], list[Reject]]:
        """See :class:`.sources.Source`; every caption is read."""
        paths = _files(self._root)
        videos = [path for path in paths if path.suffix.lower() in VIDEOS]
        captions = {path.with_suffix(""): path for path in paths if path.suffix == CAPTION}
        if not videos:
            raise SlotIDError(
                f"There is no video in {self._root}. Expected {', '.join(VIDEOS)} files, each with its caption in a "
                f"{CAPTION} file of the same name."
            )
        # A name without its suffix, unless another video would go by it too.
        stems = Counter(path.with_suffix("") for path in videos)
        taken = set(videos)
        found: list[SourceVideo] = []
        rejects: list[Reject] = []
        for path in videos:
            stem = path.with_suffix("")
            clip = name_of(path if stems[stem] > 1 or stem in taken else stem, self._root)
            try:
                caption = _caption(captions.get(stem), clip)
                name = name_of(path, self._root)
                folder, slash, _ = name.partition("/")
                person = self._person_of(name, otherwise=folder if slash else clip)
                found.append(SourceVideo(id=clip, path=path, caption=caption, person=person))
            except UnusableError as error:
                rejects.append(Reject(id=clip, reason=error.reason, detail=str(error)))
        for stem in captions.keys() - stems.keys():
            clip = name_of(stem, self._root)
            rejects.append(
                Reject(id=clip, reason="caption without a video", detail=f"There is no video beside {captions[stem]}.")
            )
        return sorted(found, key=lambda video: video.id), sorted(rejects, key=lambda reject: (reject.id, reject.reason))


def _caption(path: Path | None, clip: str) -> str:
    if path is None:
        raise UnusableError("no caption", f"There is no {CAPTION} file beside {clip}.")
    try:
        caption = path.read_text(encoding="utf-8-sig").strip()  # Windows' editors begin UTF-8 with a mark
    except UnicodeDecodeError as error:
        raise UnusableError("caption is not UTF-8", f"{path}: {error}. Save it as UTF-8.") from error
    except OSError as error:
        raise UnusableError("caption can't be read", f"{path}: {error.strerror}.") from error
    if not caption:
        raise UnusableError("no caption", f"{path} is empty.")
    return caption


def _files(root: Path) -> list[Path]:
    """All files that are not hidden, sorted. Links to folders are followed, and each folder is seen once."""
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()

    def fail(error: OSError) -> None:
        raise SlotIDError(f"The folder {error.filename} can't be read: {error.strerror}.") from error

    for folder, folders, names in os.walk(root, onerror=fail, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(files)
