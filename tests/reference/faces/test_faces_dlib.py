"""dlib on drawn faces of known pose. Shape letters: H W height and width, C channels (RGB)."""

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from slotid_core.errors import SlotIDError
from slotid_core.reference.faces.dlib_faces import DlibFaces


def placed(face_HWC: np.ndarray, height: int, width: int, side: int, left: int = 60, top: int = 40) -> np.ndarray:
    """A grey frame with the picture of a face in it."""
    frame_HWC = np.full((height, width, 3), 110, np.uint8)
    frame_HWC[top : top + side, left : left + side] = np.asarray(Image.fromarray(face_HWC).resize((side, side)))
    return frame_HWC


def the_face(backend, frame_HWC):
    faces = backend.detect(frame_HWC, 0)
    assert len(faces) == 1
    return faces[0]


def test_a_frontal_face(dlib_faces, drawn_face):
    frame_HWC, points_P2 = drawn_face()
    face = the_face(dlib_faces, frame_HWC)
    truth = (*points_P2.min(0), *points_P2.max(0))
    assert np.abs(np.array(face.box_xyxy) - truth).max() < 0.12 * (truth[3] - truth[1])
    assert face.landmarks_68x2.shape == (68, 2)
    assert abs(face.pose.yaw) < 5 and abs(face.pose.roll) < 3 and abs(face.pose.pitch) < 15
    assert face.expression.eyes_open > 0.5 and face.expression.mouth_open < 0.3
    assert face.score > 0 and face.score == pytest.approx(dlib_faces.best_score(frame_HWC), abs=0.5)


def test_yaw_follows_the_head_and_flips_in_the_mirror(dlib_faces, drawn_face):
    right_HWC, left_HWC = drawn_face(yaw=22)[0], drawn_face(yaw=-22)[0]
    right, left = the_face(dlib_faces, right_HWC), the_face(dlib_faces, left_HWC)
    mirrored = the_face(dlib_faces, right_HWC[:, ::-1])
    assert right.pose.yaw == pytest.approx(22, abs=8) and left.pose.yaw == pytest.approx(-22, abs=8)
    assert mirrored.pose.yaw == pytest.approx(-right.pose.yaw, abs=4)


@pytest.mark.parametrize("clockwise", [-15, 15])
def test_turning_the_frame_turns_the_roll(dlib_faces, drawn_face, clockwise):
    frame_HWC, _ = drawn_face()
    turned = Image.fromarray(frame_HWC).rotate(-clockwise, Image.Resampling.BICUBIC, fillcolor=(90, 110, 130))
    before, after = the_face(dlib_faces, frame_HWC), the_face(dlib_faces, np.array(turned))
    assert after.pose.roll - before.pose.roll == pytest.approx(clockwise, abs=4)


@pytest.mark.parametrize(("height", "width"), [(480, 854), (1080, 1920), (1920, 1080)])
def test_a_face_is_found_in_frames_of_any_size(dlib_faces, drawn_face, height, width):
    """The drawn head fills 0.72 of its picture from brow to chin."""
    frame_HWC = placed(drawn_face()[0], height, width, 300, left=500, top=150)
    face = the_face(dlib_faces, frame_HWC)
    left, top, right, bottom = face.box_xyxy
    assert (left + right) / 2 == pytest.approx(500 + 150, abs=12)
    assert bottom - top == pytest.approx(0.576 * 300, rel=0.2)


def test_small_faces_are_found_down_to_what_limits_says(dlib_faces, drawn_face):
    said = int(dlib_faces.limits(480, 854).split("at least ")[1].split(" ")[0])
    assert said == 30
    frontal_HWC, points_P2 = drawn_face()
    share = (points_P2[8, 1] - points_P2[19, 1]) / len(frontal_HWC)  # of the picture, from brow to chin
    small_HWC = placed(frontal_HWC, 480, 854, round(1.15 * said / share))
    tiny_HWC = placed(frontal_HWC, 480, 854, round(0.6 * said / share))
    assert the_face(dlib_faces, small_HWC).box_xyxy[3] < 130
    assert dlib_faces.detect(tiny_HWC, 0) == []


def test_24_pixels_in_1080p_are_not_found_and_limits_says_so(dlib_faces, drawn_face):
    frame_HWC = placed(drawn_face()[0], 1080, 1920, 42)
    assert dlib_faces.detect(frame_HWC, 0) == []
    assert "1920x1080, at least 48 pixels" in dlib_faces.limits(1080, 1920)


def test_two_faces_the_surer_one_first(dlib_faces, drawn_face):
    frame_HWC = np.concatenate([drawn_face(yaw=25)[0], drawn_face()[0]], axis=1)
    faces = dlib_faces.detect(frame_HWC, 0)
    assert len(faces) == 2
    assert faces[0].score > faces[1].score
    assert faces[0].box_xyxy[0] > 400 > faces[1].box_xyxy[2]


