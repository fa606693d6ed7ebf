"""The coverage plot: which angles, expressions and light a clip shows, and how sharp it is over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..figure import new_figure, to_pixels

if TYPE_CHECKING:
    from .analyse import Analysis


def coverage_plot(analysis: Analysis, fps: float) -> Tensor:
    """Four panels: head angles, expression, light and sharpness over time, size over time. ``[H, W, 3]`` uint8.

    Raises:
        SlotIDError: matplotlib is not installed.
    """
    found = [f for f in analysis.frames if f.face is not None and f.measures is not None]
    seconds = [f.index / fps for f in found]
    figure = new_figure(900, 600)
    angles, expression, light, size = figure.subplots(2, 2).flat

    posed = [(f.face.pose.yaw, f.face.pose.pitch, s) for f, s in zip(found, seconds, strict=True) if f.face.pose]
    if posed:
        yaw, pitch, when = zip(*posed, strict=True)
        points = angles.scatter(yaw, pitch, c=when, cmap="viridis", s=24)
        figure.colorbar(points, ax=angles, label="seconds")
    angles.set(
        title="where the head points", xlabel="yaw (degrees)", ylabel="pitch (degrees)", xlim=(-90, 90), ylim=(-60, 60)
    )
    angles.axvspan(-15, 15, color="0.92", zorder=0)
    angles.axhline(0, color="0.8", linewidth=0.8)

    expressed = [(s, f.face.expression) for f, s in zip(found, seconds, strict=True) if f.face.expression]
    for name in ("eyes_open", "mouth_open", "smile"):
        expression.plot(
            [s for s, _ in expressed], [getattr(e, name) for _, e in expressed], label=name.replace("_", " ")
        )
    expression.set(title="expression", xlabel="seconds", ylim=(-0.05, 1.05))
    expression.legend(loc="lower center", bbox_to_anchor=(0.5, -0.42), ncols=3, fontsize=8, frameon=False)

    sharpest = max(1e-9, *(f.measures.sharpness for f in found))  # a box may be on a flat wall
    light.plot(seconds, [f.measures.brightness for f in found], label="brightness of the face")
    light.plot(seconds, [f.measures.sharpness / sharpest for f in found], label="sharpness (of the sharpest)")
    light.set(title="light and sharpness", xlabel="seconds", ylim=(0, 1.05))
    light.legend(loc="lower center", bbox_to_anchor=(0.5, -0.42), ncols=2, fontsize=8, frameon=False)

    size.plot(seconds, [f.measures.size_px for f in found], color="tab:purple")
    largest = max(f.measures.size_px for f in found)
    size.set(title="size of the face", xlabel="seconds", ylabel="pixels", ylim=(0, 1.15 * largest))

    return to_pixels(figure)
