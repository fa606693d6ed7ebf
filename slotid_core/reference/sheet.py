"""Pictures of an analysis: the contact sheet, and the people with their numbers.

Shape letters: F frames, H W height and width, C channels (RGB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from .track import People, centre_and_size

if TYPE_CHECKING:
    from PIL import Image

    from .analyse import Analysis, FrameReport
    from .faces.face import Face

_CELL, _CAPTION, _GAP, _COLUMNS = 160, 46, 8, 6
_KEPT, _DROPPED, _BEST, _INK, _PAPER = (60, 150, 80), (200, 60, 50), (40, 90, 200), (30, 30, 30), (250, 250, 248)


def contact_sheet(analysis: Analysis, frames_FHWC: Tensor) -> Tensor:
    """Every frame that was looked at: green if it is in the clip, red with the reason if not, blue for the portrait.

    Returns:
        ``[H, W, 3]`` uint8.
    """
    best = analysis.candidates[0].index
    shown = [analysis.frames[i] for i in analysis.people.looked_at]
    cells = [_cell(frames_FHWC[report.index], report, best) for report in shown]
    return _grid(cells, analysis.describe().splitlines())


def people_sheet(people: People, frames_FHWC: Tensor) -> Tensor:
    """One picture a person with the number that ``person_index`` takes. ``[H, W, 3]`` uint8."""
    cells = []
    for number, person in enumerate(people.persons, start=1):
        index, face = max(person.faces.items(), key=lambda item: item[1].score)
        lines = [f"person {number}", f"{len(person.faces)} of {len(people.looked_at)} frames"]
        cells.append(_framed(_around(frames_FHWC[index], face), lines, _BEST))
    return _grid(cells, ["Set person_index to one of these numbers."])


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One picture of a sheet: the square around the face, or the whole frame, with words below."""

    frame_HWC: Tensor
    """uint8."""
    face: Face | None
    lines: tuple[str, ...]
    """At most three short ones."""
    mark: Literal["good", "bad", "reference"]


def sheet_of(cells: Sequence[Cell], header: list[str]) -> Tensor:
    """Cells under some lines of text. ``[H, W, 3]`` uint8."""
    colours = {"good": _KEPT, "bad": _DROPPED, "reference": _BEST}
    pictures = [_framed(_around(cell.frame_HWC, cell.face), list(cell.lines), colours[cell.mark]) for cell in cells]
    return _grid(pictures, header)


def _cell(frame_HWC: Tensor, report: FrameReport, best: int) -> Image.Image:
    lines = [f"frame {report.index}"]
    if report.dropped is not None:
        lines.append(report.dropped)
    elif report.face is None:
        lines.append("face between frames")
    elif report.face.pose is not None:
        pose = report.face.pose
        features = report.measures.features if report.measures is not None else None
        gaze = f" gaze {features.gaze:+.0f}" if features is not None and features.gaze is not None else ""
        lines.append(f"yaw {pose.yaw:+.0f} pitch {pose.pitch:+.0f}{gaze}")
    if report.score is not None:
        s = report.score
        lines.append(f"portrait {s.total:.2f}" + (", the best" if report.index == best else f"  sharp {s.sharp:.2f}"))
    colour = _BEST if report.index == best else _KEPT if report.dropped is None else _DROPPED
    return _framed(_around(frame_HWC, report.face), lines, colour)


def _around(frame_HWC: Tensor, face: Face | None) -> Image.Image:
    """The square around a face at twice its size, or the whole frame, letterboxed."""
    from PIL import Image

    picture = Image.fromarray(frame_HWC.numpy())
    if face is not None:
        (x, y), size = centre_and_size(face)
        # Paper where the square reaches out of the frame: black would look like part of the clip.
        square = Image.new("RGB", (round(2 * size), round(2 * size)), _PAPER)
        square.paste(picture, (-round(x - size), -round(y - size)))
        picture = square
    picture.thumbnail((_CELL, _CELL))
    cell = Image.new("RGB", (_CELL, _CELL), _PAPER)
    cell.paste(picture, ((_CELL - picture.width) // 2, (_CELL - picture.height) // 2))
    return cell


def _framed(picture: Image.Image, lines: list[str], colour: tuple[int, int, int]) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont

    cell = Image.new("RGB", (_CELL, _CELL + _CAPTION), _PAPER)
    cell.paste(picture, (0, 0))
    draw = ImageDraw.Draw(cell)
    draw.rectangle((0, 0, _CELL - 1, _CELL - 1), outline=colour, width=4)
    for row, line in enumerate(lines):
        draw.text((2, _CELL + 2 + 14 * row), line, fill=colour if row == 0 else _INK, font=ImageFont.load_default(12))
    return cell


def _grid(cells: list[Image.Image], header: list[str]) -> Tensor:
    from PIL import Image, ImageDraw, ImageFont

    columns = min(_COLUMNS, max(3, len(cells)))
    rows = -(-len(cells) // columns)
    width = _GAP + columns * (_CELL + _GAP)
    font = ImageFont.load_default(14)
    header = [line for long in header for line in _wrapped(long, width - 2 * _GAP, font)]
    top = _GAP + 18 * len(header) + _GAP
    sheet = Image.new("RGB", (width, top + rows * (_CELL + _CAPTION + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(header):
        draw.text((_GAP, _GAP + 18 * row), line, fill=_INK, font=font)
    for i, cell in enumerate(cells):
        sheet.paste(cell, (_GAP + i % columns * (_CELL + _GAP), top + i // columns * (_CELL + _CAPTION + _GAP)))
    return torch.from_numpy(np.array(sheet))


def _wrapped(line: str, width: int, font) -> list[str]:
    """A line broken at spaces where it would be wider than ``width`` pixels; what follows is indented."""
    rows = [""]
    for word in line.split():
        longer = f"{rows[-1]} {word}" if rows[-1] else word
        if rows[-1] and font.getlength(longer) > width:
            rows.append(f"    {word}")
        else:
            rows[-1] = longer
    return rows
