"""A square crop that follows a face without jitter and without zoom pumping.

Shape letters: F frames, K observations, A axes, J third differences, H W height and width, C channels (RGB).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SlotIDError
from .crop import check_size

# A head that starts and stops moves below this; a detector's jitter is spread over all frequencies.
_FOLLOW_HZ = 0.8
_ZOOM_HZ = 0.1
# Below this ratio of the largest to the smallest face the side stays the same for the whole clip.
_STEADY_RATIO = 1.3
_REWEIGHTINGS = 4
# How far the smoothing may differ from the usual one, and over how many frames before and after that is decided.
_PENALTIES = (0.03, 1e4)
_AROUND = 4
# No outlier: what is this share of a face beside the smooth path, as where a head starts and stops.
_USUAL_STEP = 0.2


@dataclass(frozen=True, kw_only=True)
class CropPath:
    """One square a frame, in pixels of the frames, with fractions."""

    centre_F2: np.ndarray
    """x and y."""
    side_F: np.ndarray


def stable_path(
    boxes: Mapping[int, tuple[float, float, float, float]],
    *,
    frames: int,
    width: int,
    height: int,
    fps: float,
    margin: float,
) -> CropPath:
    """Squares around observed face boxes, smooth over all frames and inside the frame.

    Centres are smoothed by penalised least squares (third differences, so steady motion is followed without lag) with
    outliers weighted down; the more noise they have beside their motion, the smoother. The side is constant unless
    the face grows or shrinks by more than a third over the clip.

    Args:
        boxes: face box ``x0, y0, x1, y1`` by frame index; at least one. Frames between are interpolated.
        frames: length of the clip.
        width: of the frames.
        height: of the frames.
        fps: frames per second.
        margin: side of the square as a multiple of the face's longer side.
    """
    assert boxes, "a path needs at least one observed face"
    at_K = np.array(sorted(boxes))
    box_K4 = np.array([boxes[i] for i in at_K], dtype=np.float64)
    centre_K2 = (box_K4[:, :2] + box_K4[:, 2:]) / 2
    size_K = (box_K4[:, 2:] - box_K4[:, :2]).max(axis=1)

    usual = float(np.median(size_K)) * _USUAL_STEP
    smooth_F2 = _smooth(at_K, centre_K2, frames, _FOLLOW_HZ / fps, usual)
    size_F = np.exp(_smooth(at_K, np.log(size_K)[:, None], frames, _ZOOM_HZ / fps, _USUAL_STEP)[:, 0])
    if size_F.max() / size_F.min() < _STEADY_RATIO:
        size_F = np.full(frames, np.median(size_K))
    side_F = margin * size_F

    # However far the head moved between the smoothed centres, the face itself stays in the picture.
    reach_K = np.abs(box_K4.reshape(-1, 2, 2) - smooth_F2[at_K][:, None]).max(axis=(1, 2))
    fitting_K = reach_K <= 2 * size_K  # farther out it was another face or a false alarm
    if fitting_K.any():
        side_F = side_F * max(1.0, float((2 * reach_K / side_F[at_K])[fitting_K].max()))
    side_F = np.minimum(side_F, min(width, height))
    half_F1 = side_F[:, None] / 2
    return CropPath(centre_F2=np.clip(smooth_F2, half_F1, np.array([width, height]) - half_F1), side_F=side_F)


def crop_along(frames_FHWC: Tensor, path: CropPath, size: int) -> Tensor:
    """Cut the path's squares out, at fractions of a pixel, antialiased.

    Args:
        frames_FHWC: ``[F, H, W, 3]`` uint8.
        path: one square a frame.
        size: side of the result in pixels, a multiple of 16.

    Returns:
        ``[F, size, size, 3]`` float32 in [0, 1].

    Raises:
        SlotIDError: ``size`` is not a multiple of 16, or the path has another length.
    """
    check_size(size)
    if len(path.side_F) != len(frames_FHWC):
        raise SlotIDError(f"Got a path of {len(path.side_F)} squares for {len(frames_FHWC)} frames, expected as many.")
    out_FHWC = torch.empty(len(frames_FHWC), size, size, 3)
    for frame_HWC, centre_2, side, out_HWC in zip(frames_FHWC, path.centre_F2, path.side_F, out_FHWC, strict=True):
        # Several samples a pixel and then their mean: bilinear sampling alone would alias when it shrinks.
        samples = size * max(1, int(np.ceil(side / size)))
        offset = (torch.arange(samples, dtype=torch.float32) + 0.5) / samples - 0.5
        # Only the pixels that are sampled, and a neighbour of each, are turned into floats.
        left, top = (max(0, int(middle - side / 2) - 1) for middle in centre_2)
        picture_HWC = frame_HWC[top : int(centre_2[1] + side / 2) + 2, left : int(centre_2[0] + side / 2) + 2]
        x = (float(centre_2[0]) - left + offset * float(side)) / picture_HWC.shape[1] * 2 - 1
        y = (float(centre_2[1]) - top + offset * float(side)) / picture_HWC.shape[0] * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        picture_1CHW = picture_HWC.permute(2, 0, 1).unsqueeze(0).float() / 255
        sampled = F.grid_sample(picture_1CHW, grid.unsqueeze(0), padding_mode="border", align_corners=False)
        out_HWC.copy_(F.avg_pool2d(sampled, samples // size)[0].permute(1, 2, 0))
    return out_FHWC.clamp_(0, 1)


def _smooth(at_K: np.ndarray, value_KA: np.ndarray, frames: int, cutoff: float, usual: float) -> np.ndarray:
    """Whittaker smoothing of scattered values to one a frame; ``cutoff`` in cycles a frame is halved in amplitude.

    Values that lie farther off than ``usual`` and than most others count less. Then the cutoff is lowered where the
    values move no more than their noise, and raised where they move much more.
    """
    if len(at_K) < 4:
        return np.stack([np.interp(np.arange(frames), at_K, value_K) for value_K in value_KA.T], axis=1)
    third_JF = np.diff(np.eye(frames), n=3, axis=0)
    # An observation every few frames weighs as if it stood for all of them.
    usual_penalty = len(at_K) / frames / (2 * np.sin(np.pi * cutoff)) ** 6
    weight_K = np.ones(len(at_K))
    hat_FK = _hat(at_K, weight_K, third_JF, np.full(len(third_JF), usual_penalty))
    for _ in range(_REWEIGHTINGS):
        residual_K = np.abs(value_KA - (hat_FK @ value_KA)[at_K]).max(axis=1)
        reach = max(4.685 * 1.4826 * np.median(residual_K), 2 * usual)
        reweighted_K = np.clip(1 - (residual_K / reach) ** 2, 0, None) ** 2  # Tukey's biweight
        if reweighted_K.sum() < 4:
            break
        weight_K = reweighted_K
        hat_FK = _hat(at_K, weight_K, third_JF, np.full(len(third_JF), usual_penalty))
    return (
        _hat(at_K, weight_K, third_JF, _penalty(at_K, value_KA, weight_K, third_JF, hat_FK, usual_penalty)) @ value_KA
    )


def _hat(at_K: np.ndarray, weight_K: np.ndarray, third_JF: np.ndarray, penalty_J: np.ndarray) -> np.ndarray:
    """``[F, K]``: what takes values to smooth ones."""
    weights_F = np.zeros(third_JF.shape[1])
    weights_F[at_K] = weight_K
    target_FK = np.zeros((len(weights_F), len(at_K)))
    target_FK[at_K, np.arange(len(at_K))] = weight_K
    return np.linalg.solve(np.diag(weights_F) + (third_JF.T * penalty_J) @ third_JF, target_FK)


def _penalty(at_K, value_KA, weight_K, third_JF, hat_FK, usual: float) -> np.ndarray:
    """Noise of the values over how much they move of themselves, around each frame: the best penalty (Wiener)."""
    residual_KA = value_KA - (hat_FK @ value_KA)[at_K]
    free = max(1.0, weight_K.sum() - float(np.trace(hat_FK[at_K])))
    noise = float((weight_K[:, None] * residual_KA**2).sum()) / (free * value_KA.shape[1])
    third_JK = third_JF @ hat_FK
    moved_J = _around(((third_JK @ value_KA) ** 2).mean(axis=1) - (third_JK**2).sum(axis=1) * noise)
    lowest, highest = _PENALTIES
    return np.clip(noise / np.maximum(moved_J, 1e-12), lowest * usual, highest * usual)


def _around(values_J: np.ndarray) -> np.ndarray:
    """Weighted mean over some frames before and after."""
    reach = min(_AROUND, len(values_J) - 1)
    window = np.hanning(2 * reach + 3)[1:-1]
    return np.convolve(np.pad(values_J, reach, mode="reflect"), window / window.sum(), "valid")
