"""Held-out people side by side: what Slot-ID was shown, what each variant made of it, and the real clip.

Letters: N people, F frames, H W height and width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from safetensors.numpy import load_file

from training.media import SheetRow, contact_sheet, write_mp4
from training.world.experiment.evaluate import video_id
from training.world.experiment.results import BOUNDS, world_suffix
from training.world.pictures import WorldClip, picture_path, read_pictures

SIDE_BY_SIDE = "side_by_side"
_SHOWN = {
    "slotid-0": "Slot-ID",
    "portrait_only-0": "portrait only",
    "conv_pool-0": "A: 3DConv-Pool",
    "orderless-0": "B: orderless",
    "none": "no identity",
}
_SCALE, _HEAD = 2, 28


def show(folder: Path, results: Path, *, world: int) -> None:
    """``side_by_side`` as ``.png`` and ``.mp4`` beside the results, of the videos that :mod:`.results` kept.

    Nothing where Slot-ID's own are not there.

    Args:
        folder: reproduce.py's; videos in it that the results don't know are other results'.
    """
    videos = {}
    for name, label in _SHOWN.items():
        kept = folder / "videos" / f"{name}{world_suffix(world)}.safetensors"
        told, of = (BOUNDS, "none") if name == "none" else (name, "videos")
        result = results / f"{told}{world_suffix(world)}.json"
        if kept.is_file() and result.is_file():
            known, shown = json.loads(result.read_text(encoding="utf-8"))[of]["sha256"], load_file(kept)["videos"]
            if [video_id(video) for video in shown] == known[: len(shown)]:
                videos[label] = shown
    if "Slot-ID" not in videos:
        return
    many = min(len(video) for video in videos.values())
    path = results / f"{SIDE_BY_SIDE}{world_suffix(world)}.png"
    said = ["All videos of a person have the same noise, and the caption of the real clip below them."]
    side_by_side(path, folder / "pictures", videos, people=min(2, many), world=world, captions=said)
    in_motion(path.with_suffix(".mp4"), folder / "pictures", videos, people=min(4, many), world=world)


def side_by_side(
    path: Path, pictures: Path, videos: Mapping[str, np.ndarray], *, people: int, world: int, captions: list[str]
) -> None:
    """A PNG with rows for each of the first held-out people.

    Args:
        pictures: the folder that :mod:`training.world.pictures` draws into.
        videos: uint8 ``[N, F, H, W, 3]`` by label, at least as many as people.
        captions: lines below.
    """
    rows = []
    for index in range(people):
        reference, asked = (WorldClip(split="held_out", index=index, clip=clip, world=world) for clip in (0, 1))
        shown, real = (read_pictures(picture_path(pictures, clip)) for clip in (reference, asked))
        frames = np.concatenate([shown["portrait"].numpy()[None], shown["clip"].numpy()[:: len(shown["clip"]) // 6]])
        rows.append(SheetRow(label=f"Person {index + 1}: portrait and reference clip", frames_FHWC=frames))
        rows += [SheetRow(label=label, frames_FHWC=video[index]) for label, video in videos.items()]
        rows.append(SheetRow(label=f"The person's real clip of: {asked.caption}", frames_FHWC=real["clip"].numpy()))
    contact_sheet(path, title="Slot-ID World: held-out people", rows=rows, captions=captions)


def in_motion(path: Path, pictures: Path, videos: Mapping[str, np.ndarray], *, people: int, world: int) -> None:
    """An MP4: a row for each of the first held-out people, a column for each kind of video. Arguments as above."""
    columns = {"reference": [], "real other clip": []}
    for index in range(people):
        for clip, shown in enumerate(columns.values()):
            drawn = WorldClip(split="held_out", index=index, clip=clip, world=world)
            shown.append(read_pictures(picture_path(pictures, drawn))["clip"].numpy())
    columns |= {label: list(video[:people]) for label, video in videos.items()}
    grid_FHW3 = np.concatenate([np.concatenate(shown, 1) for shown in columns.values()], 2)
    width, height = (_SCALE * side for side in grid_FHW3.shape[2:0:-1])
    font, frames = ImageFont.load_default(size=15), []
    for picture_HW3 in grid_FHW3:
        frame = Image.new("RGB", (width, height + _HEAD), "white")
        frame.paste(Image.fromarray(picture_HW3).resize((width, height), Image.Resampling.BICUBIC), (0, _HEAD))
        for place, label in enumerate(columns):
            ImageDraw.Draw(frame).text((place * width // len(columns) + 6, 5), label, "black", font)
        frames.append(np.asarray(frame))
    write_mp4(path, np.stack(frames))
