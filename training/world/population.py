"""The people of the world and their pictures. Frames are uint8 RGB numpy arrays, as a decoder gives them.

Letters: F frames, H W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from slotid_core.errors import SlotIDError

from .identity import Identity, head_traits
from .performance import perform, pose_for_portrait
from .render import draw_frames
from .scenario import Scenario

SPLITS = {"train": 20_000, "held_out": 1_000, "metric": 20_000}
"""How many people there are to train on, to report on, and to train the measuring networks on."""
_BLOCK = 100_000


def person_seed(split: str, index: int, world: int = 0) -> int:
    """The seed of a person, of their identity as well as of the scenarios of their clips; no two people share one.

    Args:
        split: one of ``SPLITS``.
        index: from 0 up to that split's number of people.
        world: another number peoples the world afresh.

    Raises:
        SlotIDError: there is no such split, person or world.
    """
    if split not in SPLITS:
        raise SlotIDError(f"Got split {split!r}, expected one of {', '.join(SPLITS)}.")
    if not 0 <= index < SPLITS[split]:
        raise SlotIDError(f"Got person {index} of {split}, expected 0 to {SPLITS[split] - 1}.")
    if not 0 <= world < 10_000:
        raise SlotIDError(f"Got world {world}, expected 0 to 9999.")
    return (world * len(SPLITS) + list(SPLITS).index(split)) * _BLOCK + index


def world_clip(
    identity: Identity,
    scenario: Scenario,
    frames: int,
    size: int,
    seed: int,
    *,
    fps: float = 16.0,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """A clip of a person, ``[F, H, W, 3]``, square.

    Args:
        seed: of what neither person nor caption says, see ``perform``.
    """
    return world_clips([(identity, scenario, seed)], frames, size, fps=fps, device=device)[0]


def world_clips(
    performances: Sequence[tuple[Identity, Scenario, int]],
    frames: int,
    size: int,
    *,
    fps: float = 16.0,
    device: torch.device | str = "cpu",
) -> list[np.ndarray]:
    """Clips as :func:`world_clip` draws them, on a GPU all in one go: it takes hardly longer for several than for one,
    but 0.25 GB of memory for each of 17 frames of 80 pixels."""
    device = torch.device(device)
    scenes = [perform(identity, scenario, frames, fps, seed) for identity, scenario, seed in performances]
    heads = [head_traits(identity) for identity, _, _ in performances]
    images = draw_frames(
        [head for head in heads for _ in range(frames)],
        [scene for clip in scenes for scene in clip],
        size,
        size,
        together=None if device.type == "cpu" else len(heads) * frames,
        device=device,
    )
    return [_to_bytes(image_FHW3) for image_FHW3 in images.split(frames)]


def world_portrait(
    identity: Identity, scenario: Scenario, size: int, *, device: torch.device | str = "cpu"
) -> np.ndarray:
    """A frontal, neutral picture on white, in the scenario's shirt and light, ``[H, W, 3]``, square."""
    return world_portraits([(identity, scenario)], size, device=device)[0]


def world_portraits(
    people: Sequence[tuple[Identity, Scenario]], size: int, *, device: torch.device | str = "cpu"
) -> list[np.ndarray]:
    """Portraits as :func:`world_portrait` draws them."""
    heads = [head_traits(identity) for identity, _ in people]
    images = draw_frames(heads, [pose_for_portrait(scenario) for _, scenario in people], size, size, device=device)
    return list(_to_bytes(images))


def _to_bytes(image_FHW3: torch.Tensor) -> np.ndarray:
    return (image_FHW3 * 255).round().to(torch.uint8).cpu().numpy()