def test_a_face_at_the_border_may_reach_out_of_the_frame(dlib_faces, drawn_face):
    frame_HWC = drawn_face()[0][:, 95:]
    assert the_face(dlib_faces, frame_HWC).box_xyxy[0] < 8


def test_a_frame_without_a_face(dlib_faces):
    empty_HWC = np.full((300, 400, 3), 128, np.uint8)
    assert dlib_faces.detect(empty_HWC, 0) == []
    assert dlib_faces.best_score(empty_HWC) is None
    noise_HWC = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    assert dlib_faces.detect(noise_HWC, 0) == []
    assert (dlib_faces.best_score(noise_HWC) or -1) < 0


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (40, 30)])
def test_frames_too_small_for_any_face(dlib_faces, size):
    assert dlib_faces.detect(np.zeros((*size, 3), np.uint8), 0) == []


@pytest.mark.parametrize(
    "frame",
    [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3), np.float32)],
    ids=["grey", "alpha", "float"],
)
def test_other_frames_are_refused(dlib_faces, frame):
    with pytest.raises(SlotIDError, match="uint8 RGB"):
        dlib_faces.detect(frame, 0)


def test_threads_and_repeats_give_the_same(dlib_faces, drawn_face):
    frames = [drawn_face(yaw)[0] for yaw in (-15, 0, 15)] * 2
    one_by_one = [the_face(dlib_faces, frame_HWC) for frame_HWC in frames]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda frame_HWC: the_face(dlib_faces, frame_HWC), frames))
        embedded = list(pool.map(dlib_faces.embed, frames, one_by_one))
    for a, b in zip(one_by_one, together, strict=True):
        assert (a.landmarks_68x2 == b.landmarks_68x2).all() and a.pose == b.pose and a.score == b.score
    for n in range(3):
        assert (embedded[n] == embedded[n + 3]).all()
    assert np.linalg.norm(embedded[0]) == pytest.approx(1)
    assert embedded[0].shape == (128,)


def test_a_strided_frame_is_the_same_frame(dlib_faces, drawn_face):
    frame_HWC = drawn_face()[0]
    strided = np.zeros((400, 800, 3), np.uint8)[:, ::2]
    strided[:] = frame_HWC
    a, b = the_face(dlib_faces, frame_HWC), the_face(dlib_faces, strided)
    assert (dlib_faces.embed(frame_HWC, a) == dlib_faces.embed(strided, b)).all()


def test_a_moved_face_embeds_where_it_is_said_to_be(dlib_faces, drawn_face):
    """The tracker hands over faces of its own making: the landmarks say where to look."""
    frame_HWC = drawn_face()[0]
    face = the_face(dlib_faces, frame_HWC)
    moved_HWC = np.full((480, 500, 3), 128, np.uint8)
    moved_HWC[50:450, 30:430] = frame_HWC
    moved = replace(face, landmarks_68x2=face.landmarks_68x2 + [30, 50])
    assert dlib_faces.embed(frame_HWC, face) @ dlib_faces.embed(moved_HWC, moved) > 0.99
    assert dlib_faces.embed(frame_HWC, face) @ dlib_faces.embed(moved_HWC, face) < 0.99


def test_the_model_package_is_never_imported(dlib_faces, drawn_face):
    """It needs pkg_resources, which newer versions of setuptools lack."""
    the_face(dlib_faces, drawn_face()[0])
    assert "face_recognition_models" not in sys.modules


def without(monkeypatch, *names: str) -> None:
    """As if these packages were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in names else find(name, *rest))


@pytest.mark.parametrize("lacking", [("dlib",), ("face_recognition_models",), ("dlib", "face_recognition_models")])
def test_missing_packages(monkeypatch, lacking):
    without(monkeypatch, *lacking)
    with pytest.raises(SlotIDError, match="pip install dlib-bin face-recognition-models") as error:
        DlibFaces()
    named = str(error.value).split(":")[0]
    assert ("dlib-bin" in named) == ("dlib" in lacking)
    assert ("face-recognition-models" in named) == ("face_recognition_models" in lacking)


def test_an_incomplete_model_package(monkeypatch, tmp_path, dlib_faces, drawn_face):
    (tmp_path / "face_recognition_models").mkdir()
    (tmp_path / "face_recognition_models" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SlotIDError, match="shape_predictor_68_face_landmarks.dat.*--force-reinstall"):
        DlibFaces().detect(drawn_face()[0], 0)


def test_the_licence_says_non_commercial():
    assert "300-W" in DlibFaces.licence and "excludes commercial use" in DlibFaces.licence
