"""pyproject.toml and its neighbours: what ComfyUI's registry reads, and lists that have to agree."""

import hashlib
import re
import sys

import pytest

tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")


@pytest.fixture(scope="module")
def pyproject(repo_root):
    return tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(path) -> set[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def test_registry_fields(pyproject, repo_root):
    project, comfy = pyproject["project"], pyproject["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9-]+", project["name"]) and "comfy" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["license"] == "Apache-2.0"
    assert project["requires-python"] == ">=3.10"
    assert comfy["PublisherId"] and comfy["DisplayName"] == "Slot-ID"
    assert comfy["requires-comfyui"] == ">=0.14.0"
    assert (repo_root / comfy["Icon"]).is_file()


def test_license_is_apache_2(repo_root):
    text = (repo_root / "LICENSE").read_text(encoding="utf-8")
    digest = "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4"
    assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_training_requirements_are_the_projects(pyproject, repo_root):
    project = pyproject["project"]
    expected = set(project["dependencies"]) | set(project["optional-dependencies"]["training"])
    assert requirements(repo_root / "training" / "requirements.txt") == expected


def test_node_requirements_leave_out_what_the_host_brings(repo_root):
    brought = {"torch", "numpy", "safetensors", "einops", "pillow", "scipy", "tqdm", "av"}
    named = {re.split(r"[^\w-]", line)[0].lower() for line in requirements(repo_root / "requirements.txt")}
    assert named.isdisjoint(brought)


def test_only_core_and_training_are_packaged(pyproject):
    assert pyproject["tool"]["setuptools"]["packages"]["find"]["include"] == ["slotid_core*", "training*"]


def test_the_published_archive_can_still_run_the_demo(repo_root):
    left_out = requirements(repo_root / ".comfyignore")
    needed = {"run.py", "pyproject.toml", "__init__.py", "training/", "slotid_core/", "nodes/", "web/"}
    assert left_out.isdisjoint(needed | {"workflows/", "locales/"}) and "tests/" in left_out
