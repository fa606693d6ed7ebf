"""A dataset's own masks as the matte of a portrait. Shape letters: H W height and width."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slotid_core.reference.decode import TIMESTAMP_SLACK_S
from training.data.sources import PersonHint, UnusableError

# Trackers lose people: a mask that leaves out more than this share of the face would turn the portrait white.
_MOST_FACE_OUTSIDE = 0.5


def mask_at(hint: PersonHint, second: float, face_xyxy: tuple[float, ...], height: int, width: int) -> Tensor | None:
    """The person's mask in one picture of a video.

    Args:
        second: of the video; the picture is the one that is shown then.
        face_xyxy: left, top, right and bottom of the face in pixels of the picture.
        height, width: of the picture; a mask of another size is resized.

    Returns:
        ``[H, W]`` float32 in [0, 1], 1 on the person; ``None`` where there is no mask of this very picture, or it
        leaves out most of the face.

    Raises:
        UnusableError: the mask's file is no picture, or one of far too many pixels.
    """
    from PIL import Image

    now = second + TIMESTAMP_SLACK_S
    shown = next((mask for mask in reversed(hint.masks) if mask.second <= now), None)
    if shown is None or now >= shown.second + hint.step_s:
        return None
    try:
        with Image.open(shown.path) as picture:
            person_hw = torch.from_numpy((np.asarray(picture) > 0).astype(np.float32))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnusableError("broken annotation", f"The mask {shown.path} can't be read: {error}.") from error
    if person_hw.ndim != 2:
        raise UnusableError("broken annotation", f"The mask {shown.path} has colours, expected grey.")
    mask_HW = F.interpolate(person_hw[None, None], (height, width), mode="bilinear", antialias=True)[0, 0].clamp(0, 1)
    left, top, right, bottom = (max(0, round(side)) for side in face_xyxy)
    face_hw = mask_HW[top:bottom, left:right]
    return None if face_hw.numel() == 0 or float(face_hw.mean()) < 1 - _MOST_FACE_OUTSIDE else mask_HW
