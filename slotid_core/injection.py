"""What an identity does to a backbone at one noise level: written once, used by both hosts.

Shape letters: B batch rows of the backbone, P prefix tokens, E text-token width, D backbone width.

A host (``nodes/host_wan.py`` for ComfyUI, ``training/wan_diffusers.py`` for diffusers) asks :func:`condition` for the
prefix and the FiLM of each row, puts the prefix into the text context with ``prefix.place_prefix`` and applies
``film.film_change`` to the output of the named blocks (diffusers by ``film.apply_film``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import GateConfig
from .errors import SlotIDError
from .film import modulated_blocks
from .gate import gate_weight, in_window
from .model import SlotID
from .types import IdentityEmbedding


@dataclass(frozen=True)
class Injection:
    """One identity, ready to be applied."""

    model: SlotID
    embedding: IdentityEmbedding
    """B rows, or one that is used for all."""
    strength: float = 1.0
    """Scales the prefix tokens and FiLM."""
    prefix_strength: float = 1.0
    """Scales the prefix tokens on top of ``strength``."""
    film_strength: float = 1.0
    """Scales FiLM on top of ``strength``."""
    gate: GateConfig | None = None
    """``None`` is the gate that the weights were trained with."""
    sigma_start: float = 1.0
    """Active from this noise level ..."""
    sigma_end: float = 0.0
    """... down to this one, both included."""

    def __post_init__(self) -> None:
        for name in ("strength", "prefix_strength", "film_strength"):
            value = getattr(self, name)
            if not 0.0 <= value <= 10.0:
                raise SlotIDError(f"{name} is {value}, expected a value from 0.0 to 10.0.")

    @property
    def speaks(self) -> bool:
        """Whether the strengths leave anything of it."""
        return self.strength > 0 and (self.prefix_strength > 0 or self.film_strength > 0)

    def is_active(self, sigma_B: Tensor) -> Tensor:
        """Rows whose noise level lies inside the window. Shape ``[B]``, bool."""
        return in_window(sigma_B, self.sigma_start, self.sigma_end)


@dataclass(frozen=True)
class BlockFilm:
    """FiLM of one block; strengths and row masks are already in it."""

    gamma_BD: Tensor
    beta_BD: Tensor


@dataclass(frozen=True)
class Conditioning:
    """What one backbone call gets. Rows of the null identity are zero in both."""

    prefix_BPE: Tensor
    film: dict[int, BlockFilm]
    """By block index; a block that nothing modulates is left out."""


def condition(parts: Sequence[tuple[Injection, Tensor]], sigma_B: Tensor) -> Conditioning:
    """Gate, mask and combine identities for one backbone call.

    Args:
        parts: at least one injection, each with a bool mask ``[B]`` of the rows that get it. Rows where the mask is
            False, and rows outside the injection's noise window, get the null identity: a zero prefix, no FiLM.
            The prefixes of several injections stand side by side, their FiLM adds up.
        sigma_B: noise level of each row in [0, 1], float32.

    Returns:
        ``[C_img_hat; C_id_hat]`` of every injection (paper, 3.3), and FiLM by block. Of several, those that say nothing
        to any row are left out of the prefix; where none says anything, it is the zeros of one.
    """
    prefixes: list[Tensor] = []
    film: dict[int, BlockFilm] = {}
    for injection, rows_B in parts:
        scale_B1 = injection.strength * (rows_B & injection.is_active(sigma_B))[:, None]
        w_B1 = gate_weight(sigma_B, injection.gate or injection.model.config.gate)[:, None]
        embedding = injection.embedding
        if embedding.batch == 1:
            embedding = embedding.expand(sigma_B.shape[0])
        prefix_scale_B1 = injection.prefix_strength * scale_B1
        portrait_BKE = (w_B1 * prefix_scale_B1).unsqueeze(-1) * embedding.portrait_tokens_BKE
        clip_BSE = ((1 - w_B1) * prefix_scale_B1).unsqueeze(-1) * embedding.clip_tokens_BSE
        prefixes.append(torch.cat([portrait_BKE, clip_BSE], dim=1))

        film_scale_B1 = injection.film_strength * scale_B1
        if not film_scale_B1.any():
            continue
        global_BG = (1 - w_B1) * embedding.clip_global_BG + w_B1 * embedding.portrait_global_BG
        gamma_NBD, beta_NBD = (film_scale_B1 * part for part in injection.model.film(global_BG))
        config = injection.model.config
        for block, gamma_BD, beta_BD in zip(
            modulated_blocks(config.film, config.backbone), gamma_NBD, beta_NBD, strict=True
        ):
            if block in film:
                gamma_BD, beta_BD = film[block].gamma_BD + gamma_BD, film[block].beta_BD + beta_BD
            film[block] = BlockFilm(gamma_BD, beta_BD)
    if len(prefixes) > 1:  # beside one that speaks, zeros would make a full prompt grow by keys that say nothing
        prefixes = [prefix_BPE for prefix_BPE in prefixes if prefix_BPE.any()] or prefixes[:1]
    return Conditioning(torch.cat(prefixes, dim=1), film)
