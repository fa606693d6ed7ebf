"""The InsightFace backend against a stand-in for the library, whose models answer as told.

The weights may not be shipped; the library itself, with planted models, is in test_faces_insightface_library.py.
Shape letters: H W height and width, C channels, P points (68).
"""

import sys

import numpy as np
import pytest

from slotid_core.errors import SlotIDError
from slotid_core.reference.faces.face import Pose
from slotid_core.reference.faces.geometry import GENERIC_FACE, rotation_of
from slotid_core.reference.faces.insightface_faces import InsightFaces
from slotid_core.reference.faces.insightface_packs import PACKS

STAND_IN = """
import numpy as np

made = []


class Detector:
    det_thresh = 0.5

    def detect(self, img, max_num=0, metric="default"):
        made[-1]["seen"] = img.copy()
        candidates = np.array([[10, 20, 110, 140, 0.6], [120, 20, 220, 140, 0.9], [5, 5, 9, 9, 0.2]], np.float32)
        return candidates[candidates[:, 4] >= self.det_thresh], None


class Landmarks:
    def get(self, img, face):
        left, top, right, bottom = face["bbox"]
        return made[-1]["shape"] + np.array([(left + right) / 2, (top + bottom) / 2, 0], np.float32)


class Recognition:
    def get(self, img, face):
        made[-1]["kps"] = face["kps"]
        x, y = face["kps"][2].astype(int)
        face["embedding"] = img[y, x].astype(np.float32)
        return face["embedding"]


class FaceAnalysis:
    models = {"detection": Detector(), "landmark_3d_68": Landmarks(), "recognition": Recognition()}
    fails = None

    def __init__(self, name, root="~/.insightface", allowed_modules=None, **kwargs):
        if self.fails:
            raise self.fails
        self.models = {task: model for task, model in self.models.items() if task in allowed_modules}
        made.append({"name": name, "kwargs": kwargs})

    def prepare(self, ctx_id, det_thresh=0.5):
        self.models["detection"].det_thresh = det_thresh
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The stand-in's module, importable as the real one is."""
    for name in ("insightface", "insightface.app", "insightface.app.common", "onnxruntime"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    app = tmp_path / "site" / "insightface" / "app"
    app.mkdir(parents=True)
    (app.parent / "__init__.py").touch()
    (app / "__init__.py").write_text(STAND_IN, encoding="utf-8")
    (app / "common.py").write_text("class Face(dict):\n    pass\n", encoding="utf-8")
    (tmp_path / "site" / "onnxruntime.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    import insightface.app

    yield insightface.app
    for name in ("insightface", "insightface.app", "insightface.app.common"):
        sys.modules.pop(name, None)


@pytest.fixture
def folder(tmp_path):
    """InsightFace's folder with the pack buffalo_l."""
    for name in PACKS["buffalo_l"].files:
        path = tmp_path / "models" / "buffalo_l" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.fixture
def frame_HWC():
    """Every pixel differs from its neighbours, and red from blue."""
    return np.random.default_rng(0).integers(0, 255, (160, 240, 3), np.uint8)


def make(folder, library, pose=(0.0, 0.0, 0.0)) -> InsightFaces:
    """The backend, whose faces all have this yaw, pitch and roll; depths are turned round, as InsightFace's are."""
    yaw, pitch, roll = pose
    backend = InsightFaces(folder)
    shape_P3 = GENERIC_FACE @ rotation_of(Pose(yaw=yaw, pitch=pitch, roll=roll)).T * [0.5, 0.5, -0.5]
    backend._loaded()
    library.made[-1]["shape"] = (shape_P3 - shape_P3.mean(0)).astype(np.float32)
    return backend


def test_faces_in_the_projects_own_terms(folder, library, frame_HWC):
    faces = make(folder, library, (30, -10, 5)).detect(frame_HWC, 0)
    assert [round(face.score, 3) for face in faces] == [0.9, 0.6]
    for face, middle in zip(faces, (170, 60), strict=True):
        assert (face.pose.yaw, face.pose.pitch, face.pose.roll) == pytest.approx((30, -10, 5), abs=0.2)
        assert face.landmarks_68x2.shape == (68, 2)
        assert face.landmarks_68x2.mean(0) == pytest.approx((middle, 80), abs=1e-3)
        assert face.box_xyxy == (*face.landmarks_68x2.min(0), *face.landmarks_68x2.max(0))
        assert 0.5 < face.expression.eyes_open < 0.9 and face.expression.mouth_open < 0.1


def test_the_library_sees_bgr(folder, library, frame_HWC):
    make(folder, library).detect(frame_HWC, 0)
    assert (library.made[-1]["seen"] == frame_HWC[..., ::-1]).all()


def test_embedding_by_five_points(folder, library, frame_HWC):
    backend = make(folder, library)
    face = backend.detect(frame_HWC, 0)[0]
    embedding_D = backend.embed(frame_HWC, face)
    points_P2, kps_52 = face.landmarks_68x2, library.made[-1]["kps"]
    assert kps_52.dtype == np.float32
    assert kps_52[0] == pytest.approx(points_P2[36:42].mean(0)) and kps_52[1] == pytest.approx(points_P2[42:48].mean(0))
    assert kps_52[2:] == pytest.approx(points_P2[[30, 48, 54]])
    x, y = points_P2[30].astype(int)
    bgr = frame_HWC[y, x, ::-1].astype(float)
    assert embedding_D == pytest.approx(bgr / np.linalg.norm(bgr), abs=1e-6)


def test_weak_faces_are_not_faces_but_have_a_score(folder, library, frame_HWC):
    backend = make(folder, library)
    library.FaceAnalysis.models["detection"].detect = lambda img, max_num, metric: (
        np.array([[5, 5, 9, 9, 0.2]], np.float32)[: int(backend._models["detection"].det_thresh <= 0.2)],
        None,
    )
    assert backend.detect(frame_HWC, 0) == []
    assert backend.best_score(frame_HWC) == pytest.approx(0.2)
    assert backend.detect(frame_HWC, 0) == []


def test_models_are_loaded_once_when_needed_from_the_pack_alone(folder, library, frame_HWC):
    backend = InsightFaces(folder)
    assert library.made == [] and backend.name == "insightface buffalo_l"
    for _ in range(2):
        with pytest.raises(KeyError, match="shape"):  # the stand-in has not been told what faces look like
            backend.detect(frame_HWC, 0)
    assert len(library.made) == 1
    # A name would make the library download what it misses; so would a path that is not there.
    assert library.made[0]["name"] == str((folder / "models" / "buffalo_l").resolve())
    assert library.made[0]["kwargs"] == {"providers": ["CPUExecutionProvider"]}


@pytest.mark.parametrize("task", ["landmark_3d_68", "recognition"])
def test_a_pack_that_lacks_a_model(folder, library, frame_HWC, monkeypatch, task):
    models = {name: model for name, model in library.FaceAnalysis.models.items() if name != task}
    monkeypatch.setattr(library.FaceAnalysis, "models", models)
    with pytest.raises(SlotIDError, match=f"does not load: no model for {task}.*get the pack again"):
        InsightFaces(folder).detect(frame_HWC, 0)


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("INVALID_PROTOBUF")], ids=["assert", "runtime"])
def test_damaged_models(folder, library, frame_HWC, monkeypatch, error):
    monkeypatch.setattr(library.FaceAnalysis, "fails", error)
    with pytest.raises(SlotIDError, match=f"does not load: {error or 'AssertionError'}.*get the pack again") as raised:
        InsightFaces(folder).detect(frame_HWC, 0)
    assert str(folder / "models" / "buffalo_l") in str(raised.value)


