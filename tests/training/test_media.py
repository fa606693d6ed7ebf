"""Videos and contact sheets: what is written can be read again, and a failure leaves nothing behind."""

import ctypes
import functools
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from slotid_core.errors import SlotIDError
from slotid_core.reference import read_clip
from training.atomic import atomic
from training.demo_clip import demo_clip
from training.media import SheetRow, contact_sheet, to_bytes, write_mp4


def test_a_video_comes_back_as_it_was(tmp_path):
    frames_FHWC = demo_clip(frames=9, size=128)
    write_mp4(tmp_path / "clip.mp4", frames_FHWC, fps=16)
    clip = read_clip(tmp_path / "clip.mp4", frames=9)
    assert (clip.source.codec, clip.source.source_fps) == ("h264", 16)
    error = clip.frames_FHWC.numpy().astype(float) - frames_FHWC
    assert np.abs(error).mean() < 2
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 0.5  # a wrong colour matrix shifts whole channels
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_saturated_colours_survive(tmp_path):
    """Colour matrix and range, seen where they matter: on primaries, black and white."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
    frames_FHWC = np.stack([np.full((64, 64, 3), colour, np.uint8) for colour in colours])
    write_mp4(tmp_path / "clip.mp4", frames_FHWC)
    clip = read_clip(tmp_path / "clip.mp4", frames=5)
    assert np.abs(clip.frames_FHWC.numpy().astype(int) - frames_FHWC).max() <= 4


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 65, 64, 3), np.uint8),
        np.zeros((2, 64, 64, 3), np.float32),
        np.zeros((0, 64, 64, 3), np.uint8),
        np.zeros((2, 64, 64), np.uint8),
    ],
    ids=["odd", "float", "none", "grey"],
)
def test_frames_that_are_no_video(tmp_path, frames):
    with pytest.raises(SlotIDError, match="expected uint8"):
        write_mp4(tmp_path / "clip.mp4", frames)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SlotIDError, match="Can't write clip.mp4"):
        write_mp4(tmp_path / "file" / "clip.mp4", demo_clip(frames=1, size=64))


def test_to_bytes_rounds_and_clamps():
    assert to_bytes(torch.tensor([-0.1, 0.0, 0.499, 1.0, 1.2])).tolist() == [0, 0, 127, 255, 255]


def sheet(path, **changes):
    green, blue = (np.full((3, 40, 60, 3), colour, np.uint8) for colour in ((0, 200, 0), (0, 0, 200)))
    rows = [SheetRow(label="first", frames_FHWC=green), SheetRow(label="second", frames_FHWC=blue, shown=1)]
    contact_sheet(path, **({"title": "Title", "rows": rows, "captions": ["a caption"]} | changes))
    return np.asarray(Image.open(path)).astype(int)


def pixels(picture, colour, near=30):
    return int((np.abs(picture - colour).max(axis=-1) < near).sum())


def test_a_contact_sheet_shows_its_rows(tmp_path):
    picture = sheet(tmp_path / "sheet.png")
    green, blue = pixels(picture, (0, 200, 0)), pixels(picture, (0, 0, 200))
    assert green == pytest.approx(3 * blue, rel=0.02) and blue > 10_000
    assert np.argwhere(np.abs(picture - (0, 200, 0)).max(-1) < 9)[:, 0].max() < (
        np.argwhere(np.abs(picture - (0, 0, 200)).max(-1) < 9)[:, 0].min()
    )


def test_a_contact_sheet_warns_in_red(tmp_path):
    red = (178, 34, 34)
    assert pixels(sheet(tmp_path / "a.png"), red) == 0
    assert pixels(sheet(tmp_path / "b.png", warning="RANDOM WEIGHTS"), red) > 500


def test_long_captions_wrap_inside_the_sheet(tmp_path):
    short = sheet(tmp_path / "a.png", captions=["word " * 3])
    long = sheet(tmp_path / "b.png", captions=["word " * 60])
    endless = sheet(tmp_path / "c.png", captions=["word " * 9000])
    assert short.shape[0] < long.shape[0] < endless.shape[0] < 1500
    paper = long[0, 0]
    assert (long[:, :20] == paper).all() and (long[:, -20:] == paper).all()


def test_captions_without_spaces_wrap_and_are_cut_where_long(tmp_path):
    short = sheet(tmp_path / "a.png", captions=["字" * 10])
    long = sheet(tmp_path / "b.png", captions=["字" * 400])
    cut, longer = (sheet(tmp_path / f"{n}.png", captions=["Prompt: " + "字" * n]) for n in (1100, 3000))
    assert short.shape[0] < long.shape[0] < cut.shape[0] == longer.shape[0]
    for picture in (long, cut):
        assert (picture[:, -20:] == picture[0, 0]).all()


def test_letters_that_the_font_lacks(tmp_path):
    """They are drawn as others, never as empty boxes, and the text itself is kept."""
    plain, accented = (
        sheet(tmp_path / name, captions=[text]) for name, text in (("a.png", "Zurich"), ("b.png", "Zürich"))
    )
    assert np.array_equal(plain, accented)
    assert np.array_equal(sheet(tmp_path / "c.png", captions=["東京"]), sheet(tmp_path / "d.png", captions=["??"]))
    assert Image.open(tmp_path / "c.png").text["Description"] == "東京"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fills fresh memory through glibc's mallopt")
def test_the_same_frames_are_the_same_bytes_whatever_fresh_memory_holds(tmp_path):
    """Hashes of rendered videos shape a cache, and a resumed run renders anew what was being written."""
    fill = functools.partial(ctypes.CDLL(None).mallopt, -6)  # M_PERTURB
    generator = np.random.RandomState(0)
    frames_FHWC = generator.randint(0, 256, (13, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    videos = set()
    try:
        for byte in (1, 85, 170):
            fill(byte)
            write_mp4(tmp_path / "clip.mp4", frames_FHWC)
            videos.add((tmp_path / "clip.mp4").read_bytes())
    finally:
        fill(0)
    assert len(videos) == 1
