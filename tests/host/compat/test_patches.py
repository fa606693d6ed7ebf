"""Nodes that patch the MODEL, before and after *Apply Slot-ID to Wan*, and packs that replace parts of it."""

from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def sample_with(tiny, t2v, prompts):
    """``sample_with(before, after, ...)`` -> ``sample(patch)``: what stands before and after Apply, then KSampler."""

    def function(before=lambda model: model, after=lambda model: model, length: int = 9, **settings):
        latent = tiny.video_latent(length)
        return lambda patch: tiny.ksampler(
            after(patch(before(t2v))), prompts["positive"], prompts["negative"], latent, **settings
        )

    return function


@pytest.fixture
def both_ways(run, shows_the_person, sample_with, tiny):
    """``both_ways(node, ...)``: works before and after Apply, with the same result, and the node has an effect."""

    def function(node, **settings):
        before, after = sample_with(before=node, **settings), sample_with(after=node, **settings)
        shown = shows_the_person(after, bypass=True)
        assert tiny.relative(run(before).latents, shown.latents) < 1e-5
        assert tiny.relative(run(sample_with(**settings)).latents, shown.latents) > 1e-4, "the node does nothing"
        return shown

    return function


@pytest.fixture(scope="session")
def lora_name(comfy, model_folder) -> str:
    """Somebody's LoRA, on cross-attention K that Slot-ID's LoRA also changes, and on a feed-forward."""
    from safetensors.torch import save_file

    generator, state = torch.Generator().manual_seed(3), {}
    for name, out in (("blocks.0.cross_attn.k", 256), ("blocks.1.ffn.0", 512)):
        state[f"diffusion_model.{name}.lora_A.weight"] = torch.randn(4, 256, generator=generator) * 0.1
        state[f"diffusion_model.{name}.lora_B.weight"] = torch.randn(out, 4, generator=generator) * 0.1
        state[f"diffusion_model.{name}.alpha"] = torch.tensor(4.0)
    save_file(state, model_folder / "somebodys.safetensors")
    return "somebodys.safetensors"


def test_lora_loader(both_ways, lora_name):
    """As distilled LoRAs are used: four steps, cfg 1, so the negative is never evaluated."""
    import nodes

    shown = both_ways(
        lambda model: nodes.LoraLoaderModelOnly().load_lora_model_only(model, lora_name, 1.0)[0],
        steps=4, cfg=1.0, sampler="lcm",
    )  # fmt: skip
    assert shown.counts == [(4, 4, 8)]


def test_lora_hooks(shows_the_person, run, sample_with, tiny, t2v, prompts, lora_name):
    """A LoRA on the prompts instead of on the model, on layers that Slot-ID's changes too."""
    from comfy.hooks import set_hooks_for_conditioning
    from comfy_extras.nodes_hooks import CreateHookLoraModelOnly

    import nodes

    (hooks,) = CreateHookLoraModelOnly().create_hook_model_only(lora_name, 1.0)
    hooked = [set_hooks_for_conditioning(prompts[name], hooks) for name in ("positive", "negative")]
    shown = shows_the_person(lambda patch: tiny.ksampler(patch(t2v), *hooked, tiny.video_latent()))
    loader = nodes.LoraLoaderModelOnly()
    loaded = sample_with(before=lambda model: loader.load_lora_model_only(model, lora_name, 1.0)[0])
    assert tiny.relative(run(loaded).latents, shown.latents) < 1e-5
    assert tiny.relative(run(sample_with()).latents, shown.latents) > 1e-4, "the hooks do nothing"


def test_model_sampling_shift(both_ways, run, sample_with, tiny):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    def shift(model):
        return ModelSamplingSD3().patch(model, 3.0)[0]

    both_ways(shift, steps=2)
    # "end" is a share of the steps under the shift that is in force, also when that is set after Apply
    windows = [run(sample_with(**order), end=0.5, strength=1.0) for order in ({"before": shift}, {"after": shift})]
    assert torch.equal(windows[0].latents, windows[1].latents)


