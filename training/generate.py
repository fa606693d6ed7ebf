"""The sampling loop: noise to latents along the flow, with guidance by text and identity, together or apart.

Shape letters: B videos, C latent channels, T h w latent frames, height, width, L context tokens, E text-token width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slotid_core.errors import SlotIDError
from slotid_core.guidance import rescaled_positive

# (latents, sigma [B], context [B, L, E], identity rows [B] bool) -> velocity
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
    """Backbone evaluations (twice as many with guidance, three times with guidance by the identity apart)."""
    shift: float = 5.0
    """Timestep shift of the sampler; larger spends more steps at high noise. Wan uses 3 to 8."""
    guidance: float = 5.0
    """Classifier-free guidance scale; 1 leaves the negative branch out."""
    identity_guidance: float | None = None
    """A scale of its own for the identity, as Slot-ID Guider's ``identity_cfg``; None is that of the text."""
    seed: int = 0
    """Of the first video's noise; the next ones count up from it."""
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
        if self.identity_guidance is None:
            return
        if not 0 <= self.identity_guidance <= 100:
            raise SlotIDError(f"Got identity_guidance = {self.identity_guidance}, expected a value from 0 to 100.")
        if self.identity_in_negative:
            raise SlotIDError(
                "Got identity_guidance and identity_in_negative: guidance by the identity takes the difference that it "
                "makes to the prompt, so the negative has to be without. Leave one of them out."
            )
        if self.guidance < 1 and self.identity_guidance != self.guidance:
            raise SlotIDError(
                f"Got guidance = {self.guidance} beside identity_guidance = {self.identity_guidance}, expected 1 or "
                "more where they differ. Raise guidance, or give both the same."
            )

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Latent frames, height and width."""
        return (self.frames - 1) // 4 + 1, self.height // 8, self.width // 8


@torch.no_grad()
def generate(
    velocity: Velocity,
    config: GenerateConfig,
    *,
    positive_BLE: Tensor,
    negative_BLE: Tensor,
    channels: int = 16,
    progress: Callable[[int, int], None] | None = None,
    clean_BCThw: Tensor | None = None,
    level: float = 1.0,
) -> Tensor:
    """Sample a video for each row of the prompts; each is what it would be by itself.

    Args:
        velocity: the patched backbone, called for positives and negatives apart: together they would need twice the
            memory.
        positive_BLE: the prompts' tokens, zero-padded.
        negative_BLE: the negative prompts'.
        channels: latent channels of the backbone.
        progress: called as ``progress(steps done, steps)``.
        clean_BCThw: latents that are noised up to ``level`` and finished from there, instead of noise alone.
        level: of that noise, above 0; 1 is noise alone. Steps above it are left out.

    Raises:
        SlotIDError: a level out of range.

    Returns:
        Normalised latents ``[B, C, T, h, w]``, float32, on the context's device.
    """
    if not 0 < level <= 1:
        raise SlotIDError(f"Got a level of noise of {level}, expected one above 0 and up to 1.")
    from diffusers import FlowMatchEulerDiscreteScheduler

    device, batch = positive_BLE.device, positive_BLE.shape[0]
    generators = [torch.Generator().manual_seed(config.seed + row) for row in range(batch)]
    shape = [channels, *config.latent_shape]
    latents_BCThw = torch.stack([torch.randn(shape, generator=noise) for noise in generators]).to(device)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=config.shift)
    # Equal steps before the shift, from pure noise on; the scheduler appends the clean end.
    sigmas = np.linspace(1.0, 0.0, config.steps + 1)[:-1]
    if clean_BCThw is not None:
        latents_BCThw = (1 - level) * clean_BCThw.to(device) + level * latents_BCThw
        begun = level / (config.shift - (config.shift - 1) * level)
        sigmas = np.concatenate([[begun], sigmas[sigmas < begun - 1e-6]])
    scheduler.set_timesteps(sigmas=sigmas, device=device)
    with_identity, without = torch.full([batch], True), torch.full([batch], config.identity_in_negative)
    for index, timestep in enumerate(scheduler.timesteps):
        sigma_B = scheduler.sigmas[index].float().cpu().expand(batch)
        velocity_BCThw = velocity(latents_BCThw, sigma_B, positive_BLE, with_identity)
        if config.identity_guidance not in (None, config.guidance):
            plain_BCThw = velocity(latents_BCThw, sigma_B, positive_BLE, ~with_identity)
            share = config.identity_guidance / config.guidance
            velocity_BCThw = rescaled_positive(velocity_BCThw, plain_BCThw, share)
        if config.guidance != 1.0:
            negative_BCThw = velocity(latents_BCThw, sigma_B, negative_BLE, without)
            velocity_BCThw = negative_BCThw + config.guidance * (velocity_BCThw - negative_BCThw)
        latents_BCThw = scheduler.step(velocity_BCThw, timestep, latents_BCThw, return_dict=False)[0]
        if progress is not None:
            progress(index + 1, len(sigmas))
    return latents_BCThw
