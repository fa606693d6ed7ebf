"""What each slot read of the clip, as pictures and numbers.

Shape letters: F frames, H W height and width, C channels (RGB), S slots, T h w the token grid, L all tokens.

Token time t of the grid is one latent frame: the first is the clip's first frame, every later one the next four.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .checkpoint import SlotIDWeights
from .errors import SlotIDError
from .figure import new_figure, to_pixels
from .identify import Identified
from .latents import shuffled_order
from .types import Routing

if TYPE_CHECKING:
    from .reference.analyse import Reference

# Told apart by people who see few colours, too (after Okabe and Ito, and Tol's "bright").
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#4477aa", "#bbbbbb")
UNTRAINED = "UNTRAINED WEIGHTS: the slots read at random"
# The overlay's pictures are enlarged to this height, so that the words below them can be read.
_HEIGHT, _STRIP = 512, 64
# How much of the clip is seen under the colours.
_GREY, _COLOUR = 0.55, 0.75
# The strongest weight is rarely alone: from this quantile on everything is full colour.
_FULL = 0.995
_GRID_CELL = 112
_MOST_TIMES = 9


@dataclass(frozen=True, kw_only=True)
class ClipRouting:
    """What each slot read, and of which pictures: all that the pictures need."""

    routing: Routing
    """One clip (B = 1), on the CPU."""
    frames_FHWC: Tensor
    """The square clip in the order in which it was read, float in [0, 1]."""
    face_FHW1: Tensor | None
    """1 inside the face's box, 0 outside, in the same order and any resolution; ``None`` without a reference."""
    untrained: bool

    def __post_init__(self):
        assert self.routing.weights_BSTHW.shape[0] == 1, "one clip at a time"
        assert self.frames_FHWC.shape[0] == 4 * self.routing.weights_BSTHW.shape[2] - 3, "frames of another clip"


