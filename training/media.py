"""Writing videos and contact sheets, whole or not at all.

Shape letters: F frames, H W height and width; pictures are uint8 RGB numpy arrays.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slotid_core.errors import SlotIDError
from training.atomic import atomic

_SHEET_WIDTH, _MARGIN, _GAP = 1280, 24, 6
_LONGEST_CAPTION = 1000
_PAPER, _INK, _QUIET, _WARNING = (250, 250, 248), (28, 28, 30), (96, 96, 100), (178, 34, 34)
# H.273 codes for what swscale makes of RGB unless told otherwise: the BT.601 matrix, limited range.
_BT601, _LIMITED_RANGE = 6, 1


def to_bytes(frames_FHWC: Tensor) -> np.ndarray:
    """Float pixels in [0, 1] to uint8."""
    return (frames_FHWC.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def write_mp4(path: Path, frames_FHWC: np.ndarray, fps: float = 16.0) -> None:
    """An H.264 video (yuv420p, which every player takes), nearly without loss.

    Args:
        frames_FHWC: uint8 RGB; height and width even.

    Raises:
        SlotIDError: not such frames, no H.264 encoder, or the folder can't be written.
    """
    import av

    shape = list(frames_FHWC.shape)
    if frames_FHWC.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape or shape[1] % 2 or shape[2] % 2:
        raise SlotIDError(f"Got frames of {frames_FHWC.dtype} {shape}, expected uint8 [F, H, W, 3] with even H and W.")
    if "libx264" not in av.codecs_available:
        raise SlotIDError(
            "This PyAV has no H.264 encoder (libx264). Install the one from PyPI: pip install --upgrade av"
        )
    with atomic(path) as temporary, av.open(temporary, "w", options={"movflags": "faststart"}) as container:
        rate = Fraction(fps).limit_denominator(1001)
        # The same frames are the same bytes: libx264's fast way of weighing blocks takes in memory that nobody wrote
        # (of frames of 64x64 every encoding was another), and what it makes depends on how many threads there are.
        options = {"crf": "12", "x264-params": "cpu-independent=1"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.codec_context.thread_count = 1
        stream.height, stream.width = shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = _BT601
        stream.codec_context.color_range = _LIMITED_RANGE
        for picture_HWC in frames_FHWC:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _ascii(text: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode()


def _wrap(text: str, fits: Callable[[str], bool]) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
        # Not every script has spaces.
        while len(lines[-1]) > 1 and not fits(lines[-1]):
            line = lines.pop()
            most = max(n for n in range(1, len(line)) if n == 1 or fits(line[:n]))
            lines += [line[:most], line[most:]]
    return lines


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """One line of pictures under a label."""

    label: str
    frames_FHWC: np.ndarray
    """uint8 RGB."""
    shown: int = 8
    """Pictures that are picked, evenly spaced; fewer where there are fewer."""


def contact_sheet(
    path: Path, *, title: str, rows: Sequence[SheetRow], captions: Sequence[str], warning: str | None = None
) -> None:
    """A PNG to look at: title, warning, rows of pictures, captions.

    Letters are drawn without their accents, and others than Latin ones as "?", since Pillow's own font has no more.
    Captions end after 1,000 characters; as they were given they are in the file's metadata under ``Description``.

    Raises:
        SlotIDError: the folder can't be written.
    """
    from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

    sheet = Image.new("RGB", (_SHEET_WIDTH, 4000), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _MARGIN

    def write(text: str, size: int, colour: tuple[int, int, int]) -> None:
        nonlocal y
        font = ImageFont.load_default(size=size)
        for line in _wrap(_ascii(text), lambda line: font.getlength(line) <= _SHEET_WIDTH - 2 * _MARGIN):
            draw.text((_MARGIN, y), line, fill=colour, font=font)
            y += round(1.35 * size)

    write(title, 30, _INK)
    if warning:
        write(warning, 22, _WARNING)
    cell = (_SHEET_WIDTH - 2 * _MARGIN - 7 * _GAP) // 8
    for row in rows:
        y += 14
        write(row.label, 18, _QUIET)
        y += 4
        height, width = row.frames_FHWC.shape[1:3]
        cell_height = round(cell * height / width)
        count = min(row.shown, len(row.frames_FHWC))
        for column, index in enumerate(np.linspace(0, len(row.frames_FHWC) - 1, count).round().astype(int)):
            picture = Image.fromarray(row.frames_FHWC[index]).resize((cell, cell_height), Image.Resampling.LANCZOS)
            sheet.paste(picture, (_MARGIN + column * (cell + _GAP), y))
        y += cell_height
    y += 18
    for caption in captions:
        write(caption if len(caption) <= _LONGEST_CAPTION else f"{caption[:_LONGEST_CAPTION]} ...", 20, _INK)
    metadata = PngImagePlugin.PngInfo()
    metadata.add_itxt("Description", "\n".join(captions))
    with atomic(path) as temporary:
        sheet.crop((0, 0, _SHEET_WIDTH, y + _MARGIN)).save(temporary, "PNG", pnginfo=metadata)
