"""An identity <-> one ``.safetensors`` file: tokens, global vectors, thumbnail, hashes, and what is known.

Shape letters: D width of a face embedding; the others are those of ``types.py``.
"""

import itertools
import math
import re
import reprlib
import unicodedata
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from .errors import SlotIDError
from .reference.coverage import Coverage
from .safe_file import SUFFIX, NameTakenError, SafeFile, check_finite, write
from .types import FaceEmbedding, Identity, IdentityEmbedding

KIND = "identity"
FORMAT_VERSION = 1
THUMBNAIL_SIDE = 128
_HASHES = ("weights_hash", "clip_hash", "portrait_hash")
# Files without these are as good: older ones, and those of clips that nobody measured. Older versions read over them.
_COVERAGE, _FACE, _FRAMES, _NOTES = "coverage", "face", "frames", "notes"
_TEXTS = ("backbone", "origin")
_MAX_SIDE = 16384
_MAX_FRAMES, _MAX_TEXT, _MAX_FACE = 1_000_000, 2000, 8192
_MAX_NOTE, _MAX_NOTES = 1000, 64
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# How far a face embedding's length may be from 1.
_UNIT = 1e-3


def save_identity(path: Path, identity: Identity, *, replace: bool = True) -> None:
    """Write atomically. The name is not stored: it is the file's.

    Args:
        replace: whether a file of that name may be written over.

    Raises:
        NameTakenError: there is one, and it may not.
        SlotIDError: the name does not end in ``.safetensors``, the folder can't be written, a note does not fit, or
            numbers are none.
    """
    tensors = {f.name: getattr(identity.embedding, f.name) for f in fields(IdentityEmbedding)}
    tensors["thumbnail_HWC"] = identity.thumbnail_HWC
    info = {name: getattr(identity, name) for name in _HASHES}
    if identity.coverage is not None:
        info[_COVERAGE] = identity.coverage.to_dict()
    if identity.face is not None:
        # Among the facts, not the tensors: older versions refuse files with tensors that they do not know.
        info[_FACE] = {"backend": identity.face.backend, "vector": identity.face.vector_D.tolist()}
    if identity.frames is not None:
        info[_FRAMES] = min(identity.frames, _MAX_FRAMES)  # several merged clips; a million say as much as two
    if identity.notes:
        info[_NOTES] = list(check_notes(identity.notes))
    info |= {name: text for name in _TEXTS if (text := getattr(identity, name))}
    check_finite(path, tensors)
    write(path, KIND, FORMAT_VERSION, tensors, info, replace=replace)


def save_new_identity(path: Path, identity: Identity) -> Path:
    """Write under that name or, where it is taken, with ``_2``, ``_3``, ... behind it; returns where.

    Raises:
        SlotIDError: as :func:`save_identity`.
    """
    for number in itertools.count(1):
        free = path if number == 1 else path.with_name(f"{path.stem}_{number}{SUFFIX}")
        try:
            save_identity(free, identity, replace=False)
        except NameTakenError:
            continue
        return free


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
        facts = {
            "coverage": _read_coverage(file),
            "face": _read_face(file),
            "frames": _read_frames(file),
            "notes": _read_notes(file),
            **{name: _read_text(file, name) for name in _TEXTS},
        }
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
    return Identity(IdentityEmbedding(**tensors), thumbnail_HWC=thumbnail_HWC, name=path.name, **hashes, **facts)


def check_notes(notes: tuple[str, ...]) -> tuple[str, ...]:
    """The notes as they are.

    Raises:
        SlotIDError: too many, or one that is empty, too long or holds unseen control characters (not: line breaks).
    """
    if len(notes) > _MAX_NOTES:
        raise SlotIDError(
            f"There are {len(notes)} notes, at most {_MAX_NOTES} are kept. Take some out, or merge fewer identities."
        )
    for note in notes:
        if not (isinstance(note, str) and 0 < len(note) <= _MAX_NOTE):
            raise SlotIDError(f"The note is {reprlib.repr(note)}, expected a text of 1 to {_MAX_NOTE} letters.")
        if control := _control(note.replace("\n", "")):
            raise SlotIDError(f"The note {reprlib.repr(note)} holds the control character {control}. Take it out.")
    return notes


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


def _read_face(file: SafeFile) -> FaceEmbedding | None:
    if _FACE not in file.info:
        return None
    face = file.info[_FACE]
    if not isinstance(face, dict) or face.keys() != {"backend", "vector"}:
        raise file.error(f"its face is {reprlib.repr(face)}, expected a backend and a vector")
    backend, vector = face["backend"], face["vector"]
    if not _is_text(backend):
        raise file.error(f"its face's backend is {reprlib.repr(backend)}, expected a short text")
    numbers = isinstance(vector, list) and 2 <= len(vector) <= _MAX_FACE and all(type(x) is float for x in vector)
    if not (numbers and abs(math.hypot(*vector) - 1) < _UNIT):  # NaN is not near 1
        raise file.error(
            f"its face's vector is {reprlib.repr(vector)}, expected 2 to {_MAX_FACE} numbers of length 1 together"
        )
    return FaceEmbedding(backend, torch.tensor(vector, dtype=torch.float32))


def _read_frames(file: SafeFile) -> int | None:
    frames = file.info.get(_FRAMES, 1)
    if type(frames) is not int or not 1 <= frames <= _MAX_FRAMES:
        raise file.error(f"its frames is {reprlib.repr(frames)}, expected a whole number from 1 to {_MAX_FRAMES}")
    return frames if _FRAMES in file.info else None


def _read_notes(file: SafeFile) -> tuple[str, ...]:
    notes = file.info.get(_NOTES, [])
    if not isinstance(notes, list):
        raise file.error(f"its notes are {reprlib.repr(notes)}, expected a list of texts")
    try:
        return check_notes(tuple(notes))
    except SlotIDError as error:
        raise file.error(f"its notes are not valid: {error}") from error


def _read_text(file: SafeFile, name: str) -> str:
    text = file.info.get(name, "")
    if name in file.info and not _is_text(text):
        raise file.error(f"its {name} is {reprlib.repr(text)}, expected a text of one line")
    return text


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and not _control(value)


def _control(text: str) -> str | None:
    """The first character that no text of people holds: control codes, halves of characters, breaks of lines and
    paragraphs, turns of the direction. Spaces of any width and joiners are letters to many languages."""
    for letter in text:
        if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in _TURNS:
            return f"U+{ord(letter):04X}"
    return None


def _check_agreement(file: SafeFile, shapes: dict[str, tuple[int, ...]]) -> None:
    clip, portrait = shapes["clip_tokens_BSE"], shapes["portrait_tokens_BKE"]
    same_globals = shapes["clip_global_BG"] == shapes["portrait_global_BG"]
    one_person = clip[0] == portrait[0] == shapes["clip_global_BG"][0] == 1
    if not (one_person and same_globals and clip[2] == portrait[2] and shapes["thumbnail_HWC"][2] == 3):
        got = {name: list(shapes[name]) for name in _NDIM}
        raise file.error(f"the shapes of its tensors do not belong together: {got}")
