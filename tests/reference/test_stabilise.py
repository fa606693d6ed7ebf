"""The crop follows a face smoothly, keeps it inside, and is cut out exactly."""

import numpy as np
import pytest
import torch
from PIL import Image

from slotid_core.errors import SlotIDError
from slotid_core.reference.stabilise import CropPath, crop_along, stable_path

FPS, WIDTH, HEIGHT, SIZE = 16.0, 854, 480, 120.0


def ease(frames, begin, end):
    """From 0 to 1 between two frames, as a head starts and stops."""
    share = np.clip((np.arange(frames) - begin) / (end - begin), 0, 1)
    return share**3 * (10 - 15 * share + 6 * share**2)


def move(frames=97, distance=200.0, sway=4.0):
    """Centres ``[frames, 2]``: a move to the right within two seconds, with some sway."""
    time = np.arange(frames) / FPS
    x = 300 + distance * ease(frames, 32, 64) + sway * np.sin(2 * np.pi * 0.3 * time)
    y = 230 + 0.15 * distance * ease(frames, 32, 64) + sway * np.cos(2 * np.pi * 0.25 * time)
    return np.stack([x, y], axis=1)


def boxes_of(centre_F2, rng, *, jitter=3.0, size_jitter=0.04, every=4, size=SIZE):
    """What a detector would say: centres off by ``jitter`` pixels, sizes by a share."""
    boxes = {}
    for i in range(0, len(centre_F2), every):
        (x, y), half = centre_F2[i] + rng.normal(0, jitter, 2), size * (1 + rng.normal(0, size_jitter)) / 2
        boxes[i] = (x - half, y - half, x + half, y + half)
    return boxes


def follow(boxes, frames, **other):
    size = {"width": WIDTH, "height": HEIGHT, "fps": FPS, "margin": 1.8} | other
    return stable_path(boxes, frames=frames, **size)


def jitter_of(path, centre_F2):
    """RMS deviation of the crop's motion from the true motion, frame to frame, in pixels."""
    error_F2 = path.centre_F2 - centre_F2
    return float(np.sqrt((np.diff(error_F2, axis=0) ** 2).sum(axis=1).mean()))


def keeps(path, centre_F2, size_F):
    """Whether the true face is inside of the square in every frame."""
    reach_F = np.abs(path.centre_F2 - centre_F2).max(axis=1) + size_F / 2
    return bool((reach_F <= path.side_F / 2).all())


@pytest.mark.parametrize(("every", "jitter"), [(1, 3.0), (4, 1.5)])
def test_a_move_of_200_px_is_followed_without_jitter_or_pumping(every, jitter):
    jitters = []
    for seed in range(20):
        centre_F2 = move()
        boxes = boxes_of(centre_F2, np.random.default_rng(seed), every=every, jitter=jitter)
        path = follow(boxes, len(centre_F2))
        jitters.append(jitter_of(path, centre_F2))
        assert keeps(path, centre_F2, SIZE)
        assert path.side_F.max() / path.side_F.min() < 1.01
        assert np.abs(path.centre_F2 - centre_F2).max() < 6
    assert max(jitters) < 0.5, jitters
    # The detector alone would shake by more.
    raw = np.array([[(b[0] + b[2]) / 2, (b[1] + b[3]) / 2] for b in boxes.values()])
    assert np.sqrt((np.diff(raw - centre_F2[::every], axis=0) ** 2).sum(axis=1).mean()) > 1.5 * jitter


@pytest.mark.parametrize(("every", "usual", "most"), [(1, 0.12, 0.25), (4, 0.25, 0.5)])
def test_a_face_that_keeps_still_is_smoothed_more_than_one_that_moves(every, usual, most):
    centre_F2 = np.tile([400.0, 240.0], (97, 1))
    jitters = [
        jitter_of(follow(boxes_of(centre_F2, np.random.default_rng(seed), every=every, jitter=3.0), 97), centre_F2)
        for seed in range(20)
    ]
    assert np.mean(jitters) < usual and max(jitters) < most, jitters


def test_steady_motion_has_no_lag():
    centre_F2 = np.stack([200 + 4.0 * np.arange(97), np.full(97, 240.0)], axis=1)
    path = follow(boxes_of(centre_F2, np.random.default_rng(0), jitter=0, size_jitter=0), 97)
    assert np.abs(path.centre_F2 - centre_F2).max() < 0.05


def test_outliers_do_not_pull_the_crop():
    centre_F2 = move()
    boxes = boxes_of(centre_F2, np.random.default_rng(1), jitter=1.5)
    for i, shift in ((12, 90), (44, -70), (80, 80)):
        boxes[i] = tuple(np.array(boxes[i]) + shift)
    assert jitter_of(follow(boxes, 97), centre_F2) < 0.6


def test_gaps_are_bridged():
    centre_F2 = move(distance=60)
    boxes = boxes_of(centre_F2, np.random.default_rng(2), jitter=1.0)
    for i in [i for i in boxes if i % 3 == 0 and i not in (0, 96)]:
        del boxes[i]
    path = follow(boxes, 97)
    assert jitter_of(path, centre_F2) < 0.5
    assert keeps(path, centre_F2, SIZE)


def test_a_face_that_comes_nearer_is_zoomed_smoothly():
    rng, frames = np.random.default_rng(3), 97
    size_F = SIZE * np.exp(np.linspace(0, np.log(2), frames))
    boxes = {}
    for i in range(0, frames, 4):
        half = size_F[i] * (1 + rng.normal(0, 0.04)) / 2
        boxes[i] = (427 - half, 240 - half, 427 + half, 240 + half)
    path = follow(boxes, frames)
    assert path.side_F[-1] / path.side_F[0] > 1.6
    zoom = np.diff(np.log(path.side_F))
    assert np.abs(zoom - zoom.mean()).max() < 0.01, "pumps"
    assert keeps(path, np.tile([427.0, 240.0], (frames, 1)), size_F)


