"""The drawn reference clip: the same every time, and with the motion that a reference clip should have."""

import numpy as np
import pytest

from training.demo_clip import FACE_BOX, FPS, FRAMES, SIZE, demo_clip


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


def test_the_face_is_where_a_detector_sees_it(clip_FHWC):
    pytest.importorskip("dlib", reason="needs the face backend dlib")
    from slotid_core.reference import choose_backend

    detector = choose_backend("dlib", frames=FRAMES)
    found = [detector.detect(clip_FHWC[index], index)[0].box_xyxy for index in (0, 32, 64)]
    np.testing.assert_allclose(np.mean(found, axis=0) / SIZE, FACE_BOX, atol=0.05)


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
