"""Pictures of an Identity Score: the plot, and the sheet of the worst frames.

Shape letters: F frames, H W height and width, C channels (RGB).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..figure import new_figure, to_pixels
from .score import with_face
from .sheet import Cell, sheet_of

if TYPE_CHECKING:
    from .analyse import Reference
    from .score import Bin, IdentityScore, ScoredFrame

_WORST, _LOST = 12, 5
_OURS, _HELD_OUT, _OTHERS, _NO_FACE = "tab:blue", "tab:green", "tab:gray", "tab:red"


def score_plot(score: IdentityScore) -> Tensor:
    """Similarity by frame with ceiling and floor, and by yaw and expression. ``[H, W, 3]`` uint8.

    Raises:
        SlotIDError: matplotlib is not installed.
    """
    figure = new_figure(1000, 720)
    found = with_face(score.frames)
    measured = f"score {score.score:.2f}   similarity {score.similarity:.3f}" if found else "NO FACE FOUND: no score"
    figure.suptitle(f"{measured}   ceiling {score.ceiling:.3f}   floor {score.floor:.3f}   by {score.backend}")
    rows = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    time = rows[0].subplots()
    values = [frame.similarity for frame in (*found, *with_face(score.held_out), *with_face(score.others))]
    low, high = min(score.floor, *values), max(score.ceiling, *values)
    low, high = low - 0.12 * (high - low), high + 0.05 * (high - low)

    _band(time, score.held_out, score.ceiling, _HELD_OUT, "held-out frames of the clip")
    _band(time, score.others, score.floor, _OTHERS, "other people" if score.others else "two people's usual")
    line = [np.nan if frame.similarity is None else frame.similarity for frame in score.frames]
    time.plot([frame.index for frame in score.frames], line, ".-", color=_OURS, label="scored frames")
    lost = score.without_face
    if lost:
        label = f"no face found ({len(lost)} of {len(score.frames)})"
        time.plot(lost, [low + 0.03 * (high - low)] * len(lost), "x", color=_NO_FACE, label=label)
    time.set(xlabel="frame", ylabel="cosine", ylim=(low, high), title="likeness to the reference")
    time.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)

    yaw, expression = rows[1].subplots(1, 2)
    _bars(yaw, score.by_yaw(), (low, high), "by where the head points (yaw, degrees)")
    _bars(expression, score.by_expression(), (low, high), "by expression")
    return to_pixels(figure)


def score_sheet(score: IdentityScore, frames_FHWC: Tensor, reference: Reference) -> Tensor:
    """The reference's best portrait, then frames without a face, then the worst ones. ``[H, W, 3]`` uint8.

    Args:
        score: of these frames and this reference.
        frames_FHWC: ``[F, H, W, 3]`` uint8.
        reference: the person.
    """
    best = reference.analysis.candidates[0]
    cells = [
        Cell(
            frame_HWC=reference.frames_FHWC[best.index],
            face=best.face,
            lines=("the reference", f"frame {best.index} of its clip"),
            mark="reference",
        )
    ]
    for index in score.without_face[:_LOST]:
        cells.append(
            Cell(frame_HWC=frames_FHWC[index], face=None, lines=(f"frame {index}", "NO FACE FOUND"), mark="bad")
        )
    for frame in score.worst[:_WORST]:
        share = (frame.similarity - score.floor) / (score.ceiling - score.floor)
        lines = [f"frame {frame.index}", f"{frame.similarity:.3f}  score {share:.2f}"]
        if frame.face.pose is not None:
            lines.append(f"yaw {frame.face.pose.yaw:+.0f} pitch {frame.face.pose.pitch:+.0f}")
        mark = "good" if share > 0.5 else "bad"
        cells.append(Cell(frame_HWC=frames_FHWC[frame.index], face=frame.face, lines=tuple(lines), mark=mark))
    order = ["The least like the person come first; red is nearer to the floor."] if score.worst else []
    return sheet_of(cells, [*score.describe(), *order])


def _band(axes, frames: tuple[ScoredFrame, ...], mean: float, colour: str, label: str) -> None:
    """A line at the mean, and shade from the 5th to the 95th percentile where there are frames."""
    axes.axhline(mean, color=colour, linestyle="--", linewidth=1.2, label=f"{label}: {mean:.3f}")
    if frames:
        low, high = np.quantile([frame.similarity for frame in with_face(frames)], [0.05, 0.95])
        axes.axhspan(low, high, color=colour, alpha=0.15, linewidth=0)


def _bars(axes, bins: list[Bin], limits: tuple[float, float], title: str) -> None:
    low, high = limits
    for shift, colour, label, values, counts in (
        (-0.2, _OURS, "scored", [b.similarity for b in bins], [b.frames for b in bins]),
        (0.2, _HELD_OUT, "held out", [b.held_out for b in bins], [b.held_out_frames for b in bins]),
    ):
        places = np.arange(len(bins)) + shift
        tops = [low if value is None else value for value in values]
        axes.bar(places, [top - low for top in tops], 0.38, bottom=low, color=colour, label=label)
        for place, top, count in zip(places, tops, counts, strict=True):
            axes.annotate(str(count), (place, top), ha="center", va="bottom", fontsize=8, color="0.3")
    axes.set(title=title, ylim=(low, high + 0.08 * (high - low)), ylabel="cosine")
    axes.set_xticks(range(len(bins)), [b.name.replace(" ", "\n", 1) for b in bins], fontsize=8)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.22), ncols=2, fontsize=8, frameon=False)
    axes.text(1, -0.3, "numbers: frames", transform=axes.transAxes, ha="right", fontsize=8, color="0.3")
