"""Boxes, square crops and the sharpest frame."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from slotid_core.errors import SlotIDError
from slotid_core.reference import Box, extract_portrait, largest_square, square_around, square_crop


@pytest.mark.parametrize("x, y, width, height", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 0, 5), (0, 0, 5, -2)])
def test_impossible_boxes(x, y, width, height):
    with pytest.raises(SlotIDError, match="Got the box"):
        Box(x, y, width, height)


def test_largest_square():
    assert largest_square(100, 60) == Box(20, 0, 60, 60)
    assert largest_square(61, 100) == Box(0, 19, 61, 61)


@pytest.mark.parametrize(
    "box, square",
    [
        (Box(40, 20, 20, 20), Box(40, 20, 20, 20)),
        (Box(40, 20, 10, 20), Box(35, 20, 20, 20)),
        (Box(0, 0, 10, 30), Box(0, 0, 30, 30)),  # moved in from the left edge
        (Box(90, 50, 10, 30), Box(70, 50, 30, 30)),  # from the right
        (Box(30, 75, 40, 5), Box(30, 40, 40, 40)),  # from below
        (Box(10, 0, 80, 80), Box(10, 0, 80, 80)),
    ],
)
def test_square_around(box, square):
    assert square_around(box, 100, 80) == square


def test_boxes_that_do_not_fit():
    with pytest.raises(SlotIDError, match="needs a square of 90 pixels, and the frame is 100x80.*at most 80"):
        square_around(Box(0, 0, 90, 20), 100, 80)
    with pytest.raises(SlotIDError, match="reaches out of the frame, which is 100x80"):
        square_around(Box(95, 0, 10, 10), 100, 80)
    with pytest.raises(SlotIDError, match="reaches out of the frame"):
        square_crop(torch.zeros(1, 80, 100, 3), Box(0, 75, 10, 10), 64)


def test_square_crop_is_the_antialiased_crop_of_every_frame():
    frames_FHWC = torch.rand(5, 80, 100, 3)
    out_FHWC = square_crop(frames_FHWC, Box(10, 20, 40, 50), 32)
    cut_FCHW = frames_FHWC[:, 20:70, 5:55].permute(0, 3, 1, 2)
    expected = functional.interpolate(cut_FCHW, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(out_FHWC, expected.permute(0, 2, 3, 1))
    assert square_crop(frames_FHWC, None, 16).shape == (5, 16, 16, 3)


def test_square_crop_neither_aliases_nor_overshoots():
    stripes_FHWC = torch.zeros(1, 256, 256, 3)
    stripes_FHWC[:, :, ::2] = 1
    inner = square_crop(stripes_FHWC, None, 32)[:, 2:-2, 2:-2]
    assert (inner - 0.5).abs().max() < 0.02
    step_FHWC = torch.zeros(1, 32, 32, 3)
    step_FHWC[:, :, 16:] = 1
    grown = square_crop(step_FHWC, None, 64)
    assert grown.min() >= 0 and grown.max() <= 1


@pytest.mark.parametrize("size, fits", [(250, "240 or 256"), (8, "16 or more"), (0, "16 or more"), (-16, "16 or more")])
def test_size(size, fits):
    for make in (lambda: square_crop(torch.zeros(1, 64, 64, 3), None, size), lambda: portrait(size=size)):
        with pytest.raises(SlotIDError, match=f"Got size = {size}, expected a multiple of 16.*Use {fits}"):
            make()


@pytest.mark.parametrize(
    "frames",
    [torch.zeros(64, 64, 3), torch.zeros(1, 64, 64, 4), torch.zeros(0, 64, 64, 3), torch.zeros(1, 64, 64, 3).byte()],
)
def test_frames_of_another_kind(frames):
    for make in (lambda: square_crop(frames, None, 64), lambda: extract_portrait(frames)):
        with pytest.raises(SlotIDError, match=r"expected \[F, H, W, 3\] floats"):
            make()


def blur(frames_FHWC):
    frames_FCHW = functional.pad(frames_FHWC.permute(0, 3, 1, 2), (4, 4, 4, 4), mode="replicate")
    return functional.avg_pool2d(frames_FCHW, 9, stride=1).permute(0, 2, 3, 1)


def clip_with_sharp_frame(index, count=7, height=90, width=120):
    """Blurred noise, but for one frame."""
    sharp_FHWC = torch.rand(count, height, width, 3)
    frames_FHWC = blur(sharp_FHWC)
    frames_FHWC[index] = sharp_FHWC[index]
    return frames_FHWC


def portrait(**how):
    return extract_portrait(clip_with_sharp_frame(4), **how)


@pytest.mark.parametrize("planted", [0, 3, 6])
def test_the_sharp_frame_is_found(planted):
    frames_FHWC = clip_with_sharp_frame(planted)
    for region in ({}, {"box": Box(20, 10, 50, 40)}, {"mask": torch.ones(90, 120)}):
        result = extract_portrait(frames_FHWC, **region)
        assert result.frame_index == planted
        assert result.sharpness_F.shape == (7,)
        assert result.image_HWC.shape == (512, 512, 3)


def test_sharpness_is_judged_inside_the_region_only():
    # Frame 1 has a sharp background and a blurred face, frame 2 the other way round.
    detail_FHWC = torch.rand(4, 90, 120, 3)
    frames_FHWC = blur(detail_FHWC)
    frames_FHWC[1] = detail_FHWC[1]
    frames_FHWC[1, 20:60, 30:70] = blur(detail_FHWC)[1, 20:60, 30:70]
    frames_FHWC[2, 25:55, 35:65] = detail_FHWC[2, 25:55, 35:65]
    mask_HW = torch.zeros(90, 120)
    mask_HW[25:55, 35:65] = 1
    assert extract_portrait(frames_FHWC).frame_index == 1
    assert extract_portrait(frames_FHWC, box=Box(35, 25, 30, 30)).frame_index == 2
    assert extract_portrait(frames_FHWC, mask=mask_HW).frame_index == 2
    masks_FHW = mask_HW.repeat(4, 1, 1)
    masks_FHW[2] = 0  # nobody in the frame that would win
    result = extract_portrait(frames_FHWC, mask=masks_FHW)
    assert result.frame_index != 2
    assert result.sharpness_F[2] == float("-inf")


@pytest.mark.parametrize("masked", [False, True])
def test_sharpness_is_the_variance_of_the_laplacian(masked):
    frames_FHWC = torch.rand(1, 12, 10, 3, dtype=torch.float64)
    mask_HW = torch.rand(12, 10, dtype=torch.float64)
    luma_HW = (frames_FHWC[0] * torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)).sum(-1)
    answers, weights = [], []
    for y in range(3, 9):
        for x in range(2, 8):
            around = [(max(y - 1, 3), x), (min(y + 1, 8), x), (y, max(x - 1, 2)), (y, min(x + 1, 7))]
            answers.append(sum(luma_HW[place] for place in around) - 4 * luma_HW[y, x])
            weights.append(mask_HW[y, x] if masked else torch.ones((), dtype=torch.float64))
    expected = torch.stack(answers).numpy()
    expected = np.average((expected - np.average(expected, weights=weights)) ** 2, weights=weights)
    result = extract_portrait(frames_FHWC, box=Box(2, 3, 6, 6), mask=mask_HW if masked else None, size=16)
    assert result.sharpness_F[0].item() == pytest.approx(expected, rel=1e-5)


def test_white_outside_the_mask():
    frames_FHWC = torch.full((3, 90, 120, 3), 0.25)
    mask_HW = torch.zeros(90, 120)
    mask_HW[20:60, 50:70] = 1
    mask_HW[30:50, 30:50] = 1  # something that makes it 40 wide and 40 high, with white corners
    result = extract_portrait(frames_FHWC, mask=mask_HW, size=80)
    image_HWC = result.image_HWC  # the square (30, 20)-(70, 60), twice as large
    assert torch.allclose(image_HWC[:14, :34], torch.ones(()), atol=1e-4)
    assert torch.allclose(image_HWC[30:50, 6:34], torch.tensor(0.25), atol=1e-4)
    assert torch.allclose(image_HWC[4:-4, 46:-4], torch.tensor(0.25), atol=1e-4)
    assert "white outside the mask" in result.region


def test_soft_mask_blends():
    mask_HW = torch.full((90, 120), 0.75)
    result = extract_portrait(torch.zeros(1, 90, 120, 3), mask=mask_HW, box=Box(0, 0, 90, 90))
    assert torch.allclose(result.image_HWC, torch.tensor(0.25), atol=1e-5)


def test_person_taller_than_the_frame_is_wide_stands_on_white():
    frames_FHWC = torch.full((2, 120, 40, 3), 0.5)
    mask_HW = torch.zeros(120, 40)
    mask_HW[10:110, 5:35] = 1
    image_HWC = extract_portrait(frames_FHWC, mask=mask_HW, size=400).image_HWC  # 100 pixels square, four times
    assert torch.allclose(image_HWC[:, :130], torch.ones(()), atol=1e-4)
    assert torch.allclose(image_HWC[:, -130:], torch.ones(()), atol=1e-4)
    assert torch.allclose(image_HWC[10:-10, 150:250], torch.tensor(0.5), atol=1e-4)


def test_box_at_the_border_and_masks_for_each_frame():
    frames_FHWC = clip_with_sharp_frame(5)
    masks_FHW = torch.zeros(7, 90, 120)
    masks_FHW[:, 50:, 100:] = 1
    result = extract_portrait(frames_FHWC, box=Box(100, 60, 20, 30), mask=masks_FHW, size=64)
    assert result.frame_index == 5
    composed_FHWC = frames_FHWC * masks_FHW.unsqueeze(-1) + (1 - masks_FHW.unsqueeze(-1))
    expected = square_crop(composed_FHWC[5:6], Box(90, 60, 30, 30), 64)[0]
    torch.testing.assert_close(result.image_HWC, expected)


def test_neither_box_nor_mask_is_said():
    frames_FHWC = clip_with_sharp_frame(2)
    result = extract_portrait(frames_FHWC)
    assert "largest centred square" in result.region and "neither a box nor a mask" in result.region
    torch.testing.assert_close(result.image_HWC, square_crop(frames_FHWC[2:3], None, 512)[0])


@pytest.mark.parametrize(
    "mask, message",
    [
        (torch.zeros(90, 120), "mask is empty in all 7 frames"),
        (torch.full((90, 120), 0.4), "mask is empty"),
        (torch.ones(120, 90), r"mask of shape \[120, 90\], expected \[90, 120\]"),
        (torch.ones(1, 1, 90, 120), r"mask of shape \[1, 1, 90, 120\]"),
        (torch.ones(6, 90, 120), "Got 6 masks for 7 frames, expected 1 for all or 7"),
        (torch.ones(0, 90, 120), "Got 0 masks for 7 frames"),
        (torch.full((90, 120), 255.0), "from 0 .background. to 1"),
        (torch.ones(90, 120, dtype=torch.bool), "torch.bool"),
    ],
)
def test_masks_that_do_not_fit(mask, message):
    with pytest.raises(SlotIDError, match=message):
        portrait(mask=mask)


def test_mask_that_misses_the_box():
    mask_HW = torch.zeros(90, 120)
    mask_HW[:20, :20] = 1
    with pytest.raises(SlotIDError, match=r"mask is empty inside the box 20x20 at \(80, 60\)"):
        portrait(mask=mask_HW, box=Box(80, 60, 20, 20))
