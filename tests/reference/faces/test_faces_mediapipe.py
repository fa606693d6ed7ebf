"""Faces out of ComfyUI's FACE_LANDMARKS. Shape letters: M points of the mesh (478), P points (68)."""

import importlib.util
import re

import numpy as np
import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.reference.faces.face import Pose
from slotid_core.reference.faces.geometry import GENERIC_FACE, rotation_of
from slotid_core.reference.faces.landmarks import face_from_landmarks
from slotid_core.reference.faces.mediapipe_landmarks import _IBUG_68, MediaPipeFaces

FRAME = np.zeros((240, 320, 3), np.uint8)

# Points of MediaPipe's mesh on some contours, as its documentation draws them; left and right are the person's own.
LIPS = {61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409}
LIPS |= {78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415}
LEFT_EYE = {263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398}
RIGHT_EYE = {33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173}
LEFT_BROW, RIGHT_BROW = {276, 283, 282, 295, 285, 300, 293, 334, 296, 336}, {46, 53, 52, 65, 55, 70, 63, 105, 66, 107}
OVAL = {10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377}
OVAL |= {152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109}
NOSE = {168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 97, 326, 327, 294, 278, 344, 440, 275, 45, 220, 115, 48, 64}


def projected(yaw: float, pitch: float = 0.0, roll: float = 0.0, middle=(160.0, 90.0)) -> np.ndarray:
    return (GENERIC_FACE @ rotation_of(Pose(yaw=yaw, pitch=pitch, roll=roll)).T)[:, :2] + middle


def face_dict(points_P2: np.ndarray, score: float = 0.9) -> dict:
    """As the node gives it; points of the mesh that are not used lie somewhere."""
    mesh_M2 = np.random.default_rng(0).uniform(0, 240, (478, 2)).astype(np.float32)
    mesh_M2[list(_IBUG_68)] = points_P2
    return {"landmarks_xy": mesh_M2, "score": score, "bbox_xyxy": np.array([1, 2, 3, 4], np.float32), "blendshapes": {}}


def payload(*frames: list[dict]) -> dict:
    return {"frames": list(frames), "image_size": (240, 320), "connection_sets": {}}


def test_pose_expression_and_box_are_those_of_the_68_points():
    points_P2 = projected(25, -10, 5)
    backend = MediaPipeFaces(payload([], [face_dict(points_P2)]), frames=2)
    assert backend.detect(FRAME, 0) == []
    (face,) = backend.detect(FRAME, 1)
    assert (face.pose.yaw, face.pose.pitch, face.pose.roll) == pytest.approx((25, -10, 5), abs=0.1)
    expected = face_from_landmarks(points_P2.astype(np.float32).astype(float), 0.9)
    assert face.expression == expected.expression
    assert face.box_xyxy == expected.box_xyxy
    assert (face.landmarks_68x2 == expected.landmarks_68x2).all()


@pytest.mark.parametrize("middle", [(-200.0, 90.0), (600.0, 90.0), (160.0, -200.0), (160.0, 500.0)])
def test_a_face_that_has_left_the_frame_is_none(middle):
    """The detector follows faces a while; nothing can be cut out there."""
    inside, outside = face_dict(projected(0)), face_dict(projected(0, middle=middle))
    backend = MediaPipeFaces(payload([outside], [inside, outside]), frames=2)
    assert backend.detect(FRAME, 0) == [] and len(backend.detect(FRAME, 1)) == 1


def test_the_gaze_is_that_of_the_head_and_of_the_eyes_in_it():
    """Left is the person's own: an eye that looks out on the left looks to the right edge of the picture."""
    names = [f"eyeLook{way}{side}" for way in ("In", "Out", "Up", "Down") for side in ("Left", "Right")]
    to_the_right = {"eyeLookOutLeft": 0.6, "eyeLookInRight": 0.6}

    def gaze(yaw: float, **shapes: float) -> float:
        given = face_dict(projected(yaw)) | {"blendshapes": dict.fromkeys(names, 0.05) | shapes}
        (face,) = MediaPipeFaces(payload([given]), frames=1).detect(FRAME, 0)
        return face.gaze

    assert gaze(0) == pytest.approx(0, abs=0.1) and gaze(20) == pytest.approx(20, abs=0.1)
    assert 15 < gaze(0, **to_the_right) < 25
    assert abs(gaze(-20, **to_the_right)) < 5
    assert gaze(70, eyeLookOutLeft=1.0, eyeLookInRight=1.0) == 90
    assert -25 < gaze(0, eyeLookInLeft=0.6, eyeLookOutRight=0.6) < -15
    (without,) = MediaPipeFaces(payload([face_dict(projected(0))]), frames=1).detect(FRAME, 0)
    assert without.gaze is None


