"""The sharpest frame of a clip as a square portrait, on white where a mask says what the person is.

Shape letters: F frames, M masks (1 or F), H W height and width, h w of a region, C channels (RGB).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import SlotIDError
from .crop import Box, check_frames, check_size, largest_square, resize, square_around

LUMA = (0.2126, 0.7152, 0.0722)
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))

# A pixel of a soft mask belongs to the person from here on, when the person's extent is measured.
PERSON = 0.5
# How far beyond 0 and 1 a mask may be: whoever resizes one overshoots by rounding.
_ROUNDED = 1e-3


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """One frame, cropped.

    Attributes:
        image_HWC: ``[size, size, 3]`` float in [0, 1].
        frame_index: which frame of the clip it is, from 0.
        sharpness_F: ``[F]`` what the frame was chosen by, see :func:`extract_portrait`; -inf where the mask is empty.
        region: in words, where the portrait was taken from and what became of the background.
    """

    image_HWC: Tensor
    frame_index: int
    sharpness_F: Tensor
    region: str


def extract_portrait(
    frames_FHWC: Tensor, *, box: Box | None = None, mask: Tensor | None = None, size: int = 512
) -> Portrait:
    """The sharpest frame inside a region, cropped to a square around it.

    Sharpness is the variance of the luma's Laplacian inside the region: blur by motion or focus takes away the fine
    detail that a second derivative answers to. It compares frames of one clip; between clips it depends on noise,
    light and the size of the face.

    The region is the box, the mask, their overlap where both are given (the crop then follows the box), or the
    largest centred square. Outside the mask the portrait is white, also where the square around the mask reaches out
    of the frame; without a mask the background stays.

    Args:
        frames_FHWC: ``[F, H, W, 3]`` float in [0, 1].
        box: where the face is, in all frames.
        mask: ``[H, W]`` for all frames or ``[M, H, W]`` with M of 1 or F; float in [0, 1], 1 on the person.
        size: side of the portrait in pixels, a multiple of 16; the paper uses 512.

    Raises:
        SlotIDError: box, mask or size do not fit the frames, or the mask is empty.
    """
    check_frames(frames_FHWC)
    check_size(size)
    count, height, width, _ = frames_FHWC.shape
    if box is not None:
        square = square_around(box, width, height)
        region, where = box, str(box)
    elif mask is None:
        square = region = largest_square(width, height)
        where = f"largest centred square of the frame ({region}), as neither a box nor a mask was given"
    else:
        region, where = Box(0, 0, width, height), "square around the mask"
    masks_MHW = None if mask is None else as_masks(mask, count, (height, width))

    sharpness = []
    for index in range(count):
        picture_hwC = region.cut(frames_FHWC[index : index + 1])[0]
        weight_hw = picture_hwC.new_ones(picture_hwC.shape[:2])
        if masks_MHW is not None:
            weight_hw = region.cut(masks_MHW[index % len(masks_MHW)].unsqueeze(0))[0]
        sharpness.append(_sharpness(picture_hwC, weight_hw))
    best = max(range(count), key=sharpness.__getitem__)
    if sharpness[best] == float("-inf"):
        raise SlotIDError(
            f"The mask is empty{f' inside the {box}' if box is not None else ''} in all {count} frames: no pixel "
            f"reaches {PERSON}. Use a mask that is 1 on the person and 0 elsewhere."
        )

    picture_HWC = frames_FHWC[best]
    if masks_MHW is not None:
        mask_HW1 = masks_MHW[best % len(masks_MHW)].unsqueeze(-1)
        picture_HWC = picture_HWC * mask_HW1 + (1 - mask_HW1)
        if box is None:
            picture_HWC = _square_on_white(picture_HWC, mask_HW1[..., 0])
        where += ", white outside the mask"
    else:
        where += ", background kept"
    if masks_MHW is None or box is not None:
        picture_HWC = square.cut(picture_HWC.unsqueeze(0))[0]
    return Portrait(
        image_HWC=resize(picture_HWC.unsqueeze(0), size)[0],
        frame_index=best,
        sharpness_F=torch.tensor(sharpness),
        region=where,
    )


def as_masks(mask: Tensor, count: int, size: tuple[int, int] | None = None) -> Tensor:
    """The mask or masks of ``count`` frames as ``[1 or count, H, W]``, on the CPU, where frames are.

    Args:
        size: height and width of these frames, where they are known yet.

    Raises:
        SlotIDError: another shape, not floats from 0 to 1, or numbers that are none.
    """
    masks_MHW = (mask.unsqueeze(0) if mask.ndim == 2 else mask).cpu()
    if masks_MHW.ndim != 3 or (size is not None and masks_MHW.shape[1:] != size):
        height, width = ("H", "W") if size is None else size
        raise SlotIDError(
            f"Got a mask of shape {list(mask.shape)}, expected [{height}, {width}] or [M, {height}, {width}] like the "
            "frames. Make the mask from these frames, or resize it to them."
        )
    if masks_MHW.shape[0] not in (1, count):
        raise SlotIDError(
            f"Got {masks_MHW.shape[0]} masks for {count} frames, expected 1 for all or {count}, one for each."
        )
    # NaN is neither below 0 nor above 1, and fails here.
    if not masks_MHW.is_floating_point() or not (masks_MHW.min() >= -_ROUNDED and masks_MHW.max() <= 1 + _ROUNDED):
        raise SlotIDError(
            f"Got a mask of {masks_MHW.dtype} from {masks_MHW.min()} to {masks_MHW.max()}, expected floats from 0 "
            "(background) to 1 (person)."
        )
    return masks_MHW.float().clamp(0, 1)


def _sharpness(picture_hwC: Tensor, weight_hw: Tensor) -> float:
    if weight_hw.max() < PERSON:
        return float("-inf")
    luma_11hw = (picture_hwC @ picture_hwC.new_tensor(LUMA))[None, None]
    kernel_1133 = picture_hwC.new_tensor(LAPLACIAN)[None, None]
    # Replicated borders: the frame's edge is no detail, and a region of one pixel still has an answer.
    edges_hw = functional.conv2d(functional.pad(luma_11hw, (1, 1, 1, 1), mode="replicate"), kernel_1133)[0, 0]
    share_hw = weight_hw / weight_hw.sum()
    mean = (share_hw * edges_hw).sum()
    return (share_hw * (edges_hw - mean).square()).sum().item()


def _square_on_white(picture_HWC: Tensor, mask_HW: Tensor) -> Tensor:
    """The square around the person, centred; white where it reaches out of the frame."""
    height, width = mask_HW.shape
    person_HW = mask_HW >= PERSON
    rows, columns = person_HW.any(1).nonzero()[:, 0].tolist(), person_HW.any(0).nonzero()[:, 0].tolist()
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(bottom - top, right - left)
    y, x = (top + bottom - side) // 2, (left + right - side) // 2
    padding = (0, 0, max(0, -x), max(0, x + side - width), max(0, -y), max(0, y + side - height))
    padded_HWC = functional.pad(picture_HWC, padding, value=1.0)
    y, x = max(0, y), max(0, x)
    return padded_HWC[y : y + side, x : x + side]
