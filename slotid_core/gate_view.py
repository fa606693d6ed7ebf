"""What the image-against-video gate does in the steps of one sampler, as a plot and in numbers.

Shape letters: N steps, H W height and width, C channels (RGB).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .config import GateConfig
from .errors import SlotIDError
from .figure import new_figure, to_pixels
from .gate import gate_weight, in_window

_PORTRAIT, _CLIP, _SIGMA = "#f0a050", "#8fb8de", "0.2"
_BARS_LABELLED = 24


@dataclass(frozen=True, kw_only=True)
class GateSteps:
    """The gate at every step."""

    gate: GateConfig
    sigma: tuple[float, ...]
    """Noise level at which each step begins, and with that what the model is called with."""
    portrait: tuple[float, ...]
    """w: the portrait's weight; the clip's is 1 - w."""
    active: tuple[bool, ...]
    """Whether the identity is on in that step, by start and end."""

    def describe(self) -> list[str]:
        """A summary, then a line a step."""
        led = sum(w < 0.5 for w in self.portrait)
        lines = [
            f"{len(self.sigma)} steps; portrait {max(self.portrait):.2f} to {min(self.portrait):.2f}, on average "
            f"{np.mean(self.portrait):.2f}; the clip leads in {led}."
        ]
        if not all(self.active):
            lines.append(f"The identity is on in {sum(self.active)} of {len(self.active)} steps.")
        for step, (sigma, w, on) in enumerate(zip(self.sigma, self.portrait, self.active, strict=True), start=1):
            off = "" if on else ", identity off"
            lines.append(f"step {step}: sigma {sigma:.3f}, portrait {w:.2f}, clip {1 - w:.2f}{off}")
        return lines


def gate_steps(sigmas: Tensor, gate: GateConfig, *, sigma_start: float = 1.0, sigma_end: float = 0.0) -> GateSteps:
    """The gate over a sampler's noise levels.

    Args:
        sigmas: ``[N + 1]``, falling, in [0, 1]; at the last one the model is not called.
        gate: of the weights, or what takes its place.
        sigma_start: the identity is on from this noise level ...
        sigma_end: ... down to this one, both included.

    Raises:
        SlotIDError: no step, or noise levels that are not in [0, 1].
    """
    called_N = sigmas[:-1].float().cpu()
    if len(called_N) == 0:
        raise SlotIDError(f"Got {len(sigmas)} noise levels, expected at least two: there is no step to show.")
    if not (0 <= called_N.min() and called_N.max() <= 1.0001):
        raise SlotIDError(
            f"The noise levels go from {called_N.max():.3f} to {called_N.min():.3f}, expected 1 to 0 as of a flow "
            "model such as Wan. Make them with the scheduler and the model of the same graph."
        )
    w_N = gate_weight(called_N.clamp(max=1), gate)
    on_N = in_window(called_N, sigma_start, sigma_end)
    return GateSteps(gate=gate, sigma=_plain(called_N), portrait=_plain(w_N), active=tuple(on_N.tolist()))


def gate_plot(steps: GateSteps) -> Tensor:
    """Portrait against clip at every step, and the gate over the noise level. ``[H, W, 3]`` uint8.

    Raises:
        SlotIDError: matplotlib is not installed.
    """
    figure = new_figure(1000, 440)
    shares, curve = figure.subplots(1, 2, width_ratios=(1.5, 1))
    number = np.arange(1, len(steps.sigma) + 1)
    w_N = np.array(steps.portrait)
    alpha = [1.0 if on else 0.25 for on in steps.active]
    bars = [
        shares.bar(number, w_N, 0.85, color=_PORTRAIT, label="portrait (w)"),
        shares.bar(number, 1 - w_N, 0.85, bottom=w_N, color=_CLIP, label="clip (1 - w)"),
    ]
    for part in bars:
        for bar, faded in zip(part, alpha, strict=True):
            bar.set_alpha(faded)
    if len(number) <= _BARS_LABELLED:
        for step, w in zip(number, w_N, strict=True):
            shares.annotate(
                f"{w:.2f}", (step, w), ha="center", va="top", fontsize=7, xytext=(0, -2), textcoords="offset points"
            )
    shares.plot(number, steps.sigma, ".-", color=_SIGMA, label="sigma (noise level)")
    title = "what the identity is made of, step by step"
    if not all(steps.active):
        title += f"\npale: identity off ({len(number) - sum(steps.active)} of {len(number)} steps)"
    shares.set(title=title, xlabel="step", ylim=(0, 1), xlim=(0.4, len(number) + 0.6))
    shares.xaxis.get_major_locator().set_params(integer=True)
    legend = shares.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, fontsize=9, frameon=False)
    for handle in legend.legend_handles:
        handle.set_alpha(1.0)  # it takes the first bar's, which may be pale

    sigma = torch.linspace(0, 1, 200)
    curve.plot(sigma, gate_weight(sigma, steps.gate), color=_PORTRAIT, linewidth=1.5)
    on = np.array(steps.active)
    curve.scatter(np.array(steps.sigma)[on], w_N[on], color=_PORTRAIT, s=22, zorder=3, label="a step")
    if not on.all():
        curve.scatter(
            np.array(steps.sigma)[~on], w_N[~on], facecolors="white", edgecolors=_PORTRAIT, s=22, zorder=3,
            label="a step without identity",
        )  # fmt: skip
    gate = steps.gate
    curve.set(
        title=f"gate: {gate.start:g} to {gate.end:g}, undoing a shift of {gate.shift:g}",
        xlabel="sigma (noise level); sampling goes from right to left", ylabel="w, the portrait's weight",
        xlim=(0, 1.02), ylim=(0, 1.02),
    )  # fmt: skip
    curve.legend(loc="upper left", fontsize=9, frameon=False)
    return to_pixels(figure)


def _plain(values_N: Tensor) -> tuple[float, ...]:
    return tuple(values_N.tolist())
