"""Decoded pictures to upright RGB: colour matrix and range, orientation, pixel shape, transparency.

Shape letters: H W height and width, C channels (RGB or RGBA).
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SlotIDError
from .decode import ffmpeg_errors

if TYPE_CHECKING:
    from av import VideoFrame

# The numbers of ITU-T H.273 that FFmpeg uses, with the names of its `scale` filter.
MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
RGB_MATRIX, UNSPECIFIED_MATRIX = 0, 2
FULL_RANGE = 2

# Without a tag: what players take high definition and standard definition for.
HIGH_DEFINITION_HEIGHT = 720

NOT_RGB = "has pictures that cannot be converted to RGB"


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """How a stored picture is shown: left-right and upside-down flips after an optional swap of the axes.

    Attributes:
        transpose: rows become columns.
        flip_x, flip_y: mirrored left-right, upside down; after the swap.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def mirrored(self) -> bool:
        return self.transpose ^ self.flip_x ^ self.flip_y

    @property
    def clockwise_deg(self) -> int:
        """0, 90, 180 or 270; of a mirrored picture: how far it is turned after mirroring left-right."""
        if self.transpose:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0

    def apply(self, picture_HWC: np.ndarray) -> np.ndarray:
        if self.transpose:
            picture_HWC = picture_HWC.transpose(1, 0, 2)
        return picture_HWC[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


def read_orientation(frame: "VideoFrame", file_name: str) -> Orientation:
    """The display matrix that phones write instead of turning the picture.

    Nine 32-bit integers ``a b u / c d v / x y w``; a pixel at (x, y) is shown at (a x + c y, b x + d y), up to the
    shift that brings it back into the frame.

    Raises:
        SlotIDError: the matrix turns by something else than a multiple of 90 degrees.
    """
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return Orientation()
    a, b, _, c, d, *_ = np.frombuffer(bytes(side_data), np.int32).astype(float)
    straight, swapped = min(abs(a), abs(d)), min(abs(b), abs(c))
    crooked = max(abs(b), abs(c)) if straight > swapped else max(abs(a), abs(d))
    if crooked > 0.01 * max(straight, swapped) or straight == swapped:
        raise SlotIDError(
            f"{file_name} is marked as turned by {np.degrees(np.arctan2(b, a)):.0f} degrees; only multiples of 90 can "
            "be undone. Write it anew with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4"
        )
    if swapped > straight:
        return Orientation(transpose=True, flip_x=bool(c < 0), flip_y=bool(b < 0))
    return Orientation(flip_x=bool(a < 0), flip_y=bool(d < 0))


class RgbConverter:
    """Turns the pictures of one stream into upright ``[H, W, 3]`` uint8 RGB, transparency laid over white.

    Args:
        first: any picture of the stream; the others must have its size and pixel format.
        pixel_aspect: width of a pixel over its height; ``None`` where the file does not say, and square.
        max_side: shrink so that neither side is longer.
        file_name: for errors.

    Attributes:
        width, height: of the pictures returned.
        colour: matrix and range that are undone, such as "bt709 limited".
    """

    def __init__(self, first: "VideoFrame", *, pixel_aspect: Fraction | None, max_side: int | None, file_name: str):
        self.orientation = read_orientation(first, file_name)
        self.has_alpha = any(component.is_alpha for component in first.format.components)
        self.bit_depth = max(component.bits for component in first.format.components)
        self._file_name = file_name
        self._stored = (first.format.name, first.width, first.height)
        wide = round(first.width * pixel_aspect) if pixel_aspect else first.width
        shrink = min(1.0, max_side / max(wide, first.height)) if max_side else 1.0
        scaled = (max(1, round(wide * shrink)), max(1, round(first.height * shrink)))
        self.width, self.height = scaled[::-1] if self.orientation.transpose else scaled
        matrix = _matrix(first, file_name)
        full = first.color_range == FULL_RANGE
        self.colour = f"{matrix} {'full' if full else 'limited'}" if matrix else first.format.name
        self._graph = self._build(first, scaled, matrix, full)

    def _build(self, first: "VideoFrame", size: tuple[int, int], matrix: str | None, full: bool):
        # The filter and not VideoFrame.reformat(): that one takes a matrix and a range too, but PyAV 14 to 17 apply
        # them wrongly in one case or another.
        from av.filter import Graph

        scale = f"{size[0]}:{size[1]}:flags=bicubic+accurate_rnd+full_chroma_int"
        if matrix:
            scale += f":in_color_matrix={matrix}:in_range={'full' if full else 'limited'}:out_range=full"
        graph = Graph()
        with ffmpeg_errors(self._file_name, NOT_RGB):
            graph.link_nodes(
                graph.add_buffer(
                    width=first.width, height=first.height, format=first.format, time_base=Fraction(1, 1000)
                ),
                graph.add("scale", scale),
                graph.add("format", "rgba" if self.has_alpha else "rgb24"),
                graph.add("buffersink"),
            ).configure()
        return graph

    def __call__(self, frame: "VideoFrame") -> np.ndarray:
        stored = (frame.format.name, frame.width, frame.height)
        if stored != self._stored:
            was, now = (f"{width}x{height} {name}" for name, width, height in (self._stored, stored))
            raise SlotIDError(
                f"{self._file_name} changes from {was} to {now} on the way. Write it anew at one size with: "
                "ffmpeg -i INPUT -c:v libx264 -pix_fmt yuv420p OUTPUT.mp4"
            )
        with ffmpeg_errors(self._file_name, NOT_RGB):
            self._graph.push(frame)
            picture_HWC = self._graph.pull().to_ndarray()
        if self.has_alpha:
            picture_HWC = _over_white(picture_HWC)
        return self.orientation.apply(picture_HWC)


def _matrix(frame: "VideoFrame", file_name: str) -> str | None:
    """The matrix that made Y, U and V; ``None`` for a picture that is RGB already."""
    tag = int(frame.colorspace)
    if frame.format.is_rgb or frame.format.has_palette or tag == RGB_MATRIX:
        return None
    if tag == UNSPECIFIED_MATRIX:
        return "bt709" if frame.height >= HIGH_DEFINITION_HEIGHT else "bt601"
    if tag not in MATRICES:
        raise SlotIDError(
            f"{file_name} has colours in a space that is not supported (matrix {tag} of ITU-T H.273). Write it anew "
            "with: ffmpeg -i INPUT -vf scale=out_color_matrix=bt709 -colorspace bt709 OUTPUT.mp4"
        )
    return MATRICES[tag]


def _over_white(picture_HWC: np.ndarray) -> np.ndarray:
    rgb_HWC, alpha_HW1 = picture_HWC[..., :3].astype(np.uint16), picture_HWC[..., 3:].astype(np.uint16)
    return ((rgb_HWC * alpha_HW1 + 255 * (255 - alpha_HW1) + 127) // 255).astype(np.uint8)
