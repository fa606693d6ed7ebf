"""Where in a picture of the world a face's small moving parts are, so that a VAE can be told to keep them.

Eyes and mouth take a few pixels of a hundred. A mean over all pixels hardly asks for them, and they are what speaks,
blinks and smiles.

Letters: N clips, B of them, F frames, K parts, H W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.world.columns import columns
from training.world.mesh import pose_points, rotation, turn
from training.world.performance import perform, pose_for_portrait
from training.world.pictures import FRAMES, SIZE, WorldClip
from training.world.render import project
from training.world.scene import Scene

# Centimetres on the head: where, which way it looks, how far around it errors count, and how many times as much.
_HEAD = ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0), 8.0, 2.0)
_EYES = tuple(((side * 3.6, 0.8, 7.6), (side * 0.45, 0.0, 0.89), 2.2, 8.0) for side in (-1, 1))
_MOUTH = ((0.0, -6.4, 9.2), (0.0, 0.0, 1.0), 2.4, 8.0)
_PARTS = (_HEAD, *_EYES, _MOUTH)
_BEHIND = -0.2
"""Cosine to the camera from which on a part is hidden."""


def parts_of_clips(clips: Sequence[WorldClip]) -> Tensor:
    """Where the parts are in each frame, ``[N, F, K, 4]``: column, row and spread in pixels, and how much it counts."""
    return torch.stack([_parts(perform(clip.identity, clip.scenario, FRAMES, seed=clip.chance)) for clip in clips])


def parts_of_portraits(clips: Sequence[WorldClip]) -> Tensor:
    """The same of their portraits, ``[N, 1, K, 4]``."""
    return torch.stack([_parts([pose_for_portrait(clip.scenario)]) for clip in clips])


def counts(parts_BFK4: Tensor) -> Tensor:
    """How much each pixel's error counts, ``[B, F, H, W]``; the mean over each clip is 1."""
    column, row, spread, amount = (x[..., None] for x in parts_BFK4.unbind(-1))
    at = torch.arange(SIZE, device=parts_BFK4.device) + 0.5
    x_BFKW, y_BFKH = (torch.exp(-0.5 * ((at - middle) / spread) ** 2) for middle in (column, row))
    counts_BFHW = 1 + torch.einsum("bfkh,bfkw->bfhw", amount * y_BFKH, x_BFKW)
    return counts_BFHW / counts_BFHW.mean((1, 2, 3), keepdim=True)


def mirrored(parts_FK4: Tensor) -> Tensor:
    """Of the pictures seen in a mirror."""
    return torch.cat([SIZE - parts_FK4[..., :1], parts_FK4[..., 1:]], -1)


def _parts(scenes: list[Scene]) -> Tensor:
    device = torch.device("cpu")
    turned_F33 = rotation(columns([scene.pose for scene in scenes], device))
    places, ways, spreads, amounts = (torch.tensor(values) for values in zip(*_PARTS, strict=True))
    posed_FK3 = pose_points(turned_F33, places.expand(len(scenes), -1, -1))
    camera = columns([scene.camera for scene in scenes], device)
    seen_FK3 = project(posed_FK3, camera, SIZE, SIZE)
    size_FK = project(posed_FK3 + torch.tensor([1.0, 0.0, 0.0]), camera, SIZE, SIZE)[..., 0] - seen_FK3[..., 0]
    facing_FK = turn(turned_F33, ways.expand(len(scenes), -1, -1))[..., 2]
    shown_FK = ((facing_FK - _BEHIND) / (0.5 - _BEHIND)).clamp(0, 1)
    shown_FK[:, 0] = 1
    return torch.cat([seen_FK3[..., :2], (spreads * size_FK)[..., None], (amounts * shown_FK)[..., None]], -1)
