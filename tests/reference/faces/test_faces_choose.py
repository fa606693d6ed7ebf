"""Which backend is taken, and what is said where there is none."""

import importlib.util
import json
import logging
import subprocess
import sys

import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.reference.crop import Box
from slotid_core.reference.faces import BACKENDS, choose_backend
from slotid_core.reference.faces.insightface_packs import PACKS

LANDMARKS = {"frames": [[], []], "image_size": (48, 64)}
MASK = torch.ones(48, 64)


@pytest.fixture
def installed(monkeypatch):
    """Makes exactly these packages look installed, of those that face backends need."""

    def make(*names: str) -> None:
        find = importlib.util.find_spec
        known = ("dlib", "face_recognition_models", "insightface", "onnxruntime")
        there = importlib.util.spec_from_loader("there", loader=None)

        def look_up(name, *rest):
            if name in known:
                return there if name in names else None
            return find(name, *rest)

        monkeypatch.setattr(importlib.util, "find_spec", look_up)

    return make


@pytest.fixture
def folder(tmp_path):
    """InsightFace's folder with the pack antelopev2."""
    for name in PACKS["antelopev2"].files:
        path = tmp_path / "full" / "models" / "antelopev2" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "full"


ALL = ("dlib", "face_recognition_models", "insightface", "onnxruntime")


def test_auto_prefers_what_the_user_connects(installed, folder):
    installed(*ALL)
    place, mask = {"box": Box(1, 2, 3, 4)}, {"mask": MASK}
    taken = [
        choose_backend(frames=2, insightface_folder=folder, **given).name
        for given in ({"landmarks": LANDMARKS}, place | mask, place, mask, {})
    ]
    assert taken == ["mediapipe", "box", "box", "box", "insightface antelopev2"]
    assert choose_backend(frames=2, insightface_folder=folder / "nothing").name == "dlib"
    for given in (place, mask):
        with pytest.raises(SlotIDError, match="landmarks and a box or mask.* Disconnect one"):
            choose_backend(frames=2, landmarks=LANDMARKS, **given)


@pytest.mark.parametrize("there", [("insightface",), ("onnxruntime",), ()])
def test_auto_needs_all_packages_of_a_backend(installed, folder, there):
    installed("dlib", "face_recognition_models", *there)
    assert choose_backend(frames=2, insightface_folder=folder).name == "dlib"


def test_auto_says_what_it_took_and_under_which_licence(installed, folder, caplog):
    installed(*ALL)
    with caplog.at_level(logging.INFO, "slotid"):
        choose_backend(frames=2, insightface_folder=folder)
    assert "insightface antelopev2" in caplog.text and "non-commercial" in caplog.text


def test_nothing_at_hand_names_every_way_out_with_its_licence(installed, tmp_path):
    installed()
    with pytest.raises(SlotIDError) as error:
        choose_backend(frames=2, insightface_folder=tmp_path)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == [
        "- mediapipe",
        "- dlib",
        "- insightface",
        "- box",
        "- mask",
    ]
    assert "non-commercial" in lines[3] and lines[3].count("Licence:") == 1
    assert "Apache-2.0" in lines[1]
    assert "pip install dlib-bin face-recognition-models" in lines[2] and "excludes commercial use" in lines[2]
    assert "pip install insightface onnxruntime" in lines[3] and "non-commercial" in lines[3]


def test_nothing_at_hand_but_the_insightface_packages(installed, tmp_path):
    installed("insightface", "onnxruntime")
    lacks = "buffalo_l is not complete.*det_10g.onnx, 1k3d68.onnx, w600k_r50.onnx"
    with pytest.raises(SlotIDError, match=lacks) as error:
        choose_backend(frames=2, insightface_folder=tmp_path)
    (line,) = (line for line in str(error.value).splitlines() if line.startswith("- insightface"))
    assert line.count("Licence:") == 1


def test_the_backend_asked_for_is_taken_or_refused_never_replaced(installed, tmp_path):
    installed(*ALL)
    assert choose_backend("dlib", frames=2).name == "dlib"
    assert choose_backend("box", frames=2, mask=MASK).name == "box"
    with pytest.raises(SlotIDError, match="Connect the output face_landmarks"):
        choose_backend("mediapipe", frames=2)
    with pytest.raises(SlotIDError, match="needs a box or a mask"):
        choose_backend("box", frames=2)
    with pytest.raises(SlotIDError, match="buffalo_l is not complete"):
        choose_backend("insightface", frames=2, insightface_folder=tmp_path)
    installed("insightface", "onnxruntime")
    with pytest.raises(SlotIDError, match="pip install dlib-bin"):
        choose_backend("dlib", frames=2)
    installed("dlib", "face_recognition_models")
    with pytest.raises(SlotIDError, match="pip install insightface onnxruntime"):
        choose_backend("insightface", frames=2)


@pytest.mark.parametrize("name", ["dlib", "insightface", "mediapipe"])
def test_a_box_that_the_backend_would_not_look_at_is_refused(installed, name):
    installed(*ALL)
    for given in ({"box": Box(1, 2, 3, 4)}, {"mask": MASK}):
        with pytest.raises(SlotIDError, match=f"box or mask is given, and the face backend {name} does not use it"):
            choose_backend(name, frames=2, **given, **({"landmarks": LANDMARKS} if name == "mediapipe" else {}))
    if name != "mediapipe":
        with pytest.raises(SlotIDError, match=f"landmarks are connected, and the face backend {name}"):
            choose_backend(name, frames=2, landmarks=LANDMARKS)


def test_only_ways_out_that_the_caller_has_are_named(installed, tmp_path):
    installed()
    with pytest.raises(SlotIDError) as error:
        choose_backend(frames=2, insightface_folder=tmp_path, offered=("insightface", "dlib"))
    assert [line.split(":")[0] for line in str(error.value).splitlines()[1:]] == ["- dlib", "- insightface"]


def test_a_name_that_is_none(installed):
    with pytest.raises(SlotIDError, match=f"'yolo', expected one of: {', '.join(BACKENDS)}"):
        choose_backend("yolo", frames=2)
    installed(*ALL)
    with pytest.raises(SlotIDError, match="'buffalo_sc', expected one with 3D landmarks"):
        choose_backend(frames=2, pack="buffalo_sc")


def test_without_a_folder_insightface_looks_in_the_home(installed, monkeypatch, tmp_path):
    installed("insightface", "onnxruntime")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with pytest.raises(SlotIDError, match="[.]insightface.models.buffalo_l lacks"):
        choose_backend("insightface", frames=2)


def test_importing_and_making_backends_loads_no_library(tmp_path):
    code = """
import importlib, json, pkgutil, sys
import slotid_core.reference.faces as faces
for module in pkgutil.iter_modules(faces.__path__, faces.__name__ + "."):
    importlib.import_module(module.name)
from slotid_core.reference.crop import Box
faces.choose_backend(frames=2, box=Box(0, 0, 1, 1))
if len(sys.argv) > 1:
    faces.choose_backend("dlib", frames=2)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
    has_dlib = importlib.util.find_spec("dlib") and importlib.util.find_spec("face_recognition_models")
    command = [sys.executable, "-I", "-c", code, *(["dlib"] if has_dlib else [])]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    heavy = {"dlib", "_dlib_pybind11", "cv2", "insightface", "onnxruntime", "PIL", "av", "face_recognition_models"}
    assert heavy.isdisjoint(json.loads(result.stdout.splitlines()[-1]))
