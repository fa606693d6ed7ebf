"""Where an identity acts, against sums written out.

Shape letters: F mask frames, T H W tokens, B rows, Q video tokens, N identities, P prefix tokens, L text tokens, K
keys, E width.
"""

import pytest
import torch
import torch.nn.functional as F

from slotid_core.errors import SlotIDError
from slotid_core.film import apply_film, film_change
from slotid_core.prefix import place_prefix
from slotid_core.region import append_prefix, block_range, key_bias, token_weights

PATCH = (1, 2, 2)


def test_a_token_weighs_what_share_of_its_cell_lies_inside():
    """64 x 96 pixels, latents of 8 x 12, tokens of 16 x 16 pixels."""
    mask_FHW = torch.zeros(1, 64, 96)
    mask_FHW[:, :, 40:] = 1
    weights_THW = token_weights(mask_FHW, (3, 8, 12), PATCH)
    assert weights_THW.shape == (3, 4, 6)
    assert torch.equal(weights_THW[1, 2], torch.tensor([0, 0, 0.5, 1, 1, 1]))
    assert torch.equal(weights_THW, weights_THW[:1, :1].expand(3, 4, 6))


def test_a_mask_of_another_size_and_a_soft_one():
    half_FHW = torch.zeros(1, 32, 48)
    half_FHW[:, 16:] = 0.25
    for mask_FHW in (half_FHW, F.interpolate(half_FHW[None], scale_factor=4)[0], half_FHW[:, ::16, ::16]):
        weights_THW = token_weights(mask_FHW, (1, 8, 12), PATCH)
        assert torch.equal(weights_THW[0, :, 0], torch.tensor([0, 0, 0.25, 0.25]))


def test_masks_frame_by_frame_follow_the_latent_frames():
    """Latent frame 0 is frame 0, latent frame t is frames 4 t - 3 to 4 t."""
    mask_FHW = torch.zeros(9, 16, 16)
    mask_FHW[0], mask_FHW[4], mask_FHW[7:9] = 1, 1, 1
    assert torch.equal(token_weights(mask_FHW, (3, 2, 2), PATCH).flatten(), torch.tensor([1.0, 0.25, 0.5]))


def test_latents_that_the_patch_does_not_divide():
    """Wan pads them; the last token's cell is what is there."""
    mask_FHW = torch.zeros(1, 40, 40)
    mask_FHW[:, :, 32:] = 1
    weights_THW = token_weights(mask_FHW, (1, 5, 5), PATCH)
    assert torch.equal(weights_THW[0], torch.tensor([[0.0, 0, 1]] * 3))


