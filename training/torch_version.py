"""What an older torch than the nodes ask for lacks, said before it is missed."""

from __future__ import annotations

import torch

from slotid_core.errors import SlotIDError


def require_torch(least: str, what: str) -> None:
    """``least`` is major and minor version, ``what`` the setting or part that needs it.

    Raises:
        SlotIDError: the torch that is installed is older.
    """
    if torch.__version__ < least:  # torch compares its version by numbers, not by letters
        raise SlotIDError(
            f"{what} needs torch {least} or newer, and torch {torch.__version__} is installed. Update torch, or do "
            "without."
        )
