"""The image-against-video gate w (paper, 3.3) as a function of the noise level.

w is the portrait's weight: large in early, noisy stages, small in late ones. It depends on the *denoising time*, the
same in training and inference, and not on the number of steps. Wan samples with a timestep shift of 3 to 8, so a gate
linear in sigma would stay near ``start`` for most steps and starve the video stream: a shift is undone first.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from .config import GateConfig

_ROUNDING = 1e-5
"""Of noise levels; steps lie a hundred times farther apart."""


def undo_shift(sigma: Tensor, shift: float) -> Tensor:
    """Inverse of the flow-matching timestep shift ``sigma = k u / (1 + (k - 1) u)``, with k = ``shift``."""
    return sigma / (shift - (shift - 1.0) * sigma)


def gate_weight(sigma: Tensor, gate: GateConfig) -> Tensor:
    """w in [0, 1] at noise level ``sigma`` in [0, 1] (any shape): ``end + (start - end) u``.

    Equal ``start`` and ``end`` make it constant: 1 is portrait only, 0 is clip only.
    """
    return gate.end + (gate.start - gate.end) * undo_shift(sigma, gate.shift)


def in_window(sigma: Tensor, start: float, end: float) -> Tensor:
    """Whether noise levels (any shape) lie from ``start`` down to ``end``, both included. Bool, of the same shape.

    A sampler's levels are float32 and have gone through a shift and back: its first may be 1.0000001, and a step that
    begins at ``start`` may miss it by as little.
    """
    return (sigma <= start + _ROUNDING) & (sigma >= end - _ROUNDING)


@dataclass(frozen=True)
class GateEnds:
    """A gate of the user's own, but for the shift that it undoes: that belongs to the weights."""

    start: float
    """Portrait weight w at pure noise, in [0, 1]."""
    end: float
    """Portrait weight w at the clean end, in [0, 1]."""

    def over(self, trained: GateConfig) -> GateConfig:
        """The gate of the weights with these ends.

        Raises:
            SlotIDError: an end that is not in [0, 1].
        """
        return replace(trained, start=self.start, end=self.end)
