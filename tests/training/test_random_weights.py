"""Random Slot-ID weights: not a no-op any more, the same every time, of the size they say."""

import pytest
import torch

from slotid_core.checkpoint import untrained_weights
from training.random_weights import random_slotid, randomise_lora, randomise_outputs


def test_identity_can_reach_the_backbone():
    assert untrained_weights("tiny").untrained
    weights = random_slotid("tiny", seed=3)
    assert not weights.untrained
    assert all(parameter.any() for parameter in weights.model.output_layers)
    assert all(pair.up_OR.any() for pair in weights.lora.pairs.values())


def test_the_same_seed_gives_the_same_hash():
    state = torch.get_rng_state()
    assert random_slotid("tiny", 3).sha256 == random_slotid("tiny", 3).sha256
    assert torch.equal(torch.get_rng_state(), state)
    assert len({random_slotid("tiny", seed, scale).sha256 for seed in (3, 4) for scale in (1.0, 2.0)}) == 4


def test_they_say_that_nobody_trained_them():
    facts = random_slotid("tiny").facts
    assert facts["trained_steps"] == 0 and "random" in facts["outputs"]


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_tokens_are_as_large_as_scale_says(scale):
    model = untrained_weights("tiny").model
    randomise_outputs(model, seed=1, scale=scale)
    embedding = model.encode(torch.randn(1, 16, 5, 8, 8), torch.randn(1, 16, 1, 8, 8)).embedding
    for tokens in (embedding.clip_tokens_BSE, embedding.portrait_tokens_BKE):
        assert tokens.square().mean().sqrt().item() == pytest.approx(scale, rel=0.15)


def test_the_untrained_lora_is_left_alone():
    lora = untrained_weights("tiny").lora
    changed = randomise_lora(lora, seed=1)
    assert lora.is_zero() and not changed.is_zero()
    for name, pair in lora.pairs.items():
        assert torch.equal(pair.down_RI, changed.pairs[name].down_RI) and pair.alpha == changed.pairs[name].alpha


def test_different_people_get_different_tokens():
    model = random_slotid("tiny").model
    people = [model.encode(torch.randn(1, 16, 5, 8, 8), torch.randn(1, 16, 1, 8, 8)).embedding for _ in range(2)]
    a, b = (person.clip_tokens_BSE for person in people)
    assert (a - b).norm() > 0.1 * a.norm()
