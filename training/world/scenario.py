"""What a caption says of a clip, and nothing of who is in it: action, expression, camera, background, clothing, light.

A clip's scenario is drawn from a random stream that knows no person, and a caption is a function of the scenario alone.
No word that matters to one slot stands in another, so that words without their order are enough to read a caption.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slotid_core.errors import SlotIDError

from .scene import Background, Colour

BACKGROUNDS: dict[str, Background] = {
    "a plain wall": Background(kind="plain", colour=(0.86, 0.78, 0.64)),
    "a misty wall": Background(kind="gradient", colour=(0.42, 0.58, 0.76), second=(0.72, 0.82, 0.90)),
    "a striped wall": Background(kind="stripes", colour=(0.45, 0.63, 0.47), second=(0.74, 0.84, 0.70)),
    "a checked wall": Background(kind="checks", colour=(0.85, 0.58, 0.60), second=(0.95, 0.83, 0.80)),
    "a spotted wall": Background(kind="blobs", colour=(0.52, 0.42, 0.66), second=(0.74, 0.67, 0.83)),
    "glowing lamps": Background(kind="bokeh", colour=(0.08, 0.10, 0.20), second=(0.98, 0.80, 0.45)),
    "dark leaves": Background(kind="foliage", colour=(0.10, 0.22, 0.10), second=(0.40, 0.56, 0.24)),
    "a brick wall": Background(kind="bricks", colour=(0.64, 0.32, 0.25), second=(0.82, 0.76, 0.70)),
}
CLOTHING: dict[str, Colour] = {
    "red": (0.78, 0.16, 0.16),
    "orange": (0.93, 0.52, 0.16),
    "yellow": (0.95, 0.83, 0.30),
    "green": (0.20, 0.52, 0.28),
    "blue": (0.16, 0.32, 0.66),
    "purple": (0.48, 0.24, 0.58),
    "white": (0.95, 0.95, 0.93),
    "black": (0.10, 0.10, 0.11),
}
ACTIONS = tuple(
    f"turns {way}{manner}"
    for way in ("rightwards", "leftwards")
    for manner in ("", " looking up", " looking down", " while talking")
)
EXPRESSIONS = ("calm", "smiling", "frowning", "surprised")
CAMERAS = ("close-up", "medium shot", "camera moving closer", "camera moving away")
LIGHTS = ("light from the left", "light from the right", "light from above", "warm evening light", "cold morning light")

SLOTS: dict[str, tuple[str, ...]] = {
    "action": ACTIONS,
    "expression": EXPRESSIONS,
    "camera": CAMERAS,
    "background": tuple(BACKGROUNDS),
    "clothing": tuple(CLOTHING),
    "light": LIGHTS,
}
"""What each slot of a caption may say; the place in the tuple is the label for classifiers."""
NEVER_SHARED = ("action", "background", "clothing", "light")
"""Slots in which the clips of one person differ, so that none of them can be taken for the person."""
_WORDINGS = (
    "A {expression} person in a {clothing} shirt {action} in front of {background}, {light}, {camera}.",
    "In front of {background} a {expression} person {action}, wearing a {clothing} shirt, {camera}, {light}.",
    "{Camera}, {light}: a {expression} person {action}, with a {clothing} shirt and {background} behind.",
)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """All that a caption says, each slot one of ``SLOTS``."""

    action: str
    expression: str
    camera: str
    background: str
    clothing: str
    light: str
    wording: int = 0
    """Which sentence says it."""

    def __post_init__(self) -> None:
        for slot, known in SLOTS.items():
            if getattr(self, slot) not in known:
                raise SlotIDError(f"Got {slot} {getattr(self, slot)!r}, expected one of: {'; '.join(known)}.")
        if self.wording not in range(len(_WORDINGS)):
            raise SlotIDError(f"Got wording {self.wording}, expected 0 to {len(_WORDINGS) - 1}.")


def caption(scenario: Scenario) -> str:
    """The sentence."""
    said = {slot: getattr(scenario, slot) for slot in SLOTS}
    return _WORDINGS[scenario.wording].format(**said, Camera=said["camera"].capitalize())


def labels(scenario: Scenario) -> dict[str, int]:
    """Each slot's place in ``SLOTS``: what an attribute classifier has to find in a clip."""
    return {slot: known.index(getattr(scenario, slot)) for slot, known in SLOTS.items()}


def sample_scenarios(seed: int, count: int = 2) -> list[Scenario]:
    """Scenarios for the clips of one person, no two of which share anything in ``NEVER_SHARED``.

    Each scenario by itself is uniform over all of them.

    Args:
        count: at most as many as there are lights, the shortest of those lists.
    """
    most = min(len(SLOTS[slot]) for slot in NEVER_SHARED)
    if not 1 <= count <= most:
        raise SlotIDError(f"Got {count} scenarios to draw for one person, expected 1 to {most}.")
    random = np.random.RandomState([seed, 11])
    drawn = {
        # The order of uniform numbers is a fair shuffle and, unlike numpy's own, the same in every version.
        slot: np.argsort(random.uniform(size=len(known)), kind="stable")[:count]
        if slot in NEVER_SHARED
        else (random.uniform(size=count) * len(known)).astype(int)
        for slot, known in SLOTS.items()
    }
    wordings = (random.uniform(size=count) * len(_WORDINGS)).astype(int)
    return [
        Scenario(**{slot: SLOTS[slot][index[i]] for slot, index in drawn.items()}, wording=int(wordings[i]))
        for i in range(count)
    ]
