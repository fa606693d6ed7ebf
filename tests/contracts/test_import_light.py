"""What importing costs: no module of the core, and no guarded entry, pulls in a heavy library."""

import json
import subprocess
import sys

import pytest

HEAVY = (
    "dlib", "matplotlib", "onnxruntime", "insightface", "cv2", "diffusers", "av", "transformers", "peft", "accelerate",
    "PIL",
)  # fmt: skip

EVERY_CORE_MODULE = """
import importlib, pkgutil, slotid_core
for module in pkgutil.walk_packages(slotid_core.__path__, "slotid_core."):
    importlib.import_module(module.name)
"""


def modules_after(code: str, cwd) -> list[str]:
    """Top-level names in sys.modules after `code`, in an interpreter of its own, far from the repository."""
    report = "\nimport json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    result = subprocess.run(
        [sys.executable, "-I", "-c", code + report], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "code",
    ["import slotid_core", "import slotid_core.reference", EVERY_CORE_MODULE],
    ids=["core", "reference", "all"],
)
def test_core_imports_nothing_heavy(code, tmp_path):
    loaded = modules_after(code, tmp_path)
    assert "slotid_core" in loaded
    assert set(HEAVY).isdisjoint(loaded)


def test_the_check_sees_a_heavy_import(tmp_path):
    assert "av" in modules_after("import slotid_core, av", tmp_path)


def test_the_install_exposes_core_and_training_but_never_nodes(tmp_path):
    """`nodes` on sys.path would hide ComfyUI's own nodes.py."""
    code = "import importlib.util as u, slotid_core, training; assert u.find_spec('nodes') is None"
    assert {"slotid_core", "training"} <= set(modules_after(code, tmp_path))
