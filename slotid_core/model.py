"""Slot-ID: from the latents of a reference clip and a portrait to an identity, and from that to a backbone's inputs.

Shape letters: B batch, C latent channels, T H W latent frames, height, width, S slots, K anchor tokens, D encoder
width, E text-token width, G global-vector width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .config import SlotIDConfig
from .encoder import ConvPoolEncoder, VideoEncoder
from .film import FilmHeads
from .portrait import PortraitEncoder
from .reader import SlotReader
from .types import Encoding, IdentityEmbedding, Routing


class SlotID(nn.Module):
    """The trainable parts outside the backbone: both streams, the projections and the FiLM heads.

    Every path to the backbone ends in a zero-initialised layer: an untrained model changes nothing, bit for bit.
    """

    def __init__(self, config: SlotIDConfig):
        super().__init__()
        self.config = config
        backbone, width = config.backbone, config.encoder.width
        if config.encoder.kind == "conv_pool":
            self.conv_pool = ConvPoolEncoder(config.encoder, backbone.latent_channels, config.reader.slots)
        else:
            self.encoder = VideoEncoder(config.encoder, backbone.latent_channels)
            self.reader = SlotReader(config.reader, width)
        self.portrait = PortraitEncoder(config.portrait, backbone.latent_channels)
        self.clip_tokens = _zero_projection(width, backbone.text_dim)
        self.portrait_tokens = _zero_projection(config.portrait.width, backbone.text_dim)
        self.clip_global = _global_head(width, config.film.global_dim)
        self.portrait_global = _global_head(config.portrait.width, config.film.global_dim)
        self.film = FilmHeads(config.film, backbone)

    def encode(
        self,
        clip_latents_BCTHW: Tensor,
        portrait_latents_BCTHW: Tensor,
        generators: Sequence[torch.Generator] | None = None,
    ) -> Encoding:
        """Encode people.

        Args:
            clip_latents_BCTHW: *normalised* latents of the reference clips, ``[B, C, T, H, W]``.
            portrait_latents_BCTHW: *normalised* latents of the portraits, ``[B, C, 1, h, w]``.
            generators: sources of the token dropout in training mode, one a person.

        Returns:
            Un-gated tokens and global vectors, and the routing.

        Raises:
            SlotIDError: latents of a shape that does not fit.
        """
        slots_BSD, routing = self.read(clip_latents_BCTHW, generators)
        return Encoding(self.embed(slots_BSD, portrait_latents_BCTHW), routing)

    def read(
        self, clip_latents_BCTHW: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> tuple[Tensor, Routing | None]:
        """The clip stream alone: slot states ``[B, S, D]`` before any projection, and what each slot read; arguments
        and errors as in :meth:`encode`."""
        if self.config.encoder.kind == "conv_pool":
            return self.conv_pool(clip_latents_BCTHW), None
        reading = self.reader(self.encoder(clip_latents_BCTHW, generators))
        return reading.slots_BSD, reading.routing

    def embed(self, slots_BSD: Tensor, portrait_latents_BCTHW: Tensor) -> IdentityEmbedding:
        """Identities from slot states ``[B, S, D]``, as :meth:`read` gives them of the clips, and portraits; arguments
        and errors as in :meth:`encode`."""
        anchors_BKD = self.portrait(portrait_latents_BCTHW)
        return IdentityEmbedding(
            clip_tokens_BSE=self.clip_tokens(slots_BSD),
            portrait_tokens_BKE=self.portrait_tokens(anchors_BKD),
            clip_global_BG=self.clip_global(slots_BSD.mean(dim=1)),
            portrait_global_BG=self.portrait_global(anchors_BKD.mean(dim=1)),
        )

    @property
    def output_layers(self) -> list[nn.Parameter]:
        """The zero-initialised tensors that every path to the backbone ends in."""
        projections = (self.clip_tokens[-1], self.portrait_tokens[-1])
        return [p for layer in projections for p in (layer.weight, layer.bias)] + [self.film.up]


def _zero_projection(width: int, out: int) -> nn.Sequential:
    """LayerNorm, then a zero linear layer. Gate and strength come after it, so that no norm cancels them."""
    linear = nn.Linear(width, out)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.LayerNorm(width), linear)


def _global_head(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out), nn.SiLU(), nn.Linear(out, out))