@pytest.fixture(scope="session")
def easycache(tiny):
    """``easycache(end=1.0)``: a node that answers every step before ``end`` from the cache, but the first two."""
    node = tiny.core_node("nodes_easycache", "EasyCacheNode")

    def function(end: float = 1.0):
        return lambda model: node(
            model=model, reuse_threshold=100.0, start_percent=0.0, end_percent=end, verbose=False
        )[0]

    return function


def test_easycache(shows_the_person, sample_with, easycache):
    shows_the_person(sample_with(steps=6, before=easycache()), cached=True)
    shown = shows_the_person(sample_with(steps=6, after=easycache()), cached=True, bypass=True)
    assert shown.counts == [(6, 6, 4)], "the cached steps modulate no block"


def test_a_cached_step_at_the_identitys_start(run, sample_with, easycache, tiny):
    """The cache answers the first steps that are to show the person, and the last ones show them."""
    a, b = (run(sample_with(steps=6, after=easycache(end=0.6)), person, start=0.4) for person in (0, 1))
    (calls, shown, modulated) = a.counts[0]
    assert calls == 6 and 0 < modulated < 2 * shown, "every step was computed"
    assert tiny.relative(a.latents, b.latents) > 1e-3


def test_an_identity_whose_every_step_is_cached(run, sample_with, easycache, core):
    with pytest.raises(core.errors.SlotIDError, match="called none of the patches.* a cache has answered every step"):
        run(sample_with(steps=6, after=easycache()), start=0.4)


def test_lazycache(shows_the_person, sample_with, tiny):
    node = tiny.core_node("nodes_easycache", "LazyCacheNode")

    def cache(model):
        return node(model=model, reuse_threshold=3.0, start_percent=0.0, end_percent=1.0, verbose=False)[0]

    for order in ({"before": cache}, {"after": cache}):
        shown = shows_the_person(sample_with(steps=6, **order))
        assert shown.counts[0][0] < 6, "no step was skipped"


def teacache_forward(self, x, t, context, clip_fea=None, freqs=None, transformer_options=None, **kwargs):
    """Stands for packs that put a ``forward_orig`` of their own into Wan: the same loop, but every second step adds
    what the blocks added the step before. ``slotid_test`` in the options says whether it calls block patches."""
    from comfy.ldm.wan.model import sinusoidal_embedding_1d

    x = self.patch_embedding(x.float()).to(x.dtype)
    grid, x = x.shape[2:], x.flatten(2).transpose(1, 2)
    e = self.time_embedding(sinusoidal_embedding_1d(self.freq_dim, t.flatten()).to(x.dtype))
    e = e.reshape(t.shape[0], -1, e.shape[-1])
    e0 = self.time_projection(e).unflatten(2, (6, self.dim))
    context = self.text_embedding(context)
    cache = transformer_options["slotid_test"]
    if cache.residual is not None:
        x, cache.residual = x + cache.residual, None
    else:
        start = x
        replaced = transformer_options.get("patches_replace", {}).get("dit", {}) if cache.patches else {}
        for i, block in enumerate(self.blocks):
            if ("double_block", i) in replaced:

                def original(args, block=block):
                    return {"img": block(args["img"], context=args["txt"], e=args["vec"], freqs=args["pe"])}

                args = {"img": x, "txt": context, "vec": e0, "pe": freqs, "transformer_options": transformer_options}
                x = replaced["double_block", i](args, {"original_block": original})["img"]
            else:
                x = block(x, context=context, e=e0, freqs=freqs)
        cache.residual = x - start
    return self.unpatchify(self.head(x, e), grid)


