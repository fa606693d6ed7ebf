"""The doors between the rooms: who may import what, held by walking the syntax trees.

A *room* is a top-level part of the repository: `core` (slotid_core/), `nodes` (nodes/ and the root
__init__.py), `training` (training/).
"""

import ast
import re
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

HOST = r"comfy\w*|folder_paths|nodes|node_helpers|server|execution|latent_preview"
TRAINERS = r"diffusers|peft|accelerate|training"
HEAVY = r"av|cv2|PIL|matplotlib|insightface|diffusers|transformers|mediapipe|onnxruntime|dlib|flash_attn"

# (rooms, forbidden top-level modules, why)
FORBIDDEN = [
    ("core", HOST, "the core knows no host"),
    ("core", TRAINERS, "the core knows no trainer"),
    ("nodes", TRAINERS, "nodes and training never meet"),
    ("training", HOST, "training knows no ComfyUI"),
    ("core nodes", "slotid_core|nodes", "inside the pack imports are relative: its name is a path"),
]

# What relative imports may lead to.
RELATIVE = {"core": {"slotid_core"}, "nodes": {"slotid_core", "nodes"}, "training": {"training"}}

# (rooms, modules that may be imported inside functions only)
LAZY = [("core nodes", HEAVY)]

# Everything that the core may import besides itself and the standard library, and where.
CORE_MAY = [
    ("slotid_core/", "torch|numpy|safetensors|flash_attn"),
    ("slotid_core/figure.py", "matplotlib"),
    ("slotid_core/reference/", HEAVY),
]

# (pattern of the only files, names or attributes or strings that occur in no other file of any room)
SEAMS = [("nodes/host_*.py", "transformer_options|ModelPatcher")]

# Parts of diffusers that only training/wan_diffusers.py may import, for types too; the schedulers are
# anybody's in training. Bare `import diffusers` would open all of it.
DIFFUSERS_WAN = r"diffusers|diffusers\.(models|pipelines)\b.*|diffusers\..*(Wan|Transformer|Autoencoder).*"


@dataclass(frozen=True)
class Import:
    """One imported name: `module` is dotted, relative ones resolved from the repository's root."""

    module: str
    line: int
    relative: bool
    at_import: bool  # runs when the file is imported: neither inside a function nor for type checkers only

    @property
    def top(self) -> str:
        return self.module.split(".")[0]


def room_of(path: str) -> str:
    return {"slotid_core": "core", "training": "training"}.get(path.split("/")[0], "nodes")


def room_files(root: Path) -> dict[str, ast.Module]:
    """Syntax trees by path relative to the root, with forward slashes."""
    files = [root / "__init__.py"]
    for folder in ("slotid_core", "nodes", "training"):
        files += sorted((root / folder).rglob("*.py"))
    return {
        file.relative_to(root).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
        for file in files
        if file.is_file()
    }


