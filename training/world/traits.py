"""Who a head is: continuous traits, each on its own scale, none of which changes with time.

Every trait is a number. Signed traits run from -1 to 1 with the average person at 0; amounts run from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from .ranges import Ranged, amount, between, signed


@dataclass(frozen=True, kw_only=True)
class FrontTraits(Ranged):
    """What a frontal portrait shows."""

    face_width: float = signed()
    """Narrow to wide, ear to ear."""
    face_length: float = signed()
    """Short to long, from the eyes to the chin."""
    jaw_width: float = signed()
    """Tapered to square jaw."""
    chin_width: float = signed()
    """Pointed to broad chin."""
    cheeks: float = signed()
    """Hollow to full cheeks."""
    nose_width: float = signed()
    """Slender to broad nose and nostrils."""
    nose_length: float = signed()
    """Short to long nose."""
    eye_size: float = signed()
    """Small to large eyes."""
    eye_spacing: float = signed()
    """Close-set to wide-set eyes."""
    eye_tilt: float = signed()
    """Outer corners low to high."""
    lid_weight: float = amount(0.4)
    """Deep-set lids with a visible crease to heavy lids without one."""
    brow_thickness: float = signed()
    """Thin to bushy eyebrows."""
    brow_height: float = signed()
    """Low to high eyebrows."""
    brow_arch: float = signed()
    """Straight to arched eyebrows."""
    mouth_width: float = signed()
    """Narrow to wide mouth."""
    lip_fullness: float = signed()
    """Thin to full lips."""
    skin_depth: float = amount(0.3)
    """Very fair to very dark skin."""
    skin_warmth: float = between(-1, 1, 0.0)
    """Rosy to golden skin."""
    blush: float = amount(0.4)
    """Pale to red cheeks, nose and ears."""
    freckles: float = amount(0.0)
    """None to many freckles."""
    lip_redness: float = amount(0.4)
    """Lips like the skin to red lips."""
    eye_hue: float = amount(0.2)
    """Dark brown, hazel, green, blue, grey."""
    hair_depth: float = amount(0.6)
    """Light blond to black hair."""
    hair_warmth: float = between(-1, 1, 0.0)
    """Ash to red hair."""
    hair_grey: float = amount(0.0)
    """No grey to all grey hair."""
    hairline: float = signed()
    """Low to high hairline."""
    fringe: float = amount(0.1)
    """Hair combed back to a fringe over the forehead."""
    parting: float = between(-1, 1, 0.0)
    """Where the hair parts, from the right side of the picture (-1) over the middle to the left (1)."""
    hair_length: float = amount(0.3)
    """Cropped to below the shoulders."""
    hair_volume: float = amount(0.5)
    """Flat to big hair."""
    hair_curl: float = amount(0.2)
    """Straight to curly hair."""
    beard: float = amount(0.0)
    """Clean-shaven, stubble, full beard."""
    tuck: float = between(0, 1, 0.0, sampled=False)
    """Long hair hanging over the ears to tucked behind them."""


@dataclass(frozen=True, kw_only=True)
class SideTraits(Ranged):
    """What only other views than the frontal one show well."""

    nose_projection: float = signed()
    """Flat to prominent nose."""
    nose_bridge: float = signed()
    """Hollow to hooked profile of the nose."""
    nose_tip: float = signed()
    """Drooping to upturned tip of the nose."""
    chin_projection: float = signed()
    """Receding to prominent chin."""
    brow_ridge: float = signed()
    """Smooth to heavy brow in profile."""
    forehead_slope: float = signed()
    """Upright to sloping forehead."""
    skull_depth: float = signed()
    """Flat to long back of the head."""
    ear_size: float = signed()
    """Small to large ears."""
    ear_height: float = signed()
    """Low to high ears."""
    hair_back: float = amount(0.5)
    """Hair at the back of the head cut close to big."""
    nape: float = signed()
    """High to low hairline in the nape."""
    mark_left: float = amount(0.0)
    """None to large birthmark below the ear on the left of a frontal picture."""
    mark_right: float = amount(0.0)
    """The same on the right."""
    ear_set: float = between(-1, 1, 0.0, sampled=False)
    """Ears set forward to far back."""
    bun: float = between(0, 1, 0.0, sampled=False)
    """No bun to a large one at the back of the head."""
    dye: float = between(0, 1, 0.0, sampled=False)
    """Hair behind the ears as it grew to dyed, where a frontal picture does not show it."""
    dye_hue: float = between(0, 1, 0.0, sampled=False)
    """From blue over violet and red to orange."""
    dye_depth: float = between(0, 1, 0.0, sampled=False)
    """From bright to dark."""


PROFILE = ("nose_projection", "nose_bridge", "nose_tip", "chin_projection", "brow_ridge", "forehead_slope")
"""Side traits that shape the face."""


@dataclass(frozen=True, kw_only=True)
class HeadTraits:
    """All that makes one head different from another."""

    front: FrontTraits = FrontTraits()
    side: SideTraits = SideTraits()
    front_relief: float = 1.0
    """Times as strong as real people's that the front's measures of shape show: above 1 is a caricature."""
    side_relief: float = 1.0
    """The same for the side's."""
    feature_size: float = 1.0
    """Times as large as real people's that eyes, brows and mouth are, and as different: above 1 is a drawn figure's."""
    flush: float = 0.0
    """How far each cheek reddens with its half of a smile, as in a drawn figure: from 0 to 1."""
    even_light: bool = False
    """Light and shadow fall on the face as on one with the average profile, so that a frontal picture does not tell the
    profile by its shading."""


