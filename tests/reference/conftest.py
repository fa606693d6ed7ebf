"""Small videos made on the spot, whose frames say which frame they are.

Shape letters: H W height and width, C channels (RGB).
"""

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

BITS, BLOCK = 14, 16
TICKS = 90000  # a clock that holds any frame time of these tests to 1/90000 s


class Studio:
    """Writes videos into one folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def write(
        self,
        name: str,
        frames: "Iterable[np.ndarray | av.VideoFrame]",
        *,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        rate: int = 30,
        times_s: list | None = None,
        container_options: dict[str, str] | None = None,
        metadata: dict[str, str] | None = None,
        **codec_options: str,
    ) -> Path:
        """Encodes frames (arrays are [H, W, 3] RGB) at ``rate``, or each at its own time."""
        path = self.folder / name
        # Not every muxer is known by the ending alone.
        muxer = {"h264": "h264", "ts": "mpegts"}.get(path.suffix[1:])
        with av.open(str(path), "w", format=muxer, options=container_options or {}) as container:
            container.metadata.update(metadata or {})
            stream = container.add_stream(codec, rate=rate, options=codec_options)
            clock = Fraction(1, rate if times_s is None else TICKS)
            for index, frame in enumerate(frames):
                if isinstance(frame, np.ndarray):
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                    frame = frame.reformat(format=pix_fmt)
                if index == 0:
                    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
                    stream.codec_context.colorspace = frame.colorspace
                    stream.codec_context.color_range = frame.color_range
                    stream.codec_context.time_base = clock
                frame.pts = index if times_s is None else round(times_s[index] * TICKS)
                frame.time_base = clock
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def numbered(self, name: str, count: int, **how) -> Path:
        """A video whose frame i shows the number i, to be read back with :func:`read_number`."""
        return self.write(name, (paint_number(index) for index in range(count)), **how)

    def turn(self, path: Path, a: int, b: int, c: int, d: int) -> Path:
        """Writes a display matrix into the track header of an mp4, as a phone does."""
        data = path.read_bytes()
        identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
        matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        header = data.index(b"tkhd")
        place = data.index(identity, header)
        path.write_bytes(data[:place] + matrix + data[place + len(identity) :])
        return path


def paint_number(number: int, height: int = 32) -> np.ndarray:
    """``[height, BITS * BLOCK, 3]``: one white or black block for each bit, the lowest first."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8) * 255
    return np.broadcast_to(bits.repeat(BLOCK)[None, :, None], (height, BITS * BLOCK, 3)).copy()


def read_number(picture_HWC: np.ndarray) -> int:
    """The number that :func:`paint_number` painted, whatever the picture's size."""
    height, width, _ = picture_HWC.shape
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    bits = np.asarray(picture_HWC)[height // 2, centres, 1] > 127
    return int((bits * (1 << np.arange(BITS))).sum())


@pytest.fixture
def studio(tmp_path) -> Studio:
    return Studio(tmp_path)


@pytest.fixture(scope="session")
def shown_numbers():
    """The numbers of a numbered clip's frames, in order."""
    return lambda clip: [read_number(picture.numpy()) for picture in clip.frames_FHWC]
