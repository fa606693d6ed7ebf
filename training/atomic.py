"""Files that are written whole or not at all. Standard library only: run.py uses it before anything is installed."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from slotid_core.errors import SlotIDError


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it becomes ``path`` when the block ends well, else it goes.

    Raises:
        SlotIDError: the folder can't be written.
    """
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(6)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise SlotIDError(f"Can't write {path.name} into {path.parent}: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):  # gone when the rename went through, or never made
            temporary.unlink()
