"""Whatever was applied, bypassed and queued again: without the node, the output is what it was, in every bit."""

import random

import pytest
import torch


@pytest.fixture(scope="module")
def small(tiny, load, tools):
    """``small(model)``: one evaluation at one noise level on two by two cells; prompts of 16 tokens. Milliseconds."""
    positive, negative = (tools.conditioning(seed, length=16) for seed in (1, 2))
    noise = torch.randn(1, 16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    sampler, sigmas = tools.one_call_sampler(0.7)

    def function(model):
        import comfy.samplers

        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(5.0)
        return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True)

    return function


@pytest.fixture(scope="module")
def choices(apply, people, core):
    """What a user may do between two runs, as functions from MODEL to MODEL."""
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    untrained = core.checkpoint.untrained_weights("tiny")
    embedding = untrained.model.encode(torch.randn(1, 16, 3, 4, 4), torch.randn(1, 16, 1, 8, 8)).embedding
    stranger = core.types.Identity(embedding, untrained.sha256, "0" * 64, "0" * 64, torch.zeros(8, 8, 3).byte())
    return {
        "person A": lambda model: apply(model, people[0]),
        "person B": lambda model: apply(model, people[1], strength=0.5, film_strength=2.0),
        "no LoRA": lambda model: apply(model, people[0], lora=0.0),
        "other LoRA strength": lambda model: apply(model, people[1], lora=-0.7),
        "window": lambda model: apply(model, people[0], start=0.1, end=0.6),
        "same in the negative": lambda model: apply(model, people[1], negative="same"),
        "two people": lambda model: apply(apply(model, people[0]), people[1]),
        "untrained": lambda model: apply(model, stranger, weights=untrained),
        "then a shift": lambda model: ModelSamplingSD3().patch(apply(model, people[0]), 3.0)[0],
    }


def _sequence(seed: int, model, small, choices, expected) -> None:
    """Some runs with what chance picks, each queued once or twice, between and after them the bare MODEL."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(list(choices))
        patched = choices[name](model)
        with_it = small(patched)
        if name == "untrained":
            assert torch.equal(with_it, expected), f"sequence {seed}: {name}"
        else:
            assert not torch.equal(with_it, expected), f"sequence {seed}: {name} did nothing"
        if chance.random() < 0.5:
            assert torch.equal(small(patched), with_it), f"sequence {seed}: {name} queued again gave something else"
        if chance.random() < 0.5:
            assert torch.equal(small(model), expected), f"sequence {seed}: bypassed after {name}"
    assert torch.equal(small(model), expected), f"sequence {seed}: removed"
    assert not model.patches and "slotid" not in model.model_options["transformer_options"]


def test_any_sequence_of_apply_and_bypass(t2v, small, choices):
    expected = small(t2v)
    for seed in range(100):
        _sequence(seed, t2v, small, choices, expected)


@pytest.mark.full
def test_a_thousand_sequences(t2v, small, choices):
    expected = small(t2v)
    for seed in range(1000):
        _sequence(seed, t2v, small, choices, expected)
