"""Other nodes' patches survive, before and after ours; the LoRA is applied once; dead patches are errors."""

import pytest
import torch


def lora_file(seed: int) -> dict[str, torch.Tensor]:
    """Somebody's LoRA on cross-attention and feed-forward of the tiny Wan."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name in ("blocks.0.cross_attn.k", "blocks.1.ffn.0"):
        out = 256 if name.endswith("k") else 512
        state[f"diffusion_model.{name}.lora_A.weight"] = torch.randn(4, 256, generator=generator) * 0.1
        state[f"diffusion_model.{name}.lora_B.weight"] = torch.randn(out, 4, generator=generator) * 0.1
        state[f"diffusion_model.{name}.alpha"] = torch.tensor(4.0)
    return state


def test_a_lora_loader_before_and_after_gives_the_same(comfy, tools, wan, apply, people):
    def with_lora(model):
        return comfy.sd.load_lora_for_models(model, None, lora_file(3), 1.0, 0)[0]

    before = tools.evaluate(apply(with_lora(wan), people[0]))
    after = tools.evaluate(with_lora(apply(wan, people[0])))
    assert float((before - after).norm() / after.norm()) < 1e-5
    assert not torch.allclose(before, tools.evaluate(apply(wan, people[0])), rtol=1e-3), "their LoRA has an effect"
    assert not torch.allclose(before, tools.evaluate(with_lora(wan)), rtol=1e-3), "ours has an effect"


@pytest.mark.parametrize("theirs_first", [True, False])
def test_another_block_patch_survives(tools, wan, apply, people, theirs_first):
    """On a block that FiLM modulates: theirs halves the block's output, ours modulates what theirs gives."""
    calls = []

    def halve(args, extra):
        calls.append(1)
        out = extra["original_block"](args)
        return {**out, "img": out["img"] * 0.5}

    def patch(model):
        clone = model.clone()
        clone.set_model_patch_replace(halve, "dit", "double_block", 3)
        return clone

    model = apply(patch(wan), people[0]) if theirs_first else patch(apply(wan, people[0]))
    both = tools.evaluate(model)
    assert calls
    assert not torch.allclose(both, tools.evaluate(patch(wan)), rtol=1e-3), "ours is lost"
    assert not torch.allclose(both, tools.evaluate(apply(wan, people[0])), rtol=1e-3), "theirs is lost"
    other_order = patch(apply(wan, people[0])) if theirs_first else apply(patch(wan), people[0])
    assert torch.equal(both, tools.evaluate(other_order))


def test_two_apply_nodes_share_the_lora(tools, wan, apply, people, weights):
    once = apply(wan, people[0])
    twice = apply(once, people[1])
    counts = {key: len(patches) for key, patches in twice.patches.items()}
    assert counts == {f"diffusion_model.{name}.weight": 1 for name in weights.lora.pairs}
    assert len(once.model_options["transformer_options"]["slotid"]) == 1, "the first clone was changed"
    a, ab, ba = (tools.evaluate(model) for model in (once, twice, apply(apply(wan, people[1]), people[0])))
    assert not torch.allclose(a, ab, rtol=1e-3)
    assert torch.allclose(ab, ba, rtol=1e-3, atol=1e-4), "two identities stand side by side; their order is no matter"


def test_two_apply_nodes_that_disagree_about_the_lora(wan, apply, people, core):
    with pytest.raises(core.errors.SlotIDError, match="LoRA strengths 1.0 and 0.5"):
        apply(apply(wan, people[0]), people[1], lora=0.5)


def test_a_forward_that_calls_no_wrapper_is_an_error(tools, wan, apply, people, core):
    """Some nodes replace apply_model by a function of their own that never reaches the wrappers."""
    patched = apply(wan, people[0])
    patched.set_model_unet_function_wrapper(lambda apply_model, options: torch.zeros_like(options["input"]))
    with pytest.raises(core.errors.SlotIDError, match="sampled without calling it"):
        tools.evaluate(patched)


