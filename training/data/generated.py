"""A dataset of people who do not exist, rendered into the cache: for a first run without any data."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from training.data.sources import Reject, SourceVideo
from training.media import write_mp4
from training.settings import Settings
from training.world.clips import Motion, head_clip, move
from training.world.scene import Camera, Scene, sample_scene
from training.world.traits import sample_traits

FOLDER = "videos"
_BEHIND = {
    "plain": "a plain wall",
    "gradient": "a softly lit wall",
    "stripes": "a striped wall",
    "checks": "a checked wall",
    "blobs": "a spotted wall",
    "bokeh": "blurred lights",
    "foliage": "leaves",
    "bricks": "a brick wall",
}


class GeneratedSource:
    """Clips of each person in different light, before different backgrounds, doing different things.

    Each video depends on ``data.seed``, ``data.generated`` and ``data.fps`` alone, so that a run that was ended goes on
    where it was.
    """

    def __init__(self, settings: Settings):
        self._settings = settings

    def videos(self) -> tuple[list[SourceVideo], list[Reject]]:
        """See :class:`training.data.sources.Source`; renders what is not there yet."""
        generated, cache = self._settings.data.generated, self._settings.data.cache
        videos, missing = [], []
        for person in range(generated.people):
            for clip in range(generated.clips):
                name = f"person{person:05d}/clip{clip:02d}"
                scene, motion, caption = _plan(self._settings.data.seed, person, clip)
                path = cache / FOLDER / f"{name}.mp4"
                videos.append(SourceVideo(id=name, path=path, caption=caption, person=f"person{person:05d}"))
                if not path.is_file():
                    missing.append((path, person, clip, scene, motion))
        for path, person, clip, scene, motion in tqdm(missing, desc="rendering", unit="video", disable=not missing):
            self._render(path, person, clip, scene, motion)
        return videos, []

    def _render(self, path, person: int, clip: int, scene: Scene, motion: Motion) -> None:
        generated, fps, seed = self._settings.data.generated, self._settings.data.fps, self._settings.data.seed
        scenes = move(scene, motion, frames=generated.frames, fps=fps, seed=_seed(seed, "motion", person, clip))
        traits = sample_traits(_seed(seed, "person", person))
        rendered = head_clip(traits, scenes, height=generated.side, width=generated.side, fps=fps)
        write_mp4(path, rendered.frames_FHWC, fps)


def _plan(seed: int, person: int, clip: int) -> tuple[Scene, Motion, str]:
    """What a clip shows, and a caption that says what happens and not to whom."""
    u = np.random.RandomState(_seed(seed, "plan", person, clip)).uniform(size=8)
    scene = sample_scene(_seed(seed, "scene", person, clip))
    camera = Camera(
        zoom=float(1.25 + 0.2 * u[0]), offset_x=float(0.08 * (u[1] - 0.5)), offset_y=float(0.04 * (u[2] - 0.5))
    )
    smiles, talks, turns = u[3] < 0.6, u[4] < 0.6, u[5] < 0.7
    motion = Motion(
        yaw=float(14 + 10 * u[6]) if turns else 4.0,
        pitch=float(3 + 5 * u[7]),
        smile=0.9 if smiles else 0.0,
        talk=0.6 if talks else 0.0,
    )
    does = [word for word, happens in (("turns the head", turns), ("smiles", smiles), ("talks", talks)) if happens]
    said = " and ".join(does) if does else "looks at the camera"
    light = "from the left" if scene.light.azimuth < 0 else "from the right"
    caption = f"A person in front of {_BEHIND[scene.background.kind]} {said}. The light comes {light}."
    return replace(scene, camera=camera), motion, caption


def _seed(*parts: int | str) -> int:
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF
