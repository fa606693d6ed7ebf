"""The sampling loop: noise to latents along the flow, with guidance that amplifies text and identity.

Shape letters: C latent channels, T h w latent frames, height, width, L context tokens, E text-token width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slotid_core.errors import SlotIDError

# (latents, sigma [1], context [1, L, E], identity rows [1] bool) -> velocity
Velocity = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How a video is sampled."""

    width: int
    """Pixels, a multiple of 16."""
    height: int
    """Pixels, a multiple of 16."""
    frames: int
    """Pixel frames, 4n + 1."""
    steps: int = 30
    """Backbone evaluations (twice as many with guidance)."""
    shift: float = 5.0
    """Timestep shift of the sampler; larger spends more steps at high noise. Wan uses 3 to 8."""
    guidance: float = 5.0
    """Classifier-free guidance scale; 1 leaves the negative branch out."""
    seed: int = 0
    """Of the noise."""
    identity_in_negative: bool = False
    """Whether the negative branch sees the identity too; off lets guidance amplify it."""

    def __post_init__(self) -> None:
        if self.width < 16 or self.height < 16 or self.width % 16 or self.height % 16:
            raise SlotIDError(f"Got a size of {self.width} x {self.height}, expected multiples of 16 pixels.")
        if self.frames < 1 or self.frames % 4 != 1:
            below = max(1, self.frames - (self.frames - 1) % 4)
            raise SlotIDError(f"Got {self.frames} frames, expected 4n + 1. Use {below} or {below + 4}.")
        for name, low, high in (("steps", 1, 1000), ("shift", 0.1, 100.0), ("guidance", 0.0, 100.0)):
            if not low <= getattr(self, name) <= high:
                raise SlotIDError(f"Got {name} = {getattr(self, name)}, expected a value from {low} to {high}.")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Latent frames, height and width."""
        return (self.frames - 1) // 4 + 1, self.height // 8, self.width // 8


@torch.no_grad()
def generate(
    velocity: Velocity,
    config: GenerateConfig,
    *,
    positive_1LE: Tensor,
    negative_1LE: Tensor,
    channels: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Sample one video.

    Args:
        velocity: the patched backbone, called with one row at a time: two rows would need twice the memory.
        positive_1LE: the prompt's tokens, zero-padded.
        negative_1LE: the negative prompt's.
        channels: latent channels of the backbone.
        progress: called as ``progress(steps done, steps)``.

    Returns:
        Normalised latents ``[1, C, T, h, w]``, float32, on the context's device.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    device = positive_1LE.device
    noise = torch.Generator().manual_seed(config.seed)
    latents_1CThw = torch.randn([1, channels, *config.latent_shape], generator=noise).to(device)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=config.shift)
    # Equal steps before the shift, from pure noise on; the scheduler appends the clean end.
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, config.steps + 1)[:-1], device=device)
    with_identity, without = torch.tensor([True]), torch.tensor([config.identity_in_negative])
    for index, timestep in enumerate(scheduler.timesteps):
        sigma_1 = scheduler.sigmas[index].reshape(1).float().cpu()
        velocity_1CThw = velocity(latents_1CThw, sigma_1, positive_1LE, with_identity)
        if config.guidance != 1.0:
            negative_1CThw = velocity(latents_1CThw, sigma_1, negative_1LE, without)
            velocity_1CThw = negative_1CThw + config.guidance * (velocity_1CThw - negative_1CThw)
        latents_1CThw = scheduler.step(velocity_1CThw, timestep, latents_1CThw, return_dict=False)[0]
        if progress is not None:
            progress(index + 1, config.steps)
    return latents_1CThw
