"""Everything random about one clip in one update, from a seed of its own.

No draw depends on how many processes there are, which of them has the clip, or what was drawn before: a run that is
resumed, or shared out differently, sees the same numbers. Torch's global random state is never used.

Shape letters: C latent channels, T H W latent frames, height, width, P identity tokens (portrait's first).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.settings import NoiseSettings, Settings


def seed_of(*parts: object) -> int:
    """63 bits that are fixed by the parts."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_of(*parts: object) -> torch.Generator:
    """A generator on the CPU that starts from :func:`seed_of` the parts."""
    return torch.Generator().manual_seed(seed_of(*parts))


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What chance decides for one clip in one update."""

    sigma: float
    """Noise level in (0, 1]."""
    noise_CTHW: Tensor
    keep_identity: bool
    keep_text: bool
    keep_prefix_P: Tensor
    """Bool: identity tokens that are not dropped."""
    token_seed: int
    """Of the dropout inside the encoder."""
    reference: int
    """Which of the possible references is shown."""
    variant: int
    """Which version of it."""


def draw(
    settings: Settings, step: int, position: int, clip_id: str, shape_CTHW: Sequence[int], *,
    prefix_tokens: int, references: int, variants: int,
) -> Draw:  # fmt: skip
    """Draw for the clip at ``position`` of the batch of update ``step``."""
    key = (settings.run.seed, step, position, clip_id)
    random = np.random.RandomState(seed_of(*key, "choices") % 2**32)
    sigma = noise_level(settings.noise, random)
    drop = settings.drop
    keep_identity, keep_text = random.uniform() >= drop.identity, random.uniform() >= drop.text
    keep_prefix = random.uniform(size=prefix_tokens) >= drop.prefix_token
    return Draw(
        sigma=sigma,
        noise_CTHW=torch.randn(*shape_CTHW, generator=generator_of(*key, "noise")),
        keep_identity=bool(keep_identity),
        keep_text=bool(keep_text),
        keep_prefix_P=torch.from_numpy(keep_prefix),
        token_seed=seed_of(*key, "tokens"),
        reference=int(random.randint(references)),
        variant=int(random.randint(variants)),
    )


def noise_level(noise: NoiseSettings, random: np.random.RandomState) -> float:
    """Sigma in (0, 1): uniform (paper, 3.4), uniform and then shifted, or logit-normal."""
    if noise.sampling == "logit_normal":
        sigma = 1.0 / (1.0 + math.exp(-(noise.mean + noise.std * random.normal())))
    else:
        sigma = random.uniform()
        if noise.sampling == "shift":
            sigma = noise.shift * sigma / (1.0 + (noise.shift - 1.0) * sigma)
    # A level of exactly 0 would ask for the velocity of a clip that hides nothing.
    return min(max(sigma, 1e-4), 1.0)
