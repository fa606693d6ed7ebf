"""What an older torch than the nodes ask for lacks, said before it is missed."""

from __future__ import annotations

import torch
from packaging.version import Version

from slotid_core.errors import SlotIDError


def require_torch(least: str, what: str) -> None:
    """``least`` is major and minor version, ``what`` the setting or part that needs it.

    Raises:
        SlotIDError: the torch that is installed is older.
    """
    # The release alone: 2.9.0.dev and 2.9.0a0, of nightlies and containers, have what 2.9 has.
    if Version(torch.__version__).release[:2] < Version(least).release:
        raise SlotIDError(
            f"{what} needs torch {least} or newer, and torch {torch.__version__} is installed. Update torch, or do "
            "without."
        )
