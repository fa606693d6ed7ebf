"""A stretch of a video file as RGB frames at Wan's frame rate.

Shape letters: F frames, H W height and width, C channels (RGB).
"""

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import SlotIDError
from .decode import TIMESTAMP_SLACK_S, VideoFile, open_video
from .picture import RgbConverter

# Wan's VAE takes the first frame by itself and then four at a time. One frame alone has no motion to read.
MIN_FRAMES = 5

# Pictures that wait to be converted while the next ones are decoded.
_AHEAD = 2

# Transfer curves of ITU-T H.273 that are made for HDR screens.
HDR_CURVES = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """What a video file is.

    Attributes:
        file_name: without its folder.
        codec: FFmpeg's name, such as "h264".
        width, height: of the frames as read: upright, with square pixels, after ``max_side``.
        source_fps: average frames per second of the file.
        duration_s: seconds that the file says it lasts; ``None`` where it does not say.
        variable_frame_rate: the intervals between the pictures of the stretch that was read differ.
        rotation_deg: how far the stored picture was turned clockwise: 0, 90, 180 or 270.
        mirrored: the stored picture was mirrored left-right before it was turned.
        bit_depth: bits of one sample in the file.
        has_alpha: the file has transparency, which was laid over white.
        colour: matrix and range of the file, such as "bt709 limited"; its pixel format where it holds RGB.
        hdr: "PQ" or "HLG" for high dynamic range, which is not tone-mapped; ``None`` otherwise.
    """

    file_name: str
    codec: str
    width: int
    height: int
    source_fps: float
    duration_s: float | None
    variable_frame_rate: bool
    rotation_deg: int
    mirrored: bool
    bit_depth: int
    has_alpha: bool
    colour: str
    hdr: str | None


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames of one stretch of a video.

    Attributes:
        frames_FHWC: ``[F, H, W, 3]`` uint8 RGB on the CPU, upright; F is 4n+1 unless fewer were allowed.
        fps: frames per second, as asked for.
        timestamps_s: for each frame, when the file shows it, in seconds after its first picture.
        source: the file.
    """

    frames_FHWC: Tensor
    fps: float
    timestamps_s: tuple[float, ...]
    source: ClipInfo

    def as_float(self) -> Tensor:
        """``[F, H, W, 3]`` float32 in [0, 1]."""
        return self.frames_FHWC.to(torch.float32) / 255

    def describe(self) -> str:
        """A few lines for people: the file, the stretch that was taken, and what was done to it."""
        source = self.source
        lasts = f"{source.duration_s:.2f} s" if source.duration_s is not None else "duration not given"
        lines = [
            f"{source.file_name}: {source.codec}, {source.width}x{source.height}, {source.source_fps:.4g} fps, "
            f"{lasts}, {source.colour}",
            f"{len(self.timestamps_s)} frames at {self.fps:g} fps, from {self.timestamps_s[0]:.2f} s to "
            f"{self.timestamps_s[-1]:.2f} s of the file",
        ]
        if source.mirrored:
            lines.append("mirrored left-right, as the file says")
        if source.rotation_deg:
            lines.append(f"turned {source.rotation_deg} degrees clockwise, as the file says")
        if source.variable_frame_rate:
            lines.append("variable frame rate: frames were chosen by their timestamps")
        if source.bit_depth > 8:
            lines.append(f"{source.bit_depth} bits reduced to 8")
        if source.has_alpha:
            lines.append("transparency laid over white")
        if source.hdr:
            lines.append(f"HDR ({source.hdr}) without tone mapping: colours look flat; an SDR file is better")
        stays = [len(list(same)) for _, same in groupby(self.timestamps_s)]
        if max(stays) > 1:
            lines.append(
                f"{sum(stays) - len(stays)} frames repeat the one before: the file shows the same picture for up to "
                f"{max(stays)} frames ({max(stays) / self.fps:.2f} s)"
            )
        return "\n".join(lines)


def read_clip(
    path: str | Path,
    *,
    start: float = 0.0,
    frames: int = 65,
    fps: float = 16.0,
    max_side: int | None = None,
    or_fewer: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Clip:
    """Reads ``frames`` frames at ``fps``, the first at ``start`` seconds.

    Frame k is the picture that a player would show at ``start + k / fps``: the last one whose timestamp is not later.
    So a faster file loses pictures, a slower or varying one repeats some, and time always runs true. Zero is the
    file's first picture. Decoding streams: memory holds the frames returned and a handful of pictures, however long
    the file is.

    Args:
        path: a video file.
        start: seconds.
        frames: 4n+1, at least 5; 65 is the paper's length.
        fps: frames per second; 16 is Wan's.
        max_side: shrink frames so that neither side is longer, for 4K sources; ``None`` keeps the file's size.
        or_fewer: take what there is, at least one frame and then of any number, where the file ends before.
        progress: called as ``progress(frames read, frames)`` for every decoded picture; what it raises passes through.

    Raises:
        SlotIDError: a parameter is out of range, the file is no readable video, or it ends too early. Never padded.
    """
    path = Path(path)
    _check_request(start, frames, fps, max_side)
    with open_video(path) as video:
        converter = RgbConverter(
            video.first,
            pixel_aspect=video.stream.sample_aspect_ratio,
            max_side=max_side,
            file_name=path.name,
        )
        sampled = _sample(video, converter, start, frames, fps, or_fewer, progress)
        return Clip(
            frames_FHWC=torch.from_numpy(sampled.frames_FHWC),
            fps=fps,
            timestamps_s=tuple(sampled.timestamps_s),
            source=_info(video, converter, sampled.intervals_s),
        )


@dataclass(frozen=True, kw_only=True)
class _Sampled:
    frames_FHWC: np.ndarray
    timestamps_s: list[float]
    intervals_s: list[float]  # between all pictures from the one shown at the start on, chosen or not


def _sample(
    video: VideoFile,
    to_rgb: RgbConverter,
    start: float,
    frames: int,
    fps: float,
    or_fewer: bool,
    progress: Callable[[int, int], None] | None,
) -> _Sampled:
    frames_FHWC = np.empty((frames, to_rgb.height, to_rgb.width, 3), np.uint8)
    timestamps_s: list[float] = []
    intervals_s: list[float] = []
    shown, shown_s = None, 0.0
    converting: deque[tuple[slice, Future[np.ndarray]]] = deque()

    def store(left: int) -> None:
        while len(converting) > left:
            places, picture = converting.popleft()
            frames_FHWC[places] = picture.result()

    # Converting takes most of the time and runs beside decoding.
    with ThreadPoolExecutor(1) as converter:
        for now_s, frame in video.frames_from(start):
            if shown is not None:
                # Until now_s the picture before is on the screen. It is converted once, if it is due at all.
                first = len(timestamps_s)
                while len(timestamps_s) < frames and start + len(timestamps_s) / fps + TIMESTAMP_SLACK_S < now_s:
                    timestamps_s.append(shown_s)
                if len(timestamps_s) > first:
                    converting.append((slice(first, len(timestamps_s)), converter.submit(to_rgb, shown)))
                    store(left=_AHEAD)
                if timestamps_s and frame is not None:
                    intervals_s.append(now_s - shown_s)
            if progress is not None:
                progress(len(timestamps_s), frames)
            if len(timestamps_s) == frames:
                store(left=0)
                return _Sampled(frames_FHWC=frames_FHWC, timestamps_s=timestamps_s, intervals_s=intervals_s)
            if frame is not None:
                shown, shown_s = frame, now_s
        store(left=0)
    if or_fewer and timestamps_s:
        read_FHWC = frames_FHWC[: len(timestamps_s)]
        return _Sampled(frames_FHWC=read_FHWC, timestamps_s=timestamps_s, intervals_s=intervals_s)
    raise SlotIDError(_too_short(video, now_s, start, frames, fps, available=len(timestamps_s)))


def _info(video: VideoFile, converter: RgbConverter, intervals_s: list[float]) -> ClipInfo:
    codec = video.stream.codec_context
    return ClipInfo(
        file_name=video.path.name,
        codec=codec.name,
        width=converter.width,
        height=converter.height,
        source_fps=1 / video.step_s,
        duration_s=_stated_duration(video),
        # Rounded to milliseconds, equal intervals come out 1 ms apart.
        variable_frame_rate=len(intervals_s) > 1 and max(intervals_s) - min(intervals_s) > 2 * TIMESTAMP_SLACK_S,
        rotation_deg=converter.orientation.clockwise_deg,
        mirrored=converter.orientation.mirrored,
        bit_depth=converter.bit_depth,
        has_alpha=converter.has_alpha,
        colour=converter.colour,
        hdr=HDR_CURVES.get(int(codec.color_trc)),
    )


def _stated_duration(video: VideoFile) -> float | None:
    stream = video.stream
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    microseconds = stream.container.duration
    return microseconds / 1e6 if microseconds is not None else None


def _check_request(start: float, frames: int, fps: float, max_side: int | None) -> None:
    if frames < MIN_FRAMES or frames % 4 != 1:
        below = max(MIN_FRAMES, (frames - 1) // 4 * 4 + 1)
        fits = f"{below}" if frames < MIN_FRAMES else f"{below} or {below + 4}"
        raise SlotIDError(
            f"Got {frames} frames, expected 4n+1 and at least {MIN_FRAMES}, since Wan's VAE takes one frame and then "
            f"four at a time. Use {fits}."
        )
    if not (math.isfinite(start) and start >= 0):
        raise SlotIDError(f"Got start = {start} s, expected 0 or more seconds after the clip's first picture.")
    if not (math.isfinite(fps) and fps > 0):
        raise SlotIDError(f"Got fps = {fps}, expected more than 0 frames per second; Wan is trained at 16.")
    if max_side is not None and max_side < 16:
        raise SlotIDError(f"Got max_side = {max_side}, expected at least 16 pixels, or None for the file's own size.")


def _too_short(video: VideoFile, end_s: float, start: float, frames: int, fps: float, available: int) -> str:
    name = video.path.name
    stated_s = _stated_duration(video)
    cut = ""
    if stated_s is not None and stated_s > end_s + 1:
        cut = f" The file says that it lasts {stated_s:.2f} s, so it is probably cut short: copy or download it again."
    if start >= end_s:
        return f"{name} ends at {end_s:.2f} s, before start = {start:g} s. Choose an earlier start.{cut}"
    fitting = (available - 1) // 4 * 4 + 1
    choices = [f"{fitting} frames"] if fitting >= MIN_FRAMES else []
    choices += ["an earlier start"] if start > 0 else []
    fix = "Use " + " or ".join([*choices, "a longer clip"])
    return (
        f"{name} is too short: got {end_s - start:.2f} s from start = {start:g} s, which gives {available} frames at "
        f"{fps:g} fps; needed {frames} frames, more than {(frames - 1) / fps:.2f} s. {fix}.{cut}"
    )
