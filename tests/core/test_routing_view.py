"""What each slot read, as numbers and pictures: the right frame, the right place, the right slot."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.identify import Identified
from slotid_core.latents import shuffle_frames, shuffled_order
from slotid_core.reference.stabilise import CropPath
from slotid_core.routing_view import (
    UNTRAINED,
    ClipRouting,
    clip_routing,
    describe_routing,
    overlay,
    routing_grid,
    routing_numbers,
)
from slotid_core.types import Routing

pytest.importorskip("matplotlib", reason="needs matplotlib")

S, T, H, W = 3, 3, 4, 4
FRAMES = 4 * T - 3


def routing_of(*places) -> Routing:
    """Each slot reads one token ``(t, y, x)``, or everything alike (``None``)."""
    weights = torch.zeros(1, len(places), T, H, W)
    for slot, place in enumerate(places):
        if place is None:
            weights[0, slot] = 1 / (T * H * W)
        else:
            weights[(0, slot, *place)] = 1
    return Routing(weights)


def read_of(*places, face=None, untrained=False) -> ClipRouting:
    return ClipRouting(
        routing=routing_of(*places),
        frames_FHWC=torch.full((FRAMES, 64, 64, 3), 0.5),
        face_FHW1=face,
        untrained=untrained,
    )


def coloured(picture_HWC: torch.Tensor) -> torch.Tensor:
    """How far each pixel is from grey, ``[H, W]``."""
    return picture_HWC.amax(-1) - picture_HWC.amin(-1)


def test_the_overlay_shows_the_token_in_its_place_and_frames():
    """Token time 1 is frames 1 to 4; token (1, 0, 3) lies in the upper right corner."""
    video = overlay(read_of((1, 0, 3), None, None), slot=1)[:, :512]
    assert video.shape == (FRAMES, 512, 512, 3)
    strength_F = [float(coloured(frame).max()) for frame in video]
    assert min(strength_F[1:5]) > 0.2 and max(strength_F[:1] + strength_F[5:]) < 0.01
    where = coloured(video[1])
    assert where[64, 448] > 0.2 and where[64, 64] < 0.01 and where[448, 448] < 0.01


def test_the_first_token_time_is_the_first_frame_alone():
    video = overlay(read_of((0, 1, 1), None, None), slot=1)[:, :512]
    assert [bool(coloured(frame).max() > 0.1) for frame in video] == [True] + [False] * (FRAMES - 1)


def test_all_slots_have_their_own_colours_and_stay_grey_where_they_agree():
    places = (1, 0, 0), (1, 0, 3), (1, 3, 0)
    video = overlay(read_of(*places))[:, :512]
    one, two, three = (video[1, y, x] for y, x in ((64, 64), (64, 448), (448, 64)))
    singles = [
        overlay(read_of(*places), slot)[1, y, x] for slot, (y, x) in enumerate(((64, 64), (64, 448), (448, 64)), 1)
    ]
    assert min(float((a - b).abs().max()) for a, b in ((one, two), (one, three), (two, three))) > 0.15
    torch.testing.assert_close(torch.stack([one, two, three]), torch.stack(singles), atol=0.15, rtol=0)
    assert coloured(overlay(read_of(None, None, None))[:, :512]).max() < 0.01


def test_the_legend_says_when_weights_are_untrained():
    plain, untrained = (overlay(read_of(None, None, None, untrained=flag))[0, 512:] for flag in (False, True))
    red = (untrained[..., 0] > 0.7) & (untrained[..., 1:].amax(-1) < 0.35)
    assert red.sum() > 100 and not torch.equal(plain, untrained)
    read = read_of(None, None, None, untrained=True)
    assert describe_routing(read, routing_numbers(read))[0] == UNTRAINED
    grids = [routing_grid(r, routing_numbers(r)) for r in (read, read_of(None, None, None))]
    reds = [((grid[..., 0] > 180) & (grid[..., 1:].amax(-1) < 80)).sum() for grid in grids]
    assert reds[0] > 100 > reds[1]


def test_the_grid_has_a_row_a_slot_and_a_column_a_moment():
    """Words are black, so what differs in colour is what was read."""
    pictures = []
    for second in (None, (2, 0, 0)):
        read = read_of((2, 0, 0), second, (0, 3, 3))
        pictures.append(coloured(routing_grid(read, routing_numbers(read)).float() / 255))
    changed = (pictures[0] - pictures[1]).abs()[:, 170:] > 0.1
    rows, height = torch.nonzero(changed.any(1))[:, 0], len(changed)
    assert changed.any() and height * 0.3 < rows.min() and rows.max() < height * 0.7, "the second slot's row only"
    blocks = (changed.any(0).int().diff() == 1).sum() + changed[:, 0].any()
    assert blocks == T, "a slot that reads everything alike is coloured at all three moments"


def test_numbers():
    numbers = routing_numbers(read_of((1, 0, 0), None, (1, 0, 0)))
    assert numbers.entropy == pytest.approx((0, 1, 0), abs=1e-5)
    tokens = T * H * W
    assert numbers.overlap == pytest.approx((1 + 2 / math.sqrt(tokens)) / 3)
    assert numbers.face is None and numbers.face_even is None
    # The face fills the left half in the first frame, and the upper left quarter of two of the four frames after it.
    face = torch.zeros(FRAMES, 16, 16, 1)
    face[0, :, :8] = 1
    face[1:3, :8, :8] = 1
    numbers = routing_numbers(read_of((0, 3, 0), (1, 0, 0), (1, 3, 3), face=face))
    assert numbers.face == pytest.approx((1.0, 0.5, 0.0))
    assert numbers.face_even == pytest.approx((0.5 + 0.25 * 0.5) / 3)


def test_a_slot_that_is_not_there_is_an_error():
    with pytest.raises(SlotIDError, match="Slot 4 was asked for, and these weights have the slots 1 to 3"):
        overlay(read_of(None, None, None), slot=4)


def test_progress_and_interruption():
    ticks = []
    overlay(read_of(None, None, None), 0, lambda *tick: ticks.append(tick))
    assert ticks == [(i, FRAMES) for i in range(1, FRAMES + 1)]

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        overlay(read_of(None, None, None), 0, interrupt)


def test_frames_of_another_clip_are_no_routing():
    with pytest.raises(AssertionError, match="another clip"):
        ClipRouting(routing=routing_of(None), frames_FHWC=torch.zeros(5, 8, 8, 3), face_FHW1=None, untrained=False)


def reference_with(boxes: dict[int, tuple]) -> SimpleNamespace:
    """What is read of a reference: frames 2 to 10 are kept, crops of side 100 around (150, 150)."""
    face = {i: SimpleNamespace(box_xyxy=box) for i, box in boxes.items()}
    analysis = SimpleNamespace(
        kept=range(2, 2 + FRAMES),
        path=CropPath(centre_F2=np.full((FRAMES, 2), 150.0), side_F=np.full(FRAMES, 100.0)),
        frames=[SimpleNamespace(face=face.get(i)) for i in range(20)],
    )
    return SimpleNamespace(analysis=analysis)


@pytest.mark.parametrize("order", ["temporal", "shuffled"])
def test_the_face_is_where_the_crop_has_it(make_weights, order):
    """In whole frames it moves from the crop's left half (frame 2) to its right half (frame 10)."""
    weights = make_weights(clip_order=order)
    reference = reference_with({2: (100, 100, 150, 200), 10: (150, 100, 200, 200)})
    clip = torch.arange(FRAMES).float().view(-1, 1, 1, 1).expand(FRAMES, 64, 64, 3) / FRAMES
    read = clip_routing(weights, Identified(None, routing_of(None, None, None)), clip, reference)
    masks = read.face_FHW1
    left_F = masks[:, :, :8].mean((1, 2, 3)).tolist()
    expected = torch.tensor([1 - i / 8 for i in range(FRAMES)])
    if order == "shuffled":
        shuffled = shuffle_frames(clip)
        assert torch.equal(read.frames_FHWC, shuffled) and not torch.equal(shuffled, clip)
        expected = expected[shuffled_order(clip)]
    assert left_F == pytest.approx(expected.tolist(), abs=0.07)
    assert masks.mean((1, 2, 3)).tolist() == pytest.approx([0.5] * FRAMES, abs=0.07)


@pytest.mark.parametrize("deep", [1, 2])
def test_what_encoding_gives_becomes_a_picture(make_model, make_weights, make_inputs, deep):
    weights = make_weights(encoder={"patch": (deep, 2, 2)})
    latents = make_inputs()
    encoding = weights.model.encode(*latents)
    clip = torch.rand(4 * latents[0].shape[2] - 3, 32, 48, 3)
    read = clip_routing(weights, Identified(None, encoding.routing), clip, None)
    shown, routed = read.routing.weights_BSTHW, encoding.routing.weights_BSTHW
    assert torch.allclose(shown.unflatten(2, (-1, deep)).sum(3), routed)
    assert read.face_FHW1 is None and not read.untrained
    assert overlay(read).shape == (len(clip), 576, 768, 3), "as wide as the clip, enlarged, with even sides"
    assert clip_routing(weights, Identified(None, None), clip, None) is None
