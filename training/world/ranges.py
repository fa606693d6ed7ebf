"""Dataclass fields that are numbers between documented bounds."""

from __future__ import annotations

from dataclasses import field, fields

from slotid_core.errors import SlotIDError


def between(low: float, high: float, default: float, *, sampled: bool = True, shape: bool = False) -> float:
    """A field for numbers from ``low`` to ``high``.

    Args:
        sampled: whether random people differ in it.
        shape: whether it measures a shape, as a share of what is usual, so that caricatures may go past it.
    """
    return field(default=default, metadata={"range": (low, high), "sampled": sampled, "shape": shape})


def signed() -> float:
    """A shape from -1 to 1 whose average is 0."""
    return between(-1.0, 1.0, 0.0, shape=True)


def amount(default: float) -> float:
    """A field from 0 (none) to 1 (most)."""
    return between(0.0, 1.0, default)


class Ranged:
    """A dataclass that refuses numbers outside of its fields' ranges."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            low, high = entry.metadata["range"]
            value = getattr(self, entry.name)
            if not low <= value <= high:
                name = f"{type(self).__name__}.{entry.name}"
                raise SlotIDError(f"Got {name} = {value!r}, expected a number from {low:g} to {high:g}.")