def test_all_ones_are_ones_exactly():
    for size in ((480, 832), (721, 1283), (64, 88)):
        mask_FHW = torch.ones(1, *size)
        assert torch.equal(token_weights(mask_FHW, (2, *(s // 8 for s in size)), PATCH).unique(), torch.ones(1))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 64, 64), r"\[2, 64, 64\], expected .* \[9, height, width\]"),
        ((64, 64), r"\[64, 64\]"),
        ((1, 0, 64), r"\[1, 0, 64\]"),
        ((1, 64, 96), "96 x 64 pixels and the video's latents are 8 x 8"),
    ],
)
def test_a_mask_that_cannot_fit_is_refused(shape, message):
    with pytest.raises(SlotIDError, match=message):
        token_weights(torch.ones(shape), (3, 8, 8), PATCH)


def test_a_mask_with_no_number_is_refused():
    with pytest.raises(SlotIDError, match="not finite"):
        token_weights(torch.full((1, 8, 8), torch.nan), (1, 8, 8), PATCH)


def context_of(words: int, length: int = 40, width: int = 16) -> torch.Tensor:
    context_BLE = torch.zeros(1, length, width)
    context_BLE[:, :words] = torch.randn(1, words, width)
    return context_BLE


def attend(q_QE: torch.Tensor, keys_KE: torch.Tensor, factors_QK: torch.Tensor) -> torch.Tensor:
    """Softmax attention in which key k counts ``factors_QK[q, k]`` times; keys are the values too."""
    weights_QK = factors_QK.double() * (q_QE.double() @ keys_KE.double().T).exp()
    return weights_QK @ keys_KE.double() / weights_QK.sum(1, keepdim=True)


def biased(q_QE, context_BLE, prefix_BPE, weights_QN, tokens_N, active_N=None, avoid=()) -> torch.Tensor:
    keys_BKE = append_prefix(context_BLE, prefix_BPE, avoid)
    active_BN = torch.ones(1, len(tokens_N), dtype=torch.bool) if active_N is None else torch.tensor([active_N])
    bias_BQK = key_bias(context_BLE, active_BN, weights_QN, tokens_N, keys_BKE.shape[1])
    return F.scaled_dot_product_attention(q_QE[None], keys_BKE, keys_BKE, attn_mask=bias_BQK, scale=1.0)[0]


@pytest.mark.parametrize("words", [5, 36, 40])
@pytest.mark.parametrize("avoid", [(), (50, 51)])
def test_every_video_token_sees_its_own_mixture(words, avoid):
    """Two identities with 6 and 4 tokens; 35, 4 or 0 pads for them."""
    q_QE, context_BLE, prefix_BPE = torch.randn(5, 16), context_of(words), torch.randn(1, 10, 16)
    weights_QN = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0], [0.3, 0.6]])
    got_QE = biased(q_QE, context_BLE, prefix_BPE, weights_QN, [6, 4], avoid=avoid)
    owner = [0] * 6 + [1] * 4
    keys = torch.cat([context_BLE[0, :words], torch.zeros(1, 16), prefix_BPE[0]])
    factors_QK = torch.ones(5, words + 11)
    pads = 40 - words
    for q in range(5):
        taken = sum(float(weights_QN[q, owner[p]]) for p in range(min(10, pads)))
        factors_QK[q, words] = pads - taken
        factors_QK[q, words + 1 :] = weights_QN[q, owner]
    torch.testing.assert_close(got_QE.double(), attend(q_QE, keys, factors_QK), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("words", [5, 36, 40])
def test_inside_it_is_the_placed_prefix_and_outside_the_prompt_alone(words):
    q_QE, context_BLE, prefix_BPE = torch.randn(4, 16), context_of(words), torch.randn(1, 8, 16)
    got_QE = biased(q_QE, context_BLE, prefix_BPE, torch.tensor([[1.0], [1], [0], [0]]), [8])
    with_person_LE, without_LE = place_prefix(context_BLE, prefix_BPE)[0], context_BLE[0]
    expected_QE = torch.cat(
        [
            F.scaled_dot_product_attention(q, k, k, scale=1.0)
            for q, k in ((q_QE[:2], with_person_LE), (q_QE[2:], without_LE))
        ]
    )
    torch.testing.assert_close(got_QE, expected_QE)


@pytest.mark.parametrize("speaks", [[True, False], [False, True]])
def test_an_identity_with_nothing_to_say_is_not_there(speaks):
    q_QE, context_BLE, person_BPE = torch.randn(3, 16), context_of(38), torch.randn(1, 4, 16)
    prefix_BPE = torch.cat([person_BPE * speaks[0], person_BPE * speaks[1]], dim=1)
    both = biased(q_QE, context_BLE, prefix_BPE, torch.ones(3, 2), [4, 4], speaks)
    torch.testing.assert_close(both, biased(q_QE, context_BLE, person_BPE, torch.ones(3, 1), [4]))


def test_rows_may_differ_and_one_weight_may_stand_for_all_tokens():
    context_BLE = torch.cat([context_of(5), context_of(38)])
    bias_BQK = key_bias(context_BLE, torch.tensor([[True], [False]]), torch.ones(1, 1), [4], 44)
    assert bias_BQK.shape == (2, 1, 44)
    hidden_BK = bias_BQK[:, 0] == -torch.inf
    assert hidden_BK[0].nonzero().flatten().tolist() == [36, 37, 38, 39]
    assert hidden_BK[1].nonzero().flatten().tolist() == [40, 41, 42, 43]
    assert bias_BQK[~hidden_BK[:, None]].unique().tolist() == [0]


def test_spare_keys_keep_clear_of_other_lengths_and_the_context_keeps_its_dtype():
    context_BLE = context_of(5).bfloat16()
    placed_BKE = append_prefix(context_BLE, torch.randn(1, 8, 16), {48, 49, 51})
    assert placed_BKE.shape == (1, 50, 16) and placed_BKE.dtype == torch.bfloat16
    assert torch.equal(placed_BKE[:, :40], context_BLE) and not placed_BKE[:, 48:].any()
    bias_BQK = key_bias(context_BLE, torch.ones(1, 1, dtype=torch.bool), torch.full((2, 1), 0.5), [8], 50)
    assert bias_BQK.dtype == torch.bfloat16
    assert (bias_BQK[..., 48:] == -torch.inf).all() and bias_BQK[..., :48].isfinite().all()


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(0, -1, None), (0, 39, None), (0, 9, range(10)), (20, -1, range(20, 40)), (7, 7, range(7, 8))],
)
def test_block_range(first, last, expected):
    assert block_range(first, last, 40) == expected


@pytest.mark.parametrize(("first", "last"), [(40, -1), (0, 40), (5, 4), (-1, 3), (0, -2)])
def test_a_block_range_with_no_block_in_it_is_refused(first, last):
    with pytest.raises(SlotIDError, match=f"from {first} to {last}.*40 blocks"):
        block_range(first, last, 40)


def test_film_by_token():
    hidden_BLD, gamma_BD, beta_BD = torch.randn(2, 3, 8), torch.randn(2, 8), torch.randn(2, 8)
    change_BLD = film_change(hidden_BLD, gamma_BD, beta_BD, torch.tensor([0.0, 0.5, 1.0]))
    full_BLD = hidden_BLD * gamma_BD[:, None] + beta_BD[:, None]
    assert not change_BLD[:, 0].any()
    torch.testing.assert_close(change_BLD[:, 1], full_BLD[:, 1] / 2)
    torch.testing.assert_close(change_BLD[:, 2], full_BLD[:, 2])
    assert torch.equal(
        apply_film(hidden_BLD, gamma_BD, beta_BD), hidden_BLD + film_change(hidden_BLD, gamma_BD, beta_BD)
    )
