"""The named values that flow through Slot-ID.

Shape letters: B batch, S slots, K image-anchor tokens, E text-token width, G global-vector width,
T H W the token grid (or height and width of a picture), C colour channels,
D width of a face embedding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .reference.coverage import Coverage


@dataclass(frozen=True)
class Routing:
    """What each slot read of the clip."""

    weights_BSTHW: Tensor
    """Per slot a distribution over the clip's tokens: non-negative, summing to 1 over T, H and W."""

    def overlap(self) -> Tensor:
        """Mean Bhattacharyya overlap of all slot pairs, ``[B]``: 1 when all read the same, 0 when disjoint.

        One slot alone overlaps with none: 0.
        """
        roots_BSL = self.weights_BSTHW.flatten(2).sqrt()
        pairs = list(itertools.combinations(range(roots_BSL.shape[1]), 2))
        if not pairs:
            return roots_BSL.new_zeros(roots_BSL.shape[0])
        overlaps_BSS = roots_BSL @ roots_BSL.mT
        return torch.stack([overlaps_BSS[:, i, j] for i, j in pairs], dim=-1).mean(-1)


@dataclass(frozen=True)
class IdentityEmbedding:
    """One identity per row as the backbone will read it: un-gated tokens and global vectors."""

    clip_tokens_BSE: Tensor
    """C_id, read from the clip (paper, 3.2)."""
    portrait_tokens_BKE: Tensor
    """C_img, read from the portrait (paper, 3.3)."""
    clip_global_BG: Tensor
    """g_vid."""
    portrait_global_BG: Tensor
    """g_img."""

    @property
    def batch(self) -> int:
        return self.clip_tokens_BSE.shape[0]

    def to(self, device: torch.device, dtype: torch.dtype) -> IdentityEmbedding:
        return self._map(lambda x: x.to(device, dtype))

    def expand(self, batch: int) -> IdentityEmbedding:
        """The one identity (B = 1) repeated for ``batch`` rows, without a copy."""
        assert self.batch == 1, f"can't expand {self.batch} identities"
        return self._map(lambda x: x.expand(batch, *x.shape[1:]))

    def without_clip(self) -> IdentityEmbedding:
        """The portrait's part alone, as strong as before: what the clip says is zero, as in training where tokens are
        dropped. A gate of 1 would raise the portrait beyond what the weights were trained with."""
        return replace(
            self,
            clip_tokens_BSE=torch.zeros_like(self.clip_tokens_BSE),
            clip_global_BG=torch.zeros_like(self.clip_global_BG),
        )

    def where(self, rows_B: Tensor, other: IdentityEmbedding) -> IdentityEmbedding:
        """This one identity (B = 1) in the rows that ``rows_B`` (bool) names, ``other`` (B = 1) in the rest."""
        assert self.batch == other.batch == 1, f"can't choose between {self.batch} and {other.batch} identities"

        def choose(name: str) -> Tensor:
            own, others = getattr(self, name), getattr(other, name)
            return torch.where(rows_B.view(-1, *[1] * (own.ndim - 1)), own, others)

        return IdentityEmbedding(**{f.name: choose(f.name) for f in fields(self)})

    def _map(self, function: Callable[[Tensor], Tensor]) -> IdentityEmbedding:
        return IdentityEmbedding(**{f.name: function(getattr(self, f.name)) for f in fields(self)})


@dataclass(frozen=True)
class Encoding:
    """What one pass through the encoder gives."""

    embedding: IdentityEmbedding
    routing: Routing | None
    """What each slot read; ``None`` for the 3DConv-Pool ablation, which does not route."""


@dataclass(frozen=True)
class FaceEmbedding:
    """What a face backend tells a person by. Vectors of one backend compare, those of two do not."""

    backend: str
    """Name of the :class:`FaceBackend`, with its model pack where it has several."""
    vector_D: Tensor
    """Typical of the clip's faces; float32, a unit vector."""


@dataclass(frozen=True)
class Identity:
    """A person, encoded: the embedding of one identity (B = 1) and where it came from."""

    embedding: IdentityEmbedding
    weights_hash: str
    """SHA-256 of the Slot-ID weights that encoded it; tokens of other weights mean nothing to a backbone."""
    clip_hash: str
    """SHA-256 of the reference clip's pixels; of a merge or blend, of its parts' hashes and shares."""
    portrait_hash: str
    """SHA-256 of the portrait's pixels; of a merge or blend, of its parts' hashes and shares."""
    thumbnail_HWC: Tensor
    """A small picture of the portrait, uint8 RGB."""
    coverage: Coverage | None = None
    """What the reference clip shows of the person and what it lacks; ``None`` where nothing was measured."""
    face: FaceEmbedding | None = None
    """Whose face it is; ``None`` where no backend with embeddings has looked, and of a blend."""
    frames: int | None = None
    """How many clip frames were read, over all parts; ``None`` in older files."""
    backbone: str = ""
    """In words, what the weights are for; empty in older files."""
    origin: str = ""
    """In words, what it was merged or blended from; empty where a clip was encoded."""
    notes: tuple[str, ...] = ()
    """What people wrote into the file, such as who agreed to its use."""
    name: str = ""
    """Of the file that it was read from, for messages; not stored."""
