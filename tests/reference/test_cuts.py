"""Hard cuts are found where they were made; motion, light and fades are none."""

import numpy as np
import pytest
import torch

from slotid_core.reference.cuts import find_cuts

FPS = 16.0


def scenery(seed, height=180, width=320):
    """A picture with shapes of all sizes, ``[height, width, 3]`` float from 0 to 255."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    tint = rng.uniform(30, 225, 3)
    for cells in (2, 5, 30):
        coarse = torch.from_numpy(rng.normal(0, 1, (1, 3, cells, 2 * cells)))
        fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].permute(1, 2, 0).numpy()
        picture += fine * (45 if cells < 10 else 20)
    return np.clip(picture + tint, 0, 255)


def clip(pictures, noise=2.0, seed=0):
    rng = np.random.default_rng(seed)
    frames = np.stack(list(pictures))
    return torch.from_numpy(np.clip(frames + rng.normal(0, noise, frames.shape), 0, 255).astype(np.uint8))


def window(wide, left):
    return wide[:, int(left) : int(left) + 320]


@pytest.mark.parametrize("seed", range(6))
def test_planted_cuts_are_found_exactly(seed):
    rng = np.random.default_rng(100 + seed)
    lengths = rng.integers(8, 20, 4)
    pictures = []
    for shot, length in enumerate(lengths):
        wide = scenery(10 * seed + shot, width=480)
        speed = rng.uniform(0, 6)
        pictures += [window(wide, speed * i) for i in range(length)]
    assert find_cuts(clip(pictures), fps=FPS) == np.cumsum(lengths)[:-1].tolist()


def pan(speed):
    wide = scenery(1, width=320 + 40 * speed)
    return [window(wide, speed * i) for i in range(40)]


def pan_that_starts_at_once():
    wide = scenery(2, width=2400)
    return [window(wide, max(0, i - 20) * 90) for i in range(40)]


def fade(frames):
    a, b = scenery(3), scenery(4)
    shares = np.clip((np.arange(40) - 10) / frames, 0, 1)
    return [a * (1 - share) + b * share for share in shares]


def fade_to_black():
    return [scenery(5) * abs(i - 20) / 20 for i in range(41)]


def flash(length):
    return [np.full((180, 320, 3), 250.0) if 20 <= i < 20 + length else scenery(6) for i in range(40)]


def lamp():
    return [scenery(7) * (0.45 if i < 20 else 1.0) for i in range(40)]


def fast_object():
    rows, columns = np.mgrid[:180, :320]
    pictures = []
    for i in range(40):
        picture = scenery(8)
        picture[(rows - 90) ** 2 + (columns - 160 - 120 * np.sin(2 * i)) ** 2 < 50**2] = (200, 160, 140)
        pictures.append(picture)
    return pictures


def shaking_camera():
    rng = np.random.default_rng(9)
    wide = scenery(9, width=480)
    return [window(wide, 80 + left) for left in rng.uniform(-40, 40, 40)]


@pytest.mark.parametrize(
    "pictures",
    [
        *(pytest.param(pan(speed), id=f"pan of {speed} px a frame") for speed in (4, 16, 60)),
        pytest.param(pan_that_starts_at_once(), id="whip pan"),
        *(pytest.param(fade(frames), id=f"dissolve over {frames} frames") for frames in (8, 16)),
        pytest.param(fade_to_black(), id="fade to black and back"),
        *(pytest.param(flash(length), id=f"flash of {length} frames") for length in (1, 2, 3)),
        pytest.param(lamp(), id="lamp switched on"),
        pytest.param(fast_object(), id="fast object"),
        pytest.param(shaking_camera(), id="shaking camera"),
        pytest.param([scenery(1)] * 20, id="still"),
        pytest.param([scenery(1)], id="one frame"),
    ],
)
def test_what_is_no_cut(pictures):
    assert find_cuts(clip(pictures), fps=FPS) == []


def test_a_cut_right_after_a_flash_is_found():
    pictures = [scenery(1)] * 10 + [np.full((180, 320, 3), 250.0)] + [scenery(1)] * 9 + [scenery(2)] * 20
    assert find_cuts(clip(pictures), fps=FPS) == [20]


def test_real_clips_are_one_shot_and_their_sequence_is_not(shared_clips):
    from slotid_core.reference import read_clip

    shots = [read_clip(path, frames=17).frames_FHWC[:, ::2, ::2] for path in shared_clips[:3]]
    assert all(find_cuts(shot, fps=FPS) == [] for shot in shots)
    height, width = (min(shot.shape[axis] for shot in shots) for axis in (1, 2))
    joined = torch.cat([shot[:, :height, :width] for shot in shots])
    assert find_cuts(joined, fps=FPS) == [17, 34]
