"""Draws the demo's person: ``python -m training.world.demo_people demo``.

The person is held out: neither the demo's models nor its probe have seen them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from training.atomic import atomic
from training.demo_models import CLIP, OTHER_CLIP, PORTRAIT
from training.media import write_mp4
from training.world.pictures import FRAMES, SIZE, WorldClip
from training.world.population import world_clip, world_portrait

PERSON = 6
"""Whose hair behind the ears is far from the colour that is drawn for nobody in particular, so that it is seen what the
clip adds. docs/world.md says how far this person's face comes, and how far others' do."""


def draw_person(folder: Path) -> None:
    """Two clips of 17 frames, twice as large as the models read them, and a portrait of the size that they read."""
    for clip, file in enumerate((CLIP, OTHER_CLIP)):
        drawn = WorldClip(split="held_out", index=PERSON, clip=clip)
        frames = world_clip(drawn.identity, drawn.scenario, FRAMES, 2 * SIZE, 2 * drawn.seed + clip)
        write_mp4(folder / file.name, frames)
        if file is CLIP:
            with atomic(folder / PORTRAIT.name) as temporary:
                Image.fromarray(world_portrait(drawn.identity, drawn.scenario, SIZE)).save(temporary, "PNG")


if __name__ == "__main__":
    draw_person(Path(sys.argv[1]))
