"""Checks before and while a run learns: each passes on a sound run and fails on what it is there for."""

from dataclasses import replace

import pytest
import torch

from slotid_core.errors import SlotIDError
from training.trainer.checks import Reached, check_finite, check_gradients, check_start


def test_a_fresh_adapter_passes_and_keeps_no_gradient(cache, make_settings, make_adapter, take_batch):
    settings = make_settings("drop.identity=1.0", "drop.prefix_token=0.9")
    adapter = make_adapter(settings)
    check_start(adapter, take_batch(cache, settings, 2))
    assert all(p.grad is None for p in adapter.trainable().values())


def test_compiled_blocks_in_half_precision_are_a_no_op_too(cache, make_settings, make_adapter, take_batch):
    """Where two programs of one block round in other places."""
    settings = make_settings("memory.precision=bf16")
    adapter = make_adapter(settings, dtype=torch.bfloat16)
    for block in adapter.transformer.blocks:
        block.compile()
    check_start(adapter, take_batch(cache, settings, 2))


def test_an_adapter_that_is_no_no_op_is_refused(cache, make_settings, make_adapter, awake, take_batch):
    settings = make_settings()
    with pytest.raises(SlotIDError, match="not a no-op"):
        check_start(awake(make_adapter(settings)), take_batch(cache, settings, 2))


def test_an_output_that_no_gradient_can_reach_is_named(cache, make_settings, make_adapter, take_batch):
    settings = make_settings()
    adapter = make_adapter(settings)
    adapter.slotid.film.up.register_hook(torch.zeros_like)
    with pytest.raises(SlotIDError, match="Not reached: slotid.film.up"):
        check_start(adapter, take_batch(cache, settings, 2))


def test_a_gradient_where_none_can_be_is_named(cache, make_settings, make_adapter, take_batch):
    settings = make_settings()
    adapter = make_adapter(settings)
    adapter.slotid.reader.queries.register_hook(torch.ones_like)
    with pytest.raises(SlotIDError, match="should not: slotid.reader.queries"):
        check_start(adapter, take_batch(cache, settings, 2))


def parameters(**gradients):
    trainable = {}
    for name, gradient in gradients.items():
        trainable[name] = torch.nn.Parameter(torch.zeros(2))
        trainable[name].grad = None if gradient is None else torch.full((2,), gradient)
    return trainable


def test_a_tensor_that_is_never_reached_is_named_after_three_updates():
    reached = Reached(["a", "b", "c"])
    for _ in range(3):
        reached.look(parameters(a=1.0, b=0.0, c=None), with_identity=True, lr=1e-3)
    with pytest.raises(SlotIDError, match="2 trained tensors.*: b, c"):
        reached.look(parameters(a=0.0, b=0.0, c=None), with_identity=True, lr=1e-3)


def test_updates_without_identity_or_learning_rate_do_not_count():
    reached = Reached(["a", "b"])
    for _ in range(20):
        reached.look(parameters(a=1.0, b=0.0), with_identity=False, lr=1e-3)
        reached.look(parameters(a=1.0, b=0.0), with_identity=True, lr=0.0)
    reached.look(parameters(a=0.0, b=1.0), with_identity=True, lr=1e-3)
    assert not reached.missing


def test_a_loss_that_is_no_number_stops_with_the_clips_ids(cache, make_settings, make_adapter, take_batch):
    settings = make_settings()
    items = take_batch(cache, settings, 2)
    items[1] = replace(items[1], target_CTHW=items[1].target_CTHW * float("nan"))
    losses_B = make_adapter(settings).losses(items).detach()
    with pytest.raises(SlotIDError, match=f"update 7.*{items[1].entry.id}.*loss nan"):
        check_finite(losses_B, items, 7)
    check_finite(losses_B[:1], items[:1], 7)


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_stops_with_the_clips_ids(norm, cache, make_settings, take_batch):
    items = take_batch(cache, make_settings(), 2)
    with pytest.raises(SlotIDError, match=f"update 7.*{items[0].entry.id}"):
        check_gradients(norm, items, 7)
    check_gradients(1e9, items, 7)