@pytest.mark.parametrize("centre", [(40, 60), (820, 240), (427, 470)])
def test_the_crop_stays_in_the_frame_and_keeps_a_face_at_the_border(centre):
    boxes = boxes_of(np.tile(np.array(centre, float), (33, 1)), np.random.default_rng(4))
    path = follow(boxes, 33)
    low, high = path.centre_F2 - path.side_F[:, None] / 2, path.centre_F2 + path.side_F[:, None] / 2
    assert low.min() >= -1e-9 and (high <= np.array([WIDTH, HEIGHT]) + 1e-9).all()
    for x0, y0, x1, y1 in boxes.values():
        seen = np.clip([x0, y0, x1, y1], 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
        assert (seen[:2] >= low[0] - 1).all() and (seen[2:] <= high[0] + 1).all()


def test_a_few_observations_are_enough():
    for found in ([0], [5], [0, 16], [3, 8, 12], [0, 4, 8, 12, 16]):
        path = follow({i: (100.0, 100.0, 200.0, 220.0) for i in found}, 17)
        assert np.allclose(path.centre_F2, [150, 160]) and np.allclose(path.side_F, 1.8 * 120)


def test_a_face_larger_than_the_frame_gets_all_of_it():
    path = follow({0: (-50.0, -50.0, 500.0, 600.0), 8: (-50.0, -50.0, 500.0, 600.0)}, 9)
    assert np.allclose(path.side_F, HEIGHT)


def gradient(frames, height=96, width=128):
    """Pictures whose red is x and whose green is y, in pixels: bilinear sampling has to be exact on them."""
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return (
        torch.stack([columns, rows, torch.zeros_like(rows)], dim=-1).round().to(torch.uint8).expand(frames, -1, -1, -1)
    )


@pytest.mark.parametrize("side", [32.0, 41.7, 24.3, 70.0])
def test_the_crop_is_exact_to_a_fraction_of_a_pixel(side):
    centre_F2 = np.array([[60.0 + 0.13 * i, 48.0 - 0.21 * i] for i in range(9)])
    cropped = crop_along(gradient(9), CropPath(centre_F2=centre_F2, side_F=np.full(9, side)), 32)
    at = (np.arange(32) + 0.5) / 32 - 0.5
    # A pixel of the frame holds its index + 0.5, rounded to even: the mean is that of the place it lies at.
    whole = gradient(1)[0].numpy().astype(float)
    for (x, y), picture in zip(centre_F2, cropped.numpy() * 255, strict=True):
        expected_x = np.interp(x + side * at - 0.5, np.arange(128), whole[0, :, 0])
        expected_y = np.interp(y + side * at - 0.5, np.arange(96), whole[:, 0, 1])
        within = max(1.0, side / 32)
        assert np.abs(picture[..., 0] - expected_x).max() < within
        assert abs((picture[..., 0] - (x + side * at)).mean()) < 0.02
        assert np.abs(picture[..., 1] - expected_y[:, None]).max() < within
        assert abs((picture[..., 1] - (y + side * at)[:, None]).mean()) < 0.02


def smooth_picture(seed=0, height=120, width=160):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
    return torch.from_numpy(np.array(coarse.resize((width, height), Image.Resampling.BICUBIC)))


@pytest.mark.parametrize(("side", "size"), [(48.0, 48), (37.3, 48), (48.6, 96)])
def test_the_crop_agrees_with_pillows_affine_transform(side, size):
    picture = smooth_picture()
    centre = np.array([70.4, 61.7])
    cropped = crop_along(picture[None], CropPath(centre_F2=centre[None], side_F=np.array([side])), size)[0]
    scale, (left, top) = side / size, centre - side / 2
    reference = Image.fromarray(picture.numpy()).transform(
        (size, size), Image.Transform.AFFINE, (scale, 0, left, 0, scale, top), Image.Resampling.BILINEAR
    )
    assert np.abs(cropped.numpy() * 255 - np.array(reference, float)).max() < 1.5


def test_shrinking_is_antialiased():
    rows, columns = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    checks = ((rows + columns) % 2 * 255).to(torch.uint8)[..., None].expand(-1, -1, 3)
    path = CropPath(centre_F2=np.array([[128.0, 128.0]]), side_F=np.array([192.0]))
    assert (crop_along(checks[None], path, 32) - 0.5).abs().max() < 0.02


def test_a_followed_face_stands_still_in_the_result():
    """A disc is moved by whole pixels over the frame and cropped along its true path."""
    rows, columns = np.mgrid[:120, :240]
    centre_F2 = np.array([[60.5 + 8 * i, 60.5] for i in range(16)])
    frames = [np.where((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 < 400, 255, 0) for x, y in centre_F2]
    frames = torch.from_numpy(np.stack(frames).astype(np.uint8))[..., None].expand(-1, -1, -1, 3)
    cropped = crop_along(frames, CropPath(centre_F2=centre_F2, side_F=np.full(16, 80.0)), 64)
    assert (cropped - cropped[0]).abs().max() < 1e-3


def test_what_does_not_fit_is_refused():
    path = CropPath(centre_F2=np.zeros((3, 2)), side_F=np.ones(3))
    with pytest.raises(SlotIDError, match="Got a path of 3 squares for 9 frames"):
        crop_along(gradient(9), path, 32)
    with pytest.raises(SlotIDError, match="multiple of 16"):
        crop_along(gradient(3), path, 30)
