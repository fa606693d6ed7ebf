"""An identity <-> one ``.safetensors`` file: tokens, global vectors, thumbnail, hashes, coverage."""

import re
import reprlib
from dataclasses import fields
from pathlib import Path

import torch

from .errors import SlotIDError
from .reference.coverage import Coverage
from .safe_file import SafeFile, write
from .types import Identity, IdentityEmbedding

KIND = "identity"
FORMAT_VERSION = 1
THUMBNAIL_SIDE = 128
_HASHES = ("weights_hash", "clip_hash", "portrait_hash")
# Files without it are as good: older ones, and those of clips that nobody measured.
_COVERAGE = "coverage"
_MAX_SIDE = 16384


def save_identity(path: Path, identity: Identity) -> None:
    """Write atomically.

    Raises:
        SlotIDError: the name does not end in ``.safetensors``, or the folder can't be written.
    """
    tensors = {f.name: getattr(identity.embedding, f.name) for f in fields(IdentityEmbedding)}
    tensors["thumbnail_HWC"] = identity.thumbnail_HWC
    info = {name: getattr(identity, name) for name in _HASHES}
    if identity.coverage is not None:
        info[_COVERAGE] = identity.coverage.to_dict()
    write(path, KIND, FORMAT_VERSION, tensors, info)


def load_identity(path: Path) -> Identity:
    """Read and validate a file.

    Raises:
        SlotIDError: not there, not safetensors, damaged, hostile, of a newer format, or not an identity.
    """
    with SafeFile(path, KIND, FORMAT_VERSION) as file:
        hashes = {name: file.info.get(name) for name in _HASHES}
        for name, value in hashes.items():
            if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
                raise file.error(f"its {name} is {reprlib.repr(value)}, expected 64 hexadecimal digits")
        coverage = _read_coverage(file)
        shapes = file.shapes()
        expected = {}
        for name, ndim in _NDIM.items():
            shape = shapes.get(name, ())
            if len(shape) != ndim or not all(0 < side <= _MAX_SIDE for side in shape):
                raise file.error(f"{name} has shape {list(shape)}, expected {ndim} sides of 1 to {_MAX_SIDE}")
            expected[name] = (shape, torch.uint8 if name == "thumbnail_HWC" else torch.float32)
        _check_agreement(file, shapes)
        tensors = file.read(expected)
    thumbnail_HWC = tensors.pop("thumbnail_HWC")
    return Identity(IdentityEmbedding(**tensors), thumbnail_HWC=thumbnail_HWC, coverage=coverage, **hashes)


_NDIM = {
    "clip_tokens_BSE": 3,
    "portrait_tokens_BKE": 3,
    "clip_global_BG": 2,
    "portrait_global_BG": 2,
    "thumbnail_HWC": 3,
}


def _read_coverage(file: SafeFile) -> Coverage | None:
    if _COVERAGE not in file.info:
        return None
    try:
        return Coverage.from_dict(file.info[_COVERAGE])
    except SlotIDError as error:
        raise file.error(f"its coverage is not valid: {error}") from error


def _check_agreement(file: SafeFile, shapes: dict[str, tuple[int, ...]]) -> None:
    clip, portrait = shapes["clip_tokens_BSE"], shapes["portrait_tokens_BKE"]
    same_globals = shapes["clip_global_BG"] == shapes["portrait_global_BG"]
    one_person = clip[0] == portrait[0] == shapes["clip_global_BG"][0] == 1
    if not (one_person and same_globals and clip[2] == portrait[2] and shapes["thumbnail_HWC"][2] == 3):
        got = {name: list(shapes[name]) for name in _NDIM}
        raise file.error(f"the shapes of its tensors do not belong together: {got}")
