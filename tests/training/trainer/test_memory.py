"""Memory plans change where things lie and nothing of what is learned; float8 changes it by its rounding alone."""

import pytest
import torch
from torch import nn

from training.trainer.memory import PLANS, FrozenLinear, apply_plan

CPU = torch.device("cpu")


@pytest.fixture
def gradients(make_adapter, awake, take_batch):
    """``gradients(cache, settings, plan)``: losses, and gradients by name."""

    def compute(cache, settings, plan):
        adapter = awake(make_adapter(settings))
        apply_plan(adapter.injected, plan, CPU)
        losses_B = adapter.losses(take_batch(cache, settings, 2))
        losses_B.mean().backward()
        return losses_B.detach(), {name: p.grad.clone() for name, p in adapter.trainable().items()}

    return compute


@pytest.mark.parametrize("plan", ["checkpointed", "offloaded"])
def test_recomputing_and_offloading_give_the_same_gradients(plan, cache, make_settings, gradients):
    settings = make_settings()
    expected, got = gradients(cache, settings, "plain"), gradients(cache, settings, plan)
    assert torch.equal(expected[0], got[0])
    for name, gradient in expected[1].items():
        torch.testing.assert_close(got[1][name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("plan", ["checkpointed", "offloaded"])
def test_other_calls_before_the_backward_do_not_change_what_is_recomputed(
    plan, cache, make_settings, make_adapter, awake, take_batch
):
    """Blocks that are computed again must find the FiLM of their own call."""
    settings = make_settings()
    found = []
    for calls_between in (False, True):
        adapter = awake(make_adapter(settings))
        apply_plan(adapter.injected, plan, CPU)
        items = take_batch(cache, settings, 4)
        loss = adapter.losses(items[:2]).mean()
        if calls_between:
            with torch.no_grad():
                adapter.losses(items[2:])
        loss.backward()
        found.append({name: p.grad for name, p in adapter.trainable().items()})
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_streaming_changes_nothing_of_float8(cache, make_settings, gradients):
    settings = make_settings()
    expected, got = gradients(cache, settings, "fp8"), gradients(cache, settings, "streamed")
    assert torch.equal(expected[0], got[0])
    for name, gradient in expected[1].items():
        assert torch.equal(got[1][name], gradient), name


def test_float8_is_near_the_full_weights(cache, make_settings, gradients):
    settings = make_settings()
    expected, got = gradients(cache, settings, "plain"), gradients(cache, settings, "fp8")
    assert not torch.equal(expected[0], got[0])
    torch.testing.assert_close(got[0], expected[0], rtol=0.1, atol=0)
    for name in ("slotid.film.up", "slotid.clip_tokens.1.weight"):
        a, b = expected[1][name].flatten(), got[1][name].flatten()
        assert float(torch.cosine_similarity(a, b, dim=0)) > 0.9, name


def test_float8_rounds_each_weight_by_at_most_a_sixteenth():
    """e4m3 has three bits after the point: half a step is 1/16, and a row's largest weight is exact."""
    linear = nn.Linear(64, 32)
    frozen = FrozenLinear(linear, on_host=False)
    held_OI = frozen.weight.float() * frozen.scale_O1
    weight_OI = linear.weight.detach()
    normal = weight_OI.abs() > frozen.scale_O1 * 2**-6  # below that e4m3 is subnormal: its steps are absolute
    relative = ((held_OI - weight_OI).abs() / weight_OI.abs())[normal]
    assert normal.float().mean() > 0.95 and float(relative.max()) <= 1 / 16
    torch.testing.assert_close(held_OI.abs().amax(1), weight_OI.abs().amax(1), rtol=1e-6, atol=0)


def test_a_streamed_backbone_holds_no_large_weight_on_the_device(cache, make_settings, make_adapter):
    adapter = make_adapter(make_settings())
    block = adapter.transformer.blocks[0]
    before = sum(p.numel() for p in block.parameters())
    apply_plan(adapter.injected, "streamed", CPU)
    left = [name for name, t in [*block.named_parameters(), *block.named_buffers()] if t.ndim >= 2 and t.numel() > 5000]
    assert all("lora_" in name for name in left), left
    assert sum(p.numel() for p in block.parameters()) < before / 20
    assert block.ffn.net[2].weight.dtype == torch.float8_e4m3fn


def test_recomputed_blocks_keep_only_their_inputs(cache, make_settings, make_adapter, awake, take_batch):
    """What autograd holds between forward and backward shrinks; counted by its own hooks."""

    def held(plan):
        settings = make_settings()
        adapter = awake(make_adapter(settings))
        adapter.context_length = 512  # as Wan's prompts are; with the demo's 64 tokens the encoder outweighs the blocks
        apply_plan(adapter.injected, plan, CPU)
        frozen = {p.data_ptr() for p in adapter.transformer.parameters()}
        sizes = {}

        def pack(tensor):
            if tensor.data_ptr() not in frozen:
                sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        items = take_batch(cache, settings, 2)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = adapter.losses(items).mean()
        loss.backward()
        return sum(sizes.values())

    assert held("checkpointed") < 0.6 * held("plain")


def test_plans_are_the_ones_that_settings_offer(make_settings):
    for plan in PLANS:
        assert make_settings(f"memory.plan={plan}").memory.plan == plan
