"""What every backend checks of a frame before it looks for faces."""

import numpy as np

from ...errors import SlotIDError


def check_frame(frame_HWC: np.ndarray) -> None:
    """Raises a SlotIDError unless the frame is ``[H, W, 3]`` uint8."""
    if frame_HWC.ndim != 3 or frame_HWC.shape[2] != 3 or 0 in frame_HWC.shape or frame_HWC.dtype != np.uint8:
        raise SlotIDError(
            f"Got a frame of shape {list(frame_HWC.shape)} and type {frame_HWC.dtype}, expected [H, W, 3] uint8 RGB. "
            "A Clip holds its frames so, in frames_FHWC."
        )
