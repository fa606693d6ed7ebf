"""Damaged video files: read, or refused with one SlotIDError that names the file; no crash, no hang."""

import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

HANGS_S = 10
# A first case pays for the start of the process and its imports.
STARTS_S = 60
SEEDS = {
    "h264.mp4": ("libx264", "yuv420p"),
    "h264.mkv": ("libx264", "yuv420p"),
    "h264.mov": ("libx264", "yuv444p"),
    "h264.flv": ("libx264", "yuv420p"),
    "h264.h264": ("libx264", "yuv420p"),
    "h265.mp4": ("libx265", "yuv420p10le"),
    "mpeg2.ts": ("mpeg2video", "yuv420p"),
    "mpeg4.avi": ("mpeg4", "yuv420p"),
    "mjpeg.avi": ("mjpeg", "yuvj420p"),
    "prores.mov": ("prores_ks", "yuva444p10le"),
    "ffv1.mkv": ("ffv1", "bgr0"),
    "vp8.webm": ("libvpx", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "picture.gif": ("gif", "rgb8"),
    "lossless.avi": ("huffyuv", "yuv422p"),
}


@pytest.fixture
def good_files(studio) -> Path:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 255, (20, 6, 8, 3), dtype=np.uint8)
    for name, (codec, pix_fmt) in SEEDS.items():
        frames = (picture.repeat(8, 0).repeat(8, 1) for picture in coarse)
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        studio.write(name, frames, codec=codec, pix_fmt=pix_fmt, rate=20, **options)
    return studio.folder


def run_cases(folder: Path, first: int, count: int) -> tuple[Counter, list[str]]:
    """What became of the cases, and what should not have been."""
    outcomes, wrong = Counter(), []
    end = first + count
    while first < end:
        worker = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("fuzz_worker.py")),
                str(folder),
                str(first),
                str(end - first),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
        )
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=_pump, args=(worker.stdout, lines))
        reader.start()
        case, wait, hung = first, STARTS_S, False
        while True:
            try:
                line = lines.get(timeout=wait)
            except queue.Empty:
                wrong.append(f"case {case}: no answer within {wait} s")
                worker.kill()
                hung = True
                break
            if not line:
                break
            what, number, *why = line.split(maxsplit=2)
            case, wait = int(number), HANGS_S
            if what != "start":
                outcomes[what] += 1
            if what == "bad":
                wrong.append(f"case {case}: {''.join(why).strip()}")
        worker.wait()
        reader.join()
        if worker.returncode == 0 and not hung:
            break
        if not hung:
            wrong.append(f"case {case}: the process ended with {worker.returncode}")
        first = case + 1
    return outcomes, wrong


def _pump(stream, lines: "queue.Queue[str]") -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def test_good_files_are_read(good_files):
    from slotid_core.reference import read_clip

    for path in sorted(good_files.iterdir()):
        assert len(read_clip(path, frames=5).frames_FHWC) == 5, path.name


@pytest.mark.parametrize(
    ("first", "count"), [(0, 300), pytest.param(1000, 10_000, marks=pytest.mark.full)], ids=["300", "10000"]
)
def test_damaged_files(good_files, first, count):
    outcomes, wrong = run_cases(good_files, first, count)
    assert not wrong, "\n".join(wrong[:20])
    assert outcomes.total() == count
    # Were all refused, or none, the damage would be too heavy or too light to find anything.
    assert outcomes["read"] > count / 20 and outcomes["refused"] > count / 5, outcomes


def test_a_crash_and_a_hang_are_seen(tmp_path, monkeypatch):
    """The harness itself: a worker that dies of a signal, then one that stops answering."""
    for body, said in (("os.abort()", "the process ended with"), ("time.sleep(60)", "no answer within 1 s")):
        script = tmp_path / "fuzz_worker.py"
        script.write_text(f"import os, sys, time\nprint('start', sys.argv[2], flush=True)\n{body}\n")
        monkeypatch.setattr(sys.modules[__name__], "__file__", str(tmp_path / "test_fuzz.py"))
        monkeypatch.setattr(sys.modules[__name__], "HANGS_S", 1)
        _, wrong = run_cases(tmp_path, 7, 1)
        assert len(wrong) == 1 and said in wrong[0] and "case 7" in wrong[0]
