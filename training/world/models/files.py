"""The world's models as files: written whole or not at all, with what is to be known of their making."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.atomic import atomic


def write_model(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """One safetensors file; one that is there is replaced only when the new one is complete.

    Raises:
        SlotIDError: the folder can't be written.
    """
    with atomic(path) as temporary:
        save_file(dict(tensors), temporary, metadata={"format": "pt", "facts": json.dumps(dict(facts))})


def read_facts(path: Path) -> dict[str, Any]:
    """What :func:`write_model` was told."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["facts"])


def weights_id(path: Path) -> str:
    """SHA-256 of the weights in float16: the same model stored with more digits is the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.to(torch.float16).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
