"""Reading and writing ``.safetensors`` files that may come from anywhere. No pickle, ever.

A file carries JSON in its metadata under one key per kind; tensors are checked against what that JSON says before one
of them is read, and both together against the hash that was written with them.
"""

import contextlib
import hashlib
import json
import os
import reprlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import SlotIDError

SUFFIX = ".safetensors"
KIND_KEY, HASH_KEY = "slotid", "slotid_sha256"
"""Of a file's metadata: its JSON, and the hash of JSON and tensors."""
_MAX_JSON = 1 << 20
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "U8": torch.uint8}


class NameTakenError(SlotIDError):
    """There is a file of that name, and it was not to be written over."""


def write(
    path: Path,
    kind: str,
    version: int,
    tensors: Mapping[str, Tensor],
    info: Mapping[str, Any],
    *,
    replace: bool = True,
) -> None:
    """Write atomically: a temporary file beside ``path``, flushed to disk, then renamed over it.

    A crash at any moment leaves the old file or the new one, whole; where none may be replaced, an empty one at worst.

    Args:
        replace: whether a file of that name may be written over.

    Raises:
        NameTakenError: there is one, and it may not. Of several processes that write at once, one gets the name.
        SlotIDError: the name does not end in ``.safetensors``, the folder can't be written, ``info`` is so long that
            it could not be read again.
    """
    if path.suffix != SUFFIX:
        raise SlotIDError(f"Got the file name {path.name!r}, expected one that ends in {SUFFIX}.")
    document = json.dumps({"kind": kind, "format_version": version, **info}, sort_keys=True)
    if len(document) > _MAX_JSON:
        raise SlotIDError(f"The facts for {path.name} take {len(document)} characters, at most {_MAX_JSON} are kept.")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = _ordered(save(plain, metadata={KIND_KEY: document, HASH_KEY: content_hash(plain, document)}))
    # Not mkstemp: its files stay unreadable for every other user, a server's account among them.
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            _take(path)
            try:
                os.replace(temporary, path)
            except BaseException:
                path.unlink()
                raise
    except OSError as error:
        raise SlotIDError(f"Can't write {path.name} into {path.parent}: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone when the rename went through, or was never made
            temporary.unlink()


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """What :meth:`SafeFile.read` would refuse is not worth the file that is there.

    Raises:
        SlotIDError: a number is NaN or infinite.
    """
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise SlotIDError(f"{name} holds NaN or infinity, so {path.name} was not written. What made it went wrong.")


def _take(path: Path) -> None:
    """An empty file to be written over at once: not every file system has links, which would name and write as one."""
    try:
        path.open("xb").close()
    except FileExistsError as error:
        raise NameTakenError(f"There is a file {path.name} in {path.parent} already.") from error


def _ordered(content: bytes) -> bytes:
    """The library writes metadata in random order; the same content has to be the same file."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


class SafeFile:
    """One opened file of a given kind: its JSON, the names and shapes of its tensors, then the tensors.

    Use as a context manager.

    Raises:
        SlotIDError: not there or not to be read, no safetensors file, damaged, of another kind, or of a newer format
            version.
    """

    def __init__(self, path: Path, kind: str, version: int):
        self.path, self.kind, self.version = path, kind, version
        self.info: dict[str, Any] = {}

    def __enter__(self) -> "SafeFile":
        self._check_is_file()
        try:
            self._file = safe_open(self.path, framework="pt")
        except SafetensorError as error:
            raise self.error(
                f"it is damaged or was not written to the end ({str(error)[:200]}). Fetch or save it again"
            ) from error
        try:
            self.info = self._read_info()
        except SlotIDError:
            del self._file  # or it stays mapped as long as the error lives, and Windows lets nobody replace it
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        del self._file

    def error(self, reason: str) -> SlotIDError:
        """An error that names this file."""
        return SlotIDError(f"Can't use {self.path.name} as a Slot-ID {self.kind} file: {reason}.")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by name; reads no tensor."""
        return {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}

    def expect(self, expected: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
        """Require exactly these tensors.

        Raises:
            SlotIDError: a tensor is missing, left over, or of another shape or kind of number.
        """
        shapes = self.shapes()
        if missing := sorted(expected.keys() - shapes.keys()):
            raise self.error(f"{len(missing)} tensors are missing, the first is {missing[0]:.100}")
        if extra := sorted(shapes.keys() - expected.keys()):
            raise self.error(f"{len(extra)} tensors do not belong there, the first is {extra[0]:.100}")
        for name, (shape, dtype) in expected.items():
            stored = self._file.get_slice(name).get_dtype()
            got = _DTYPES.get(stored)
            fits = got == dtype or (got is not None and got.is_floating_point and dtype.is_floating_point)
            if shapes[name] != shape or not fits:
                raise self.error(f"{name} is {got or stored} {list(shapes[name])}, expected {dtype} {list(shape)}")

    def read(self, expected: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> dict[str, Tensor]:
        """The tensors that :meth:`expect` describes, in the dtypes it names.

        Raises:
            SlotIDError: as :meth:`expect`; or the content is not what was saved; or a number is NaN or infinite.
        """
        self.expect(expected)
        # Copies: the library's own tensors are windows into the file, and follow whoever writes into it later.
        stored = {name: self._file.get_tensor(name).clone() for name in expected}
        if content_hash(stored, self._document) != self._file.metadata().get(HASH_KEY):
            raise self.error("its content is not what was saved (the hash differs). Fetch or save it again")
        tensors = {}
        for name, (_, dtype) in expected.items():
            tensor = stored[name].to(dtype)
            if dtype.is_floating_point and not bool(tensor.isfinite().all()):
                raise self.error(f"{name} holds NaN or infinity. Make it anew: the run that wrote it had gone wrong")
            tensors[name] = tensor
        return tensors

    def _check_is_file(self) -> None:
        if not self.path.is_file():
            raise SlotIDError(f"There is no file {self.path}.")
        if self.path.suffix != SUFFIX:
            raise self.error(
                f"only {SUFFIX} files are read, for other formats can run code when they are opened. Convert it first"
            )
        try:
            with self.path.open("rb") as file:
                head = file.read(16)
        except OSError as error:
            raise self.error(f"it can't be read ({error.strerror}). Give whoever runs this the right to") from error
        if not head:
            raise self.error("it is empty")
        # A safetensors file begins with a length, whose bytes may be anything, and then a brace.
        if (head[:2] == b"PK" or head[:1] == b"\x80") and head[8:9] != b"{":
            raise self.error("it is a pickle with another name, and a pickle can run code when it is opened")

    def _read_info(self) -> dict[str, Any]:
        text = (self._file.metadata() or {}).get(KIND_KEY)
        if text is None:
            raise self.error("it has no Slot-ID metadata, so it holds something else (a plain LoRA or a base model?)")
        if len(text) > _MAX_JSON:
            raise self.error(f"its metadata has {len(text)} characters, at most {_MAX_JSON} are read")
        try:
            info = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.error(f"its metadata is no JSON ({error})") from error
        self._document = text
        if not isinstance(info, dict) or info.get("kind") != self.kind:
            got = info.get("kind") if isinstance(info, dict) else info
            raise self.error(f"it is a Slot-ID {reprlib.repr(got)} file. Choose a {self.kind} file")
        version = info.get("format_version")
        if type(version) is not int or version < 1:
            raise self.error(f"its format version is {reprlib.repr(version)}")
        if version > self.version:
            raise self.error(
                f"it has format version {reprlib.repr(version)}, this Slot-ID reads up to {self.version}. "
                "Update Slot-ID"
            )
        return info


def content_hash(tensors: Mapping[str, Tensor], document: Any = None) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, and over a JSON document."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def pixel_hash(frames_FHWC: Tensor) -> str:
    """SHA-256 of pixels in [0, 1] as 8-bit values, so that float noise below a grey level does not count."""
    return content_hash({"pixels": (frames_FHWC.clamp(0, 1) * 255).round().to(torch.uint8)})
