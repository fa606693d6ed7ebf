"""Hard cuts: where one shot ends and another begins.

Shape letters: F frames, H W height and width, C channels (RGB), h w a small grid, N histogram bins.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_GRID = (18, 32)
_BINS = 8
# A cut changes what is where and which colours there are. Motion changes the first, a flash mostly the second.
_MOVED = 0.08
_RECOLOURED = 0.25
# ... and it stands out from the frames around it, as a pan or a fade does not.
_STANDS_OUT = 3.0
_AROUND = 6


def find_cuts(frames_FHWC: Tensor) -> list[int]:
    """Indices of the frames that begin a new shot, without frame 0.

    Args:
        frames_FHWC: ``[F, H, W, 3]`` uint8.
    """
    if frames_FHWC.shape[0] < 2:
        return []
    small_FhwC = torch.stack([_small(frame_HWC) for frame_HWC in frames_FHWC])
    moved_F = (small_FhwC.diff(dim=0).abs().mean(dim=(1, 2, 3))).numpy()
    histogram_FN = torch.stack([_histogram(small_hwC) for small_hwC in small_FhwC])
    recoloured_F = (histogram_FN.diff(dim=0).abs().sum(dim=1) / 2).numpy()
    cuts = []
    for i, (moved, recoloured) in enumerate(zip(moved_F, recoloured_F, strict=True)):
        around = np.delete(moved_F, i)[max(0, i - _AROUND) : i + _AROUND]
        usual = float(np.median(around)) if len(around) else 0.0
        if moved > _MOVED and recoloured > _RECOLOURED and moved > _STANDS_OUT * usual:
            cuts.append(i + 1)
    return cuts


def _small(frame_HWC: Tensor) -> Tensor:
    picture_1CHW = frame_HWC.permute(2, 0, 1).unsqueeze(0).float() / 255
    return F.interpolate(picture_1CHW, _GRID, mode="area")[0].permute(1, 2, 0)


def _histogram(small_hwC: Tensor) -> Tensor:
    """Share of the picture in each of 8 x 8 x 8 colours."""
    levels_hwC = (small_hwC * (_BINS - 1e-3)).long()
    index = (levels_hwC[..., 0] * _BINS + levels_hwC[..., 1]) * _BINS + levels_hwC[..., 2]
    counts_N = torch.bincount(index.flatten(), minlength=_BINS**3)
    return counts_N / counts_N.sum()
