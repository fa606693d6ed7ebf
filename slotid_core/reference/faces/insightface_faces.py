"""Faces by InsightFace: detects turned and small faces better than dlib, but its weights are no part of the package.

Shape letters: H W height and width, C channels, P points (68), D embedding width (512).
"""

import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...errors import SlotIDError
from .face import Face
from .frame import check_frame
from .insightface_packs import LICENCE, PACKS, download_pack, explain_missing, find_pack, pack_folder
from .landmarks import face_from_landmarks

_TASKS = ("detection", "landmark_3d_68", "recognition")
# The detector sees frames fitted into this square (and into a smaller one, for close-ups); the smallest face in it.
_DETECTOR_SIDE, _DETECTOR_FACE = 640, 16
# InsightFace's own threshold, and one below which it lists nearly anything.
_FACE, _ANYTHING = 0.5, 0.05

# ONNX Runtime's. The GPU's memory is Wan's.
_PROVIDERS = ("CPUExecutionProvider",)

_PACKAGES = ("insightface", "onnxruntime")


class InsightFaces:
    """InsightFace's detector, 3D landmarks and ArcFace embedding.

    Pose and expression are read from the landmarks like those of the other backends. Models are loaded when first
    needed. One instance may serve several threads, one after the other.

    Args:
        folder: InsightFace's folder, which holds ``models/<pack>``; in ComfyUI that is ``models/insightface``.
        pack: a name of :data:`.insightface_packs.PACKS`; ``None`` takes the first that is complete.
        download: fetch the pack (without a name ``buffalo_l``) where it is missing.
        progress: see :func:`.insightface_packs.download_pack`.

    Raises:
        SlotIDError: a package or the pack is missing, or the download failed.
    """

    licence = LICENCE
    # InsightFace's own threshold for one person in two pictures.
    same_person: float | None = 0.4
    # ArcFace spreads people evenly around its sphere. Not measured here.
    strangers: float | None = 0.0

    def __init__(
        self,
        folder: Path,
        *,
        pack: str | None = None,
        download: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ):
        missing = missing_packages()
        if missing is not None:
            raise SlotIDError(f"{missing}, or choose another face backend.")
        self._pack_folder = pack_folder(folder, _find_or_download(folder, pack, download, progress))
        self.name = f"insightface {self._pack_folder.name}"
        self._lock = threading.Lock()
        self._models = None

    def detect(self, frame_HWC: np.ndarray, index: int, smallest_px: float = 0.0) -> list[Face]:
        """See :class:`.face.FaceBackend`; scores are the detector's, from 0.5 to 1."""
        bgr_HWC = _as_bgr(frame_HWC)
        with self._lock:
            models = self._loaded()
            boxes_N5 = _candidates(models, bgr_HWC, _FACE)
            faces = [face_from_landmarks(_landmarks(models, bgr_HWC, box_5), float(box_5[4])) for box_5 in boxes_N5]
        return sorted(faces, key=lambda face: -face.score)

    def embed(self, frame_HWC: np.ndarray, face: Face) -> np.ndarray:
        """See :class:`.face.FaceBackend`; ``[512]`` float32."""
        assert face.landmarks_68x2 is not None, "only faces that detect() found can be embedded"
        bgr_HWC = _as_bgr(frame_HWC)
        points_P2 = face.landmarks_68x2
        # The five points that ArcFace is aligned by: eyes, tip of the nose, corners of the mouth.
        five_52 = np.stack(
            [points_P2[36:42].mean(0), points_P2[42:48].mean(0), points_P2[30], points_P2[48], points_P2[54]]
        )
        with self._lock:
            models = self._loaded()
            from insightface.app.common import Face as TheirFace

            embedding_D = models["recognition"].get(bgr_HWC, TheirFace(kps=five_52.astype(np.float32)))
        return embedding_D / np.linalg.norm(embedding_D)

    def best_score(self, frame_HWC: np.ndarray) -> float | None:
        """Of the likeliest face, found or not: below 0.5 it was not. ``None`` where there is not even a likeness."""
        bgr_HWC = _as_bgr(frame_HWC)
        with self._lock:
            boxes_N5 = _candidates(self._loaded(), bgr_HWC, _ANYTHING)
        return float(boxes_N5[:, 4].max()) if len(boxes_N5) else None

    def limits(self, height: int, width: int) -> str:
        """In words, which faces are not found in frames of this size."""
        smallest = round(_DETECTOR_FACE * max(1.0, max(height, width) / _DETECTOR_SIDE))
        return f"InsightFace finds, in frames of {width}x{height}, faces of at least about {smallest} pixels"

    def _loaded(self):
        if self._models is None:
            try:
                from insightface.app import FaceAnalysis
            except ImportError as error:
                raise SlotIDError(
                    f"The package insightface is installed but does not load: {error}. Install it anew with: "
                    f"pip install --force-reinstall {' '.join(_PACKAGES)}"
                ) from error
            try:
                # A path in place of the pack's name: with a name, InsightFace downloads what it misses unasked.
                analysis = FaceAnalysis(
                    name=str(self._pack_folder.resolve()), allowed_modules=list(_TASKS), providers=list(_PROVIDERS)
                )
                analysis.prepare(ctx_id=0, det_thresh=_FACE)
            except Exception as error:  # InsightFace asserts, ONNX Runtime and protobuf have types of their own
                raise SlotIDError(self._damaged(str(error) or type(error).__name__)) from error
            lacking = [task for task in _TASKS if task not in analysis.models]
            if lacking:
                raise SlotIDError(self._damaged(f"no model for {', '.join(lacking)}"))
            self._models = analysis.models
        return self._models

    def _damaged(self, what: str) -> str:
        return (
            f"The model pack in {self._pack_folder} does not load: {what}. Its files are damaged or not what their "
            "names say: delete the folder and get the pack again."
        )


def missing_packages() -> str | None:
    """What is not installed and how to install it, without loading anything; ``None`` where all is there."""
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if not missing:
        return None
    return f"The face backend insightface needs {' and '.join(missing)}: pip install {' '.join(_PACKAGES)}"


def _find_or_download(
    folder: Path, pack: str | None, download: bool, progress: Callable[[int, int], None] | None
) -> str:
    found = find_pack(folder, pack)
    if found is not None:
        return found
    if not download:
        raise SlotIDError(explain_missing(folder, pack))
    wanted = next(iter(PACKS)) if pack is None else pack
    download_pack(folder, wanted, progress)
    return wanted


def _as_bgr(frame_HWC: np.ndarray) -> np.ndarray:
    check_frame(frame_HWC)
    return np.ascontiguousarray(frame_HWC[..., ::-1])


def _candidates(models, bgr_HWC: np.ndarray, threshold: float) -> np.ndarray:
    """``[N, 5]``: left, top, right, bottom and score."""
    detector = models["detection"]
    detector.det_thresh = threshold
    boxes_N5, _ = detector.detect(bgr_HWC, max_num=0, metric="default")
    return boxes_N5


def _landmarks(models, bgr_HWC: np.ndarray, box_5: np.ndarray) -> np.ndarray:
    from insightface.app.common import Face as TheirFace

    points_P3 = models["landmark_3d_68"].get(bgr_HWC, TheirFace(bbox=box_5[:4]))
    return points_P3[:, :2].astype(float)
