"""The probe's face: an ArcFace-style embedding, learned on frames that stay as they are.

Letters: N clips, B rows, F frames, H W height and width, D width, P people, E embedding width, V views.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

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


def augmented(clip: Tensor, random: np.random.RandomState) -> Tensor:
    """Moved by up to 3 pixels and a little brighter or darker, float in [0, 1]."""
    dy, dx = random.randint(-3, 4, size=2)
    padded = functional.pad(clip.permute(0, 3, 1, 2).float() / 255, (3, 3, 3, 3), mode="replicate")
    height, width = clip.shape[1:3]
    moved = padded[:, :, 3 + dy : 3 + dy + height, 3 + dx : 3 + dx + width]
    return (moved.permute(0, 2, 3, 1) * (1 + 0.1 * (2 * random.uniform() - 1))).clamp(0, 1)


def learn_faces(probe: Probe, clips_NFHW3: Tensor, who: list[str], *, minutes: float, seed: int) -> None:
    """ArcFace on what the frames already show, which it leaves as it is.

    Args:
        who: person of each clip, uint8 after the VAE. In a mirror a person is somebody else.
    """
    random, device = np.random.RandomState(seed), next(probe.parameters()).device
    views = [_seen(probe, clips_NFHW3, random, mirrored=mirrored) for mirrored in (False, False, True)]
    people = {person: p for p, person in enumerate(sorted(set(who)))}
    labels_VN = torch.tensor([[people[w] + mirrored * len(people) for w in who] for mirrored in (0, 0, 1)])
    centres_PE = nn.Parameter(torch.randn(2 * len(people), EMBEDDING, device=device))
    optimizer = torch.optim.AdamW([*probe.face.parameters(), centres_PE], lr=1e-3, weight_decay=_DECAY)
    probe.train()
    started = time.monotonic()
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        view_B, clip_B = random.randint(len(views), size=_BATCH), random.randint(len(who), size=_BATCH)
        seen_BFD = torch.stack([views[v][n] for v, n in zip(view_B, clip_B, strict=True)]).to(device)
        own_B = labels_VN[view_B, clip_B].to(device)
        cosines_BP = probe.face_of(seen_BFD) @ functional.normalize(centres_PE, dim=-1).T
        cosines_BP = cosines_BP - _MARGIN * functional.one_hot(own_B, cosines_BP.shape[1])
        functional.cross_entropy(_SCALE * cosines_BP, own_B).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def _seen(probe: Probe, clips_NFHW3: Tensor, random: np.random.RandomState, *, mirrored: bool) -> Tensor:
    """``[N, F, D]``, each clip moved by chance."""
    parts, device = [], next(probe.parameters()).device
    for clips_BFHW3 in clips_NFHW3.split(20):
        rows = [augmented(clip.flip(2) if mirrored else clip, random) for clip in clips_BFHW3]
        with half(device):
            parts.append(probe.see(torch.stack(rows).to(device)).float().cpu())
    return torch.cat(parts)
