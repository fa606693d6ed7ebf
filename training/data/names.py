"""Names of clips and people, from where a video lies."""

from __future__ import annotations

import re
from pathlib import Path

from slotid_core.errors import SlotIDError
from training.data.sources import UnusableError, printable


def name_of(path: Path, root: Path) -> str:
    """A path as a name: relative to the dataset's folder where it is inside, with ``/``, and fit to be printed."""
    place = path.relative_to(root) if path.is_relative_to(root) else path.relative_to(path.anchor)
    return printable(place.as_posix())


class PersonNames:
    """Who a video shows, by ``data.person``, a regular expression whose first group in the video's name is the person.

    Raises:
        SlotIDError: it is no regular expression, or has no group.
    """

    def __init__(self, pattern: str | None):
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise SlotIDError(f"data.person is {pattern!r}, which is no regular expression: {error}.") from error
        if self._pattern is not None and self._pattern.groups < 1:
            raise SlotIDError(
                f"data.person is {pattern!r}, which has no group. Put what names the person into parentheses, as in "
                "'([^/]+)/[^/]+$' for the last folder."
            )

    def __call__(self, name: str, otherwise: str) -> str:
        """The person of the video ``name``, which is ``otherwise`` without a pattern.

        Raises:
            UnusableError: the pattern finds nobody.
        """
        if self._pattern is None:
            return otherwise
        found = self._pattern.search(name)
        if found is None or not found[1]:
            raise UnusableError(
                "no person in its name", f"data.person {self._pattern.pattern!r} finds nobody in {name}."
            )
        return found[1]
