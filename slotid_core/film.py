"""FiLM on the output of the backbone's last blocks (paper, 3.3).

Shape letters: B batch, G global-vector width, H trunk width, N modulated blocks, R rank, D backbone width,
L backbone tokens.
"""

import torch
from torch import Tensor, nn

from .config import BackboneConfig, FilmConfig


def modulated_blocks(film: FilmConfig, backbone: BackboneConfig) -> range:
    """Indices of the blocks that FiLM modulates: the last ``fraction`` of them."""
    return range(backbone.blocks - round(backbone.blocks * film.fraction), backbone.blocks)


class FilmHeads(nn.Module):
    """A shared trunk and a low-rank head per block: global vector -> gamma and beta of every modulated block.

    The up-projections start at zero and there is no bias, so an untrained model modulates nothing.
    """

    def __init__(self, film: FilmConfig, backbone: BackboneConfig):
        super().__init__()
        n = len(modulated_blocks(film, backbone))
        self.trunk = nn.Sequential(nn.Linear(film.global_dim, film.hidden), nn.SiLU())
        self.down = nn.Parameter(torch.randn(n, film.rank, film.hidden) / film.hidden**0.5)
        self.up = nn.Parameter(torch.zeros(n, 2 * backbone.dim, film.rank))

    def forward(self, global_BG: Tensor) -> tuple[Tensor, Tensor]:
        """``(gamma, beta)``, each ``[N, B, D]``."""
        low_rank_NBR = torch.einsum("bh,nrh->nbr", self.trunk(global_BG), self.down)
        gamma_NBD, beta_NBD = torch.einsum("nbr,ndr->nbd", low_rank_NBR, self.up).chunk(2, dim=-1)
        return gamma_NBD, beta_NBD


def apply_film(hidden_BLD: Tensor, gamma_BD: Tensor, beta_BD: Tensor) -> Tensor:
    """``h <- h + gamma * h + beta`` on a block's output; strengths are already in gamma and beta."""
    return hidden_BLD + film_change(hidden_BLD, gamma_BD, beta_BD)


def film_change(hidden_BLD: Tensor, gamma_BD: Tensor, beta_BD: Tensor, weights_L: Tensor | None = None) -> Tensor:
    """``gamma * h + beta``, what FiLM adds to a block's output; at each token as much of it as ``weights_L`` says."""
    gamma_B1D, beta_B1D = (x.to(hidden_BLD.dtype).unsqueeze(1) for x in (gamma_BD, beta_BD))
    change_BLD = torch.addcmul(beta_B1D, gamma_B1D, hidden_BLD)
    return change_BLD if weights_L is None else change_BLD * weights_L.to(hidden_BLD.dtype).unsqueeze(-1)
