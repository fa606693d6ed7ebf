"""Where the identity tokens go, and that nothing else moves.

Shape letters: B batch, L context tokens, P prefix tokens, E width.
"""

import pytest
import torch

from slotid_core.prefix import missing_slots, place_prefix, trailing_pads

L, P, E = 512, 8, 6


def context_of(*words: int, length: int = L) -> torch.Tensor:
    """Prompts of that many words, padded with zeros as Wan pads."""
    context_BLE = torch.zeros(len(words), length, E)
    for row_LE, n in zip(context_BLE, words, strict=True):
        row_LE[:n] = torch.randn(n, E)
    return context_BLE


def prefix_of(*speaks: bool) -> torch.Tensor:
    """A prefix by row, all zero where the identity is silent."""
    return torch.randn(len(speaks), P, E) * torch.tensor(speaks)[:, None, None]


def test_trailing_pads_count_whole_zero_tokens_at_the_end():
    context_BLE = context_of(0, 5, 511, 512)
    context_BLE[1, 3] = 0  # a zero token inside the text is text
    context_BLE[1, 20, 2] = 1e-30  # one tiny number makes a token
    assert trailing_pads(context_BLE).tolist() == [512, 491, 1, 0]


def test_prefix_takes_the_last_pad_slots_and_the_text_stays():
    context_BLE, prefix_BPE = context_of(0, 20, 504), prefix_of(True, True, True)
    placed_BLE = place_prefix(context_BLE, prefix_BPE)
    assert placed_BLE.shape == (3, L, E)
    assert torch.equal(placed_BLE[:, -P:], prefix_BPE)
    assert torch.equal(placed_BLE[:, :-P], context_BLE[:, :-P])


def test_a_zero_token_in_the_prefix_is_a_pad_token():
    context_BLE, prefix_BPE = context_of(20), prefix_of(True)
    prefix_BPE[:, 2:] = 0
    placed_BLE = place_prefix(context_BLE, prefix_BPE)
    expected_BLE = context_BLE.clone()
    expected_BLE[:, 504:506] = prefix_BPE[:, :2]
    assert torch.equal(placed_BLE, expected_BLE)


def test_a_zero_prefix_gets_gradient_where_there_are_pads_or_training_could_never_begin():
    context_BLE, prefix_BPE = context_of(20, 504), torch.zeros(2, P, E, requires_grad=True)
    placed_BLE = place_prefix(context_BLE, prefix_BPE)
    assert torch.equal(placed_BLE, context_BLE)
    placed_BLE.sum().backward()
    assert torch.equal(prefix_BPE.grad, torch.ones_like(prefix_BPE))


@pytest.mark.parametrize("words", [505, 509, 512])
def test_too_few_pads_grow_the_context_by_exactly_what_is_missing(words):
    context_BLE, prefix_BPE = context_of(words), prefix_of(True)
    assert missing_slots(context_BLE, prefix_BPE).tolist() == [words - 504]
    placed_BLE = place_prefix(context_BLE, prefix_BPE)
    assert placed_BLE.shape == (1, words + P, E)
    assert torch.equal(placed_BLE[:, :words], context_BLE[:, :words])
    assert torch.equal(placed_BLE[:, words:], prefix_BPE)


def test_silent_rows_keep_their_bits_among_rows_that_speak():
    context_BLE = context_of(20, 512, 504)
    placed_BLE = place_prefix(context_BLE, prefix_BPE := prefix_of(True, False, True))
    assert torch.equal(placed_BLE[1], context_BLE[1])
    assert torch.equal(placed_BLE[0, -P:], prefix_BPE[0]) and torch.equal(placed_BLE[2, -P:], prefix_BPE[2])


@pytest.mark.parametrize("length", [3, L])
def test_silence_never_grows_a_context(length):
    """Not even one that is full, or shorter than the prefix: an appended zero token is one more key."""
    context_BLE = context_of(length, 2, length=length)
    silence_BPE = prefix_of(False, False)
    silence_BPE[0] *= -1  # minus zero is zero
    assert missing_slots(context_BLE, silence_BPE).tolist() == [0, 0]
    assert torch.equal(place_prefix(context_BLE, silence_BPE), context_BLE)


@pytest.mark.parametrize(
    ("words", "speaks"), [((20, 510), (True, True)), ((510, 510), (True, False)), ((508, 510), (True, True))]
)
def test_rows_that_need_different_lengths_must_be_run_apart(words, speaks):
    with pytest.raises(AssertionError, match="different context lengths"):
        place_prefix(context_of(*words), prefix_of(*speaks))


def test_the_context_is_not_written_into_and_keeps_its_dtype():
    context_BLE, prefix_BPE = context_of(20).bfloat16(), prefix_of(True)
    before_BLE = context_BLE.clone()
    placed_BLE = place_prefix(context_BLE, prefix_BPE)
    assert placed_BLE.dtype == torch.bfloat16
    assert torch.equal(placed_BLE[:, -P:], prefix_BPE.bfloat16())
    assert torch.equal(context_BLE, before_BLE)