def test_a_library_that_does_not_import(folder, library, frame_HWC, monkeypatch):
    monkeypatch.delattr(library, "FaceAnalysis")
    with pytest.raises(SlotIDError, match="installed but does not load.*pip install --force-reinstall"):
        InsightFaces(folder).detect(frame_HWC, 0)


def test_missing_pack_and_download(tmp_path, library, monkeypatch):
    from slotid_core.reference.faces import insightface_faces

    with pytest.raises(SlotIDError, match="buffalo_l is not complete.*Turn on download.*non-commercial"):
        InsightFaces(tmp_path)
    asked = []
    monkeypatch.setattr(insightface_faces, "download_pack", lambda *call: asked.append(call))
    assert InsightFaces(tmp_path, download=True).name == "insightface buffalo_l"
    assert InsightFaces(tmp_path, pack="antelopev2", download=True, progress=print).name == "insightface antelopev2"
    assert asked == [(tmp_path, "buffalo_l", None), (tmp_path, "antelopev2", print)]


def test_what_is_there_is_not_downloaded(folder, library, monkeypatch):
    from slotid_core.reference.faces import insightface_faces

    monkeypatch.setattr(insightface_faces, "download_pack", lambda *call: pytest.fail("downloaded"))
    assert InsightFaces(folder, download=True).name == "insightface buffalo_l"


def test_limits_name_a_size(folder, library):
    assert "1920x1080, faces of at least about 48 pixels" in InsightFaces(folder).limits(1080, 1920)
    assert "320x240, faces of at least about 16 pixels" in InsightFaces(folder).limits(240, 320)
