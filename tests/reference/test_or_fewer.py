"""What training asks of the pipeline beside the nodes: shorter stretches, why a clip can't be used, oblong pictures."""

import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.reference import Box, UnusableClipError, analyse, read_clip
from slotid_core.reference.crop import resize
from slotid_core.reference.faces.box import BoxFaces
from training.demo_clip import demo_clip
from training.media import write_mp4


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """11 frames at 16 a second."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_mp4(path, demo_clip(0, frames=11, size=64))
    return path


def test_fewer_frames_are_taken_only_where_they_may(video):
    whole = read_clip(video, frames=65, or_fewer=True)
    assert len(whole.frames_FHWC) == len(whole.timestamps_s) == 11
    assert torch.equal(read_clip(video, frames=5, or_fewer=True).frames_FHWC, whole.frames_FHWC[:5])
    assert torch.equal(read_clip(video, start=0.25, frames=65, or_fewer=True).frames_FHWC, whole.frames_FHWC[4:])
    with pytest.raises(SlotIDError, match="too short"):
        read_clip(video, frames=13)
    with pytest.raises(SlotIDError, match="before start"):
        read_clip(video, start=3.0, frames=13, or_fewer=True)


@pytest.mark.parametrize("side, shown, reason", [(40, 1.0, "small face"), (60, 0.0, "no face")])
def test_reasons_can_be_counted(side, shown, reason):
    frames = torch.full((9, 64, 64, 3), 128, dtype=torch.uint8)
    faces = BoxFaces(Box(2, 2, side, side), torch.full((64, 64), shown), frames=9)
    with pytest.raises(UnusableClipError) as error:
        analyse(frames, faces, fps=16.0)
    assert error.value.reason == reason


def test_pictures_may_become_oblong():
    frames = torch.rand(2, 20, 30, 3)
    assert resize(frames, (16, 48)).shape == (2, 16, 48, 3)
    assert torch.equal(resize(frames, (16, 16)), resize(frames, 16))
