"""Moving heads with the truth of every frame: people who turn, blink, smile and talk, alone, side by side, or cut.

Letters: F frames, H W height and width. Frames are uint8 RGB numpy arrays, as a decoder gives them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from slotid_core.errors import SlotIDError
from slotid_core.reference.faces.face import Pose

from .ranges import Ranged, amount, between
from .render import Rendered, render
from .scene import Camera, Expression, Scene
from .traits import HeadTraits


@dataclass(frozen=True, kw_only=True)
class Motion(Ranged):
    """How a head and its camera move. Nothing moves where all is 0."""

    yaw: float = between(0, 90, 25.0)
    """Degrees to either side that the head turns at most."""
    pitch: float = between(0, 60, 8.0)
    """Degrees that it nods at most."""
    roll: float = between(0, 60, 5.0)
    """Degrees that it tilts at most."""
    swing: float = between(0.2, 60, 3.0)
    """Seconds of one turn to a side and back."""
    smile: float = amount(0.8)
    """Of the broadest smile."""
    talk: float = amount(0.5)
    """How wide the mouth opens in talking."""
    blinks: float = between(0, 120, 20.0)
    """Blinks in a minute."""
    shift_x: float = between(-4, 4, 0.0)
    """How far the camera's motion carries the head to the right from first to last frame, in picture heights."""
    shift_y: float = between(-4, 4, 0.0)
    """The same downwards."""
    zoom: float = between(0.1, 10, 1.0)
    """Size of the head in the last frame against the first."""


STILL = Motion(yaw=0.0, pitch=0.0, roll=0.0, smile=0.0, talk=0.0, blinks=0.0)


@dataclass(frozen=True, kw_only=True)
class Performance:
    """What is true of one person in each frame; of frames without the person, poses and expressions are None, numbers
    NaN and the mask 0."""

    traits: HeadTraits
    poses: tuple[Pose | None, ...]
    expressions: tuple[Expression | None, ...]
    landmarks_F682: np.ndarray
    """Pixels, as in ``Rendered``."""
    visible_F68: np.ndarray
    face_box_F4: np.ndarray
    mask_FHW: np.ndarray
    """Share of each pixel that shows the person."""

    @property
    def shown_F(self) -> np.ndarray:
        """Whether the person is in the frame."""
        return np.array([pose is not None for pose in self.poses])


@dataclass(frozen=True, kw_only=True)
class HeadClip:
    """A clip and the truth about it. ``training.media.write_mp4(path, clip.frames_FHWC, clip.fps)`` makes it a file."""

    frames_FHWC: np.ndarray
    fps: float
    people: tuple[Performance, ...]


def move(scene: Scene, motion: Motion, *, frames: int, fps: float = 16.0, seed: int = 0) -> list[Scene]:
    """The scene over time.

    Args:
        scene: what does not move, and where the head is about which it moves.
        seed: of everything that is not laid down by ``motion``; the same for the same seed on every machine.
    """
    random = np.random.RandomState(seed)
    seconds = np.arange(frames) / fps
    share = np.linspace(0, 1, frames)
    phase, tempo = random.uniform(size=8), 0.8 + 0.4 * random.uniform(size=8)

    def swing(index: int, slower: float = 1.0) -> np.ndarray:
        turns = seconds * tempo[index] / (motion.swing * slower) + phase[index]
        return (np.sin(2 * math.pi * turns) + 0.35 * np.sin(2 * math.pi * (1.7 * turns + phase[index + 1]))) / 1.35

    yaw = scene.pose.yaw + motion.yaw * swing(0)
    pitch = scene.pose.pitch + motion.pitch * swing(1, 0.8)
    roll = scene.pose.roll + motion.roll * swing(2, 1.3)
    smile = scene.expression.smile + motion.smile * _rise(np.sin(2 * math.pi * (seconds / 4.0 * tempo[3] + phase[3])))
    mouth = scene.expression.mouth_open + motion.talk * _syllables(seconds, phase[4:6], tempo[4])
    eyes = scene.expression.eyes_open * (1 - _blinks(seconds, motion.blinks, random))
    moving = zip(yaw, pitch, roll, smile, mouth, eyes, share, strict=True)
    return [
        replace(
            scene,
            pose=Pose(yaw=float(y), pitch=float(p), roll=float(r)),
            expression=replace(
                scene.expression, smile=float(min(s, 1)), mouth_open=float(min(m, 1)), eyes_open=float(e)
            ),
            camera=Camera(
                zoom=scene.camera.zoom * motion.zoom ** float(part),
                offset_x=scene.camera.offset_x + motion.shift_x * float(part),
                offset_y=scene.camera.offset_y + motion.shift_y * float(part),
            ),
        )
        for y, p, r, s, m, e, part in moving
    ]


def head_clip(
    traits: HeadTraits,
    scenes: Sequence[Scene],
    *,
    height: int,
    width: int,
    fps: float = 16.0,
    device: torch.device | str = "cpu",
) -> HeadClip:
    """One person, a frame for each scene (``move`` makes them).

    Args:
        device: to draw on.
    """
    rendered = render(traits, scenes, height, width, device=device)
    return HeadClip(frames_FHWC=_to_bytes(rendered), fps=fps, people=(_performance(traits, scenes, rendered),))


