"""Image stream: latents of one clean portrait -> K image-anchor states (paper, 3.3).

Shape letters: B batch, C latent channels, h w latent height and width, L patches, D width, K anchor tokens,
H heads, d head width.
"""

import torch
from torch import Tensor, nn

from .attention import attention
from .config import PortraitConfig
from .errors import SlotIDError
from .rope import grid_positions, rotate, rotation_angles


class PortraitEncoder(nn.Module):
    """Strided convolution, then attention pooling with K learned queries.

    Keys are rotated by their place in the picture and queries are not, so a query can ask for a region: plain
    pooling would read the portrait as a bag of patches.
    """

    def __init__(self, config: PortraitConfig, latent_channels: int):
        super().__init__()
        self.config = config
        self.latent_channels = latent_channels
        self.conv = nn.Conv2d(latent_channels, config.width, kernel_size=config.patch, stride=config.patch)
        self.norm = nn.LayerNorm(config.width)
        self.queries = nn.Parameter(torch.randn(config.tokens, config.width))
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, latents_BCThw: Tensor) -> Tensor:
        """Normalised portrait latents ``[B, C, 1, h, w]`` -> anchor states ``[B, K, D]``.

        Raises:
            SlotIDError: more than one latent frame, another channel count, or a size the patch does not divide.
        """
        self._check(latents_BCThw)
        features_BDhw = self.conv(latents_BCThw[:, :, 0])
        patches_BLD = self.norm(features_BDhw.flatten(2).transpose(1, 2))

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)

        k_BHLd, v_BHLd = (heads(x) for x in self.key_value(patches_BLD).chunk(2, dim=-1))
        head_width = self.config.width // self.config.heads
        angles_Ld = rotation_angles(grid_positions((1, *features_BDhw.shape[2:])), head_width)
        q_BHKd = heads(self.queries.expand(patches_BLD.shape[0], -1, -1)).to(k_BHLd.dtype)
        return self.out(attention(q_BHKd, rotate(k_BHLd, angles_Ld), v_BHLd).transpose(1, 2).flatten(2))

    def _check(self, latents_BCThw: Tensor) -> None:
        shape, (ph, pw) = list(latents_BCThw.shape), self.config.patch
        fits = len(shape) == 5 and shape[1] == self.latent_channels and shape[2] == 1 and 0 not in shape
        if not fits or shape[3] % ph or shape[4] % pw:
            raise SlotIDError(
                f"Got portrait latents of shape {shape}, expected [B, {self.latent_channels}, 1, h, w] with h a "
                f"multiple of {ph} and w of {pw}. Use one picture, {8 * pw} x {8 * ph} pixels or a multiple of it."
            )
