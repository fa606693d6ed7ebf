"""The probe's face: an ArcFace-style embedding, learned on frames that stay as they are.

Letters: N clips, B rows, F frames, H W height and width, D width, P people, E embedding width, V views.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from slotid_core.errors import SlotIDError
from training.world.models.device import half

if TYPE_CHECKING:
    from training.world.models.probe import Probe

EMBEDDING = 64
"""Width of a face."""
FACE_SHARE = 0.125
"""Of the time that the frames take: so long the face learns, after them."""
_MARGIN, _SCALE, _BATCH, _DECAY = 0.2, 16.0, 64, 1.0
"""With a weight decay of 0.05, without dropout and shaping the frames it knew its 597 people by heart and told new ones
with an AUC of 0.68; so, with 0.93."""


def augmented(
    clips_BFHW3: Tensor,
    random: np.random.RandomState,
    mirrored_B: np.ndarray | None = None,
    reversed_B: np.ndarray | None = None,
) -> Tensor:
    """Each moved by up to 3 pixels and a little brighter or darker, float in [0, 1], and where so told from its last
    frame to its first; see :func:`moved`."""
    count = len(clips_BFHW3)
    shift_B2, brightness_B = random.randint(-3, 4, size=(count, 2)), 1 + 0.1 * (2 * random.uniform(size=count) - 1)
    neither_B = np.zeros(count, bool)
    ways = (neither_B if told is None else told for told in (mirrored_B, reversed_B))
    return moved(clips_BFHW3, shift_B2, brightness_B, *ways)


def moved(
    clips_BFHW3: Tensor, shift_B2: np.ndarray, brightness_B: np.ndarray, mirrored_B: np.ndarray, reversed_B: np.ndarray
) -> Tensor:
    """Clips, uint8, in a mirror and from the last frame to the first where so told, then moved by pixels (y, x) with
    their borders repeated, then so much brighter: float in [0, 1]. A few kernels on the clips' device, whatever the
    batch."""
    count, frames, height, width, _ = clips_BFHW3.shape
    rows_BH = (np.arange(height) + shift_B2[:, :1]).clip(0, height - 1)
    columns_BW = (np.arange(width) + shift_B2[:, 1:]).clip(0, width - 1)
    columns_BW = np.where(mirrored_B[:, None], width - 1 - columns_BW, columns_BW)
    frames_BF = np.where(reversed_B[:, None], np.arange(frames)[::-1], np.arange(frames))
    # One way to the device for all that chance said: each is a wait of its own.
    told_BK = np.concatenate([frames_BF, rows_BH, columns_BW, brightness_B[:, None]], 1, dtype=np.float32)
    told_BK = torch.from_numpy(told_BK).to(clips_BFHW3.device)
    frames_BF, rows_BH, columns_BW = told_BK[:, :-1].long().split([frames, height, width], 1)
    picture_BF = torch.arange(count, device=told_BK.device)[:, None] * frames + frames_BF
    pixel_BFHW = (picture_BF[:, :, None, None] * height + rows_BH[:, None, :, None]) * width + columns_BW[:, None, None]
    # Of plain rows of three bytes: on a CPU four times as fast as indexing with four tensors.
    cut_BFHW3 = clips_BFHW3.reshape(-1, 3).index_select(0, pixel_BFHW.flatten()).view(clips_BFHW3.shape).float()
    return cut_BFHW3.div_(255).mul_(told_BK[:, -1, None, None, None, None]).clamp_(0, 1)


def of_two_clips(who: list[str]) -> list[int]:
    """Indices of the clips of people who have more than one.

    Told from all others by a single clip, a person teaches what a clip looks like: a probe that learned faces of two
    thirds of such people found 0.61 between clips of one person, without them 0.74.

    Args:
        who: person of each clip.

    Raises:
        SlotIDError: nobody has two clips.
    """
    clips_of = Counter(who)
    chosen = [i for i, person in enumerate(who) if clips_of[person] > 1]
    if not chosen:
        raise SlotIDError(
            f"Got {len(who)} clips to learn from, all of different people, expected two of some: a face is what a "
            "person's two clips share. Draw more without --clips 1."
        )
    return chosen


def learn_faces(probe: Probe, clips_NFHW3: Tensor, who: list[str], *, minutes: float, seed: int) -> None:
    """ArcFace on what the frames already show, which it leaves as it is.

    Args:
        who: person of each clip, uint8 after the VAE, as :func:`of_two_clips`. In a mirror a person is somebody else.
    """
    random, device = np.random.RandomState(seed), next(probe.parameters()).device
    seen_VNFD = torch.stack([_seen(probe, clips_NFHW3, random, mirrored=mirrored) for mirrored in (False, False, True)])
    people = {person: p for p, person in enumerate(sorted(set(who)))}
    labels_VN = torch.tensor([[people[w] + mirrored * len(people) for w in who] for mirrored in (0, 0, 1)]).to(device)
    centres_PE = nn.Parameter(torch.randn(2 * len(people), EMBEDDING, device=device))
    optimizer = torch.optim.AdamW([*probe.face.parameters(), centres_PE], lr=1e-3, weight_decay=_DECAY)
    probe.train()
    started = time.monotonic()
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        picked_2B = np.stack([random.randint(len(seen_VNFD), size=_BATCH), random.randint(len(who), size=_BATCH)])
        view_B, clip_B = torch.from_numpy(picked_2B).to(device)
        seen_BFD, own_B = seen_VNFD[view_B, clip_B], labels_VN[view_B, clip_B]
        cosines_BP = probe.face_of(seen_BFD) @ functional.normalize(centres_PE, dim=-1).T
        cosines_BP = cosines_BP - _MARGIN * functional.one_hot(own_B, cosines_BP.shape[1])
        functional.cross_entropy(_SCALE * cosines_BP, own_B).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def _seen(probe: Probe, clips_NFHW3: Tensor, random: np.random.RandomState, *, mirrored: bool) -> Tensor:
    """``[N, F, D]`` on the probe's device, each clip moved by chance."""
    parts, device = [], next(probe.parameters()).device
    for clips_BFHW3 in clips_NFHW3.split(20):
        pictures_BFHW3 = augmented(clips_BFHW3.to(device), random, np.full(len(clips_BFHW3), mirrored))
        with half(device):
            parts.append(probe.see(pictures_BFHW3).float())
    return torch.cat(parts)
