"""One process at a time in a folder: two that write into it would destroy each other's files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from slotid_core.errors import SlotIDError

FILE = ".lock"


@contextmanager
def alone_in(folder: Path, what: str, fix: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder's lock while the block runs.

    The system holds it for this process and lets go of it however the process ends: after a kill the same can be
    started again at once. The file stays, for who removed it could remove the one that another process holds.

    Args:
        what: of which there may be one, as in "training".
        fix: what to do where there is one, in a sentence.
        say: is told where the disk knows no locks, as some network file systems don't; the block runs all the same.

    Raises:
        SlotIDError: another process is at it, or the folder can't be written.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise SlotIDError(
            f"{path} can't be written: {error.strerror or error}. Make room, or look whose it is."
        ) from error
    with file:
        try:
            _lock(file.fileno())
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise SlotIDError(f"Another {what} is running in {folder}. {fix}") from error
            say(
                f"The disk of {folder} knows no locks ({error.strerror or error}): see to it that no other {what} runs "
                "in that folder. They would destroy each other's files."
            )
        yield


def _lock(descriptor: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        # Not flock: forked data workers would inherit it and hold it a while after their parent was killed. This one
        # is the process's own. NFS holds it on the server, for all machines.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
