"""Plots as pixels: the only file that imports matplotlib.

Shape letters: H W height and width, C channels (RGB).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .errors import SlotIDError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 100


def new_figure(width: int, height: int) -> Figure:
    """An empty figure of so many pixels, that lays out its parts by itself.

    Raises:
        SlotIDError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SlotIDError("The plot needs matplotlib. Install it: pip install matplotlib") from error
    return Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout="constrained")


def to_pixels(figure: Figure) -> Tensor:
    """``[H, W, 3]`` uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())
