"""FiLM heads and their arithmetic.

Shape letters: B batch, L tokens, D backbone width, G global width, N modulated blocks.
"""

import pytest
import torch
import torch.nn.functional as F

from slotid_core.config import BackboneConfig, FilmConfig
from slotid_core.film import FilmHeads, apply_film, modulated_blocks

BACKBONE = BackboneConfig(dim=8, blocks=5)


@pytest.mark.parametrize(
    ("blocks", "fraction", "expected"),
    [
        (40, 0.5, range(20, 40)),
        (30, 0.5, range(15, 30)),
        (4, 1.0, range(4)),
        (4, 0.0, range(4, 4)),
        (4, 0.25, range(3, 4)),
    ],
)
def test_the_last_blocks_are_modulated(blocks, fraction, expected):
    got = modulated_blocks(FilmConfig(fraction=fraction), BackboneConfig(dim=8, blocks=blocks))
    assert list(got) == list(expected)


@torch.no_grad()
def test_heads_are_a_shared_trunk_and_a_low_rank_map_for_each_block():
    heads = FilmHeads(FilmConfig(global_dim=6, hidden=7, rank=2, fraction=0.6), BACKBONE)
    heads.up.normal_()
    global_BG = torch.randn(4, 6)
    gamma_NBD, beta_NBD = heads(global_BG)
    assert gamma_NBD.shape == beta_NBD.shape == (3, 4, 8)
    trunk_BH = F.silu(global_BG @ heads.trunk[0].weight.T + heads.trunk[0].bias)
    for n in range(3):
        both_BD = trunk_BH @ heads.down[n].T @ heads.up[n].T
        torch.testing.assert_close(gamma_NBD[n], both_BD[:, :8])
        torch.testing.assert_close(beta_NBD[n], both_BD[:, 8:])


def test_heads_start_silent_whatever_the_person():
    gamma_NBD, beta_NBD = FilmHeads(FilmConfig(), BACKBONE)(torch.randn(2, 512) * 100)
    assert not gamma_NBD.any() and not beta_NBD.any()


def test_arithmetic():
    hidden_BLD, gamma_BD, beta_BD = torch.randn(2, 5, 8), torch.randn(2, 8), torch.randn(2, 8)
    expected_BLD = hidden_BLD * (1 + gamma_BD[:, None]) + beta_BD[:, None]
    torch.testing.assert_close(apply_film(hidden_BLD, gamma_BD, beta_BD), expected_BLD)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_zero_is_bit_identical_and_the_hosts_dtype_stays(dtype):
    hidden_BLD = (torch.randn(2, 5, 8) * torch.logspace(-30, 30, 8)).to(dtype)
    zero_BD = torch.zeros(2, 8)
    changed_BLD = apply_film(hidden_BLD, zero_BD, zero_BD)
    assert changed_BLD.dtype == dtype and torch.equal(changed_BLD, hidden_BLD)
    assert torch.equal(apply_film(hidden_BLD, -zero_BD, -zero_BD), hidden_BLD)
