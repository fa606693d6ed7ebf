"""A person of the world doing what a scenario says, in their own manner.

Every clip shows every person's manner, whatever its caption: all nod, tilt, talk, blink and smile a little, as fast and
as lopsidedly as they do, and turn as hastily. Motions are laid out around the middle of the clip, so that a manner and
a caption say what happens when, and one frame taken at random looks the same for all dynamics.

Who turns hastily leftwards, with a smile that comes fast, shows the very frames, from the last to the first, of
somebody who turns lingeringly rightwards, with a smile that goes fast. So frames without their order do not tell these
manners; tempos they tell to whoever takes the turn for a clock.

Letters: T frames.
"""

from __future__ import annotations

import math

import numpy as np

from slotid_core.errors import SlotIDError
from slotid_core.reference.faces.face import Pose

from .identity import Identity
from .scenario import BACKGROUNDS, CLOTHING, Scenario
from .scene import Background, Camera, Expression, Light, Scene

# Hertz, slowest and fastest. One second, 17 frames at 16 frames a second, holds a period of the slowest.
TEMPOS = {"nod_tempo": (1.0, 2.2), "tilt_tempo": (1.0, 2.2), "talk_tempo": (1.2, 3.0), "blink_tempo": (1.0, 2.4)}
SMILE_TEMPO = 1.0
"""Smiles a second, of everybody: people differ in how fast a smile comes against how fast it goes."""
NOD, TILT = 10.0, 11.0
"""Degrees to either side."""
_TURN = 70.0
"""Degrees to either side: every clip shows both sides of the head."""
_PACE = 0.9
"""How much faster than evenly the hastiest begin to turn; the slowest end as fast."""
_UNSURE = 0.04
"""Cycles that a motion may be early or late by."""
_HOLD = 0.15
"""Share of a smile's time at its broadest, and again at its faintest."""
_COMING = (0.12, 0.88)
"""Share of a smile's moving time in which it comes, of whoever smiles fastest and slowest."""
_LEAD = 2.6
"""How far ahead the half of a face that leads a smile is, at most: at 2.6 half has come after 0.07 of the time, on the
other side after 0.93."""
_BLINK = 0.3
"""Share of the time in which the eyes are closing, closed or opening."""

# Faintest and broadest smile, brows, eyes, mouth of each expression.
_EXPRESSIONS = {
    "calm": (0.0, 0.8, 0.0, 0.75, 0.0),
    "smiling": (0.3, 1.0, 0.3, 0.66, 0.0),
    "frowning": (0.0, 0.75, -1.0, 0.62, 0.0),
    "surprised": (0.0, 0.75, 1.0, 1.0, 0.1),
}
_FOLLOW = 0.02
"""Picture heights at zoom 1 by which the camera follows who turns aside: the back of the head stays in the picture."""
_PITCH = {"": 0.0, "looking up": 13.0, "looking down": -13.0, "while talking": 0.0}
# Zoom in the first and the last frame.
_CAMERAS = {
    "close-up": (1.42, 1.42),
    "medium shot": (1.2, 1.2),
    "camera moving closer": (1.18, 1.46),
    "camera moving away": (1.46, 1.18),
}
# Azimuth, elevation, strength, warmth, ambient.
_LIGHTS = {
    "light from the left": (-60.0, 25.0, 1.15, 0.1, 0.75),
    "light from the right": (60.0, 25.0, 1.15, 0.1, 0.75),
    "light from above": (5.0, 68.0, 1.25, 0.0, 0.8),
    "warm evening light": (-15.0, 15.0, 1.0, 1.0, 0.7),
    "cold morning light": (15.0, 35.0, 0.95, -1.0, 0.95),
}


