"""Faces by dlib: needs two pip packages and no further download.

Shape letters: H W height and width, C channels (RGB), P points (68), D embedding width (128).
"""

import functools
import importlib.util
import math
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...errors import SlotIDError
from .face import Face
from .frame import check_frame
from .landmarks import face_from_landmarks

# Pixels that are searched, and by how much a frame is enlarged at most to get there: first quickly, and only where
# nothing was found again for small faces. A million pixels take about 0.06 s on one core.
_SEARCHES = ((0.95e6, 1.0), (3.3e6, 2.0))
# The smallest face from brow to chin, in pixels of the picture that is searched: the detector's window of 80 pixels
# holds more than the face. Faces were found from 48 to 60 pixels on.
_SMALLEST = 60
# The detector's own threshold, and one below which it lists nearly anything.
_FACE, _ANYTHING = 0.0, -1.0

# The landmarks answer to where exactly the detector's box lies, and that jumps by a fifth from one of its scales to
# the next. So they are found twice, the second time from the box that the detector has on average around its points:
# side and downward shift of it, in units of the points' RMS distance from their mean.
_BOX_SIDE, _BOX_SHIFT = 2.82, -0.13

_PACKAGES = {"dlib": "dlib-bin", "face_recognition_models": "face-recognition-models"}
_LANDMARKS = "shape_predictor_68_face_landmarks.dat"
_EMBEDDING = "dlib_face_recognition_resnet_model_v1.dat"

# dlib's detector and networks are not made for several threads at once.
_LOCK = threading.Lock()


class DlibFaces:
    """dlib's HOG detector, 68 landmarks and ResNet embedding, on the CPU.

    The detector finds upright faces, turned by at most some 40 degrees and tilted by some 25; see :meth:`limits` for
    how small. dlib's neural detector finds more and takes seconds for a frame on a CPU, so it is not offered.

    Models are loaded when first needed, which takes a second, and serve all instances of the process; making an
    instance costs nothing. Threads are served one after the other.

    Raises:
        SlotIDError: a package is not installed.
    """

    name = "dlib"
    licence = (
        "dlib's weights are in the public domain, but its 68-point landmark model was trained on iBUG 300-W, whose "
        "licence excludes commercial use"
    )
    # Single frames of one clip had cosines of 0.951 and more, those of two people up to 0.942; means over some frames
    # 0.98 and 0.936. All are high because the network's vectors share a large mean.
    same_person: float | None = 0.945
    # Mean over 30 pairs of six people; from 0.79 to 0.93 by pair.
    strangers: float | None = 0.86

    def __init__(self):
        missing = missing_packages()
        if missing is not None:
            raise SlotIDError(f"{missing}, or choose another face backend.")

    def detect(self, frame_HWC: np.ndarray, index: int, smallest_px: float = 0.0) -> list[Face]:
        """See :class:`.face.FaceBackend`; scores are the detector's, 0 and more."""
        check_frame(frame_HWC)
        frame_HWC = np.ascontiguousarray(frame_HWC)
        # Large faces are found in a smaller picture, once. Time goes with the pixels that are searched.
        searches = ((_SEARCHES[0][0], min(1.0, _SMALLEST / smallest_px)),) if smallest_px else _SEARCHES
        with _LOCK:
            for search in searches:
                found = _search(frame_HWC, *search, _FACE)
                if found:
                    return [face_from_landmarks(_landmarks(frame_HWC, box), score) for score, box in found]
        return []

    def embed(self, frame_HWC: np.ndarray, face: Face) -> np.ndarray:
        """See :class:`.face.FaceBackend`; ``[128]`` float64. Takes 0.05 to 0.1 s."""
        assert face.landmarks_68x2 is not None, "only faces that detect() found can be embedded"
        check_frame(frame_HWC)
        import dlib

        frame_HWC = np.ascontiguousarray(frame_HWC)
        parts = [dlib.point(round(x), round(y)) for x, y in face.landmarks_68x2.tolist()]
        box = dlib.rectangle(*(round(side) for side in face.box_xyxy))
        with _LOCK:
            network = _load(dlib.face_recognition_model_v1, _model_file(_EMBEDDING))
            embedding = network.compute_face_descriptor(frame_HWC, dlib.full_object_detection(box, parts))
        embedding_D = np.array(embedding)
        return embedding_D / np.linalg.norm(embedding_D)

    def best_score(self, frame_HWC: np.ndarray) -> float | None:
        """Of the likeliest face, found or not: below 0 it was not. ``None`` where there is not even a likeness."""
        check_frame(frame_HWC)
        with _LOCK:
            found = _search(np.ascontiguousarray(frame_HWC), *_SEARCHES[-1], _ANYTHING)
        return found[0][0] if found else None

    def limits(self, height: int, width: int) -> str:
        """In words, which faces are not found in frames of this size."""
        smallest = math.ceil(_SMALLEST / _scale(height, width, *_SEARCHES[-1]))
        return (
            f"dlib finds upright faces that are turned by less than about 40 degrees and, in frames of "
            f"{width}x{height}, at least {smallest} pixels high from brow to chin"
        )


def missing_packages() -> str | None:
    """What is not installed and how to install it, without loading anything; ``None`` where all is there."""
    missing = [package for module, package in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return None
    return f"The face backend dlib needs {' and '.join(missing)}: pip install {' '.join(_PACKAGES.values())}"


def _scale(height: int, width: int, pixels: float, enlarge: float) -> float:
    return min(enlarge, math.sqrt(pixels / (height * width)))


def _search(frame_HWC: np.ndarray, pixels: float, enlarge: float, threshold: float):
    """Scores and boxes (left, top, right, bottom, in pixels of the frame), the best first."""
    import dlib
    from PIL import Image

    height, width = frame_HWC.shape[:2]
    scale = _scale(height, width, pixels, enlarge)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    searched_HWC = frame_HWC
    if size != (width, height):
        searched_HWC = np.asarray(Image.fromarray(frame_HWC).resize(size, Image.Resampling.BILINEAR))
    boxes, scores, _ = _load(dlib.get_frontal_face_detector).run(searched_HWC, 0, threshold)
    to_x, to_y = width / size[0], height / size[1]
    found = [
        (score, (box.left() * to_x, box.top() * to_y, box.right() * to_x, box.bottom() * to_y))
        for score, box in zip(scores, boxes, strict=True)
    ]
    return sorted(found, reverse=True)


def _landmarks(frame_HWC: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    import dlib

    predictor = _load(dlib.shape_predictor, _model_file(_LANDMARKS))

    def predict(left: float, top: float, right: float, bottom: float) -> np.ndarray:
        box = dlib.rectangle(round(left), round(top), round(right), round(bottom))
        return np.array([(point.x, point.y) for point in predictor(frame_HWC, box).parts()], float)

    points_P2 = predict(*box)
    (x, y), spread = points_P2.mean(0), np.sqrt(2 * points_P2.var(0).mean())
    y, half = y + _BOX_SHIFT * spread, _BOX_SIDE * spread / 2
    return predict(x - half, y - half, x + half, y + half)


@functools.cache
def _load(model: Callable, *files: Path):
    """A model, once a process."""
    return model(*map(str, files))


def _model_file(name: str) -> Path:
    # Importing the package would fail where setuptools no longer brings pkg_resources.
    spec = importlib.util.find_spec("face_recognition_models")
    path = Path(spec.submodule_search_locations[0]) / "models" / name
    if not path.is_file():
        raise SlotIDError(
            f"The package face-recognition-models is incomplete: there is no {path}. Install it anew with: "
            "pip install --force-reinstall --no-deps face-recognition-models"
        )
    return path
