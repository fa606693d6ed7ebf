"""Hard cuts: where one shot ends and another begins.

Shape letters: F frames, H W height and width, C channels (RGB), h w a small grid, N histogram bins.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_GRID = (18, 32)
# Frames are thinned out to about this many times the grid before they are averaged; more would only cost time.
_SAMPLES = 4
_BINS = 8
# A cut changes what is where and which colours there are. Motion changes the first alone.
_MOVED = 0.08
_RECOLOURED = 0.25
# It stands out from the frames before and from those after, as a pan or a fade does not.
_STANDS_OUT = 3.0
_AROUND = 6
# A lamp that is switched on changes the colours and leaves the picture like itself, by correlation.
_SAME_PICTURE = 0.9
# A flash is over after this time, and the old picture is back.
_FLASH_S = 0.25


def find_cuts(frames_FHWC: Tensor, *, fps: float) -> list[int]:
    """Indices of the frames that begin a new shot, without frame 0.

    Args:
        frames_FHWC: ``[F, H, W, 3]`` uint8.
        fps: frames per second.
    """
    count = len(frames_FHWC)
    if count < 2:
        return []
    small_FhwC = torch.stack([_small(frame_HWC) for frame_HWC in frames_FHWC])
    moved_F = small_FhwC.diff(dim=0).abs().mean(dim=(1, 2, 3)).numpy()
    histogram_FN = torch.stack([_histogram(small_hwC) for small_hwC in small_FhwC])
    recoloured_F = (histogram_FN.diff(dim=0).abs().sum(dim=1) / 2).numpy()
    flash = max(1, round(_FLASH_S * fps))
    cuts = []
    back = 0  # until this frame the picture is the flash's, or the old one again
    for i in np.flatnonzero((moved_F > _MOVED) & (recoloured_F > _RECOLOURED)).tolist():
        usual = max(_median(moved_F[max(0, i - _AROUND) : i]), _median(moved_F[i + 1 : i + 1 + _AROUND]))
        if i < back or moved_F[i] < _STANDS_OUT * usual:
            continue
        if _correlation(small_FhwC[i], small_FhwC[i + 1]) > _SAME_PICTURE:
            continue
        returns = [j for j in range(i + 2, min(count, i + 2 + flash)) if _is_again(small_FhwC[i], small_FhwC[j])]
        if returns:
            back = returns[0]
        else:
            cuts.append(i + 1)
    return cuts


def _small(frame_HWC: Tensor) -> Tensor:
    height, width, _ = frame_HWC.shape
    rows, columns = max(1, height // (_SAMPLES * _GRID[0])), max(1, width // (_SAMPLES * _GRID[1]))
    picture_1CHW = frame_HWC[::rows, ::columns].permute(2, 0, 1).unsqueeze(0).float() / 255
    return F.interpolate(picture_1CHW, _GRID, mode="area")[0].permute(1, 2, 0)


def _histogram(small_hwC: Tensor) -> Tensor:
    """Share of the picture in each of 8 x 8 x 8 colours."""
    levels_hwC = (small_hwC * (_BINS - 1e-3)).long()
    index = (levels_hwC[..., 0] * _BINS + levels_hwC[..., 1]) * _BINS + levels_hwC[..., 2]
    counts_N = torch.bincount(index.flatten(), minlength=_BINS**3)
    return counts_N / counts_N.sum()


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _is_again(old_hwC: Tensor, new_hwC: Tensor) -> bool:
    return float((old_hwC - new_hwC).abs().mean()) < _MOVED / 2 or _correlation(old_hwC, new_hwC) > _SAME_PICTURE


def _correlation(a_hwC: Tensor, b_hwC: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a_hwC.mean(-1).flatten(), b_hwC.mean(-1).flatten()]))[0, 1])
