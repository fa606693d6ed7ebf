"""The drawn reference clip: the same every time, and with the motion that a reference clip should have."""

import numpy as np
import pytest

from training.demo_clip import FPS, FRAMES, HEAD_BOX, SIZE, demo_clip


@pytest.fixture(scope="module")
def clip_FHWC():
    return demo_clip()


def difference(a, b):
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def test_shape_and_length(clip_FHWC):
    assert clip_FHWC.shape == (FRAMES, SIZE, SIZE, 3) == (65, 256, 256, 3)
    assert clip_FHWC.dtype == np.uint8 and FPS == 16


def test_a_function_of_its_seed():
    state = np.random.get_state()[1].copy()
    first = demo_clip(3, frames=5, size=64)
    assert np.array_equal(first, demo_clip(3, frames=5, size=64))
    assert difference(first, demo_clip(4, frames=5, size=64)) > 10
    assert np.array_equal(np.random.get_state()[1], state)


def test_the_head_stays_in_its_box(clip_FHWC):
    left, top, right, bottom = (round(SIZE * share) for share in HEAD_BOX)
    outside = clip_FHWC[:, :bottom].astype(int)
    outside[:, top:, left:right] = 0
    assert np.abs(outside - outside[0]).max() <= 1
    # ... and fills it: a box of the whole picture would hold the head too.
    head = np.abs(clip_FHWC.astype(int) - clip_FHWC[0]).max(axis=(0, 3)) > 8
    rows, columns = np.flatnonzero(head.any(1)), np.flatnonzero(head.any(0))
    assert (columns[-1] - columns[0]) > 0.7 * (right - left) and (rows[-1] - rows[0]) > 0.5 * (bottom - top)


@pytest.fixture(scope="module")
def eye_whites(clip_FHWC):
    """Bright, colourless pixels at the height of the eyes: how many, and where they are on average, per frame."""
    eyes = clip_FHWC[:, 95:130, 60:196].astype(int)
    is_white = (eyes.min(-1) > 120) & (eyes.max(-1) - eyes.min(-1) < 30)
    counts = is_white.sum(axis=(1, 2))
    return counts, 60 + (is_white * np.arange(136)).sum(axis=(1, 2)) / np.maximum(counts, 1)


def test_it_turns_both_ways(eye_whites):
    counts, centres = eye_whites
    open_eyed = centres[counts > 0.5 * np.median(counts)]
    assert open_eyed.max() > 128 + 15 and open_eyed.min() < 128 - 15


def test_it_blinks(eye_whites):
    counts, _ = eye_whites
    shut = np.flatnonzero(counts < 0.35 * np.median(counts))
    assert 2 <= len(shut) < FRAMES // 4
    assert counts[0] > 0.7 * np.median(counts) and counts[-1] > 0.7 * np.median(counts)


def test_no_frame_repeats(clip_FHWC):
    assert min(difference(a, b) for a, b in zip(clip_FHWC, clip_FHWC[1:], strict=False)) > 0.05
