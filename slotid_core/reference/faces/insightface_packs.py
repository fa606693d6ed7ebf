"""InsightFace's model packs: which there are, finding them in a folder, and downloading one."""

import http.client
import os
import shutil
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...errors import SlotIDError

LICENCE = "the weights of InsightFace's model packs are for non-commercial research only"

_URL = "https://github.com/deepinsight/insightface/releases/download/v0.7/"
_CHUNK = 1 << 20
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Pack:
    """A model pack that has all that is needed here: a detector, 3D landmarks and an embedding."""

    name: str
    files: tuple[str, str, str]
    """Detector, landmarks, embedding."""
    megabytes: int
    """On the disk."""


PACKS = {
    pack.name: pack
    for pack in (
        Pack("buffalo_l", ("det_10g.onnx", "1k3d68.onnx", "w600k_r50.onnx"), 326),
        Pack("antelopev2", ("scrfd_10g_bnkps.onnx", "1k3d68.onnx", "glintr100.onnx"), 407),
        Pack("buffalo_m", ("det_2.5g.onnx", "1k3d68.onnx", "w600k_r50.onnx"), 313),
        Pack("buffalo_s", ("det_500m.onnx", "1k3d68.onnx", "w600k_mbf.onnx"), 159),
    )
}
"""By name, in the order in which they are looked for."""


def pack_folder(folder: Path, pack: str) -> Path:
    """Where a pack is looked for: ``models/<pack>`` inside InsightFace's folder."""
    return folder / "models" / pack


def find_pack(folder: Path, pack: str | None) -> str | None:
    """The name of the pack asked for, or without a name of the first in :data:`PACKS`; ``None`` where incomplete.

    Raises:
        SlotIDError: no pack has this name.
    """
    return next((name for name in _wanted(pack) if not _missing(folder, name)), None)


def explain_missing(folder: Path, pack: str | None) -> str:
    """What :func:`find_pack` did not find, and how to get it."""
    wanted = _wanted(pack)
    begun = [name for name in wanted if pack_folder(folder, name).is_dir()]
    best = PACKS[(begun or wanted)[0]]
    target = pack_folder(folder, best.name)
    if all((target / best.name / name).is_file() for name in best.files):
        return (
            f"The files of InsightFace's model pack {best.name} lie one folder too deep, in {target / best.name}. Move "
            f"them up into {target}."
        )
    return (
        f"InsightFace's model pack {best.name} is not complete: {target} lacks "
        f"{', '.join(_missing(folder, best.name))}. Turn on download to have it fetched ({best.megabytes} MB), or "
        f"unpack {_URL}{best.name}.zip there yourself. Licence: {LICENCE}."
    )


def download_pack(folder: Path, pack: str, progress: Callable[[int, int], None] | None) -> None:
    """Fetch a pack from InsightFace's releases on GitHub and unpack it where :func:`find_pack` looks.

    Files that are already there are replaced only once the whole pack has arrived.

    Args:
        folder: InsightFace's folder; made where it is missing.
        pack: a name of :data:`PACKS`.
        progress: called as ``progress(bytes so far, bytes in all)``, the latter 0 where the server does not say; what
            it raises ends the download and passes through.

    Raises:
        SlotIDError: it could not be fetched or written, or is damaged.
    """
    target = pack_folder(folder, pack)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{pack}.", suffix=".part", dir=target.parent) as part:
            unpacked = Path(part)
            _fetch(f"{_URL}{pack}.zip", unpacked / "pack.zip", progress)
            with zipfile.ZipFile(unpacked / "pack.zip") as contents:
                for member in contents.infolist():
                    # Some packs hold one folder more; the bare file name also keeps the files in this folder.
                    name = PurePosixPath(member.filename.replace("\\", "/")).name
                    if name.endswith(".onnx"):
                        with contents.open(member) as source, (unpacked / name).open("wb") as copy:
                            shutil.copyfileobj(source, copy, _CHUNK)
            target.mkdir(exist_ok=True)
            for path in unpacked.glob("*.onnx"):
                os.replace(path, target / path.name)
    except (OSError, http.client.HTTPException, zipfile.BadZipFile, zlib.error) as error:
        raise SlotIDError(
            f"The model pack {pack} could not be downloaded from {_URL}{pack}.zip: {error or type(error).__name__}. "
            f"Try again, or fetch it in another way and unpack its .onnx files into {target}."
        ) from error
    if _missing(folder, pack):
        raise SlotIDError(f"{_URL}{pack}.zip does not hold what it should. {explain_missing(folder, pack)}")


def _fetch(url: str, path: Path, progress: Callable[[int, int], None] | None) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, path.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        done = 0
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
    if total and done != total:
        raise OSError(f"the connection broke after {done} of {total} bytes")


def _wanted(pack: str | None) -> list[str]:
    if pack is not None and pack not in PACKS:
        raise SlotIDError(f"Got the model pack {pack!r}, expected one with 3D landmarks: {', '.join(PACKS)}.")
    return list(PACKS) if pack is None else [pack]


def _missing(folder: Path, pack: str) -> list[str]:
    return [name for name in PACKS[pack].files if not (pack_folder(folder, pack) / name).is_file()]
