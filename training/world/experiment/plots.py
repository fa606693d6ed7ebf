"""The results in one picture: faces, what only the clip can tell, and where on the noise axis identity is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from slotid_core.figure import new_figure, to_pixels
from training.atomic import atomic
from training.world.experiment.intervals import Draws, bounds_of, mean_draws, over_seeds, r2_draws
from training.world.experiment.variants import VARIANTS
from training.world.score import CLIP_ALONE

_WIDTH, _ROW, _ABOVE = 1500, 26, 190
_FLOOR, _OURS, _OTHERS = "tab:gray", "tab:blue", "dimgray"
_TRAITS = ("tab:purple", "tab:orange")
"""Colours of ``CLIP_ALONE``."""


def write_plots(path: Path, bounds: Mapping[str, Any], found: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
    """A PNG.

    Args:
        bounds: the real other clips, and what comes without an identity.
        found: results by variant and seed.
    """
    runs = {name: [found[key] for key in found if key[0] == name] for name in VARIANTS}
    runs = {name: results for name, results in runs.items() if results}
    videos = {VARIANTS[name].title: [result["videos"] for result in results] for name, results in runs.items()}
    videos = {"real other clip": [bounds["real"]], **videos, "no identity": [bounds["none"]]}
    labels = [f"{label} ({len(seeds)} seeds)" if len(seeds) > 1 else label for label, seeds in videos.items()]
    figure = new_figure(_WIDTH, _ABOVE + _ROW * len(labels))
    faces, traits, noise = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))

    def rows(axes, figures: Sequence[Draws], colours: Sequence[str], shift: float = 0.0, **kwargs: Any) -> None:
        for y, (draws, colour) in enumerate(zip(figures, colours, strict=True)):
            value, low, high = bounds_of(*draws)
            axes.plot([low, high], [y + shift] * 2, "-", color=colour)
            axes.plot(value, y + shift, "o", markersize=5, color=colour, **(kwargs if y == 0 else {}))

    ours = [_OURS if label == VARIANTS["slotid"].title else _OTHERS for label in videos]
    rows(faces, [over_seeds([mean_draws(np.array(v["face"])) for v in seeds]) for seeds in videos.values()], ours)
    floor, ceiling = np.mean(bounds["stranger_face"]), np.mean(bounds["real"]["face"])
    for value, style in ((floor, ":"), ((floor + ceiling) / 2, "--"), (ceiling, ":")):
        faces.axvline(value, color=_FLOOR, linestyle=style, linewidth=1)
    faces.set(title="likeness of the face\n(dotted: another person, the same; dashed: halfway)", xlabel="cosine")
    faces.set_yticks(range(len(labels)), labels)

    true_NI = np.array(bounds["true"])
    for place, (trait, colour) in enumerate(zip(CLIP_ALONE, _TRAITS, strict=True)):
        read = [[r2_draws(np.array(v["traits"]), true_NI, (trait,)) for v in seeds] for seeds in videos.values()]
        rows(traits, [over_seeds(r) for r in read], [colour] * len(read), 0.3 * (place - 0.5), label=trait)
    traits.axvline(0, color=_FLOOR, linestyle=":", linewidth=1)
    traits.set(title="what a portrait cannot tell", xlabel="R²", yticks=range(len(labels)), yticklabels=[])
    traits.legend(fontsize=8, frameon=False, loc="upper left")
    for axes in (faces, traits):
        axes.set_ylim(len(labels) - 0.5, -0.5)

    for name in ("slotid", "clip_only", "conv_pool", "orderless", "portrait_only"):
        gaps = [
            {float(key.removeprefix("gap_at_")): v for key, v in r["validation"].items() if key.startswith("gap_at_")}
            for r in runs.get(name, []) if "validation" in r
        ]  # fmt: skip
        if gaps:
            sigmas = sorted(gaps[0])
            means = [np.mean([gap[sigma] for gap in gaps]) for sigma in sigmas]
            noise.plot(sigmas, means, "o-", ms=4, linewidth=1.5, label=VARIANTS[name].title)
    noise.set(title="gap between right and wrong person", xlabel="noise level", ylabel="% of the loss")
    if noise.lines:
        noise.legend(fontsize=8, frameon=False)
    with atomic(path) as temporary:
        Image.fromarray(to_pixels(figure).numpy()).save(temporary, format="PNG", optimize=True)