def test_block_patches_that_are_not_called_are_an_error(tools, wan, apply, people, core):
    def drop_patches(executor, *args, **kwargs):
        options = {**args[5], "patches_replace": {}}
        return executor(*args[:5], options, **kwargs)

    patched = apply(wan, people[0])
    patched.add_wrapper_with_key("diffusion_model", "drops", drop_patches)
    with pytest.raises(core.errors.SlotIDError, match="called none of the patches"):
        tools.evaluate(patched)


def test_calling_the_model_outside_a_sampler_is_an_error(tools, wan, apply, people, host_wan, core):
    with pytest.raises(core.errors.SlotIDError, match="outside a sampler"):
        host_wan._around_backbone(lambda *a, **k: None, torch.zeros(1), None, None, None, None, {"slotid": ()})


def test_a_window_between_two_steps_warns(tools, wan, apply, people, caplog):
    null = tools.evaluate(apply(wan, people[0], strength=0.0), 0.9)
    with caplog.at_level("WARNING", logger="slotid"):
        got = tools.evaluate(apply(wan, people[0], start=0.98, end=0.99), 0.9)
    assert "no step of this sampler lies between start and end" in caplog.text
    assert torch.equal(got, null)


def test_a_sampler_that_chooses_its_noise_levels_is_no_error(comfy, tools, wan, apply, people, caplog):
    """DPM-Solver fast: of eight steps of the schedule one lies in the window, and it takes none of them."""
    import comfy.samplers

    patched = apply(wan, people[0], start=0.4, end=0.45)
    guider = comfy.samplers.CFGGuider(patched)
    guider.set_conds(tools.conditioning(1), tools.conditioning(2))
    sampling = patched.get_model_object("model_sampling")
    inside = float(sampling.percent_to_sigma(0.42))
    noise = tools.latent_noise()

    def elsewhere(model, x, sigmas, extra_args=None, callback=None, disable=None):
        return model(x, x.new_tensor([0.3]), **extra_args)

    with caplog.at_level("WARNING", logger="slotid"):
        sampler = comfy.samplers.KSAMPLER(elsewhere)
        guider.sample(noise, torch.zeros_like(noise), sampler, torch.tensor([inside, 0.0]))
    assert "no step of this sampler lies between start and end" in caplog.text


def test_options_that_are_copied_while_sampling_stay_this_runs(comfy, tools, wan, apply, people):
    """Public packs deep-copy the options in hooks, with all that is in them."""
    from copy import deepcopy

    plain, copied = apply(wan, people[0]), apply(wan, people[0])
    wanted = tools.evaluate(plain)

    def pre_cfg(args):
        options = deepcopy(args["model_options"])
        again = comfy.samplers.calc_cond_batch(args["model"], args["conds"], args["input"], args["timestep"], options)
        return [torch.equal(a, b) and a for a, b in zip(args["conds_out"], again, strict=True)]

    copied.set_model_sampler_pre_cfg_function(pre_cfg)
    assert torch.equal(tools.evaluate(copied), wanted)


def test_a_node_that_takes_batches_apart_is_an_error(tools, wan, apply, people, core):
    def row_by_row(apply_model, options):
        x, t, c = options["input"], options["timestep"], options["c"]
        parts = [
            apply_model(
                x[i : i + 1], t[i : i + 1], **{k: v[i : i + 1] if torch.is_tensor(v) else v for k, v in c.items()}
            )
            for i in range(len(x))
        ]
        return torch.cat(parts)

    patched = apply(wan, people[0])
    patched.set_model_unet_function_wrapper(row_by_row)
    with pytest.raises(core.errors.SlotIDError, match="1 rows for 2 conditionings"):
        tools.evaluate(patched)


