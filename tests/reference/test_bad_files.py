"""Files and requests that cannot be served: one SlotIDError each, naming the file and what is wrong."""

import re
import socket
import wave

import av
import numpy as np
import pytest

from slotid_core.errors import SlotIDError
from slotid_core.reference import read_clip


def noise(count, height=96, width=128):
    """Pictures that do not compress, so that damage hits every one of them."""
    rng = np.random.default_rng(1)
    return (rng.integers(0, 255, (height, width, 3), dtype=np.uint8) for _ in range(count))


def test_missing_folder_and_empty(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SlotIDError, match="no file .*nothing.mp4"):
        read_clip(tmp_path / "nothing.mp4")
    with pytest.raises(SlotIDError, match="is a folder"):
        read_clip(tmp_path)
    with pytest.raises(SlotIDError, match=r"empty.mp4 is empty \(0 bytes\)"):
        read_clip(tmp_path / "empty.mp4")


@pytest.mark.parametrize("content", [b"not a video at all, only words\n" * 50, bytes(5000), bytes(range(256)) * 40])
def test_not_a_video(tmp_path, content):
    path = tmp_path / "words.mp4"
    path.write_bytes(content)
    with pytest.raises(SlotIDError, match="words.mp4") as caught:
        read_clip(path)
    assert isinstance(caught.value.__cause__, av.FFmpegError)


def test_audio_only(tmp_path):
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    with pytest.raises(SlotIDError, match=r"speech.wav has no video in it \(it holds: audio\)"):
        read_clip(path)


def test_cover_picture_of_a_song_is_no_video(tmp_path):
    from av.stream import Disposition

    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44100)
        cover = container.add_stream("mjpeg", rate=1)
        if not isinstance(Disposition.attached_pic, int):
            pytest.skip("this PyAV cannot mark a stream as a cover picture")
        cover.width = cover.height = 64
        cover.pix_fmt, cover.disposition = "yuvj420p", Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture.reformat(format="yuvj420p")))
        container.mux(cover.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1152), np.int16), format="s16p", layout="stereo")
        silence.sample_rate = 44100
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    with pytest.raises(SlotIDError, match="song.mp3 has no video in it"):
        read_clip(path)


@pytest.mark.parametrize("name", ["none.avi", "none.mkv", "none.mp4"])
def test_no_pictures(tmp_path, name):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(SlotIDError, match=f"{name} (holds no picture|has no video in it|cannot be opened)"):
        read_clip(path)


def test_cut_short_without_its_index(studio):
    path = studio.write("cut.mp4", noise(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SlotIDError, match="cut.mp4 cannot be opened as a video"):
        read_clip(path, frames=5)


def test_cut_short_with_its_index(studio):
    whole = studio.write("whole.mp4", noise(60), rate=30, g="10", container_options={"movflags": "faststart"})
    data = whole.read_bytes()
    path = studio.folder / "cut.mp4"
    path.write_bytes(data[: int(len(data) * 0.6)])
    assert read_clip(path, frames=9).frames_FHWC.equal(read_clip(whole, frames=9).frames_FHWC)
    with pytest.raises(SlotIDError, match="cut.mp4 .*(damaged|cut short)"):
        read_clip(path, frames=25)


@pytest.mark.parametrize(
    "name, size", [("clip.mp4", 3000), ("clip.mp4", 30000), ("clip.mkv", 3000), ("clip.ts", 3000), ("clip.ts", 30000)]
)
def test_damage_inside_the_window(studio, name, size):
    path = studio.write(name, noise(90), rate=30, g="15")
    whole = read_clip(path, frames=5).frames_FHWC
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + size] = bytes(size)
    path.write_bytes(data)
    with pytest.raises(SlotIDError, match=f"{name} .*damaged"):
        read_clip(path, frames=41)
    assert read_clip(path, frames=5).frames_FHWC.equal(whole)
    assert read_clip(path, start=2.5, frames=5).frames_FHWC.shape[0] == 5  # behind the damage


def test_damage_is_seen_at_every_reading(studio):
    """With FFmpeg's frame threads one reading in fifty saw nothing."""
    path = studio.write("again.mkv", noise(90), rate=30, g="15")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    for _ in range(60):
        with pytest.raises(SlotIDError, match="damaged"):
            read_clip(path, frames=41)


