"""One shard's file as it lies on a disk that may have damaged it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from slotid_core.errors import SlotIDError
from slotid_core.safe_file import content_hash


def tensor_name(index: int, name: str) -> str:
    """Name of a clip's tensor in its shard."""
    return f"{index:05d}.{name}"


def tensor_hash(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()


def open_shard(path: Path) -> Any:
    """A shard as safetensors opens it; a context manager.

    Raises:
        SlotIDError: it is not there, cut short or no such file.
    """
    if not path.is_file():
        raise damaged_shard(path, "it is not there")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise damaged_shard(path, str(error)) from error


def shard_key(path: Path) -> str:
    """The key of the job that it was made for; no tensor is read.

    Raises:
        SlotIDError: as :func:`open_shard`, or it does not say.
    """
    with open_shard(path) as file:
        try:
            return json.loads(file.metadata()["slotid"])["key"]
        except (ValueError, LookupError, TypeError) as error:
            raise damaged_shard(path, f"what it says of itself can't be read ({error!r})") from error


def check_content(path: Path) -> None:
    """Read all of it and compare it with the hash that was written with it.

    Raises:
        SlotIDError: as :func:`open_shard`, or it is not what was written.
    """
    with open_shard(path) as file:
        metadata = file.metadata() or {}
        try:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise damaged_shard(path, str(error)) from error
        # Inside: these tensors are windows into the file.
        if content_hash(tensors, metadata.get("slotid")) != metadata.get("slotid_sha256"):
            raise damaged_shard(path, "it is not what was written")


def damaged_shard(path: Path, reason: str) -> SlotIDError:
    """The error of a shard that can't be used."""
    return SlotIDError(
        f"The shard {path.name} of {path.parent.parent} can't be used: {reason}. Run prepare.py again: it makes "
        "anew what is damaged."
    )
