"""How much of what a trait changes in a clip a VAE keeps. What drowns there, no identity can bring back.

    python -m training.world.experiment.kept demo/world_vae.safetensors --people 8

Each person is drawn twice, with one trait at 0.1 and at 0.9 and all else alike, and both clips go through the VAE. Of
the difference of the clips so much is kept as is found, in its own direction, in the difference of what came back.

Letters: N pairs, F frames, H W height and width.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from training.wan_diffusers import AutoencoderKLWan, load_vae
from training.world.identity import DYNAMICS, FRONT, SIDE
from training.world.models.clips import decode_clips, encode_clips
from training.world.models.device import best_device
from training.world.pictures import FRAMES, SIZE, WorldClip
from training.world.population import world_clips

_LOW, _HIGH = 0.1, 0.9
_SEEN = 6
"""Steps of 8-bit colour from which on a pixel counts as changed."""


def kept(drawn_2NFHW3: Tensor, seen_2NFHW3: Tensor) -> dict[str, float]:
    """Of pairs of clips, uint8, as drawn and after a VAE.

    Returns:
        ``pixels``: changed ones in a frame. ``change``: theirs, in steps of 8-bit colour. ``kept``: the share of the
        change that came back; 1 is all. ``clear``: how much of what changed after the VAE is that and nothing else,
        the cosine of both changes.
    """
    drawn, seen = (clips[0].float() - clips[1].float() for clips in (drawn_2NFHW3, seen_2NFHW3))
    change_NFHW = drawn.abs().mean(-1)
    changed_NFHW, both = change_NFHW > _SEEN, (drawn * seen).sum()
    return {
        "pixels": round(changed_NFHW.sum((-2, -1)).float().mean().item(), 1),
        "change": round(((change_NFHW * changed_NFHW).sum() / changed_NFHW.sum().clamp(min=1)).item(), 1),
        "kept": round((both / drawn.square().sum()).item(), 3),
        "clear": round((both / (drawn.norm() * seen.norm())).item(), 3),
    }


def by_trait(vae: AutoencoderKLWan, people: int) -> dict[str, dict[str, float]]:
    """:func:`kept` of each trait, over the first people of the ``metric`` split, whom no VAE learns from."""
    clips, found = [WorldClip(split="metric", index=index, clip=0) for index in range(people)], {}
    for name in FRONT + SIDE + DYNAMICS:
        performances = [
            (clip.identity.with_trait(name, value), clip.scenario, clip.chance)
            for value in (_LOW, _HIGH)
            for clip in clips
        ]
        drawn = torch.stack([torch.from_numpy(clip) for clip in world_clips(performances, FRAMES, SIZE)])
        seen = decode_clips(vae, encode_clips(vae, drawn))
        found[name] = kept(drawn.unflatten(0, (2, people)), seen.unflatten(0, (2, people)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vae", type=Path)
    parser.add_argument("--people", type=int, default=8)
    args = parser.parse_args()
    print(json.dumps(by_trait(load_vae(args.vae).to(best_device()), args.people), indent=1))


if __name__ == "__main__":
    main()
