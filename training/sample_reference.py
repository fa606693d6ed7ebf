"""The reference clip of ``sample.py``: by the same pipeline as the nodes, from the user's video or the drawn one.

Shape letters: F frames, H W height and width, C colour channels (RGB).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slotid_core.errors import SlotIDError

if TYPE_CHECKING:
    from torch import Tensor

    from slotid_core.reference import Box, Reference

FPS = 16
Bar = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]
"""``bar(what, unit)`` shows progress and is fed with ``(done, total)``."""


@dataclass(frozen=True, kw_only=True)
class SampleReference:
    """What the encoder reads, and where it came from."""

    name: str
    """Of the video file."""
    clip_FHWC: Tensor
    """The square clip, float in [0, 1]."""
    portrait_HWC: Tensor
    """The square portrait, float in [0, 1]."""
    about_portrait: str
    reference: Reference


def read_reference(args: argparse.Namespace, bar: Bar) -> SampleReference:
    """Find the person in the user's clip, or in the drawn one, which is written to ``args.out`` first.

    Prints what was read and found. Where several people could be meant, a picture with their numbers is written.

    Raises:
        SlotIDError: the file can't be used, there is no face backend, or the person is not found.
    """
    from slotid_core.reference import Box, crop_along, describe_portraits, head_portraits, read_clip
    from training.demo_models import CLIP, FACE_BOX, PORTRAIT

    path, portrait, faces, box = args.clip, args.portrait, args.faces, Box(*args.box) if args.box else None
    if path is None:
        path, portrait, faces, box = CLIP.path, portrait or PORTRAIT.path, "box", Box(*FACE_BOX)
    with bar("Reading the clip", "frames") as progress:
        clip = read_clip(
            path, start=args.start, frames=args.clip_frames, fps=FPS, max_side=args.max_side, progress=progress
        )
    print(clip.describe())
    reference = _find(args, clip.frames_FHWC, faces, box, bar)
    analysis = reference.analysis
    print(analysis.describe())
    kept = analysis.kept
    clip_FHWC = crop_along(clip.frames_FHWC[kept.start : kept.stop], analysis.path, args.clip_size)
    if portrait is None:
        portraits = head_portraits(clip.frames_FHWC, analysis, background=args.background, size=args.portrait_size)
        portrait_HWC, about_portrait = portraits[0].image_HWC, describe_portraits(portraits)
    else:
        portrait_HWC, about_portrait = read_portrait(portrait, args.portrait_size), portrait.name
    return SampleReference(
        name=path.name,
        clip_FHWC=clip_FHWC,
        portrait_HWC=portrait_HWC,
        about_portrait=about_portrait,
        reference=reference,
    )


def read_portrait(path: Path, size: int) -> Tensor:
    """A picture file as a portrait, float RGB ``[size, size, 3]`` in [0, 1].

    Raises:
        SlotIDError: it is no picture, or not square, or the size is no multiple of 16.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageOps, UnidentifiedImageError

    from slotid_core.reference.crop import check_size, resize

    check_size(size)

    try:
        with Image.open(path) as picture:
            seen = ImageOps.exif_transpose(picture).convert("RGBA")
            pixels = np.asarray(Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise SlotIDError(f"{path} can't be read as a portrait ({error}). Give a PNG or JPEG file.") from error
    height, width = pixels.shape[:2]
    if height != width:
        raise SlotIDError(f"The portrait {path} is {width} x {height}. Crop it to a square around the head.")
    return resize(torch.from_numpy(pixels.copy()).float()[None] / 255, size)[0]


def _find(args: argparse.Namespace, frames_FHWC: Tensor, faces: str, box: Box | None, bar: Bar) -> Reference:
    from slotid_core.reference import Reference, SeveralPeopleError, analyse, choose_backend, people_sheet

    try:
        backend = choose_backend(faces, frames=len(frames_FHWC), box=box, offered=("insightface", "dlib", "box"))
    except SlotIDError as error:
        raise SlotIDError(
            f"{error}\nOn the command line: install the extra dlib with\n"
            f'  "{sys.executable}" -m pip install -e "{Path(__file__).resolve().parents[1]}[dlib]"\n'
            "or insightface likewise, or say where the face is with --box X,Y,W,H."
        ) from error
    try:
        with bar("Looking for faces", "steps") as progress:
            analysis = analyse(
                frames_FHWC,
                backend,
                fps=FPS,
                person_index=args.person,
                on_break=args.on_break,
                progress=progress,
            )
    except SeveralPeopleError as error:
        picture = args.out / "slotid_people.png"
        write_png(picture, people_sheet(error.people, frames_FHWC))
        raise SlotIDError(f"{error} Here that is --person; {picture} shows who has which number.") from error
    return Reference(frames_FHWC=frames_FHWC, fps=FPS, analysis=analysis)


def write_report(reference: Reference, sheet: Path, plot: Path) -> None:
    """The contact sheet of the frames that were searched, and the coverage plot, as PNG files.

    Raises:
        SlotIDError: the folder can't be written.
    """
    from slotid_core.reference import contact_sheet, coverage_plot

    write_png(sheet, contact_sheet(reference.analysis, reference.frames_FHWC))
    write_png(plot, coverage_plot(reference.analysis, reference.fps))


def write_png(path: Path, picture_HWC: Tensor) -> None:
    """A uint8 picture, whole or not at all.

    Raises:
        SlotIDError: the folder can't be written.
    """
    from PIL import Image

    from training.atomic import atomic

    with atomic(path) as temporary:
        Image.fromarray(picture_HWC.numpy()).save(temporary, "PNG")
