"""Other colours, exposure and crop for a reference, so that a model can't copy its pixels.

Shape letters: F frames, H W height and width, C channels (RGB).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slotid_core.reference.portrait import LUMA
from slotid_core.reference.stabilise import CropPath
from training.settings import AugmentSettings


@dataclass(frozen=True, kw_only=True)
class Change:
    """One version of a reference; the same for all of its frames."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    """Factors."""
    shift_x: float = 0.0
    shift_y: float = 0.0
    """Of the square, as shares of its side."""
    zoom: float = 1.0
    """Factor of the square's side."""


def draw_change(settings: AugmentSettings, *, seed: int, clip: str, variant: int) -> Change:
    """The change of one version, the same for the same seed, clip and variant on every machine; 0 changes nothing."""
    if variant == 0:
        return Change()
    digest = hashlib.sha256(f"{seed}/{variant}/{clip}".encode()).digest()
    # RandomState's stream is frozen over numpy's versions.
    u = np.random.RandomState(np.frombuffer(digest, dtype="<u4")).uniform(-1.0, 1.0, size=6)
    return Change(
        brightness=1.0 + settings.brightness * u[0],
        contrast=1.0 + settings.contrast * u[1],
        saturation=1.0 + settings.saturation * u[2],
        shift_x=settings.crop * u[3],
        shift_y=settings.crop * u[4],
        zoom=1.0 + settings.crop * u[5],
    )


def change_path(path: CropPath, change: Change, *, height: int, width: int) -> CropPath:
    """The squares moved and resized, and kept inside the frame."""
    if change == Change():
        return path
    side_F = np.minimum(path.side_F * change.zoom, min(height, width))
    shift_F2 = path.side_F[:, None] * np.array([change.shift_x, change.shift_y])
    half_F1 = side_F[:, None] / 2
    centre_F2 = np.clip(path.centre_F2 + shift_F2, half_F1, np.array([width, height]) - half_F1)
    return CropPath(centre_F2=centre_F2, side_F=side_F)


def change_colours(frames_FHWC: Tensor, change: Change) -> Tensor:
    """Exposure, then contrast about the clip's mean, then saturation; float in [0, 1]."""
    if (change.brightness, change.contrast, change.saturation) == (1.0, 1.0, 1.0):
        return frames_FHWC
    lit_FHWC = frames_FHWC * change.brightness
    mean = lit_FHWC.mean()
    clear_FHWC = (lit_FHWC - mean) * change.contrast + mean
    luma_FHW1 = (clear_FHWC @ torch.tensor(LUMA)).unsqueeze(-1)
    return (luma_FHW1 + change.saturation * (clear_FHWC - luma_FHW1)).clamp(0.0, 1.0)