def imports_of(path: str, tree: ast.Module) -> list[Import]:
    found: list[Import] = []

    def visit(node: ast.AST, at_import: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, False, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.split("/")[: -node.level] if node.level else []
            base = [*above, node.module] if node.module else above
            found.extend(
                Import(".".join([*base, alias.name]), node.lineno, node.level > 0, at_import) for alias in node.names
            )
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            if re.search(r"\b(__import__|import_module)$", ast.unparse(node.func)):
                found.append(Import(node.args[0].value, node.lineno, False, at_import))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            at_import = False
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            at_import = False
        for child in ast.iter_child_nodes(node):
            visit(child, at_import)

    visit(tree, True)
    return found


def words_of(tree: ast.Module) -> list[tuple[str, int]]:
    """Names, attributes, parameters and strings with their lines, without docstrings and comments."""
    words = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
        line = getattr(node, "lineno", 0)
        for field in ("id", "attr", "arg", "name", "value"):
            word = getattr(node, field, None)
            if isinstance(word, str):
                words.append((word.split(".")[-1], line))
    return words


def violations(root: Path) -> list[str]:
    """Every broken rule as `path:line: what (why)`."""
    found = []
    for path, tree in room_files(root).items():
        room = room_of(path)

        def broken(line: int, what: str, path: str = path) -> None:
            found.append(f"{path}:{line}: {what}")

        for item in imports_of(path, tree):
            for rooms, modules, why in FORBIDDEN:
                if room in rooms.split() and not item.relative and re.fullmatch(modules, item.top):
                    broken(item.line, f"imports {item.module} ({why})")
            if item.relative and item.top not in RELATIVE[room]:
                broken(item.line, f"reaches {item.module} by a relative import ({room} has no door there)")
            for rooms, modules in LAZY:
                if room in rooms.split() and item.at_import and not item.relative:
                    if re.fullmatch(modules, item.top):
                        broken(item.line, f"imports {item.module} at module level (it loads when first used)")
            if room == "core" and not item.relative and item.top not in sys.stdlib_module_names:
                if not any(path.startswith(place) and re.fullmatch(may, item.top) for place, may in CORE_MAY):
                    broken(item.line, f"imports {item.module} (not among what the core is built on)")
            if room == "training" and path != "training/wan_diffusers.py":
                if re.fullmatch(DIFFUSERS_WAN, item.module):
                    broken(item.line, f"imports {item.module} (diffusers' Wan has one seam)")

        if room != "training":
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                    broken(node.lineno, "calls print (the logger is `slotid`)")
        for word, line in words_of(tree):
            for seam, names in SEAMS:
                if not fnmatch(path, seam) and re.fullmatch(names, word):
                    broken(line, f"touches {word} (that belongs to {seam})")
    return found


def test_the_doors_hold(repo_root):
    found = violations(repo_root)
    assert not found, "\n" + "\n".join(found)


def test_the_rooms_are_there(repo_root):
    """Guards the walk itself: a renamed folder must not pass as a clean one."""
    rooms = {room_of(path) for path in room_files(repo_root) if path != "__init__.py"}
    assert rooms == {"core", "nodes", "training"}


PLANTED = [
    ("slotid_core/a.py", "import comfy.utils", "knows no host"),
    ("slotid_core/a.py", "from comfy_api.latest import io", "knows no host"),
    ("slotid_core/a.py", "def f():\n    import folder_paths", "knows no host"),
    ("slotid_core/a.py", "import nodes", "knows no host"),
    ("slotid_core/a.py", "from diffusers import X", "knows no trainer"),
    ("slotid_core/a.py", "from training import x", "knows no trainer"),
    ("slotid_core/a.py", "import slotid_core.b", "imports are relative"),
    ("slotid_core/a.py", "from ..nodes import x", "has no door there"),
    ("slotid_core/a.py", "from .. import training", "has no door there"),
    ("slotid_core/a.py", "import einops", "not among what the core is built on"),
    ("slotid_core/a.py", "def f():\n    import av", "not among what the core is built on"),
    ("slotid_core/reference/a.py", "import av", "at module level"),
    ("slotid_core/reference/a.py", "try:\n    import cv2\nexcept ImportError:\n    pass", "at module level"),
    ("slotid_core/a.py", "print('x')", "calls print"),
    ("slotid_core/a.py", "import importlib\nimportlib.import_module('peft')", "knows no trainer"),
    ("nodes/a.py", "from training.x import y", "never meet"),
    ("nodes/a.py", "def f():\n    import peft", "never meet"),
    ("nodes/a.py", "from slotid_core import x", "imports are relative"),
    ("nodes/a.py", "from ..training import x", "has no door there"),
    ("nodes/a.py", "import av", "at module level"),
    ("nodes/a.py", "def f(model):\n    return model.model_options['transformer_options']", "host_"),
    ("nodes/a.py", "def f(transformer_options):\n    pass", "host_"),
    ("nodes/a.py", "from comfy.model_patcher import ModelPatcher", "host_"),
    ("slotid_core/host_a.py", "def f(transformer_options):\n    pass", "host_"),
    ("__init__.py", "import accelerate", "never meet"),
    ("training/a.py", "def f():\n    import comfy.sd", "knows no ComfyUI"),
    ("training/a.py", "from ..nodes import x", "has no door there"),
    ("training/a.py", "import diffusers", "one seam"),
    ("training/a.py", "from diffusers import WanTransformer3DModel", "one seam"),
    ("training/a.py", "from diffusers.models.transformers import x", "one seam"),
    ("training/a.py", "if TYPE_CHECKING:\n    from diffusers import WanTransformer3DModel", "one seam"),
]


@pytest.mark.parametrize(("path", "source", "expected"), PLANTED)
def test_a_planted_violation_is_found(tmp_path, path, source, expected):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(source, encoding="utf-8")
    assert any(expected in line for line in violations(tmp_path)), violations(tmp_path)


ALLOWED = [
    ("slotid_core/a.py", '"""No transformer_options."""\nimport torch\nfrom .b import c\nfrom . import d'),
    ("slotid_core/reference/a.py", "from ..errors import E\ndef f():\n    import av\n    import cv2"),
    ("slotid_core/reference/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import av"),
    ("nodes/a.py", "import torch\nimport folder_paths\nfrom ..slotid_core.x import y\nfrom .z import t"),
    ("nodes/host_a.py", "def f(transformer_options):\n    return transformer_options['x']"),
    ("__init__.py", "from .nodes import x"),
    ("training/a.py", "import slotid_core\nfrom training.b import c\nfrom diffusers.utils import logging"),
    ("training/wan_diffusers.py", "from diffusers import WanTransformer3DModel"),
]


@pytest.mark.parametrize(("path", "source"), ALLOWED)
def test_what_is_allowed_passes(tmp_path, path, source):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(source, encoding="utf-8")
    assert violations(tmp_path) == []