def test_a_hole_that_the_container_passes_over_is_reported(studio):
    # FFmpeg's Matroska reader goes on behind damage without a word: what is left is a picture that stays too long.
    path = studio.write("hole.mkv", noise(90), rate=30, g="15")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 30000] = np.random.default_rng(0).integers(0, 255, 30000, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    report = read_clip(path, frames=41).describe()
    assert int(re.search(r"the same picture for up to (\d+) frames", report)[1]) >= 4


def test_timestamps_that_run_backwards(studio):
    path = studio.numbered("joined.mkv", 90, rate=30, g="15", container_options={"cluster_time_limit": "1000"})
    data = bytearray(path.read_bytes())
    cluster = data.index(b"\x1f\x43\xb6\x75", data.index(b"\x1f\x43\xb6\x75") + 4)
    time = data.index(b"\xe7", cluster + 4)  # the second cluster's time stamp, its size in the byte that follows
    length = data[time + 1] & 0x7F
    data[time + 2 : time + 2 + length] = bytes(length)
    path.write_bytes(data)
    with pytest.raises(SlotIDError, match=r"joined.mkv: timestamps run backwards, from [01].\d+ s to 0.0"):
        read_clip(path, frames=33)
    assert read_clip(path, frames=9).frames_FHWC.shape[0] == 9


def test_cut_short_stream_says_so(studio):
    path = studio.numbered("stream.mkv", 300, rate=30)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    with pytest.raises(SlotIDError, match="stream.mkv is too short.*says that it lasts 10.00 s, so it is probably cut"):
        read_clip(path, frames=129)


def test_clip_too_short(studio):
    path = studio.numbered("short.mp4", 60, rate=30)
    with pytest.raises(SlotIDError) as caught:
        read_clip(path, frames=65)
    text = str(caught.value)
    assert re.search(r"short.mp4 is too short: got 2.00 s .* 32 frames .*needed 65 frames, more than 4.00 s", text)
    assert "29 frames" in text
    assert read_clip(path, frames=29).frames_FHWC.shape[0] == 29
    with pytest.raises(SlotIDError, match="earlier start or a longer clip") as caught:
        read_clip(path, start=1.9, frames=5)
    assert "frames =" not in str(caught.value)


@pytest.mark.parametrize("name", ["c.mp4", "c.mkv", "c.ts"])
@pytest.mark.parametrize("start", [3.01, 60, 1e7])
def test_start_past_the_end(studio, name, start):
    path = studio.numbered(name, 90, rate=30)
    with pytest.raises(SlotIDError, match=f"{name} ends at 3.00 s, before start = {re.escape(f'{start:g}')} s"):
        read_clip(path, start=start, frames=5)


@pytest.mark.parametrize(
    "frames, fits", [(66, "65 or 69"), (64, "61 or 65"), (4, "5"), (1, "5"), (0, "5"), (-3, "5"), (6, "5 or 9")]
)
def test_frame_count(studio, frames, fits):
    with pytest.raises(SlotIDError, match=rf"Got {frames} frames, expected 4n\+1.*Use {fits}\."):
        read_clip(studio.folder / "never_opened.mp4", frames=frames)


@pytest.mark.parametrize(
    "request_, named",
    [
        ({"start": -0.1}, "start = -0.1"),
        ({"start": float("nan")}, "start = nan"),
        ({"fps": 0.0}, "fps = 0.0"),
        ({"fps": float("inf")}, "fps = inf"),
        ({"max_side": 15}, "max_side = 15"),
    ],
)
def test_other_parameters(studio, request_, named):
    with pytest.raises(SlotIDError, match=named):
        read_clip(studio.folder / "never_opened.mp4", **request_)


def test_a_playlist_reaches_no_network(tmp_path):
    # FFmpeg lets what a file names be files only; an option that widens this would fail here.
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        path = tmp_path / "clip.m3u8"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(SlotIDError, match="clip.m3u8"):
            read_clip(path)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("ended", [True, False])
def test_a_playlist_reaches_no_other_file(tmp_path, ended):
    """It would read any video of this machine, and without its last line wait for more of it for good."""
    hidden = tmp_path / "hidden.ts"
    with av.open(str(hidden), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height = 128, 96
        for picture in noise(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert read_clip(hidden, frames=5, fps=25).frames_FHWC.shape[0] == 5
    path = tmp_path / "clip.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.4,\n{hidden}\n" + ended * "#EXT-X-ENDLIST\n")
    with pytest.raises(SlotIDError, match="clip.m3u8 .*a playlist is none"):
        read_clip(path, frames=5, fps=25)
    path = tmp_path / "clip.mp4"
    path.write_text("ffconcat version 1.0\nfile hidden.ts\n")
    with pytest.raises(SlotIDError, match="clip.mp4 .*a playlist is none"):
        read_clip(path, frames=5, fps=25)


def test_names_that_look_like_protocols_and_patterns(studio, monkeypatch):
    path = studio.numbered("plain.mp4", 20)
    monkeypatch.chdir(studio.folder)
    for name in ("http_x %03d é.mp4", "concat:1|2.mp4"):
        try:
            path.rename(name)
        except OSError:
            continue  # not a name on this file system
        assert read_clip(name, frames=5).source.file_name == name
        path = studio.folder / name
