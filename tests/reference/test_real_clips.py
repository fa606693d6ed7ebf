"""Real clips of people, where they are at hand."""

import av
import numpy as np
import pytest

from slotid_core.reference import extract_portrait, read_clip, square_crop


def test_every_real_clip_loads(shared_clips):
    for path in shared_clips:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            lasts = float(stream.duration * stream.time_base)
            aspect = float(stream.sample_aspect_ratio or 1)
            reference_HWC = next(container.decode(stream)).to_ndarray(format="rgb24")
        frames = 65 if lasts > 4.1 else 45
        clip = read_clip(path, frames=frames)
        height, width = reference_HWC.shape[:2]
        assert clip.frames_FHWC.shape == (frames, height, round(width * aspect), 3)
        assert path.name in clip.describe()
        assert all(a < b for a, b in zip(clip.timestamps_s, clip.timestamps_s[1:], strict=False))
        assert np.abs(np.array(clip.timestamps_s) - np.arange(frames) / 16).max() <= 1 / 20
        # Matrices differ by a few levels at most on skin; a swapped channel or a turn by tens.
        if aspect == 1:
            assert np.abs(clip.frames_FHWC[0].numpy().astype(int) - reference_HWC).mean() < 6


def test_a_real_clip_to_square_and_portrait(shared_clips):
    frames_FHWC = read_clip(shared_clips[0], frames=9, start=1.0).as_float()
    square_FHWC = square_crop(frames_FHWC, None, 256)
    portrait = extract_portrait(frames_FHWC)
    assert square_FHWC.shape == (9, 256, 256, 3)
    assert portrait.image_HWC.shape == (512, 512, 3)
    assert portrait.sharpness_F.argmax() == portrait.frame_index
    assert portrait.image_HWC.std() > 0.05


def test_start_in_a_real_clip_is_the_same_stretch(shared_clips):
    longest = max(shared_clips, key=lambda path: path.stat().st_size)
    whole = read_clip(longest, frames=41, fps=25)
    part = read_clip(longest, frames=17, fps=25, start=0.96)
    assert part.frames_FHWC.equal(whole.frames_FHWC[24:41])
    assert part.timestamps_s == pytest.approx(whole.timestamps_s[24:41])
