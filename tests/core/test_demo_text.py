"""The demo's hashed prompt embedding: fixed for ever, zero-padded, one near-orthogonal token per word."""

import hashlib

import pytest
import torch

from slotid_core.demo_text import TOKEN_RMS, embed_prompt, split_words
from slotid_core.errors import SlotIDError

PROMPT = "A woman turns her head, smiling."
FROZEN_DIGEST = "348dcbcd8e4e3ee8d8b46e0d42ec30c8e03c07e5e3acc7f88f75e706c408bf66"
FROZEN_FIRST_TOKEN = [
    1.7070592641830444,
    0.6702588796615601,
    0.9975393414497375,
    1.4636085033416748,
    0.5563151836395264,
    -0.05313226953148842,
    0.409898579120636,
    0.4298207759857178,
]


def digest(tokens_BLE: torch.Tensor) -> str:
    return hashlib.sha256(tokens_BLE.numpy().astype("<f4").tobytes()).hexdigest()


def test_shape_and_type():
    tokens_BLE = embed_prompt(PROMPT)
    assert tokens_BLE.shape == (1, 64, 4096)
    assert tokens_BLE.dtype == torch.float32


def test_values_are_frozen():
    """Trained demo weights depend on these very bits; a change here breaks every one of them."""
    tokens_BLE = embed_prompt(PROMPT, text_dim=8, length=8)
    assert tokens_BLE[0, 0].tolist() == FROZEN_FIRST_TOKEN
    assert digest(embed_prompt(PROMPT, length=512)) == FROZEN_DIGEST


def test_zero_pads_after_the_words():
    tokens_BLE = embed_prompt(PROMPT, text_dim=64, length=16)
    assert (tokens_BLE[0, :6] != 0).any(dim=-1).all()
    assert torch.equal(tokens_BLE[0, 6:], torch.zeros(10, 64))


@pytest.mark.parametrize("text", ["", "   ", "?! …"])
def test_prompt_without_words_is_all_zero(text):
    assert torch.equal(embed_prompt(text, text_dim=32, length=4), torch.zeros(1, 4, 32))


def test_tokens_have_the_documented_rms():
    words_NE = embed_prompt(PROMPT)[0, :6]
    rms_N = words_NE.square().mean(dim=-1).sqrt()
    torch.testing.assert_close(rms_N, torch.full((6,), TOKEN_RMS), rtol=0.05, atol=0)


def test_different_words_are_nearly_orthogonal_and_same_words_are_not():
    tokens_NE = embed_prompt("cat dog bird cat")[0, :4]
    cosine_NN = torch.nn.functional.cosine_similarity(tokens_NE[:, None], tokens_NE[None], dim=-1)
    different = [cosine_NN[i, j].abs().item() for i in range(3) for j in range(i)]
    assert max(different) < 0.08  # 5 standard deviations of independent vectors of width 4096
    assert cosine_NN[0, 3] > 0.85


def test_word_order_changes_the_set_of_tokens():
    forward_NE = embed_prompt("man bites dog", length=3)[0]
    backward_NE = embed_prompt("dog bites man", length=3)[0]
    distances_NN = torch.cdist(forward_NE, backward_NE)
    assert distances_NN[1, 1] == 0
    assert distances_NN[0].min() > 1 and distances_NN[2].min() > 1


def test_case_punctuation_and_unicode_spelling_do_not_matter():
    assert split_words("Zoë's  RED-hat!") == ["zoë", "s", "red", "hat"]
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert split_words(composed) == split_words(decomposed)
    shouted_BLE = embed_prompt("Red, HAT", text_dim=16, length=4)
    assert torch.equal(shouted_BLE, embed_prompt("red hat", text_dim=16, length=4))


def test_words_of_any_script():
    assert split_words("一位女士 微笑 улыбка") == ["一位女士", "微笑", "улыбка"]


def test_exactly_as_many_words_as_tokens_fit():
    assert (embed_prompt("a b c", text_dim=16, length=3) != 0).any(dim=-1).all()


def test_too_many_words_is_an_error_with_counts():
    with pytest.raises(SlotIDError, match=r"got 5 words, but only 3 text tokens .* by 2 words"):
        embed_prompt("a b c d e", text_dim=16, length=3)


@pytest.mark.parametrize("sizes", [{"text_dim": 0}, {"length": 0}, {"length": -4}])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(SlotIDError, match="at least 1"):
        embed_prompt("a", **sizes)
