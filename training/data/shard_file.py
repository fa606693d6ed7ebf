"""One shard's file as it lies on a disk that may have damaged it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from slotid_core.errors import SlotIDError
from slotid_core.safe_file import HASH_KEY, KIND_KEY, content_hash

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
"""Of what a clip's tensors are stored in; its thumbnails are bytes, which nobody trains on."""


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


class Shard:
    """A shard to read a few tensors from again and again.

    Its header, which takes longer to read than a clip's tensors, is remembered until the file is another. Tensors
    are read and not mapped, and nothing is kept open: a file that is cut short meanwhile is an error and not the end of
    the process.
    """

    def __init__(self, path: Path):
        self._path = path
        self._known: tuple[int, ...] | None = None
        self._places: dict[str, tuple[torch.dtype, list[int], int]] = {}

    def read(self, names: Iterable[str]) -> list[Tensor]:
        """Tensors of these names; whoever asks compares their bytes with what was written.

        Raises:
            SlotIDError: as :func:`open_shard`, or one of them is not there.
        """
        try:
            with self._path.open("rb") as file:
                self._look(file)
                return [self._tensor(file, name) for name in names]
        except OSError as error:
            there = self._path.is_file()
            raise damaged_shard(self._path, str(error) if there else "it is not there") from error

    def _look(self, file: BinaryIO) -> None:
        found = os.fstat(file.fileno())
        stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if stamp == self._known:
            return
        with open_shard(self._path):  # the library checks the header; where a tensor lies it does not say
            pass
        try:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            self._places = {
                name: (_DTYPES[place["dtype"]], place["shape"], 8 + length + place["data_offsets"][0])
                for name, place in header.items()
                if place.get("dtype") in _DTYPES
            }
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise damaged_shard(self._path, f"its header can't be read ({error!r})") from error
        self._known = stamp

    def _tensor(self, file: BinaryIO, name: str) -> Tensor:
        if name not in self._places:
            raise damaged_shard(self._path, f"File does not contain tensor {name}")
        dtype, shape, begin = self._places[name]
        tensor = torch.empty(shape, dtype=dtype)
        file.seek(begin)
        if file.readinto(tensor.view(-1).view(torch.uint8).numpy()) != tensor.nbytes:
            raise damaged_shard(self._path, f"it ends inside {name}")
        return tensor


def shard_key(path: Path) -> str:
    """The key of the job that it was made for; no tensor is read.

    Raises:
        SlotIDError: as :func:`open_shard`, or it does not say.
    """
    with open_shard(path) as file:
        try:
            return json.loads(file.metadata()[KIND_KEY])["key"]
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
        if content_hash(tensors, metadata.get(KIND_KEY)) != metadata.get(HASH_KEY):
            raise damaged_shard(path, "it is not what was written")


def damaged_shard(path: Path, reason: str) -> SlotIDError:
    """The error of a shard that can't be used."""
    return SlotIDError(
        f"The shard {path.name} of {path.parent.parent} can't be used: {reason}. Run prepare.py again: it makes "
        "anew what is damaged."
    )
