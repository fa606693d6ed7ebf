"""Faces where the user says that they are. Shape letters: M masks (1 or one for each frame), H W height and width."""

import numpy as np
from torch import Tensor

from ...errors import SlotIDError
from ..crop import Box
from ..portrait import PERSON, as_masks
from .face import Face
from .frame import check_frame


class BoxFaces:
    """One face in each frame, inside a box, a mask, or the overlap of both; no landmarks, pose or embeddings.

    Args:
        box: where the face is, in all frames.
        mask: ``[H, W]`` or ``[M, H, W]``, float from 0 to 1, 1 on the face. A frame whose mask is empty (or is so
            inside the box) has no face.
        frames: how many frames the clip has; M is 1 or this.

    Raises:
        SlotIDError: there is neither box nor mask, or the mask is not such.
    """

    name = "box"
    licence = "no weights are involved"
    same_person: float | None = None
    strangers: float | None = None

    def __init__(self, box: Box | None = None, mask: Tensor | None = None, *, frames: int):
        if box is None and mask is None:
            raise SlotIDError("The face backend box needs a box or a mask, and got neither. Draw one of them.")
        self._box = box
        self._masks_MHW = None if mask is None else as_masks(mask, frames).numpy()

    def detect(self, frame_HWC: np.ndarray, index: int, smallest_px: float = 0.0) -> list[Face]:
        """See :class:`.face.FaceBackend`; the score is 1."""
        check_frame(frame_HWC)
        height, width = frame_HWC.shape[:2]
        box = self._box if self._box is not None else Box(0, 0, width, height)
        box.check_inside(width, height)
        left, top, right, bottom = box.x, box.y, box.x + box.width, box.y + box.height
        if self._masks_MHW is not None:
            mask_HW = self._masks_MHW[index % len(self._masks_MHW)]
            if mask_HW.shape != (height, width):
                raise SlotIDError(
                    f"Got a mask of {mask_HW.shape[1]}x{mask_HW.shape[0]} pixels for frames of {width}x{height}. Make "
                    "the mask from these frames, or resize it to them."
                )
            face_HW = mask_HW[top:bottom, left:right] >= PERSON
            rows, columns = np.flatnonzero(face_HW.any(1)), np.flatnonzero(face_HW.any(0))
            if len(rows) == 0:
                return []
            left, right = left + columns[0], left + columns[-1] + 1
            top, bottom = top + rows[0], top + rows[-1] + 1
        return [Face(box_xyxy=(float(left), float(top), float(right), float(bottom)), score=1.0)]

    def embed(self, frame_HWC: np.ndarray, face: Face) -> np.ndarray:
        """Never called: there are no embeddings."""
        raise AssertionError("a box has no embedding")

    def best_score(self, frame_HWC: np.ndarray) -> float | None:
        """``None``: nothing is searched."""
        return None

    def limits(self, height: int, width: int) -> str:
        """In words, where there is no face."""
        return "the face is where the box or mask says; frames whose mask is empty have none"
