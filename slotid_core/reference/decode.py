"""Video files: opening, seeking and decoding them. The only file that knows PyAV's containers and decoders.

Times are seconds after the file's first picture, whatever clock the file itself keeps.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SlotIDError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream

# Matroska and WebM round timestamps to a millisecond: a picture due at 62.5 ms says 63.
TIMESTAMP_SLACK_S = 1e-3

# A seek lands on a key picture by its decoding time, which is earlier than its display time where pictures are
# reordered, and some containers only seek roughly. So aim early, earlier if that was not enough, and read the file
# from its beginning if nothing helped.
SEEK_MARGINS_S = (0.5, 5.0, 30.0)

# FFmpeg's names of files that hold their pictures themselves, or sound alone, which is told then. Playlists (hls, dash,
# concat, sdp) name other files, of this machine or of others, whatever they are called, and may never end.
_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,ogg,flv,asf,rm,gif,apng,webp_pipe,jpegxl_anim,nut,mxf,mxf_opatom,"
    "gxf,wtv,dv,ivf,obu,av1,h261,h263,h264,hevc,vvc,vc1,dirac,dnxhd,mjpeg,yuv4mpegpipe,swf,nuv,3gp,3g2,mj2,"
    "wav,mp3,flac,aac,aiff"
)


@contextmanager
def ffmpeg_errors(file_name: str, what: str) -> Iterator[None]:
    """Turns whatever FFmpeg raises inside into one SlotIDError that names the file."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise SlotIDError(
            f"{file_name} {what}: {error.strerror}. The file is damaged, cut short or not a video (a playlist is "
            "none); check that it plays, or write it anew with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4"
        ) from error


@contextmanager
def open_video(path: Path) -> Iterator["VideoFile"]:
    """The file's first video stream, decoded as far as its first picture.

    Raises:
        SlotIDError: there is no such file, it is empty, cannot be read, or holds no picture.
    """
    if path.is_dir():
        raise SlotIDError(f"{path} is a folder; give the path of one video file.")
    if not path.is_file():
        raise SlotIDError(f"There is no file {path}; check the path of the reference clip.")
    if path.stat().st_size == 0:
        raise SlotIDError(f"{path.name} is empty (0 bytes); copy or download it again.")
    video = VideoFile(path)
    try:
        video.rewind()
        yield video
    finally:
        video.close()


