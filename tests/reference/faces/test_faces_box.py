"""Faces where the user says that they are."""

import numpy as np
import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.reference.crop import Box
from slotid_core.reference.faces.box import BoxFaces

FRAME = np.zeros((48, 64, 3), np.uint8)


def mask_of(*places: tuple[int, int, int, int]) -> torch.Tensor:
    """One mask for each place (left, top, right, bottom)."""
    masks = torch.zeros(len(places), 48, 64)
    for mask, (left, top, right, bottom) in zip(masks, places, strict=True):
        mask[top:bottom, left:right] = 1
    return masks


def boxes(backend: BoxFaces, frames: int) -> list:
    return [[face.box_xyxy for face in backend.detect(FRAME, index)] for index in range(frames)]


def test_a_box_is_the_face_of_every_frame():
    backend = BoxFaces(Box(10, 5, 20, 30), frames=3)
    assert boxes(backend, 3) == [[(10, 5, 30, 35)]] * 3
    (face,) = backend.detect(FRAME, 0)
    assert face.score == 1 and face.landmarks_68x2 is None and face.pose is None and face.expression is None
    assert backend.same_person is None and backend.best_score(FRAME) is None


def test_masks_frame_by_frame():
    backend = BoxFaces(mask=mask_of((3, 4, 9, 11), (0, 0, 0, 0), (63, 47, 64, 48)), frames=3)
    assert boxes(backend, 3) == [[(3, 4, 9, 11)], [], [(63, 47, 64, 48)]]


@pytest.mark.parametrize("mask", [mask_of((3, 4, 9, 11)), mask_of((3, 4, 9, 11))[0], mask_of((3, 4, 9, 11)).half()])
def test_one_mask_for_all(mask):
    assert boxes(BoxFaces(mask=mask, frames=2), 2) == [[(3, 4, 9, 11)]] * 2


def test_box_and_mask_overlap():
    backend = BoxFaces(Box(5, 0, 59, 10), mask_of((3, 4, 9, 11), (0, 0, 4, 48)), frames=2)
    assert boxes(backend, 2) == [[(5, 4, 9, 10)], []]


def test_soft_edges_count_from_a_half_on():
    mask = torch.zeros(48, 64)
    mask[10:20, 10:30] = torch.tensor([0.49] + [0.5] * 18 + [0.4])
    assert boxes(BoxFaces(mask=mask, frames=1), 1) == [[(11, 10, 29, 20)]]


def test_neither_box_nor_mask():
    with pytest.raises(SlotIDError, match="needs a box or a mask"):
        BoxFaces(frames=1)


def test_a_box_outside_the_frame():
    with pytest.raises(SlotIDError, match="reaches out of the frame, which is 64x48"):
        BoxFaces(Box(60, 0, 10, 10), frames=1).detect(FRAME, 0)


@pytest.mark.parametrize(
    ("mask", "frames", "says"),
    [
        (mask_of(*[(1, 1, 2, 2)] * 3), 4, "3 masks for 4 frames"),
        (torch.zeros(5), 1, r"expected \[H, W\] or \[M, H, W\]"),
        (torch.full((48, 64), 255), 1, "from 255 to 255"),
        (torch.full((48, 64), torch.nan), 1, "from nan to nan"),
    ],
    ids=["count", "shape", "range", "nan"],
)
def test_other_masks_are_refused(mask, frames, says):
    with pytest.raises(SlotIDError, match=says):
        BoxFaces(mask=mask, frames=frames)


def test_a_mask_of_another_size():
    with pytest.raises(SlotIDError, match="64x48 pixels for frames of 32x24"):
        BoxFaces(mask=mask_of((1, 1, 2, 2)), frames=1).detect(np.zeros((24, 32, 3), np.uint8), 0)