def sample_traits(seed: int) -> HeadTraits:
    """A random person; the same one for the same seed on every machine.

    Traits marked as not sampled keep their default: people drawn before those traits were there stay who they are.
    """
    # RandomState's stream is frozen over numpy's versions; one uniform draw for each trait keeps traits apart.
    random = np.random.RandomState(seed)
    front = {entry.name: _draw(entry, random) for entry in fields(FrontTraits) if entry.metadata["sampled"]}
    side = {entry.name: _draw(entry, random) for entry in fields(SideTraits) if entry.metadata["sampled"]}
    u = random.uniform(size=8)
    # Real people are not draws from a cube: dark skin goes with dark hair and eyes, beards with strong jaws and brows.
    robust = u[0]
    front["hair_depth"] = _clip(front["hair_depth"] + 0.9 * max(front["skin_depth"] - 0.35, 0), 0, 1)
    front["eye_hue"] *= 1 - 0.85 * min(max(front["skin_depth"] - 0.3, 0) / 0.3, 1)
    front["freckles"] = max(front["freckles"] - 0.7, 0) / 0.3 * (1 - front["skin_depth"])
    front["hair_grey"] = max(front["hair_grey"] - 0.86, 0) / 0.14
    front["fringe"] = max(front["fringe"] - 0.45, 0) / 0.55
    front["beard"] = max(front["beard"] - 0.35, 0) / 0.65 if robust > 0.6 else 0.0
    front["hair_length"] *= 0.45 if robust > 0.55 else 1.0
    front["jaw_width"] = _clip(front["jaw_width"] * 0.8 + 0.5 * (robust - 0.5), -1, 1)
    front["brow_thickness"] = _clip(front["brow_thickness"] * 0.8 + 0.6 * (robust - 0.5), -1, 1)
    front["lip_redness"] *= 1.0 - 0.6 * robust
    side["mark_left"] = max(side["mark_left"] - 0.6, 0) / 0.4
    side["mark_right"] = max(side["mark_right"] - 0.6, 0) / 0.4
    return HeadTraits(front=FrontTraits(**front), side=SideTraits(**side))


def _draw(entry, random: np.random.RandomState) -> float:
    low, high = entry.metadata["range"]
    return float(low + (high - low) * random.uniform())


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
