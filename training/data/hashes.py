"""SHA-256 of files, remembered by size and time of change: a resumed run need not read a whole dataset again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from slotid_core.errors import SlotIDError
from training.atomic import atomic

FILE = "hashes.json"


class FileHashes:
    """Hashes of files; what was remembered lies beside a cache and is no part of what the cache holds.

    Args:
        folder: the cache's.

    Raises:
        SlotIDError: what was remembered is damaged.
    """

    def __init__(self, folder: Path):
        self._path = folder / FILE
        self._known: dict[str, list] = {}
        if self._path.is_file():
            try:
                self._known = json.loads(self._path.read_text(encoding="utf-8"))
                for path, (_size, _time, digest) in self._known.items():
                    if not isinstance(digest, str):
                        raise ValueError(f"of {path} it says {digest!r}")
            except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
                raise SlotIDError(
                    f"{self._path} is damaged ({error}). Delete it; files are then read again."
                ) from error
        self._new = False

    def of(self, path: Path) -> str:
        """The file's SHA-256; read again where its size or time of change is another than it was.

        Raises:
            SlotIDError: the file can't be read.
        """
        try:
            state = path.stat()
            known = self._known.get(str(path.resolve()))
            if known is not None and known[:2] == [state.st_size, state.st_mtime_ns]:
                return known[2]
            with path.open("rb") as file:
                digest = _digest(file)
        except OSError as error:
            raise SlotIDError(f"Can't read {path}: {error.strerror or error}.") from error
        self._known[str(path.resolve())] = [state.st_size, state.st_mtime_ns, digest]
        self._new = True
        return digest

    def of_weights(self, path: Path, parts: Sequence[str] = ("",)) -> str:
        """One SHA-256 over a weights file, or over the weights, settings and vocabularies in a folder.

        Args:
            parts: the folder's own folders that count; all of it where left out.

        Raises:
            SlotIDError: there is nothing.
        """
        if path.is_file():
            return self.of(path)
        inside = [p for part in parts for p in (path / part).rglob("*")]
        files = sorted(p for p in inside if p.suffix in (".safetensors", ".json", ".model") and p.is_file())
        if not files:
            raise SlotIDError(f"There are no weights in {path}, or there is no such folder.")
        parts = [f"{file.relative_to(path).as_posix()}:{self.of(file)}" for file in files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def save(self) -> None:
        """Remember; does nothing where nothing was read. A cache on a read-only disk will do: files are then read at
        every start."""
        if self._new and os.access(self._path.parent, os.W_OK):
            with atomic(self._path) as temporary:
                temporary.write_text(json.dumps(self._known, sort_keys=True, indent=0), encoding="utf-8")
            self._new = False


def _digest(file) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
