"""Head and shoulders on white: what is cut, what is white, which candidates, and what is refused."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.reference.analyse import FrameReport
from slotid_core.reference.faces.face import Face, Pose
from slotid_core.reference.head_portrait import describe_portraits, head_portraits
from slotid_core.reference.measures import measure_face, score_portraits

HEIGHT, WIDTH = 240, 320
WHITE = 0.999  # resizing rounds
BACKGROUND = torch.tensor([40, 90, 160], dtype=torch.uint8)
SKIN = torch.tensor([210, 160, 130], dtype=torch.uint8)


def _frame(x: int, y: int, size: int) -> torch.Tensor:
    """A plain head with shoulders around a face of that centre and size."""
    frame_HWC = BACKGROUND.expand(HEIGHT, WIDTH, 3).clone()
    rows, columns = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)[None]
    head_HW = ((columns - x) / (0.58 * size)) ** 2 + ((rows - y + 0.35 * size) / (0.85 * size)) ** 2 < 1
    body_HW = (rows > y + 0.45 * size) & ((columns - x).abs() < 0.3 * size + (rows - y - 0.45 * size) * 2)
    frame_HWC[head_HW | body_HW] = SKIN
    return frame_HWC


def _clip(*places: tuple[int, int, int], yaws: tuple[float, ...] | None = None):
    """Frames, and an analysis with one candidate a frame."""
    frames_FHWC = torch.stack([_frame(*place) for place in places])
    faces = [
        Face(
            box_xyxy=(x - size / 2, y - size / 2, x + size / 2, y + size / 2),
            score=1.0,
            pose=Pose(yaw=yaw, pitch=0.0, roll=0.0),
        )
        for (x, y, size), yaw in zip(places, yaws or (0.0,) * len(places), strict=True)
    ]
    measures = [measure_face(frame_HWC, face) for frame_HWC, face in zip(frames_FHWC, faces, strict=True)]
    scores = score_portraits(faces, measures, likeness={})
    reports = [
        FrameReport(index=i, dropped=None, face=face, measures=measured, score=score)
        for i, (face, measured, score) in enumerate(zip(faces, measures, scores, strict=True))
    ]
    candidates = sorted(reports, key=lambda report: -report.score.total)
    return frames_FHWC, SimpleNamespace(candidates=candidates)


CENTRE = (160, 120, 80)
CORNERS = [(20, 120, 80), (300, 120, 80), (160, 30, 80), (160, 220, 80), (15, 15, 80), (310, 230, 80)]


def test_size_range_and_frame():
    (portrait,) = head_portraits(*_clip(CENTRE), background="keep", size=256)
    assert portrait.image_HWC.shape == (256, 256, 3)
    assert 0 <= float(portrait.image_HWC.min()) and float(portrait.image_HWC.max()) <= 1
    assert portrait.frame_index == 0
    # The face's centre lies a little below the square's.
    assert torch.allclose(portrait.image_HWC[140, 128], SKIN / 255, atol=0.02)
    assert torch.allclose(portrait.image_HWC[4, 4], BACKGROUND / 255, atol=0.02)


def test_the_built_in_matte_turns_the_background_white():
    pytest.importorskip("cv2", reason="the built-in matte needs OpenCV")
    (portrait,) = head_portraits(*_clip(CENTRE), size=256)
    assert portrait.image_HWC[:40, :40].min() > WHITE and portrait.image_HWC[:40, -40:].min() > WHITE
    assert torch.allclose(portrait.image_HWC[140, 128], SKIN / 255, atol=0.02)
    assert "built-in matte" in portrait.background


@pytest.mark.parametrize("place", CORNERS)
def test_beyond_the_frame_all_is_white_without_lines_at_its_border(place):
    pytest.importorskip("cv2", reason="the built-in matte needs OpenCV")
    side = round(2.1 * place[2])
    frames_FHWC, analysis = _clip(place)
    (kept,) = head_portraits(frames_FHWC, analysis, background="keep", size=512)
    (portrait,) = head_portraits(frames_FHWC, analysis, size=512)
    beyond = (kept.image_HWC > WHITE).all(-1)
    assert beyond.any()
    assert portrait.image_HWC[beyond].min() > 0.99
    # Background next to the frame's border turns white as well: there is no more of its colour than a soft edge has.
    blue_HW = portrait.image_HWC[..., 2] - portrait.image_HWC[..., 0] > 0.25
    assert blue_HW.float().mean() < 2 / side


def test_white_outside_the_connected_mask():
    frames_FHWC, analysis = _clip(CENTRE, (170, 120, 80))
    masks_FHW = torch.zeros(2, HEIGHT, WIDTH)
    masks_FHW[analysis.candidates[0].index, :, :160] = 1
    (portrait,) = head_portraits(frames_FHWC, analysis, masks_FHW=masks_FHW, size=256)
    assert portrait.image_HWC[:, -100:].min() > WHITE
    assert torch.allclose(portrait.image_HWC[4, 4], BACKGROUND / 255, atol=0.02)
    assert "connected mask" in portrait.background


def test_one_mask_serves_every_frame():
    frames_FHWC, analysis = _clip(CENTRE, (150, 120, 80))
    one = torch.zeros(1, HEIGHT, WIDTH)
    one[:, :, 100:220] = 1
    for rank in (1, 2):
        (portrait,) = head_portraits(frames_FHWC, analysis, rank=rank, masks_FHW=one, size=64)
        assert portrait.image_HWC[:, -1].min() > WHITE > portrait.image_HWC[32, 32].max()


def test_a_mask_that_was_rounded_is_taken():
    frames_FHWC, analysis = _clip(CENTRE)
    images = [
        head_portraits(frames_FHWC, analysis, masks_FHW=torch.full((1, HEIGHT, WIDTH), value), size=64)[0].image_HWC
        for value in (1.0, 1.0002)
    ]
    assert torch.equal(*images)


def _without_the_face() -> torch.Tensor:
    mask_FHW = torch.ones(1, HEIGHT, WIDTH)
    mask_FHW[:, 80:170, 110:210] = 0
    return mask_FHW


def test_half_a_mask_is_half_white():
    half = torch.full((1, HEIGHT, WIDTH), 0.5)
    (portrait,) = head_portraits(*_clip(CENTRE), masks_FHW=half, size=64)
    assert torch.allclose(portrait.image_HWC[2, 2], BACKGROUND / 255 / 2 + 0.5, atol=0.02)


def test_rank_counts_from_the_best():
    frames_FHWC, analysis = _clip(CENTRE, CENTRE, CENTRE, yaws=(20.0, 0.0, 10.0))
    indices = [
        head_portraits(frames_FHWC, analysis, rank=rank, background="keep", size=64)[0].frame_index
        for rank in (1, 2, 3)
    ]
    assert indices == [1, 2, 0]


def test_diverse_portraits_are_distinct_and_begin_with_the_best():
    clip = _clip(CENTRE, CENTRE, CENTRE, CENTRE, yaws=(1.0, 0.0, 25.0, -25.0))
    portraits = head_portraits(*clip, count=3, background="keep", size=64)
    assert [p.frame_index for p in portraits][0] == 1
    assert {p.frame_index for p in portraits} == {1, 2, 3}


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"rank": 3}, "Portrait 3 was asked for, the clip has 2"),
        ({"count": 3}, "Portrait 3 was asked for, the clip has 2"),
        ({"rank": 2, "count": 2}, "set rank to 1"),
        ({"masks_FHW": torch.ones(1, 10, 10)}, "Got a mask of shape"),
        ({"masks_FHW": torch.zeros(1, HEIGHT, WIDTH)}, "covers 0% of the person's face"),
        ({"masks_FHW": _without_the_face()}, "covers .% of the person's face"),
        ({"masks_FHW": torch.full((1, HEIGHT, WIDTH), torch.nan)}, "from nan to nan, expected floats from 0"),
        ({"masks_FHW": torch.full((1, HEIGHT, WIDTH), 255.0)}, "from 255.0 to 255.0, expected floats from 0"),
        ({"masks_FHW": torch.ones(3, HEIGHT, WIDTH)}, "3 masks for 2 frames"),
        ({"size": 100}, "16"),
    ],
)
def test_what_does_not_fit_is_refused(asked, said):
    with pytest.raises(SlotIDError, match=said):
        head_portraits(*_clip(CENTRE, CENTRE), background="keep", **asked)


def test_what_was_not_measured_is_not_told():
    (portrait,) = head_portraits(*_clip((160, 110, 60)))
    turned = replace(portrait.face, pose=Pose(yaw=1.0, pitch=0.0, roll=0.0), expression=None)
    assert "frontal" in describe_portraits([replace(portrait, face=turned)])
    unknown = describe_portraits([replace(portrait, face=replace(turned, pose=None))])
    assert "sharp" in unknown and "frontal" not in unknown and "neutral" not in unknown
