"""Which picture comes out for which moment."""

import bisect
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from slotid_core.errors import SlotIDError
from slotid_core.reference import read_clip


def on_screen(times_s, start, frames, fps):
    """Independent reference: which pictures a player shows at start, start + 1/fps, ... in exact arithmetic."""
    moments = [Fraction(start).limit_denominator(10**6) + Fraction(k) / Fraction(fps) for k in range(frames)]
    return [bisect.bisect_right(times_s, moment + Fraction(1, 1000)) - 1 for moment in moments]


def constant(count, rate):
    return [Fraction(index, rate) for index in range(count)]


@pytest.mark.parametrize(
    "rate, fps, start",
    [(30, 16, 0), (30, 16, 0.7), (25, 16, 0), (16, 16, 0.25), (60, 16, 0), (24, 24, 1), (10, 16, 0), (30, 12.5, 0.1)],
)
def test_constant_rate(studio, shown_numbers, rate, fps, start):
    path = studio.numbered("clip.mp4", 3 * rate, rate=rate)
    clip = read_clip(path, start=start, frames=17, fps=fps)
    expected = on_screen(constant(3 * rate, rate), start, 17, fps)
    assert shown_numbers(clip) == expected
    assert clip.timestamps_s == pytest.approx([index / rate for index in expected], abs=1e-4)
    assert clip.source.variable_frame_rate is False
    assert clip.source.source_fps == pytest.approx(rate)
    repeats = len(expected) - len(set(expected))
    assert ("repeat the one before" in clip.describe()) == (repeats > 0)
    if repeats:
        assert f"{repeats} frames repeat" in clip.describe()


def test_16_fps_in_a_millisecond_container_gives_every_picture(studio, shown_numbers):
    # Matroska stores 62.5 ms as 63: taken to the letter, the second frame would repeat the first.
    path = studio.numbered("clip.mkv", 40, rate=16)
    assert shown_numbers(read_clip(path, frames=33)) == list(range(33))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate(studio, shown_numbers, suffix):
    rng = np.random.default_rng(3)
    gaps = [Fraction(int(gap), 1000) for gap in rng.integers(8, 140, 60)]
    gaps[20] = Fraction(3, 2)  # a still second and a half
    times_s = [sum(gaps[:index], Fraction(0)) for index in range(60)]
    path = studio.numbered(f"clip.{suffix}", 60, times_s=times_s)
    for start in (0, 1.3):
        clip = read_clip(path, start=start, frames=45)
        assert shown_numbers(clip) == on_screen(times_s, start, 45, 16)
    assert clip.source.variable_frame_rate is True
    assert "variable frame rate" in clip.describe()


def test_zero_is_the_first_picture_wherever_the_file_s_clock_starts(studio, shown_numbers):
    times_s = [Fraction(7) + time for time in constant(60, 20)]
    path = studio.numbered("clip.mkv", 60, times_s=times_s)
    clip = read_clip(path, start=0.5, frames=17)
    assert shown_numbers(clip) == on_screen(constant(60, 20), 0.5, 17, 16)
    assert clip.timestamps_s[0] == pytest.approx(0.5)


@pytest.mark.parametrize("name, codec", [("c.mp4", "libx264"), ("c.mkv", "libx264"), ("c.ts", "libx264")])
@pytest.mark.parametrize("start", [3.2, 21.95, 41.3])
def test_start_is_exact_after_a_seek(studio, shown_numbers, name, codec, start):
    path = studio.numbered(name, 900, codec=codec, rate=20, g="40", bf="3")
    decoded = []
    clip = read_clip(path, start=start, frames=17, progress=lambda *_: decoded.append(1))
    assert shown_numbers(clip) == on_screen(constant(900, 20), start, 17, 16)
    assert len(decoded) < 200, "the file was read from its beginning"


@pytest.mark.parametrize("name", ["c.mp4", "c.mkv", "c.ts"])
def test_start_in_a_file_with_one_key_picture(studio, shown_numbers, name):
    # In a transport stream every seek lands behind the only picture that decoding can begin with.
    path = studio.numbered(name, 400, rate=20, g="1000", **{"x264-params": "scenecut=0"})
    clip = read_clip(path, start=15.3, frames=17)
    assert shown_numbers(clip) == on_screen(constant(400, 20), 15.3, 17, 16)


def test_start_in_a_file_with_transparency(studio, shown_numbers):
    # It is decoded by another decoder than the stream's own.
    path = studio.numbered("c.webm", 120, codec="libvpx", pix_fmt="yuva420p", rate=20, g="30", **{"auto-alt-ref": "0"})
    clip = read_clip(path, start=4.4, frames=17)
    assert clip.source.has_alpha
    assert shown_numbers(clip) == on_screen(constant(120, 20), 4.4, 17, 16)


@pytest.mark.parametrize("name, codec", [("c.h264", "libx264"), ("c.avi", "mpeg4")])
def test_files_with_poor_timestamps(studio, shown_numbers, name, codec):
    path = studio.numbered(name, 200, codec=codec, rate=20, bf="0")
    for start in (0, 7.4):
        clip = read_clip(path, start=start, frames=17)
        assert shown_numbers(clip) == on_screen(constant(200, 20), start, 17, 16)


def test_raw_stream_has_no_timestamps(studio):
    # Holds up the test above: it must meet pictures without a timestamp.
    path = studio.numbered("c.h264", 10, rate=20, bf="0")
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).pts is None


def test_an_hour_is_no_problem(studio, shown_numbers):
    path = studio.numbered("hour.mp4", 3600, codec="mpeg4", rate=1, g="60")
    decoded = []
    clip = read_clip(path, start=3480, frames=65, fps=0.6, progress=lambda *_: decoded.append(1))
    assert shown_numbers(clip) == on_screen(constant(3600, 1), 3480, 65, Fraction(3, 5))
    assert clip.source.duration_s == pytest.approx(3600)
    assert len(decoded) < 250


PEAK_RSS = """
import resource, sys
from slotid_core.reference import read_clip
read_clip(sys.argv[1], frames=5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clip = read_clip(sys.argv[1], start=38, frames=5)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module, which Windows has not")
def test_memory_does_not_grow_with_what_is_skipped(studio):
    # A raw stream cannot seek, so all 950 pictures before the start are decoded: 110 MB if they were kept.
    frames = (paint for paint in [np.full((240, 320, 3), 90, np.uint8)] for _ in range(1000))
    path = studio.write("long.h264", frames, rate=25, preset="ultrafast")
    run = subprocess.run([sys.executable, "-c", PEAK_RSS, str(path)], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 40e6


@pytest.mark.parametrize("rate", [16, 30])
def test_a_clip_ends_where_its_last_picture_does(studio, shown_numbers, rate):
    # 2 s exactly: the frame due at 2.0 s is not there any more, the one before it is.
    path = studio.numbered("clip.mp4", 2 * rate, rate=rate)
    assert shown_numbers(read_clip(path, frames=29))[-1] == (28 * rate) // 16
    with pytest.raises(SlotIDError, match=r"which gives 32 frames .* needed 33 frames.*Use 29 frames or"):
        read_clip(path, frames=33)


def test_progress_ends_at_all_frames_and_may_interrupt(studio):
    path = studio.numbered("clip.mp4", 60)

    class Stop(Exception):
        pass

    def stop(done, total):
        if done >= 5:
            raise Stop

    calls = []
    read_clip(path, frames=17, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (17, 17)
    assert calls == sorted(calls)
    with pytest.raises(Stop):
        read_clip(path, frames=17, progress=stop)
