"""Which face backend: the one asked for, or the first that is at hand."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import SlotIDError
from ..crop import Box
from . import dlib_faces, insightface_faces, insightface_packs
from .box import BoxFaces
from .face import FaceBackend
from .mediapipe_landmarks import MediaPipeFaces

logger = logging.getLogger("slotid")

BACKENDS = ("auto", "insightface", "mediapipe", "dlib", "box")
"""What can be asked for."""


def choose_backend(
    name: str = "auto",
    *,
    frames: int,
    offered: Sequence[str] = (*BACKENDS[1:], "mask"),
    landmarks: Mapping[str, Any] | None = None,
    box: Box | None = None,
    mask: Tensor | None = None,
    insightface_folder: Path | None = None,
    pack: str | None = None,
    download: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FaceBackend:
    """The backend asked for. ``auto`` takes the first of these that is at hand, and logs which:

    1. ``mediapipe``, where ``landmarks`` are given,
    2. ``box``, where a box or mask is given,
    3. ``insightface``, where its packages are installed and a model pack is there or may be downloaded,
    4. ``dlib``, where its packages are installed.

    Args:
        name: one of :data:`BACKENDS`.
        frames: how many frames the clip has.
        offered: what the caller has inputs for, backends and ``mask``; where ``auto`` finds nothing, these ways out are
            named.
        landmarks: FACE_LANDMARKS, see :class:`.mediapipe_landmarks.MediaPipeFaces`.
        box, mask: see :class:`.box.BoxFaces`.
        insightface_folder: see :class:`.insightface_faces.InsightFaces`; ``None`` for the folder ``.insightface`` in
            the user's home, which InsightFace itself uses.
        pack, download, progress: see :class:`.insightface_faces.InsightFaces`.

    Raises:
        SlotIDError: there is no such backend, it lacks something, it has no use for the landmarks, box or mask that are
            given, ``auto`` got more than one that says where faces are, or it finds none.
    """
    folder = Path.home() / ".insightface" if insightface_folder is None else insightface_folder
    if name == "auto":
        name = _first(landmarks is not None, box is not None or mask is not None, folder, pack, download, offered)
    else:
        _check_used(name, landmarks is not None, box is not None or mask is not None)
    if name == "mediapipe":
        if landmarks is None:
            raise SlotIDError(
                "The face backend mediapipe needs face landmarks, and got none. Connect the output face_landmarks of "
                "ComfyUI's node Detect Face Landmarks (MediaPipe), or choose another face backend."
            )
        backend = MediaPipeFaces(landmarks, frames=frames)
    elif name == "box":
        backend = BoxFaces(box, mask, frames=frames)
    elif name == "insightface":
        backend = insightface_faces.InsightFaces(folder, pack=pack, download=download, progress=progress)
    elif name == "dlib":
        backend = dlib_faces.DlibFaces()
    else:
        raise SlotIDError(f"Got the face backend {name!r}, expected one of: {', '.join(BACKENDS)}.")
    logger.info("Face backend: %s; %s.", backend.name, backend.licence)
    return backend


def same_person_of(backend: str) -> float | None:
    """The ``same_person`` of the backend that carries this name; ``None`` also where no backend of ours does."""
    kinds = {"dlib": dlib_faces.DlibFaces, "insightface": insightface_faces.InsightFaces}
    kind = kinds.get(backend.split(" ", 1)[0])
    return None if kind is None else kind.same_person


def _check_used(name: str, has_landmarks: bool, has_box: bool) -> None:
    if has_landmarks and name != "mediapipe":
        raise SlotIDError(
            f"Face landmarks are connected, and the face backend {name} does not use them. Disconnect them, or choose "
            "auto or mediapipe."
        )
    if has_box and name != "box":
        raise SlotIDError(
            f"A box or mask is given, and the face backend {name} does not use it. Remove it (0 is no box), or choose "
            "auto, where it takes the place of a face backend."
        )


def _first(
    has_landmarks: bool, has_box: bool, folder: Path, pack: str | None, download: bool, offered: Sequence[str]
) -> str:
    if has_landmarks and has_box:
        raise SlotIDError(
            "Got face landmarks and a box or mask, and each says where the faces are. Disconnect one of them."
        )
    if has_landmarks:
        return "mediapipe"
    if has_box:
        return "box"
    no_insightface = insightface_faces.missing_packages()
    if no_insightface is not None:
        no_insightface += f". Licence: {insightface_packs.LICENCE}."
    elif not download and insightface_packs.find_pack(folder, pack) is None:
        no_insightface = insightface_packs.explain_missing(folder, pack)
    if no_insightface is None:
        return "insightface"
    no_dlib = dlib_faces.missing_packages()
    if no_dlib is None:
        return "dlib"
    ways = {
        "mediapipe": f"connect ComfyUI's node Detect Face Landmarks (MediaPipe). Licence: {MediaPipeFaces.licence}.",
        "dlib": f"{no_dlib}. Licence: {dlib_faces.DlibFaces.licence}.",
        "insightface": no_insightface,
        "box": "give a box around the face.",
        "mask": "give a mask of the face.",
    }
    lines = [f"- {name}: {way}" for name, way in ways.items() if name in offered]
    raise SlotIDError("\n".join(["No face backend is at hand. Any one of these will do:", *lines]))
