"""Video stream: latents of the reference clip -> contextualised tokens X (paper, 3.1).

Shape letters: B batch, C latent channels, T H W latent frames, height, width, L tokens, D token width,
H heads (inside attention), d head width, S slots.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attention
from .config import EncoderConfig
from .errors import SlotIDError
from .latents import temporal_difference
from .rope import grid_positions, rotate, rotation_angles


@dataclass(frozen=True)
class VideoTokens:
    """Tokens of a clip and the grid they lie on."""

    tokens_BLD: Tensor
    grid_THW: tuple[int, int, int]


class SpaceTimeSelfAttention(nn.Module):
    """Self-attention over all tokens of the clip, QK-normalised, with 3D rotary positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_q = nn.RMSNorm(width // heads, eps=1e-6)
        self.norm_k = nn.RMSNorm(width // heads, eps=1e-6)
        self.out = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, angles_Ld: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.qkv(x_BLD).chunk(3, dim=-1))
        # CUDA's autocast leaves the norms in float32, while the kernels take q, k and v of one dtype.
        q, k = (rotate(norm(x), angles_Ld).to(v.dtype) for norm, x in ((self.norm_q, q), (self.norm_k, k)))
        return self.out(attention(q, k, v).transpose(1, 2).flatten(2))


class STSABlock(nn.Module):
    """Pre-norm spatio-temporal self-attention and MLP."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width, hidden = config.width, config.width * config.mlp_ratio
        self.norm1 = nn.LayerNorm(width)
        self.attn = SpaceTimeSelfAttention(width, config.heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))

    def forward(self, x_BLD: Tensor, angles_Ld: Tensor) -> Tensor:
        x_BLD = x_BLD + self.attn(self.norm1(x_BLD), angles_Ld)
        return x_BLD + self.mlp(self.norm2(x_BLD))


class PatchEmbedding(nn.Module):
    """Strided Conv3d over ``[Z; dZ]``, kernel = stride = patch (paper, 3.1)."""

    def __init__(self, config: EncoderConfig, latent_channels: int):
        super().__init__()
        self.patch = config.patch
        self.latent_channels = latent_channels
        self.with_difference = config.temporal_difference
        channels = latent_channels * config.patch_channels_factor
        self.conv = nn.Conv3d(channels, config.width, kernel_size=config.patch, stride=config.patch)

    def forward(self, latents_BCTHW: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` -> ``[B, D, T/pt, H/ph, W/pw]``."""
        self._check(latents_BCTHW)
        if self.with_difference:
            latents_BCTHW = torch.cat([latents_BCTHW, temporal_difference(latents_BCTHW)], dim=1)
        return self.conv(latents_BCTHW)

    def _check(self, latents_BCTHW: Tensor) -> None:
        shape = list(latents_BCTHW.shape)
        if len(shape) != 5 or shape[1] != self.latent_channels:
            raise SlotIDError(
                f"Got clip latents of shape {shape}, expected [B, {self.latent_channels}, T, H, W]. "
                "Encode the clip with the VAE of the backbone that these weights are for."
            )
        for name, size, patch in zip(("frames", "height", "width"), shape[2:], self.patch, strict=True):
            if size == 0 or size % patch:
                lower, upper = size // patch * patch, (size // patch + 1) * patch
                fitting = f"{lower} or {upper}" if lower else f"{upper}"
                raise SlotIDError(
                    f"Got {size} latent {name}, which the patch size {patch} does not divide; {fitting} would fit "
                    "(a latent cell is 8 pixels, or 4 frames after the first)."
                )


class AbsolutePositions(nn.Module):
    """When and where in the clip a token lies, from the first frame to the last and from edge to edge whatever the
    clip's size: sines of four lengths along each axis through a linear layer that starts at zero."""

    _WAVES = 4

    def __init__(self, width: int):
        super().__init__()
        self.project = nn.Linear(6 * self._WAVES, width, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, grid_THW: tuple[int, int, int]) -> Tensor:
        """``[L, D]``."""
        weight = self.project.weight
        sizes_3 = torch.tensor(grid_THW, device=weight.device)
        place_L3 = grid_positions(grid_THW).to(weight) / (sizes_3 - 1).clamp(min=1)
        waves_W = torch.arange(1, self._WAVES + 1).to(weight) * (math.pi / 2)
        angles_L3W = place_L3[..., None] * waves_W
        return self.project(torch.cat([angles_L3W.sin(), angles_L3W.cos()], dim=-1).flatten(1))


class VideoEncoder(nn.Module):
    """Patch embedding, STSA stack, final norm."""

    def __init__(self, config: EncoderConfig, latent_channels: int):
        super().__init__()
        self.config = config
        self.embed = PatchEmbedding(config, latent_channels)
        self.place = AbsolutePositions(config.width) if config.absolute_positions else None
        self.blocks = nn.ModuleList(STSABlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, latents_BCTHW: Tensor, generators: Sequence[torch.Generator] | None = None) -> VideoTokens:
        """Encode normalised latents.

        Args:
            latents_BCTHW: ``[B, C, T, H, W]``; T, H and W divisible by the patch.
            generators: sources of the token dropout in training mode, one a row, so that a row's dropout does not
                depend on its batch; ``None`` is torch's global one.

        Raises:
            SlotIDError: a shape that does not fit; the message says what would.
        """
        features_BDTHW = self.embed(latents_BCTHW)
        grid_THW = tuple(features_BDTHW.shape[2:])
        tokens_BLD = features_BDTHW.flatten(2).transpose(1, 2)
        if self.place is not None:
            tokens_BLD = tokens_BLD + self.place(grid_THW)
        return VideoTokens(self.contextualise(tokens_BLD, grid_positions(grid_THW), generators), grid_THW)

    def contextualise(
        self, tokens_BLD: Tensor, positions_L3: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """The STSA stack on embedded tokens at integer (t, h, w) positions. Shape ``[B, L, D]``."""
        if self.training and self.config.token_dropout:
            tokens_BLD = drop_tokens(tokens_BLD, self.config.token_dropout, generators)
        angles_Ld = rotation_angles(positions_L3, self.config.width // self.config.heads, self.config.temporal_rope)
        for block in self.blocks:
            tokens_BLD = block(tokens_BLD, angles_Ld)
        return self.norm(tokens_BLD)


def drop_tokens(tokens_BLD: Tensor, rate: float, generators: Sequence[torch.Generator] | None = None) -> Tensor:
    """Zero whole tokens with chance ``rate`` and scale the others so that the expectation stays."""
    batch, length = tokens_BLD.shape[:2]
    rows: Sequence[torch.Generator | None] = generators if generators is not None else [None] * batch
    assert len(rows) == batch, f"{len(rows)} generators for {batch} rows"
    draws = [torch.rand(length, 1, generator=g, device=g.device if g else tokens_BLD.device) for g in rows]
    keep_BL1 = (torch.stack(draws) >= rate).to(tokens_BLD.device)
    return tokens_BLD * keep_BL1 / (1.0 - rate)


class ConvPoolEncoder(nn.Module):
    """Ablation A of the paper, *3DConv-Pool*: residual 3D convolutions, then global pooling to S slot states.

    It has no routing, so there is nothing to look at per slot.
    """

    def __init__(self, config: EncoderConfig, latent_channels: int, slots: int):
        super().__init__()
        self.slots = slots
        self.embed = PatchEmbedding(config, latent_channels)
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, config.width),
                nn.Conv3d(config.width, config.width, kernel_size=3, padding=1),
                nn.GELU(approximate="tanh"),
                nn.Conv3d(config.width, config.width, kernel_size=1),
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.to_slots = nn.Linear(config.width, slots * config.width)

    def forward(self, latents_BCTHW: Tensor) -> Tensor:
        """Normalised latents ``[B, C, T, H, W]`` -> slot states ``[B, S, D]``."""
        features_BDTHW = self.embed(latents_BCTHW)
        for conv in self.convs:
            features_BDTHW = features_BDTHW + conv(features_BDTHW)
        pooled_BD = self.norm(F.adaptive_avg_pool3d(features_BDTHW, 1).flatten(1))
        return self.to_slots(pooled_BD).unflatten(-1, (self.slots, -1))
