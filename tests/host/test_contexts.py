"""Contexts with a prefix: in memory of earlier ones, and never in that of one that somebody holds."""

import importlib

import pytest
import torch


@pytest.fixture
def recycled(pack):
    return importlib.import_module("slotid_pack.nodes.host_memory").Recycled()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_used_again_when_the_last_view_upon_it_is_gone(recycled, dtype):
    like = torch.zeros(2, 5, 3, dtype=dtype).transpose(1, 2)
    tensor = recycled.empty_like(like)
    assert (tensor.shape, tensor.dtype, tensor.is_contiguous()) == (like.shape, dtype, True)
    place, view = tensor.data_ptr(), tensor[:, 1:]
    del tensor
    view.fill_(7)
    held = [recycled.empty_like(like).fill_(n) for n in range(4)]
    assert (view == 7).all()
    assert [tensor.unique().tolist() for tensor in held] == [[n] for n in range(4)]
    del view
    assert recycled.empty_like(like).data_ptr() == place


class Keeper:
    """Stands between Slot-ID and the backbone; keeps every context, and what was in it, or nothing but its place."""

    def __init__(self, keep: bool):
        self.keep, self.contexts, self.places = keep, [], []

    def __call__(self, executor, x, timestep, context, *args, **kwargs):
        self.places.append(context.data_ptr())
        if self.keep:
            self.contexts.append((context, context.clone()))
        return executor(x, timestep, context, *args, **kwargs)


def run_of_three(tools, apply, wan, person, keeper, positive):
    import comfy.samplers

    model = apply(wan, person)
    model.add_wrapper_with_key("diffusion_model", "keeper", keeper)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, tools.conditioning(2))
    guider.set_cfg(5.0)
    noise, sigmas = tools.latent_noise(), torch.tensor([0.9, 0.7, 0.4, 0.0])
    with torch.inference_mode():  # as nodes run
        return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas)


@pytest.mark.parametrize("words", [5, 512])  # of 512, the positive row runs apart, in a longer context
def test_a_context_that_is_kept_keeps_its_numbers(tools, apply, wan, people, words):
    positive = tools.conditioning(1, words=words)
    keeping, letting_go = Keeper(True), Keeper(False)
    kept = run_of_three(tools, apply, wan, people[0], keeping, positive)
    dropped = run_of_three(tools, apply, wan, people[0], letting_go, positive)
    assert torch.equal(kept, dropped)
    groups = 1 if words == 5 else 2
    assert len(keeping.contexts) == 3 * groups
    assert len(set(keeping.places)) == 3 * groups
    for context, as_it_was in keeping.contexts:
        assert torch.equal(context, as_it_was)
    steps = [as_it_was for _, as_it_was in keeping.contexts if as_it_was.shape[1] == (512 if groups == 1 else 520)]
    assert len(steps) == 3 and not torch.equal(steps[0], steps[1])


def test_where_gradients_are_wanted_they_go_through(tools, apply, wan, people):
    positive, keeper = tools.conditioning(1), Keeper(True)
    positive[0][0].requires_grad_()
    # The LoRA may lie in the weights already, put there by a sampler without gradients; ComfyUI's training node copies
    # the model first.
    model = apply(wan, people[0], lora=0.0)
    model.add_wrapper_with_key("diffusion_model", "keeper", keeper)
    tools.evaluate(model, positive=positive)
    keeper.contexts[0][0].sum().backward()
    # The last eight tokens are the prefix's.
    assert torch.equal(positive[0][0].grad[0].sum(1), torch.tensor([4096.0] * 504 + [0.0] * 8))
