"""The InsightFace library itself, with planted models in place of its weights: they answer the same to every picture.

Shape letters: H W height and width, C channels, P points (68).
"""

import numpy as np
import pytest

from slotid_core.errors import SlotIDError
from slotid_core.reference.faces.face import Pose
from slotid_core.reference.faces.geometry import GENERIC_FACE, rotation_of
from slotid_core.reference.faces.insightface_faces import InsightFaces
from slotid_core.reference.faces.insightface_packs import PACKS

pytest.importorskip("insightface", reason="needs InsightFace: pip install insightface onnxruntime")
onnx = pytest.importorskip("onnx", reason="needs InsightFace: pip install insightface onnxruntime")

POSE = Pose(yaw=25.0, pitch=-12.0, roll=8.0)
CELLS = {8: 12800, 16: 3200, 32: 800}  # two anchors for each cell of a 640x640 picture
BOX = np.array([160.0, 96.0, 480.0, 448.0])  # in that picture
SCORE = 0.8


def save(path, given_shape, answers: dict[str, np.ndarray]) -> None:
    """A model whose outputs are constants."""
    values = [onnx.numpy_helper.from_array(value.astype(np.float32), f"{name}_is") for name, value in answers.items()]
    nodes = [onnx.helper.make_node("Identity", [f"{name}_is"], [name]) for name in answers]
    shape_of = onnx.helper.make_tensor_value_info
    outputs = [shape_of(name, onnx.TensorProto.FLOAT, value.shape) for name, value in answers.items()]
    given = [shape_of("picture", onnx.TensorProto.FLOAT, given_shape)]
    write(path, onnx.helper.make_graph(nodes, "planted", given, outputs, values))


def write(path, graph) -> None:
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)


def plant_detector(path) -> None:
    """One sure face from the cell at (320, 320), and one below the threshold next to it."""
    answers = {f"score_{stride}": np.zeros((count, 1)) for stride, count in CELLS.items()}
    answers |= {f"box_{stride}": np.zeros((count, 4)) for stride, count in CELLS.items()}
    answers |= {f"points_{stride}": np.zeros((count, 10)) for stride, count in CELLS.items()}
    cell = 2 * (10 * 20 + 10)
    answers["score_32"][cell], answers["score_32"][cell + 40] = SCORE, 0.3
    answers["box_32"][cell] = (320 - BOX[0], 320 - BOX[1], BOX[2] - 320, BOX[3] - 320)
    answers["box_32"][cell] /= 32
    save(path, [1, 3, 640, 640], answers)


def planted_points() -> np.ndarray:
    """``[68, 2]`` in the frame of 640x640: a face of known pose in the middle of the box."""
    turned_P3 = GENERIC_FACE @ rotation_of(POSE).T * 2.0
    return turned_P3[:, :2] - turned_P3[:, :2].mean(0) + (BOX[:2] + BOX[2:]) / 2


def plant_landmarks(path) -> None:
    # The library cuts a square of 1.5 times the box out and brings it to 192 pixels; answers are from -1 to 1 in it.
    scale = 192 / (1.5 * (BOX[2:] - BOX[:2]).max())
    cut_P2 = (planted_points() - (BOX[:2] + BOX[2:]) / 2) * scale + 96
    dense = np.zeros((1103, 3))
    dense[-68:, :2] = cut_P2 / 96 - 1
    save(path, [1, 3, 192, 192], {"points": dense.reshape(1, 3309)})


def plant_recognition(path) -> None:
    """The embedding is the picture's mean red, green and blue, and 509 zeros."""
    spread = onnx.numpy_helper.from_array(np.eye(3, 512, dtype=np.float32), "spread")
    nodes = [
        onnx.helper.make_node("ReduceMean", ["picture"], ["means"], axes=[2, 3], keepdims=0),
        onnx.helper.make_node("MatMul", ["means", "spread"], ["embedding"]),
    ]
    shape_of = onnx.helper.make_tensor_value_info
    given = [shape_of("picture", onnx.TensorProto.FLOAT, [1, 3, 112, 112])]
    outputs = [shape_of("embedding", onnx.TensorProto.FLOAT, [1, 512])]
    write(path, onnx.helper.make_graph(nodes, "planted", given, outputs, [spread]))


@pytest.fixture
def folder(tmp_path):
    detector, landmarks, recognition = (tmp_path / "models" / "buffalo_l" / name for name in PACKS["buffalo_l"].files)
    detector.parent.mkdir(parents=True)
    plant_detector(detector)
    plant_landmarks(landmarks)
    plant_recognition(recognition)
    return tmp_path


@pytest.fixture
def frame_HWC():
    """640x640, orange: red far above blue."""
    return np.broadcast_to(np.array([250, 140, 20], np.uint8), (640, 640, 3)).copy()


def test_a_planted_face_comes_out_as_it_was(folder, frame_HWC):
    backend = InsightFaces(folder)
    (face,) = backend.detect(frame_HWC, 0)
    assert face.score == pytest.approx(SCORE, abs=1e-6)
    assert face.landmarks_68x2 == pytest.approx(planted_points(), abs=0.1)
    pose = face.pose
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx((POSE.yaw, POSE.pitch, POSE.roll), abs=0.5)
    assert backend.best_score(frame_HWC) == pytest.approx(SCORE, abs=1e-6)


def test_the_embedding_is_of_the_colours_as_they_are(folder, frame_HWC):
    backend = InsightFaces(folder)
    embedding_D = backend.embed(frame_HWC, backend.detect(frame_HWC, 0)[0])
    means = (np.array([250, 140, 20]) - 127.5) / 127.5
    assert embedding_D.shape == (512,)
    assert embedding_D[:3] == pytest.approx(means / np.linalg.norm(means), abs=0.01)


def test_the_librarys_own_pose_has_the_same_signs(folder, frame_HWC):
    """Its mean face is another one, so the angles agree roughly."""
    backend = InsightFaces(folder)
    backend.detect(frame_HWC, 0)
    from insightface.app.common import Face

    theirs = Face(bbox=BOX)
    backend._models["landmark_3d_68"].get(frame_HWC, theirs)
    pitch, yaw, roll = theirs["pose"]
    assert (yaw, pitch, roll) == pytest.approx((POSE.yaw, POSE.pitch, POSE.roll), abs=8)


def test_damaged_files_are_named(folder, frame_HWC):
    (folder / "models" / "buffalo_l" / "1k3d68.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SlotIDError, match="buffalo_l does not load: "):
        InsightFaces(folder).detect(frame_HWC, 0)


def test_files_that_are_not_what_their_names_say(folder, frame_HWC):
    pack = folder / "models" / "buffalo_l"
    (pack / "1k3d68.onnx").write_bytes((pack / "w600k_r50.onnx").read_bytes())
    with pytest.raises(SlotIDError, match="no model for landmark_3d_68"):
        InsightFaces(folder).detect(frame_HWC, 0)
