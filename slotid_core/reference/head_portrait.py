"""Portraits of a person who was found: head and shoulders around a detected face, on white.

Shape letters: H W height and width, C channels (RGB), N portraits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SlotIDError
from .analyse import Analysis
from .crop import check_size, resize
from .faces.face import Face
from .matte import person_matte
from .measures import PortraitScore, pick_diverse
from .portrait import as_masks
from .track import centre_and_size

# Side of the square, and how far its centre lies above the face's, in face sizes: hair above, shoulders below.
_SIDE, _UP = 2.1, 0.1
# What the matte sees around the square, in its sides: hardly any background is inside.
_AROUND = 0.25
_LEAST_FACE = 0.5
"""Share of the face's box that a mask has to cover: the box has corners, and hair may lie over them."""


@dataclass(frozen=True, kw_only=True)
class HeadPortrait:
    """One portrait."""

    image_HWC: Tensor
    """``[size, size, 3]`` float in [0, 1]."""
    frame_index: int
    """Frame of the analysed clip."""
    face: Face
    """As it was found there: without a pose, nothing is known of where it looks."""
    score: PortraitScore
    background: str
    """What became of it, in words."""


def head_portraits(
    frames_FHWC: Tensor,
    analysis: Analysis,
    *,
    rank: int = 1,
    count: int = 1,
    background: Literal["built-in matte", "keep"] = "built-in matte",
    masks_FHW: Tensor | None = None,
    size: int = 512,
) -> list[HeadPortrait]:
    """The ``rank``-th best portrait, or ``count`` that differ in where they look or in their expression.

    Args:
        frames_FHWC: ``[F, H, W, 3]`` uint8, the frames that were analysed.
        analysis: of those frames.
        rank: 1 is the best; with ``count`` above 1 it has to be 1.
        count: how many diverse ones, the best first.
        background: ``built-in matte`` turns it white, ``keep`` leaves it.
        masks_FHW: ``[1 or F, H, W]`` float, 1 on the person; used instead of the built-in matte.
        size: side in pixels, a multiple of 16.

    Raises:
        SlotIDError: there are not that many candidates, the masks do not fit or leave the face out, or the matte
            failed.
    """
    check_size(size)
    candidates = analysis.candidates
    wanted = max(rank, count)
    if wanted > len(candidates):
        raise SlotIDError(
            f"Portrait {wanted} was asked for, the clip has {len(candidates)} frames with a face. Ask for fewer, or "
            "take a longer clip."
        )
    if rank > 1 and count > 1:
        raise SlotIDError(
            f"rank is {rank} and count is {count}: diverse portraits begin with the best, so set rank to 1."
        )
    if masks_FHW is not None:
        masks_FHW = as_masks(masks_FHW, len(frames_FHWC), frames_FHWC.shape[1:3])
    chosen = candidates[rank - 1 : rank]
    if count > 1:
        indices = pick_diverse([c.score for c in candidates], [c.face for c in candidates], count)
        chosen = [candidates[i] for i in indices]
    portraits = []
    for report in chosen:
        mask_HW = None
        if masks_FHW is not None:
            mask_HW = masks_FHW[report.index % len(masks_FHW)]
            _check_covers(mask_HW, report.face, report.index)
        image_HWC, said = _portrait(frames_FHWC[report.index], report.face, background, mask_HW)
        resized_HWC = resize(image_HWC.unsqueeze(0), size)[0]
        portraits.append(
            HeadPortrait(
                image_HWC=resized_HWC, frame_index=report.index, face=report.face, score=report.score, background=said
            )
        )
    return portraits


def describe_portraits(portraits: Sequence[HeadPortrait]) -> str:
    """A line a portrait, for people; what the face backend can't tell is left out."""
    return "\n".join(
        f"Frame {p.frame_index}: score {p.score.total:.2f} ({_parts(p)}); {p.background}." for p in portraits
    )


def _check_covers(mask_HW: Tensor, face: Face, frame: int) -> None:
    """Without its face a portrait is a white square, with a good score all the same."""
    left, top, right, bottom = (max(0, round(side)) for side in face.box_xyxy)
    covered = float(mask_HW[top:bottom, left:right].mean())
    if covered < _LEAST_FACE:
        raise SlotIDError(
            f"The mask of frame {frame} covers {covered:.0%} of the person's face, expected {_LEAST_FACE:.0%} or more. "
            "Connect a mask that is 1 on this person and made from these frames, or none: then the background turns "
            "white by the built-in matte."
        )


def _parts(portrait: HeadPortrait) -> str:
    known = {"sharp": True, "frontal": portrait.face.pose is not None, "neutral": portrait.face.expression is not None}
    return ", ".join(f"{name} {getattr(portrait.score, name):.2f}" for name, is_known in known.items() if is_known)


def _portrait(frame_HWC: Tensor, face: Face, background: str, mask_HW: Tensor | None) -> tuple[Tensor, str]:
    (x, y), size = centre_and_size(face)
    side = round(_SIDE * size)
    left, top = round(float(x) - side / 2), round(float(y) - _UP * size - side / 2)
    picture_HWC = _cut(frame_HWC, left, top, side, outside=255)
    colour_HWC = picture_HWC.float() / 255
    if mask_HW is not None:
        said = "white outside the connected mask"
    elif background == "keep":
        return colour_HWC, "background kept"
    else:
        mask_HW = _matte(frame_HWC, face, left, top, side)
        said = "white by the built-in matte (GrabCut)"
    square_HW1 = _cut(mask_HW[..., None], left, top, side, outside=0)
    return colour_HWC * square_HW1 + (1 - square_HW1), said


def _matte(frame_HWC: Tensor, face: Face, left: int, top: int, side: int) -> Tensor:
    """The matte of what the frame has of the square and some more around it, 0 in the rest of the frame."""
    height, width = frame_HWC.shape[:2]
    more = round(_AROUND * side)
    rows = slice(max(0, top - more), min(height, top + side + more))
    columns = slice(max(0, left - more), min(width, left + side + more))
    x0, y0, x1, y1 = face.box_xyxy
    moved_xyxy = (x0 - columns.start, y0 - rows.start, x1 - columns.start, y1 - rows.start)
    mask_HW = torch.zeros(height, width)
    mask_HW[rows, columns] = person_matte(frame_HWC[rows, columns], Face(box_xyxy=moved_xyxy, score=face.score))
    return mask_HW


def _cut(picture_HWC: Tensor, left: int, top: int, side: int, outside: int) -> Tensor:
    """A square that may reach out of the picture, filled with ``outside`` there."""
    height, width = picture_HWC.shape[:2]
    padding = (max(0, -left), max(0, left + side - width), max(0, -top), max(0, top + side - height))
    padded_HWC = F.pad(picture_HWC, (0, 0, *padding), value=outside)
    top, left = max(0, top), max(0, left)
    return padded_HWC[top : top + side, left : left + side]
