"""Boxes and square crops.

Shape letters: F frames, H W height and width, C channels (RGB).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import SlotIDError

# The VAE shrinks by 8 and the encoder's patches by 2.
SIZE_MULTIPLE = 16


@dataclass(frozen=True)
class Box:
    """A rectangle of whole pixels, ``(x, y)`` its upper left corner.

    Raises:
        SlotIDError: width or height is below 1, or the corner is negative.
    """

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self):
        if self.width < 1 or self.height < 1 or self.x < 0 or self.y < 0:
            raise SlotIDError(f"Got the {self}, expected x and y of 0 or more and a width and height of 1 or more.")

    def __str__(self) -> str:
        return f"box {self.width}x{self.height} at ({self.x}, {self.y})"

    def check_inside(self, width: int, height: int) -> None:
        """Raises a SlotIDError where the box reaches out of a frame of this size."""
        if self.x + self.width > width or self.y + self.height > height:
            raise SlotIDError(
                f"The {self} reaches out of the frame, which is {width}x{height} pixels. Use a box with "
                f"x + width <= {width} and y + height <= {height}."
            )

    def cut(self, frames_FHWC: Tensor) -> Tensor:
        """The part of each frame inside the box, a view ``[F, height, width, ...]``."""
        return frames_FHWC[:, self.y : self.y + self.height, self.x : self.x + self.width]


def largest_square(width: int, height: int) -> Box:
    """The largest centred square of a frame."""
    side = min(width, height)
    return Box((width - side) // 2, (height - side) // 2, side, side)


def square_around(box: Box, width: int, height: int) -> Box:
    """The square with the longer side of ``box``, centred on it and moved into the frame where it would leave it.

    Raises:
        SlotIDError: the box reaches out of the frame, or is longer than the frame's shorter side.
    """
    box.check_inside(width, height)
    side = max(box.width, box.height)
    if side > min(width, height):
        raise SlotIDError(
            f"The {box} needs a square of {side} pixels, and the frame is {width}x{height}. Use a box whose sides are "
            f"at most {min(width, height)}."
        )
    x = box.x + (box.width - side) // 2
    y = box.y + (box.height - side) // 2
    return Box(min(max(x, 0), width - side), min(max(y, 0), height - side), side, side)


def square_crop(frames_FHWC: Tensor, box: Box | None, size: int) -> Tensor:
    """The same square of every frame, resized.

    Args:
        frames_FHWC: ``[F, H, W, 3]`` float in [0, 1].
        box: grown to a square; ``None`` for the largest centred square.
        size: side of the result in pixels, a multiple of 16.

    Returns:
        ``[F, size, size, 3]`` in [0, 1], of the frames' dtype, on their device.

    Raises:
        SlotIDError: the box does not fit the frames, ``size`` is not a multiple of 16, or the frames are not such.
    """
    check_frames(frames_FHWC)
    check_size(size)
    _, height, width, _ = frames_FHWC.shape
    square = square_around(box, width, height) if box is not None else largest_square(width, height)
    return resize(square.cut(frames_FHWC), size)


def resize(frames_FHWC: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Antialiased bicubic resizing to ``[F, size, size, 3]``, or to a height and width, kept in [0, 1]."""
    height, width = size if isinstance(size, tuple) else (size, size)
    resized_FHWC = frames_FHWC.new_empty(frames_FHWC.shape[0], height, width, 3)
    # Frame by frame: a batch would hold every intermediate of the whole clip at once.
    for frame_HWC, out_HWC in zip(frames_FHWC, resized_FHWC, strict=True):
        out_1CHW = functional.interpolate(
            frame_HWC.permute(2, 0, 1).unsqueeze(0), (height, width), mode="bicubic", antialias=True
        )
        torch.clamp(out_1CHW[0].permute(1, 2, 0), 0, 1, out=out_HWC)  # bicubic overshoots at edges
    return resized_FHWC


def check_frames(frames_FHWC: Tensor) -> None:
    """Raises a SlotIDError unless the frames are ``[F, H, W, 3]`` floats, F at least 1."""
    shape = list(frames_FHWC.shape)
    if len(shape) != 4 or shape[-1] != 3 or shape[0] == 0 or not frames_FHWC.is_floating_point():
        raise SlotIDError(
            f"Got frames of shape {shape} and type {frames_FHWC.dtype}, expected [F, H, W, 3] floats in [0, 1]. "
            "A Clip gives them with as_float()."
        )


def check_size(size: int) -> None:
    """Raises a SlotIDError unless ``size`` is a positive multiple of 16."""
    if size < SIZE_MULTIPLE or size % SIZE_MULTIPLE:
        below = size // SIZE_MULTIPLE * SIZE_MULTIPLE
        fits = f"{below} or {below + SIZE_MULTIPLE}" if below >= SIZE_MULTIPLE else f"{SIZE_MULTIPLE} or more"
        raise SlotIDError(
            f"Got size = {size}, expected a multiple of {SIZE_MULTIPLE} (VAE 8 times patch 2). Use {fits}."
        )