class VideoFile:
    """A video file while it is read; made by :func:`open_video`.

    Attributes:
        path: the file.
        stream: PyAV's stream, for its facts.
        first: the first picture, which tells size, pixel format and orientation.
        step_s: seconds between pictures on average.
    """

    path: Path
    stream: "VideoStream"
    first: "VideoFrame"
    step_s: float

    def __init__(self, path: Path):
        self.path = path
        self._container = None

    def close(self) -> None:
        if self._container is not None:
            self._container.close()

    def rewind(self) -> None:
        """Opens the file, again if need be: not every container can seek back to its beginning."""
        import av

        self.close()
        with ffmpeg_errors(self.path.name, "cannot be opened as a video"):
            # An absolute path, since FFmpeg takes what precedes a colon for a protocol.
            self._container = av.open(
                os.path.abspath(self.path), metadata_errors="ignore", options={"format_whitelist": _FORMATS}
            )
        self.stream = self._video_stream()
        self._decoder = self._video_decoder()
        self._damaged_pts: list[int] = []
        self._pictures = self._decode()
        first = next(self._pictures, None)
        if first is None:
            raise SlotIDError(
                f"{self.path.name} holds no picture: its video stream ({self.stream.codec_context.name}) is empty."
            )
        self.first = first
        self.step_s = self._step()

    def frames_from(self, start_s: float) -> Iterator[tuple[float, "VideoFrame | None"]]:
        """Pictures in display order with their times, from the one shown at ``start_s`` or an earlier one on.

        After the last picture comes ``(end of the clip, None)``; the last picture is taken to stay for the average
        interval. Pictures without a timestamp follow the one before at the average interval.

        Raises:
            SlotIDError: the file cannot be decoded here, or its timestamps run backwards.
        """
        far = start_s > SEEK_MARGINS_S[0] and self.first.pts is not None
        pictures = self._seek(start_s) if far else None
        if pictures is None:
            pictures = chain([self.first], self._pictures)
        needed_s = start_s - self.step_s  # what comes before is decoded only because a seek lands early
        now_s = -self.step_s
        for frame in pictures:
            before_s = now_s
            now_s = before_s + self.step_s if frame.pts is None else self._time(frame.pts)
            if now_s < before_s:
                raise SlotIDError(
                    f"{self.path.name}: timestamps run backwards, from {before_s:.3f} s to {now_s:.3f} s. Write the "
                    "file anew with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4"
                )
            if frame.is_corrupt and now_s > needed_s:
                raise self._damaged(now_s)
            self._check_packets(needed_s, now_s)
            yield now_s, frame
        self._check_packets(needed_s, float("inf"))
        yield now_s + self.step_s, None

    def _seek(self, start_s: float) -> "Iterator[VideoFrame] | None":
        """Decoding from a key picture before ``start_s``; ``None``, and rewound, where the file cannot do that."""
        import av

        for margin_s in SEEK_MARGINS_S:
            if start_s <= margin_s:
                break
            try:
                self._container.seek(
                    self.first.pts + int((start_s - margin_s) / self.stream.time_base), stream=self.stream
                )
            except av.FFmpegError:  # a container without an index: read on from the beginning
                break
            self._decoder.flush_buffers()  # PyAV does this for the stream's own decoder only
            pictures = self._decode()
            landed = next(pictures, None)
            if landed is not None and landed.pts is not None and self._time(landed.pts) <= start_s:
                return chain([landed], pictures)
        self.rewind()
        return None

    def _time(self, pts: int) -> float:
        return float((pts - self.first.pts) * self.stream.time_base)

    def _decode(self) -> "Iterator[VideoFrame]":
        with ffmpeg_errors(self.path.name, "cannot be decoded"):
            for packet in self._container.demux(self.stream):
                # Its picture comes out some packets later, often made up from the neighbours and not marked.
                if packet.is_corrupt and packet.pts is not None:
                    self._damaged_pts.append(packet.pts)
                yield from self._decoder.decode(packet)

    def _check_packets(self, after_s: float, end_s: float) -> None:
        for pts in self._damaged_pts:
            if after_s < self._time(pts) <= end_s:
                raise self._damaged(self._time(pts))

    def _damaged(self, at_s: float) -> SlotIDError:
        return SlotIDError(
            f"{self.path.name} is damaged or cut short at {at_s:.2f} s. Copy or download it again, or read a stretch "
            "that does not reach this."
        )

    def _video_stream(self) -> "VideoStream":
        from av.stream import Disposition

        for stream in self._container.streams.video:
            if not stream.disposition & Disposition.attached_pic:
                return stream
        held = ", ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"
        raise SlotIDError(f"{self.path.name} has no video in it (it holds: {held}). Choose a video file.")

    def _video_decoder(self):
        import av

        codec = self.stream.codec_context
        if codec is None:
            raise SlotIDError(
                f"{self.path.name}: this PyAV ({av.__version__}) cannot decode its video. Write it anew with: "
                "ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4"
            )
        # FFmpeg's own VP8 and VP9 decoders leave transparency out; libvpx's read it.
        if self.stream.metadata.get("alpha_mode") == "1" and codec.name in ("vp8", "vp9"):
            return av.CodecContext.create({"vp8": "libvpx", "vp9": "libvpx-vp9"}[codec.name], "r")
        # With a thread for each picture FFmpeg now and then loses the mark of a damaged one (one reading in fifty).
        codec.thread_type = "SLICE"
        return codec

    def _step(self) -> float:
        # FFmpeg gives a stream without timestamps 25 as its average rate and guesses better from the codec.
        rate = self.stream.average_rate if self.first.pts is not None else self.stream.guessed_rate
        if not rate:
            raise SlotIDError(
                f"{self.path.name} does not say how many pictures a second it has. Write it anew with: "
                "ffmpeg -r RATE -i INPUT -c:v libx264 OUTPUT.mp4"
            )
        return float(1 / rate)