def test_the_surest_face_comes_first():
    faces = [face_dict(projected(0), 0.6), face_dict(projected(20, middle=(100, 90)), 0.8)]
    assert [face.score for face in MediaPipeFaces(payload(faces), frames=1).detect(FRAME, 0)] == [0.8, 0.6]


def test_no_embeddings_and_a_commercial_licence():
    backend = MediaPipeFaces(payload([]), frames=1)
    assert backend.same_person is None and backend.best_score(FRAME) is None
    assert "Apache-2.0" in backend.licence and "min_confidence" in backend.limits(240, 320)


def test_each_of_the_68_points_lies_on_its_contour():
    points = np.array(_IBUG_68)
    assert len(set(_IBUG_68)) == 68
    assert set(points[0:17]) <= OVAL
    assert set(points[17:22]) <= RIGHT_BROW and set(points[22:27]) <= LEFT_BROW
    assert set(points[27:31]) <= NOSE
    assert set(points[36:42]) <= RIGHT_EYE and set(points[42:48]) <= LEFT_EYE
    assert set(points[48:68]) <= LIPS
    # Corners of eyes and mouth, chin, tip of the nose.
    assert points[[36, 39, 42, 45, 48, 54, 8, 30]].tolist() == [33, 133, 362, 263, 61, 291, 152, 4]


def test_another_number_of_frames_is_refused():
    with pytest.raises(SlotIDError, match="2 frames for a clip of 65"):
        MediaPipeFaces(payload([], []), frames=65)


def test_another_size_is_refused():
    backend = MediaPipeFaces(payload([]), frames=1)
    with pytest.raises(SlotIDError, match="320x240 for frames of 640x480"):
        backend.detect(np.zeros((480, 640, 3), np.uint8), 0)


@pytest.mark.parametrize("other", [None, [], {"frames": []}, torch.zeros(3)], ids=str)
def test_other_values_are_refused(other):
    with pytest.raises(SlotIDError, match="Connect the output face_landmarks"):
        MediaPipeFaces(other, frames=0)


@pytest.mark.parametrize(
    "mesh", [np.zeros((5, 2)), np.zeros((478, 3)), np.full((478, 2), np.nan)], ids=["5", "3d", "nan"]
)
def test_other_meshes_are_refused(mesh):
    with pytest.raises(SlotIDError, match="face mesh"):
        MediaPipeFaces(payload([{"landmarks_xy": mesh, "score": 1.0}]), frames=1).detect(FRAME, 0)


def test_what_comfyui_gives_is_understood(comfy_root):
    """Its own landmarker with random weights: the numbers mean nothing, the types and shapes are the real ones."""
    path = comfy_root / "comfy_extras" / "mediapipe" / "face_landmarker.py"
    if not path.is_file():
        pytest.skip("this ComfyUI is older than its MediaPipe node")
    spec = importlib.util.spec_from_file_location("comfy_face_landmarker", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    model = module.FaceLandmarker(device="cpu", dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.05)
        frames = model.detect_batch([FRAME, FRAME + 90], num_faces=2, score_thresh=0.0)
    for frame in frames:
        for face in frame:
            face["landmarks_xy"] %= 200  # random weights find them anywhere, and outside of the frame is no face
    assert all(len(frame) == 2 for frame in frames)
    backend = MediaPipeFaces({"frames": frames, "image_size": (240, 320), "connection_sets": {}}, frames=2)
    for index in range(2):
        faces = backend.detect(FRAME, index)
        assert len(faces) == 2 and faces[0].score >= faces[1].score
        assert all(np.isfinite(face.box_xyxy).all() and np.isfinite(face.pose.yaw) for face in faces)

    # The node hands over what the landmarker found under these names.
    node = (comfy_root / "comfy_extras" / "nodes_mediapipe.py").read_text(encoding="utf-8")
    assert re.search(r'io\.NodeOutput\(\{"frames": frames, "image_size": \(H, W\),', node)
    assert 'io.Custom("FACE_LANDMARKS")' in node