def clip_routing(
    weights: SlotIDWeights, identified: Identified, clip_FHWC: Tensor, reference: Reference | None
) -> ClipRouting | None:
    """The routing of :func:`.identify.identify` with the clip and reference it was called with.

    ``None`` for weights without routing (3DConv-Pool).
    """
    if identified.routing is None:
        return None
    face_FHW1 = None if reference is None else _face_masks(reference, side=clip_FHWC.shape[1] // 4)
    if weights.model.config.clip_order == "shuffled":
        order_F = shuffled_order(clip_FHWC)
        clip_FHWC, face_FHW1 = clip_FHWC[order_F], None if face_FHW1 is None else face_FHW1[order_F.cpu()]
    # A token may be several latent frames deep: each then has its share.
    deep = weights.model.config.encoder.patch[0]
    weights_BSTHW = identified.routing.weights_BSTHW.float().cpu().repeat_interleave(deep, dim=2) / deep
    return ClipRouting(
        routing=Routing(weights_BSTHW),
        frames_FHWC=clip_FHWC,
        face_FHW1=face_FHW1,
        untrained=weights.untrained,
    )


def _face_masks(reference: Reference, side: int) -> Tensor:
    """The face's box in the square clip, ``[F, side, side, 1]``; between detections it moves evenly."""
    analysis = reference.analysis
    kept, path = analysis.kept, analysis.path
    seen = [i for i in kept if analysis.frames[i].face is not None]
    boxes_N4 = np.array([analysis.frames[i].face.box_xyxy for i in seen])
    boxes_F4 = np.stack([np.interp(list(kept), seen, edge_N) for edge_N in boxes_N4.T], axis=1)
    corner_F2 = path.centre_F2 - path.side_F[:, None] / 2
    boxes_F4 = (boxes_F4 - np.tile(corner_F2, 2)) / path.side_F[:, None]
    left_F, top_F, right_F, bottom_F = torch.from_numpy(boxes_F4).T[..., None]
    middle = (torch.arange(side) + 0.5) / side
    across_FW = (middle >= left_F) & (middle <= right_F)
    down_FH = (middle >= top_F) & (middle <= bottom_F)
    return (down_FH[:, :, None] & across_FW[:, None, :]).float().unsqueeze(-1)


@dataclass(frozen=True, kw_only=True)
class RoutingNumbers:
    """One number a slot, where not said otherwise."""

    overlap: float
    """See :meth:`.types.Routing.overlap`; of all slots."""
    entropy: tuple[float, ...]
    """0: all is read from one token; 1: every token alike."""
    face: tuple[float, ...] | None
    """Share of the reading that lies in the face's box; ``None`` where the face is not known."""
    face_even: float | None
    """What that share would be if every token were read alike."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON."""
        return vars(self)


def routing_numbers(read: ClipRouting) -> RoutingNumbers:
    """Overlap, entropies and shares of the face."""
    weights_STHW = read.routing.weights_BSTHW[0]
    _, times, height, width = weights_STHW.shape
    tokens = times * height * width
    entropy_S = -(weights_STHW * weights_STHW.clamp_min(1e-30).log()).flatten(1).sum(1) / max(1e-9, math.log(tokens))
    face = face_even = None
    if read.face_FHW1 is not None:
        inside_FHW = functional.adaptive_avg_pool2d(read.face_FHW1[..., 0].unsqueeze(1), (height, width))[:, 0]
        inside_THW = torch.stack([part.mean(0) for part in inside_FHW.split([1] + [4] * (times - 1))])
        face = tuple((weights_STHW * inside_THW).flatten(1).sum(1).tolist())
        face_even = float(inside_THW.mean())
    return RoutingNumbers(
        overlap=float(read.routing.overlap()[0]), entropy=tuple(entropy_S.tolist()), face=face, face_even=face_even
    )


def describe_routing(read: ClipRouting, numbers: RoutingNumbers) -> list[str]:
    """A few lines for people, a line a slot."""
    lines = [UNTRAINED] if read.untrained else []
    lines.append(f"Overlap of what the slots read: {numbers.overlap:.2f} (1 = all the same, 0 = nothing in common).")
    for slot, entropy in enumerate(numbers.entropy):
        line = f"Slot {slot + 1}: entropy {entropy:.2f} (1 = reads everything alike)"
        if numbers.face is not None:
            line += (
                f", {numbers.face[slot]:.0%} of it on the face ({numbers.face_even:.0%} if it read everything alike)"
            )
        lines.append(line + ".")
    return lines


def overlay(
    read: ClipRouting, slot: int = 0, progress: Callable[[int, int], None] = lambda done, total: None
) -> Tensor:
    """The clip in grey with what was read in colour, frame by frame, and a legend below.

    Args:
        read: what was read.
        slot: 1 to S for one slot, stronger colour where it reads more; 0 for all: the colour of the slots that read
            a place most, paler where they read it alike.
        progress: called as ``progress(done, total)``; what it raises passes through.

    Returns:
        ``[F, H, W, 3]`` float in [0, 1]; as many frames as the clip, with even sides.

    Raises:
        SlotIDError: no such slot, or matplotlib is not installed.
    """
    weights_STHW = read.routing.weights_BSTHW[0]
    slots, times = weights_STHW.shape[:2]
    if not 0 <= slot <= slots:
        raise SlotIDError(f"Slot {slot} was asked for, and these weights have the slots 1 to {slots}. 0 shows all.")
    palette_SC = _palette(slots)
    if slot:
        one_THW = weights_STHW[slot - 1]
        alpha_THW = one_THW / one_THW.flatten().quantile(_FULL).clamp_min(1e-30)
        colour_THWC = palette_SC[slot - 1].expand(*one_THW.shape, 3)
    else:
        total_THW = weights_STHW.sum(0)
        share_STHW = weights_STHW / total_THW.clamp_min(1e-30)
        # How far the strongest slot is ahead of an even split, where anything is read at all. The root lets half of
        # the way be seen.
        ahead_THW = (share_STHW.amax(0) - 1 / slots) / max(1e-9, 1 - 1 / slots) if slots > 1 else total_THW.new_ones(())
        alpha_THW = ahead_THW.clamp_min(0).sqrt() * (total_THW / total_THW.mean()).clamp_max(1)
        colour_THWC = torch.einsum("sthw,sc->thwc", share_STHW, palette_SC)
    width = round(read.frames_FHWC.shape[2] / read.frames_FHWC.shape[1] * _HEIGHT / 2) * 2
    strip_HWC = _legend(slots, slot, width, read.untrained)
    out_FHWC = torch.empty(len(read.frames_FHWC), _HEIGHT + _STRIP, width, 3)
    for frame, frame_HWC in enumerate(read.frames_FHWC):
        time = (frame + 3) // 4
        grey_HW1 = _resize(frame_HWC.float().cpu(), width).mean(-1, keepdim=True)
        alpha_HW1 = _COLOUR * _resize(alpha_THW[time].unsqueeze(-1).clamp(0, 1), width)
        colour_HWC = _resize(colour_THWC[time], width)
        out_FHWC[frame, :_HEIGHT] = (1 - alpha_HW1) * _GREY * grey_HW1 + alpha_HW1 * colour_HWC * (0.4 + 0.6 * grey_HW1)
        out_FHWC[frame, _HEIGHT:] = strip_HWC
        progress(frame + 1, len(out_FHWC))
    return out_FHWC.clamp_(0, 1)


def routing_grid(read: ClipRouting, numbers: RoutingNumbers) -> Tensor:
    """One row a slot, one column a latent frame (nine at most, evenly spread), with the numbers. ``[H, W, 3]`` uint8.

    Raises:
        SlotIDError: matplotlib is not installed.
    """
    weights_STHW = read.routing.weights_BSTHW[0]
    slots, times = weights_STHW.shape[:2]
    shown = sorted({*np.linspace(0, times - 1, min(times, _MOST_TIMES)).round().astype(int).tolist()})
    palette_SC = _palette(slots)
    cell, gap = _GRID_CELL, 4
    picture_HWC = torch.ones(slots * (cell + gap) - gap, len(shown) * (cell + gap) - gap, 3)
    for slot in range(slots):
        full = weights_STHW[slot].flatten().quantile(_FULL).clamp_min(1e-30)
        for column, time in enumerate(shown):
            frame_HWC = read.frames_FHWC[max(0, 4 * time - 3)].float().cpu()
            grey_HW1 = _resize(frame_HWC, cell, cell).mean(-1, keepdim=True)
            alpha_HW1 = _COLOUR * _resize((weights_STHW[slot, time] / full).clamp(0, 1).unsqueeze(-1), cell, cell)
            y, x = slot * (cell + gap), column * (cell + gap)
            coloured_HWC = alpha_HW1 * palette_SC[slot] * (0.4 + 0.6 * grey_HW1)
            picture_HWC[y : y + cell, x : x + cell] = (1 - alpha_HW1) * _GREY * grey_HW1 + coloured_HWC
    height, width = picture_HWC.shape[:2]
    figure = new_figure(width + 200, height + 110)
    figure.get_layout_engine().set(w_pad=0.12)  # the labels' coloured boxes are not counted
    axes = figure.subplots()
    axes.imshow(picture_HWC.clamp(0, 1).numpy(), interpolation="nearest")
    axes.set_frame_on(False)
    axes.tick_params(length=0)
    labels = []
    for slot, entropy in enumerate(numbers.entropy):
        label = f"slot {slot + 1}\nentropy {entropy:.2f}"
        if numbers.face is not None:
            label += f"\nface {numbers.face[slot]:.0%}"
        labels.append(label)
    axes.set_yticks([slot * (cell + gap) + cell / 2 for slot in range(slots)], labels)
    for label, colour in zip(axes.get_yticklabels(), palette_SC.tolist(), strict=True):
        label.set_bbox({"facecolor": colour, "alpha": 0.35, "linewidth": 0})
    said = [f"frame {4 * t - 3}-{4 * t}" if t else "frame 0" for t in shown]
    axes.set_xticks([column * (cell + gap) + cell / 2 for column in range(len(shown))], said, fontsize=9)
    title = f"what each slot read   overlap {numbers.overlap:.2f}"
    if numbers.face_even is not None:
        title += f"   (read evenly, {numbers.face_even:.0%} would be on the face)"
    axes.set_title(title, fontsize=11)
    if read.untrained:
        figure.suptitle(UNTRAINED, color="tab:red", fontsize=13, fontweight="bold")
    return to_pixels(figure)


def _palette(slots: int) -> Tensor:
    """``[S, 3]`` in [0, 1]."""
    colours = [_COLOURS[slot % len(_COLOURS)] for slot in range(slots)]
    return torch.tensor([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])


def _resize(picture_HWC: Tensor, width: int, height: int = _HEIGHT) -> Tensor:
    picture_1CHW = picture_HWC.permute(2, 0, 1).unsqueeze(0)
    return functional.interpolate(picture_1CHW, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0)


def _legend(slots: int, slot: int, width: int, untrained: bool) -> Tensor:
    """``[_STRIP, width, 3]`` in [0, 1]."""
    figure = new_figure(width, _STRIP)
    figure.set_layout_engine("none")
    shown = [slot - 1] if slot else range(slots)
    palette_SC = _palette(slots)
    for place, index in enumerate(shown):
        figure.text(
            (place + 0.5) / len(shown), 0.7, f"slot {index + 1}", ha="center", va="center", fontsize=10,
            bbox={"facecolor": palette_SC[index].tolist(), "linewidth": 0, "boxstyle": "round,pad=0.25"},
        )  # fmt: skip
    words = "colour: who reads it most; grey: all alike" if not slot else "stronger colour: read more"
    said, colour = (UNTRAINED, "tab:red") if untrained else (words, "0.3")
    figure.text(0.5, 0.22, said, ha="center", va="center", fontsize=10, color=colour)
    return to_pixels(figure).float() / 255
