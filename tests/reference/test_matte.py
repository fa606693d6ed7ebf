"""The built-in matte against the truth: rendered heads before every kind of background, and a chroma key."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.reference import read_clip
from slotid_core.reference.faces.face import Face, Pose
from slotid_core.reference.faces.landmarks import face_from_landmarks
from slotid_core.reference.matte import person_matte
from training.world.render import render
from training.world.scene import BACKGROUNDS, sample_scene
from training.world.traits import sample_traits

pytest.importorskip("cv2", reason="the built-in matte needs OpenCV")

SIDE = 256


def _heads(seeds: range, yaws: tuple[float, ...] = (0.0,)):
    """Pictures, true masks and faces of rendered heads; kinds of background and angles come up in turn."""
    scenes = []
    for seed in seeds:
        scene = sample_scene(seed, pose=Pose(yaw=yaws[seed % len(yaws)], pitch=0.0, roll=0.0))
        kind = BACKGROUNDS[seed % len(BACKGROUNDS)]
        scenes.append(replace(scene, background=replace(scene.background, kind=kind)))
    rendered = render([sample_traits(1000 + seed) for seed in seeds], scenes, SIDE, SIDE)
    faces = [face_from_landmarks(points.numpy(), 1.0) for points in rendered.landmarks_B682]
    return list(zip((rendered.image_BHW3 * 255).round().byte(), rendered.mask_BHW, faces, strict=True))


def _iou(a_HW: torch.Tensor, b_HW: torch.Tensor) -> float:
    a_HW, b_HW = a_HW > 0.5, b_HW > 0.5
    return float((a_HW & b_HW).sum() / (a_HW | b_HW).sum())


@pytest.fixture(scope="module")
def head():
    return _heads(range(3, 4))[0]


def test_rendered_heads_before_twenty_backgrounds():
    heads = _heads(range(10), (0.0, 12.0, -12.0, 25.0)) + _heads(range(10, 20), (0.0, 12.0, -12.0, 25.0))
    ious = [_iou(person_matte(picture_HWC, face), mask_HW) for picture_HWC, mask_HW, face in heads]
    assert np.mean(ious) >= 0.92
    assert min(ious) >= 0.8


def test_green_screen_against_a_chroma_key(shared_clips):
    pytest.importorskip("dlib", reason="finds the face")
    from slotid_core.reference.faces.dlib_faces import DlibFaces

    green = [path for path in shared_clips if "greenscreen" in path.name]
    if not green:
        pytest.skip("needs a clip with greenscreen in its name")
    frames_FHWC = read_clip(green[0], frames=5).frames_FHWC
    for frame_HWC in (frames_FHWC[0], frames_FHWC[-1]):
        (face, *_) = DlibFaces().detect(frame_HWC.numpy(), 0)
        red, green_HW, blue = frame_HWC.short().unbind(-1)
        # The screen's green exceeds red and blue by about 48 levels: halfway between that and none.
        person_HW = green_HW - torch.maximum(red, blue) < 24
        person_HW &= frame_HWC.amax(-1).float().quantile(0.98, dim=1)[:, None] > 24  # not the letterbox bar
        assert _iou(person_matte(frame_HWC, face), person_HW.float()) >= 0.95


def test_soft_edges_and_certain_insides(head):
    picture_HWC, mask_HW, face = head
    matte_HW = person_matte(picture_HWC, face)
    assert matte_HW.shape == mask_HW.shape and matte_HW.dtype == torch.float32
    assert float(matte_HW.min()) == 0 and float(matte_HW.max()) == 1
    soft = ((matte_HW > 0.05) & (matte_HW < 0.95)).float().mean()
    assert 0.005 < soft < 0.1


def test_the_same_every_time_and_leaves_the_picture_alone(head):
    picture_HWC, _, face = head
    before_HWC = picture_HWC.clone()
    first_HW = person_matte(picture_HWC, face)
    torch.rand(3), np.random.rand(3)
    assert torch.equal(person_matte(picture_HWC, face), first_HW)
    assert torch.equal(picture_HWC, before_HWC)


def test_a_large_picture_gets_the_mask_of_a_small_one(head):
    picture_HWC, mask_HW, face = head
    large_HWC = picture_HWC.repeat_interleave(4, 0).repeat_interleave(4, 1)
    moved = Face(box_xyxy=tuple(4 * side for side in face.box_xyxy), score=1.0)
    matte_HW = person_matte(large_HWC, moved)
    assert matte_HW.shape == (4 * SIDE, 4 * SIDE)
    assert _iou(matte_HW, mask_HW.repeat_interleave(4, 0).repeat_interleave(4, 1)) > 0.95


@pytest.mark.parametrize("level", [0, 14])
def test_black_bars_are_background(head, level):
    picture_HWC, mask_HW, face = head
    barred_HWC, person_HW = picture_HWC.clone(), mask_HW.clone()
    for bar in (barred_HWC[-30:], barred_HWC[:, :20], barred_HWC[:, -20:]):
        bar.fill_(level)
    for bar in (person_HW[-30:], person_HW[:, :20], person_HW[:, -20:]):
        bar.fill_(0)
    matte_HW = person_matte(barred_HWC, face)
    assert matte_HW[-30:].max() == matte_HW[:, :20].max() == matte_HW[:, -20:].max() == 0
    assert _iou(matte_HW, person_HW) > 0.92


def test_a_picture_that_holds_nobody_is_refused():
    empty_HWC = torch.full((200, 200, 3), 90, dtype=torch.uint8)
    with pytest.raises(SlotIDError, match="Connect a mask"):
        person_matte(empty_HWC, Face(box_xyxy=(-300, -300, 400, 400), score=1.0))


def test_without_opencv_says_what_to_install(head, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(SlotIDError, match="pip install opencv-python-headless"):
        person_matte(head[0], head[2])


def test_fast_enough(head):
    picture_HWC, _, face = head
    person_matte(picture_HWC, face)
    began = time.process_time()
    person_matte(picture_HWC, face)
    assert time.process_time() - began < 2  # 0.1 to 0.5 s on one core
