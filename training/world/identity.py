"""Who a person of the world is: three fixed-length vectors of traits, each number from 0 to 1 and with a name.

Front, side and dynamics are apart on purpose, so that a measurement can tell what a portrait gave and what only a clip
could give. Letters: F S D front, side and dynamics traits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slotid_core.errors import SlotIDError

from .traits import FrontTraits, HeadTraits, SideTraits

FRONT = (
    "face_width",
    "face_length",
    "eye_size",
    "brow_thickness",
    "mouth_width",
    "skin_depth",
    "hair_depth",
    "hair_warmth",
    "hair_length",
    "hair_volume",
    "fringe",
    "beard",
)
"""Names of ``Identity.front_F``: what a frontal portrait shows."""
SIDE = (
    "nose_projection",
    "chin_projection",
    "skull_depth",
    "ear_set",
    "bun",
    "mark",
    "dye_hue",
    "dye_depth",
)
"""Names of ``Identity.side_S``: what only other views show. A mark below one half is on the left of a frontal picture,
above on the right, and the larger the farther from one half."""
DYNAMICS = ("smile_onset", "smile_lead", "nod_tempo", "tilt_tempo", "talk_tempo", "blink_tempo", "turn_pace")
"""Names of ``Identity.dynamics_D``: what only frames in their order show (``performance.py``)."""
TRAITS = FRONT + SIDE + DYNAMICS
"""All of a person's."""

_FRONT_RELIEF, _SIDE_RELIEF, _FEATURE_SIZE = 1.9, 2.6, 1.4


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One person; every number from 0 to 1."""

    front_F: tuple[float, ...]
    side_S: tuple[float, ...]
    dynamics_D: tuple[float, ...]

    def __post_init__(self) -> None:
        for part, names in (("front_F", FRONT), ("side_S", SIDE), ("dynamics_D", DYNAMICS)):
            values = getattr(self, part)
            if len(values) != len(names) or not all(0 <= value <= 1 for value in values):
                raise SlotIDError(f"Got {part} = {values}, expected {len(names)} numbers from 0 to 1.")

    def trait(self, name: str) -> float:
        """The trait of that name from any of the three parts."""
        for values, names in ((self.front_F, FRONT), (self.side_S, SIDE), (self.dynamics_D, DYNAMICS)):
            if name in names:
                return values[names.index(name)]
        raise SlotIDError(f"Got trait {name!r}, expected one of {', '.join(FRONT + SIDE + DYNAMICS)}.")

    def with_trait(self, name: str, value: float) -> Identity:
        """The same person but for one trait."""
        self.trait(name)
        changed = {
            part: tuple(value if other == name else own for other, own in zip(names, getattr(self, part), strict=True))
            for part, names in (("front_F", FRONT), ("side_S", SIDE), ("dynamics_D", DYNAMICS))
        }
        return Identity(**changed)


def sample_identity(seed: int) -> Identity:
    """A random person, the same for the same seed on every machine.

    Traits are independent of each other and uniform, but for ``beard``: every second person has none. Each part has a
    random stream of its own, so that a trait added to one part leaves the other parts as they are.
    """
    # RandomState's streams are frozen over numpy's versions.
    front_F, side_S, dynamics_D = (
        np.random.RandomState([seed, part]).uniform(size=len(names))
        for part, names in enumerate((FRONT, SIDE, DYNAMICS))
    )
    beard = FRONT.index("beard")
    front_F[beard] = max(2 * front_F[beard] - 1, 0)
    return Identity(
        front_F=tuple(front_F.tolist()), side_S=tuple(side_S.tolist()), dynamics_D=tuple(dynamics_D.tolist())
    )


def head_traits(identity: Identity) -> HeadTraits:
    """The person's head as the renderer takes it; what no trait says follows from those that do."""
    front, side = dict(zip(FRONT, identity.front_F, strict=True)), dict(zip(SIDE, identity.side_S, strict=True))
    shapes = {name: 2 * front[name] - 1 for name in FRONT[: FRONT.index("skin_depth")]}
    warmth, skin = 1.4 * front["hair_warmth"] - 0.4, front["skin_depth"]
    # The darker the skin, the darker the lightest hair.
    hair = 0.45 * skin + (0.95 - 0.45 * skin) * front["hair_depth"]
    return HeadTraits(
        front=FrontTraits(
            **shapes,
            skin_depth=skin,
            skin_warmth=0.25,
            hair_depth=hair,
            hair_warmth=warmth,
            freckles=max(warmth - 0.3, 0) / 0.7 * (1 - skin),
            eye_hue=(1 - hair) * (1 - 0.8 * skin) * (0.9 - 0.3 * max(warmth, 0)),
            hair_length=0.15 + 0.6 * front["hair_length"],
            hair_volume=front["hair_volume"],
            hairline=0.6 - 1.2 * front["fringe"],
            fringe=max(front["fringe"] - 0.4, 0) / 0.6,
            beard=0.15 + 0.85 * front["beard"] if front["beard"] > 0 else 0.0,
            brow_arch=0.2,
            tuck=1.0,
        ),
        side=SideTraits(
            **{name: 2 * side[name] - 1 for name in SIDE[: SIDE.index("bun")]},
            bun=side["bun"],
            dye=1.0,
            dye_hue=side["dye_hue"],
            dye_depth=side["dye_depth"],
            mark_left=max(1 - 2 * side["mark"], 0),
            mark_right=max(2 * side["mark"] - 1, 0),
        ),
        front_relief=_FRONT_RELIEF,
        side_relief=_SIDE_RELIEF,
        feature_size=_FEATURE_SIZE,
        flush=1.0,
        even_light=True,
    )