def perform(identity: Identity, scenario: Scenario, frames: int, fps: float = 16.0, seed: int = 0) -> list[Scene]:
    """The scenes of a clip.

    Args:
        identity: of which only the dynamics matter here.
        frames: at least 2; what they hold less than a second of does not show the slowest manners.
        seed: of all that neither the person nor the caption says: places of patterns, small differences of phases,
            light and framing. The same for the same seed on every machine.
    """
    if frames < 2:
        raise SlotIDError(f"Got {frames} frames to perform in, expected at least 2.")
    random = np.random.RandomState([seed, 21])
    phases, jitter = _UNSURE * (2 * random.uniform(size=5) - 1), 2 * random.uniform(size=8) - 1
    texture = int(random.randint(2**31 - 1))
    seconds_T, share_T = (np.arange(frames) - (frames - 1) / 2) / fps, np.linspace(0, 1, frames)

    def cycles(name: str, index: int) -> np.ndarray:
        slowest, fastest = TEMPOS[name]
        return (slowest + (fastest - slowest) * identity.trait(name)) * seconds_T + way * phases[index]

    _, way, *manner = scenario.action.split(" ", 2)
    manner, way = " ".join(manner), 1 if way == "rightwards" else -1
    turned_T = _ahead(share_T, _PACE * (2 * identity.trait("turn_pace") - 1))
    # Slower at both ends, where the side shows, but most of the time where the face does.
    sweep_T = 0.5 * (2 * turned_T - 1) - 0.5 * np.cos(math.pi * turned_T)
    yaw_T = _TURN * sweep_T * way + 4 * jitter[0]
    pitch_T = _PITCH[manner] + way * NOD * np.sin(2 * math.pi * cycles("nod_tempo", 0)) + 2 * jitter[1]
    roll_T = way * TILT * np.sin(2 * math.pi * cycles("tilt_tempo", 1)) + 2 * jitter[2]
    faint, broad, brows, eyes, mouth = _EXPRESSIONS[scenario.expression]
    corners_2T = smiles(identity, SMILE_TEMPO * seconds_T + 0.5 - _HOLD / 2 + way * phases[2])
    left_T, right_T = faint + (broad - faint) * corners_2T
    talk = 0.9 if manner == "while talking" else 0.65
    mouth_T = mouth + talk * (0.5 - 0.5 * np.cos(2 * math.pi * cycles("talk_tempo", 3)))
    eyes_T = eyes * (1 - _blink(0.5 + cycles("blink_tempo", 4)))
    first, last = _CAMERAS[scenario.camera]
    zoom_T = first * (last / first) ** share_T

    scenes = []
    light, background = _light(scenario, jitter[3:6]), _background(scenario, texture)
    for t in range(frames):
        scenes.append(
            Scene(
                pose=Pose(yaw=float(yaw_T[t]), pitch=float(pitch_T[t]), roll=float(roll_T[t])),
                expression=Expression(
                    smile=float(left_T[t] + right_T[t]) / 2,
                    smile_skew=float(right_T[t] - left_T[t]) / 2,
                    mouth_open=float(mouth_T[t]),
                    eyes_open=float(eyes_T[t]),
                    brow_raise=brows,
                    # The eyes stay with the camera as far as they can.
                    gaze_x=float(np.clip(-yaw_T[t] / 40, -1, 1)),
                ),
                light=light,
                background=background,
                clothing=CLOTHING[scenario.clothing],
                camera=Camera(
                    zoom=float(zoom_T[t]),
                    offset_x=float(_FOLLOW * math.sin(math.radians(yaw_T[t])) * zoom_T[t] + 0.02 * jitter[6]),
                    offset_y=float(0.02 * zoom_T[t] + 0.015 * jitter[7]),
                ),
            )
        )
    return scenes


def pose_for_portrait(scenario: Scenario) -> Scene:
    """Frontal, neutral and upright, in the scenario's shirt and light: a picture that knows no dynamics."""
    return Scene(
        light=_light(scenario, np.zeros(3)),
        background=Background(kind="plain", colour=(1.0, 1.0, 1.0)),
        clothing=CLOTHING[scenario.clothing],
        camera=Camera(zoom=1.4, offset_y=0.03),
    )


def smiles(identity: Identity, cycle_T: np.ndarray) -> np.ndarray:
    """How far each corner of the mouth smiles over time, from 0 to 1, left and right of the picture: ``[2, T]``.

    ``smile_onset`` is how little of its time a smile takes to come; it goes in what remains, so that what is seen in
    one frame, on average, does not tell. ``smile_lead`` is which corner comes first, and then goes first.
    """
    moving = 1 - 2 * _HOLD
    fastest, slowest = _COMING
    rising = moving * (slowest - (slowest - fastest) * identity.trait("smile_onset"))
    at_T = cycle_T % 1.0
    comes_T = np.clip(at_T / rising, 0, 1)
    goes_T = np.clip((at_T - rising - _HOLD) / (moving - rising), 0, 1)
    lead = 2 * identity.trait("smile_lead") - 1
    return np.stack(
        [_ease(_bent(comes_T, by)) * (1 - _ease(_bent(goes_T, by))) for by in (_LEAD * lead, -_LEAD * lead)]
    )


def _ahead(share_T: np.ndarray, by: float) -> np.ndarray:
    """Ahead of the share, or behind where ``by`` is negative. Time run backwards is ahead by as much as this is behind:
    that is what hides manners in single frames."""
    return share_T + by * share_T * (1 - share_T)


def _bent(share_T: np.ndarray, by: float) -> np.ndarray:
    """As :func:`_ahead`, as far as one likes: half is done after ``1 / (1 + exp(by))`` of the time."""
    return share_T / (share_T + (1 - share_T) * math.exp(-by))


def _ease(share_T: np.ndarray) -> np.ndarray:
    return share_T * share_T * (3 - 2 * share_T)


def _blink(cycle_T: np.ndarray) -> np.ndarray:
    """How far the eyes are closed, from 0 to 1; blinks last as large a part of the time at every tempo."""
    from_middle_T = np.abs((cycle_T + 0.5) % 1.0 - 0.5) / (_BLINK / 2)
    return np.clip(1.6 * (1 - from_middle_T), 0, 1)


def _light(scenario: Scenario, jitter: np.ndarray) -> Light:
    azimuth, elevation, strength, warmth, ambient = _LIGHTS[scenario.light]
    return Light(
        azimuth=float(azimuth + 8 * jitter[0]),
        elevation=float(elevation + 5 * jitter[1]),
        strength=float(strength * (1 + 0.06 * jitter[2])),
        warmth=warmth,
        ambient=ambient,
    )


def _background(scenario: Scenario, texture: int) -> Background:
    known = BACKGROUNDS[scenario.background]
    return Background(kind=known.kind, colour=known.colour, second=known.second, seed=texture)