def test_a_widget_that_is_touched_does_not_load_the_model_anew(wan, apply, people):
    """ComfyUI unloads and patches a model whose ``patches_uuid`` is another than the loaded one's."""
    once = apply(wan, people[0]).patches_uuid
    assert once != wan.patches_uuid
    for same in ({"strength": 0.5}, {"start": 0.2}, {"film_strength": 0.3}):
        assert apply(wan, people[0], **same).patches_uuid == once, same
    assert apply(wan, people[1]).patches_uuid == once and apply(apply(wan, people[0]), people[1]).patches_uuid == once
    assert apply(wan, people[0], lora=0.5).patches_uuid != once
    other = wan.clone()
    other.add_patches({"diffusion_model.blocks.0.ffn.0.weight": ("diff", (torch.zeros(1),))})
    assert apply(other, people[0]).patches_uuid not in (once, other.patches_uuid)


def test_a_prompt_that_is_heard_at_other_times_warns(tools, wan, apply, people, caplog):
    """As ConditioningSetTimestepRange makes it: the identity begins after the prompt has ended."""
    ((context, extra),) = tools.conditioning(1)
    both = [[context, {**extra, "start_percent": 0.0, "end_percent": 0.3}], *tools.conditioning(3)]
    early = [both[0]]
    with caplog.at_level("WARNING", logger="slotid"):
        tools.evaluate(apply(wan, people[0], start=0.05), 0.3, positive=both)
    assert not caplog.text
    with caplog.at_level("WARNING", logger="slotid"):
        tools.evaluate(apply(wan, people[0], start=0.05), 0.3, positive=early)
    assert "are both the identity (start, end) and the positive prompt" in caplog.text


def test_a_negative_identity_that_nobody_evaluates_warns(comfy, tools, wan, apply, people, caplog):
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(apply(wan, people[0], negative_identity=people[1]))
    guider.set_conds(tools.conditioning(1), tools.conditioning(2))
    for cfg, warned in ((3.0, False), (1.0, True)):
        guider.set_cfg(cfg)
        with caplog.at_level("WARNING", logger="slotid"):
            tools.evaluate(None, guider=guider)
        assert ("nobody was steered away from" in caplog.text) == warned


def test_no_step_is_no_error(comfy, tools, wan, apply, people):
    """SplitSigmas at its first step leaves one noise level, with which a bare Wan gives back the latent."""
    import comfy.samplers

    def sample(model):
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(tools.conditioning(1), tools.conditioning(2))
        noise = tools.latent_noise()
        return guider.sample(noise, torch.ones_like(noise), comfy.samplers.sampler_object("euler"), torch.tensor([0.0]))

    assert torch.equal(sample(apply(wan, people[0])), sample(wan))


@pytest.mark.parametrize("shift", [4.03, 8.14])
def test_the_first_step_has_the_identity_whatever_the_shift(comfy, tools, wan, apply, people, shift):
    """With these the schedule's first level is 1.0000001 in float32."""
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    model = ModelSamplingSD3().patch(apply(wan, people[0]), shift)[0]
    first = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 4)[0]
    assert float(first) > 1
    null = ModelSamplingSD3().patch(apply(wan, people[0], strength=0.0), shift)[0]
    assert not torch.allclose(tools.evaluate(model, float(first)), tools.evaluate(null, float(first)), rtol=1e-3)


def test_a_real_ksampler_run_shows_the_person(comfy, tools, wan, apply, people):
    """Four Euler steps through ComfyUI's own sampling: A differs from B and from nobody, and is repeatable."""

    def sample(model):
        noise = tools.latent_noise()
        return comfy.sample.sample(
            model, noise, 4, 5.0, "euler", "simple", tools.conditioning(1), tools.conditioning(2),
            torch.zeros_like(noise), seed=1, disable_pbar=True,
        )  # fmt: skip

    nobody, a, b = sample(wan), sample(apply(wan, people[0])), sample(apply(wan, people[1]))
    assert torch.equal(a, sample(apply(wan, people[0])))
    for left, right in ((nobody, a), (nobody, b), (a, b)):
        assert float((left - right).norm() / left.norm()) > 1e-2