def teacache(model, patches: bool):
    """As such packs do it: around ``apply_model``, the backbone's method is replaced."""
    clone = model.clone()
    clone.model_options["transformer_options"]["slotid_test"] = SimpleNamespace(patches=patches, residual=None)

    def around(apply_model, args):
        backbone = apply_model.__self__.diffusion_model
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backbone, "forward_orig", teacache_forward.__get__(backbone))
            return apply_model(args["input"], args["timestep"], **args["c"])

    clone.set_model_unet_function_wrapper(around)
    return clone


def test_teacache_stand_in(shows_the_person, sample_with):
    for order in ("before", "after"):
        sample = sample_with(steps=4, **{order: lambda model: teacache(model, patches=True)})
        shown = shows_the_person(sample, cached=True)
        assert shown.counts == [(4, 4, 4)], "two of four steps were taken from the cache"


def test_forward_without_block_patches_stand_in(run, sample_with, tiny, core):
    """A replaced forward that ignores block patches is refused, and shows the person by the prefix without FiLM."""
    sample = sample_with(before=lambda model: teacache(model, patches=False))
    with pytest.raises(core.errors.SlotIDError, match="patched 2 blocks and the model called none .* film_strength"):
        run(sample)
    later = sample_with(before=lambda model: teacache(model, patches=False), steps=3)
    with pytest.raises(core.errors.SlotIDError, match="called none of the patches.* Or a cache"):
        run(later, start=0.5)
    a, b = (run(sample, person, film_strength=0.0) for person in (0, 1))
    assert a.counts == b.counts == [(1, 1, 0)]
    assert tiny.relative(a.latents, b.latents) > 1e-3


def test_attention_override_stand_in(both_ways, run, sample_with):
    """As SageAttention nodes do it, with an attention of lower precision."""
    calls = []

    def override(func, q, k, v, heads, **kwargs):
        calls.append(1)
        return func(q.bfloat16(), k.bfloat16(), v.bfloat16(), heads, **kwargs).to(q.dtype)

    def attention(model):
        clone = model.clone()
        clone.model_options["transformer_options"]["optimized_attention_override"] = override
        return clone

    both_ways(attention)
    assert calls


def test_skip_layer_guidance_dit(both_ways, tiny):
    """A third evaluation with the positive prompt and two blocks skipped, one of them modulated: it has the person."""
    node = tiny.core_node("nodes_slg", "SkipLayerGuidanceDiT")
    shown = both_ways(
        lambda model: node(
            model=model, scale=3.0, start_percent=0.0, end_percent=1.0, double_layers="1, 3", single_layers=""
        )[0]
    )
    assert [len(call) for call in shown.calls] == [2, 1]


def test_skip_layer_guidance_dit_simple(both_ways, tiny):
    node = tiny.core_node("nodes_slg", "SkipLayerGuidanceDiTSimple")
    both_ways(
        lambda model: node(model=model, start_percent=0.0, end_percent=1.0, double_layers="1, 3", single_layers="")[0]
    )


def test_cfg_zero_star(both_ways, tiny):
    node = tiny.core_node("nodes_cfg", "CFGZeroStar")
    both_ways(lambda model: node(model=model)[0])


def test_scale_rope(both_ways, tiny):
    node = tiny.core_node("nodes_rope", "ScaleROPE")
    both_ways(
        lambda model: node(model=model, scale_x=2.0, shift_x=1.0, scale_y=1.0, shift_y=0.0, scale_t=1.0, shift_t=0.0)[0]
    )


def test_two_apply_nodes(run, sample_with, tiny, apply, people):
    """Two people side by side in one context: both reach the output, in either order the same."""
    one, other = (run(sample_with(before=lambda model, i=i: apply(model, people[i])), 1 - i) for i in (0, 1))
    assert all((row.text_LE[-16:] != 0).any(dim=1).all() for row in one.calls[0] if row.role == "positive")
    assert tiny.relative(one.latents, other.latents) < 1e-4
    for alone in (0, 1):
        assert tiny.relative(run(sample_with(), alone).latents, one.latents) > 1e-3
