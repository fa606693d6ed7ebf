"""The root __init__.py, ComfyUI's way in, does no harm where there is no ComfyUI: plain import and pytest."""

import shutil
import subprocess
import sys

import pytest

LOAD = """
import importlib.util, pathlib, sys
root = pathlib.Path(sys.argv[1])
entry = root / "__init__.py"
spec = importlib.util.spec_from_file_location("pack", entry, submodule_search_locations=[str(root)])
module = importlib.util.module_from_spec(spec)
sys.modules["pack"] = module
path_before = list(sys.path)
spec.loader.exec_module(module)
assert sys.path == path_before, "sys.path was edited at import"
assert getattr(module, "NODE_CLASS_MAPPINGS", None) is None, "ComfyUI would then ignore comfy_entrypoint"
assert {"comfy", "comfy_api", "folder_paths", "nodes"}.isdisjoint(sys.modules)
"""


def run(command, cwd):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_import_without_a_host(repo_root, tmp_path):
    result = run([sys.executable, "-I", "-c", LOAD, str(repo_root)], tmp_path)
    assert result.returncode == 0, result.stderr


def collect_in_copy(repo_root, checkout, entry):
    """Run one test in a checkout of that name whose root __init__.py holds `entry`."""
    (checkout / "tests" / "core").mkdir(parents=True)
    (checkout / "__init__.py").write_text(entry, encoding="utf-8")
    for name in ("pyproject.toml", "run.py", "tests/conftest.py"):
        shutil.copy(repo_root / name, checkout / name)
    (checkout / "tests/core/test_only.py").write_text("def test_only():\n    assert True\n", encoding="utf-8")
    return run([sys.executable, "-I", "-m", "pytest", "-q", "-p", "no:cacheprovider"], checkout)


@pytest.mark.parametrize("folder", ["slot-id", "slot id é"])
def test_pytest_collects_in_a_checkout_that_is_no_identifier(repo_root, tmp_path, folder):
    entry = (repo_root / "__init__.py").read_text(encoding="utf-8")
    result = collect_in_copy(repo_root, tmp_path / folder, entry)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1].startswith("1 passed")


def test_the_check_sees_an_unguarded_entry(repo_root, tmp_path):
    result = collect_in_copy(repo_root, tmp_path / "slot-id", "from .nodes import comfy_entrypoint\n")
    assert result.returncode != 0