def side_by_side(
    people: Sequence[tuple[HeadTraits, Sequence[Scene]]], *, height: int, width: int, fps: float = 16.0
) -> HeadClip:
    """Several people in one picture, spread evenly from left to right; the first person's background is everyone's.

    Where shoulders meet, the later person stands in front.

    Args:
        people: each with the scenes of all frames; as many for each.
    """
    counts = {len(scenes) for _, scenes in people}
    if len(counts) != 1:
        raise SlotIDError(f"Got people with {sorted(counts)} scenes, expected as many scenes for each of at least one.")
    performances: list[Performance] = []
    behind = None
    for index, (traits, scenes) in enumerate(people):
        place = ((index + 0.5) / len(people) - 0.5) * width / height
        placed = [
            replace(scene, camera=replace(scene.camera, offset_x=scene.camera.offset_x + place)) for scene in scenes
        ]
        rendered = render(traits, placed, height, width, behind_BHW3=behind)
        behind = rendered.image_BHW3
        own = _performance(traits, placed, rendered)
        performances = [_hidden_by(own.mask_FHW, other) for other in performances] + [own]
    return HeadClip(frames_FHWC=_to_bytes(rendered), fps=fps, people=tuple(performances))


def cut_together(clips: Sequence[HeadClip]) -> HeadClip:
    """Clips one after the other, with hard cuts. People of different clips are different people.

    Raises:
        SlotIDError: no clips, or clips of different size or rate.
    """
    formats = {(clip.frames_FHWC.shape[1:], clip.fps) for clip in clips}
    if len(formats) != 1:
        raise SlotIDError(f"Got clips of {len(formats)} sizes and rates to cut together, expected one.")
    total = sum(len(clip.frames_FHWC) for clip in clips)
    people, start = [], 0
    for clip in clips:
        people += [_within(person, start, total) for person in clip.people]
        start += len(clip.frames_FHWC)
    frames = np.concatenate([clip.frames_FHWC for clip in clips])
    return HeadClip(frames_FHWC=frames, fps=clips[0].fps, people=tuple(people))


def _rise(wave: np.ndarray) -> np.ndarray:
    """A wave from -1 to 1 to something that comes, stays and goes."""
    share = np.clip((wave + 0.1) / 0.9, 0, 1)
    return share * share * (3 - 2 * share)


def _syllables(seconds: np.ndarray, phase: np.ndarray, tempo: float) -> np.ndarray:
    """Some four openings of the mouth in a second, in groups."""
    beat = np.abs(np.sin(2 * math.pi * (2.0 * tempo * seconds + phase[0])))
    group = _rise(np.sin(2 * math.pi * (seconds / 2.2 + phase[1])))
    return beat * group


def _blinks(seconds: np.ndarray, per_minute: float, random: np.random.RandomState) -> np.ndarray:
    """How far the eyes are closed: blinks of about a quarter of a second at irregular times."""
    closed = np.zeros_like(seconds)
    if per_minute == 0:
        return closed
    pause = 60 / per_minute
    moment = pause * random.uniform()
    while len(seconds) and moment < seconds[-1]:
        closed = np.maximum(closed, np.clip(1.6 - np.abs(seconds - moment) / 0.08, 0, 1))
        moment += pause * (0.5 + random.uniform())
    return closed


def _to_bytes(rendered: Rendered) -> np.ndarray:
    return (rendered.image_BHW3 * 255).round().to(torch.uint8).cpu().numpy()


def _performance(traits: HeadTraits, scenes: Sequence[Scene], rendered: Rendered) -> Performance:
    return Performance(
        traits=traits,
        poses=tuple(scene.pose for scene in scenes),
        expressions=tuple(scene.expression for scene in scenes),
        landmarks_F682=rendered.landmarks_B682.cpu().numpy(),
        visible_F68=rendered.visible_B68.cpu().numpy(),
        face_box_F4=rendered.face_box_B4.cpu().numpy(),
        mask_FHW=rendered.mask_BHW.cpu().numpy(),
    )


def _hidden_by(mask_FHW: np.ndarray, person: Performance) -> Performance:
    """The person behind somebody else."""
    height, width = mask_FHW.shape[1:]
    column = np.clip(person.landmarks_F682[..., 0], 0, width - 1).astype(int)
    row = np.clip(person.landmarks_F682[..., 1], 0, height - 1).astype(int)
    covered = mask_FHW[np.arange(len(mask_FHW))[:, None], row, column] > 0.5
    return replace(person, mask_FHW=person.mask_FHW * (1 - mask_FHW), visible_F68=person.visible_F68 & ~covered)


def _within(person: Performance, start: int, total: int) -> Performance:
    """The person in a longer clip from frame ``start`` on."""
    count = len(person.poses)
    before, after = (None,) * start, (None,) * (total - start - count)

    def padded(values: np.ndarray, fill: float) -> np.ndarray:
        whole = np.full((total, *values.shape[1:]), fill, values.dtype)
        whole[start : start + count] = values
        return whole

    return replace(
        person,
        poses=(*before, *person.poses, *after),
        expressions=(*before, *person.expressions, *after),
        landmarks_F682=padded(person.landmarks_F682, np.nan),
        visible_F68=padded(person.visible_F68, False),
        face_box_F4=padded(person.face_box_F4, np.nan),
        mask_FHW=padded(person.mask_FHW, 0),
    )
