"""Regions in Wan's other shapes: pictures beside the text, VACE, references in time, windows in time."""

import importlib
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="module")
def regions(pack):
    return importlib.import_module("slotid_pack.nodes.host_regions")


@pytest.fixture(scope="module")
def left(core):
    mask_1HW = torch.zeros(1, 64, 64)
    mask_1HW[:, :, :32] = 1
    return core.region.Reach(mask_1HW)


LEFT = torch.tensor([[[True, True, False, False]]]).expand(3, 4, 4).flatten()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def image_to_video(state: dict, random) -> dict:
    """Wan 2.1 I2V: 36 input channels, and keys and values of a CLIP picture in every cross-attention."""
    extra = {"patch_embedding.weight": random(256, 36, 1, 2, 2)}
    for i in range(4):
        for name in ("k_img", "v_img"):
            extra[f"blocks.{i}.cross_attn.{name}.weight"] = random(256, 256)
            extra[f"blocks.{i}.cross_attn.{name}.bias"] = random(256)
        extra[f"blocks.{i}.cross_attn.norm_k_img.weight"] = torch.ones(256)
    for place, shape in (("0", (1280,)), ("1", (1280, 1280)), ("3", (256, 1280)), ("4", (256,))):
        extra[f"img_emb.proj.{place}.weight"] = random(*shape) if len(shape) == 2 else torch.ones(shape)
        extra[f"img_emb.proj.{place}.bias"] = random(shape[0])
    return {**state, **extra}


def vace(state: dict, random) -> dict:
    """Wan 2.1 VACE with two blocks of its own."""
    extra = {
        f"vace_{name.replace('blocks.3.', 'blocks.1.')}": tensor.clone()
        for name, tensor in state.items()
        if name.startswith(("blocks.0.", "blocks.3."))
    }
    for name in ("0.before_proj", "0.after_proj", "1.after_proj"):
        extra[f"vace_blocks.{name}.weight"], extra[f"vace_blocks.{name}.bias"] = random(256, 256), random(256)
    extra["vace_patch_embedding.weight"], extra["vace_patch_embedding.bias"] = random(256, 96, 1, 2, 2), random(256)
    return {**state, **extra}


def picture(seed: int) -> SimpleNamespace:
    hidden = torch.randn(1, 257, 1280, generator=torch.Generator().manual_seed(seed))
    return SimpleNamespace(penultimate_hidden_states=hidden)


@pytest.fixture(params=[image_to_video, vace])
def variant(comfy, tools, transformer, request):
    """Such a model, and two prompts for it."""
    from training.wan_keys import transformer_to_original

    generator = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(*shape, generator=generator) * 0.05

    state = {transformer_to_original(name): tensor.clone() for name, tensor in transformer.state_dict().items()}
    model = comfy.sd.load_diffusion_model_state_dict(
        request.param(state, random), model_options={"dtype": torch.float32}
    )
    prompts = {"positive": tools.conditioning(1), "negative": tools.conditioning(2)}
    if request.param is image_to_video:
        for prompt in prompts.values():
            prompt[0][1]["clip_vision_output"] = picture(5)
    return model, prompts


def attention_of(module, run) -> torch.Tensor:
    """What that cross-attention gave in one run, for the positive row."""
    outputs = []
    handle = module.register_forward_hook(lambda module, args, out: outputs.append(out.detach().clone()))
    row = run()
    handle.remove()
    return outputs[0][row]


@pytest.fixture
def outputs(tools):
    """``outputs(model, module, **prompts)``: velocity of the positive row, and its output of that cross-attention."""

    def function(model, module, **prompts):
        probe = tools.Probe()
        probed = tools.probed(model, probe)

        def run():
            tools.evaluate(probed, **prompts)
            return probe.calls[0]["roles"].index(0)

        out_QD = attention_of(module, run)
        call = probe.calls[0]
        return call["velocity"][call["roles"].index(0)], out_QD

    return function


def test_other_shapes_of_wan(variant, apply, people, core, left, outputs):
    """Block 0's cross-attention: that person's inside, nobody's outside; a mask of ones is none."""
    model, prompts = variant
    backbone = model.model.diffusion_model
    module = backbone.blocks[0].cross_attn
    whole, whole_QD = outputs(apply(model, people[0]), module, **prompts)
    null, null_QD = outputs(apply(model, people[0], strength=0.0), module, **prompts)
    assert relative(whole_QD, null_QD) > 1e-3 and relative(whole, null) > 1e-3
    _, got_QD = outputs(apply(model, people[0], reach=left), module, **prompts)
    assert relative(got_QD[LEFT], whole_QD[LEFT]) < 1e-5 and relative(got_QD[~LEFT], null_QD[~LEFT]) < 1e-5
    ones = apply(model, people[0], reach=core.region.Reach(torch.ones(1, 64, 64)))
    assert relative(outputs(ones, module, **prompts)[0], whole) < 1e-5
    if hasattr(backbone, "vace_blocks"):
        module = backbone.vace_blocks[0].cross_attn
        whole_QD, null_QD, got_QD = (
            outputs(apply(model, people[0], **s), module, **prompts)[1]
            for s in ({}, {"strength": 0.0}, {"reach": left})
        )
        assert relative(got_QD[LEFT], whole_QD[LEFT]) < 1e-5 and relative(got_QD[~LEFT], null_QD[~LEFT]) < 1e-5


def test_references_in_time_get_no_one(wan, tools, apply, people, core, outputs):
    """As Phantom appends them: two latent frames more, which no mask is about."""
    extra = {"time_dim_concat": torch.randn(1, 16, 2, 8, 8)}
    prompts = {"positive": [[tools.conditioning(1)[0][0], extra]], "negative": [[tools.conditioning(2)[0][0], extra]]}
    module = wan.model.diffusion_model.blocks[0].cross_attn
    ones = core.region.Reach(torch.ones(1, 64, 64))
    got_QD, whole_QD, null_QD = (
        outputs(apply(wan, people[0], **s), module, **prompts)[1] for s in ({"reach": ones}, {}, {"strength": 0.0})
    )
    assert got_QD.shape[0] == 80
    assert relative(got_QD[:48], whole_QD[:48]) < 1e-5 and relative(got_QD[48:], null_QD[48:]) < 1e-5
    assert relative(whole_QD[48:], null_QD[48:]) > 1e-3


@pytest.mark.parametrize("sharp", [True, False])
def test_windows_in_time_take_their_own_part_of_the_mask(comfy, tools, wan, apply, people, core, sharp):
    """Five latent frames in two windows of three; the person is masked out of the first three."""
    windows = comfy.context_windows
    mask_FHW = torch.zeros(17, 64, 64)
    mask_FHW[9 if sharp else 0 :] = 1
    handler = windows.IndexListContextHandler(
        windows.get_matching_context_schedule(windows.ContextSchedules.STATIC_STANDARD),
        windows.get_matching_fuse_method(windows.ContextFuseMethods.PYRAMID),
        context_length=3, context_overlap=1, dim=2,
    )  # fmt: skip

    def calls(**setting):
        probe = tools.Probe()
        model = apply(tools.probed(wan, probe), people[0], **setting)
        model.model_options["context_handler"] = handler
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(tools.conditioning(1), tools.conditioning(2))
        guider.set_cfg(5.0)
        sampler, sigmas = tools.one_call_sampler(0.7)
        noise = torch.randn(1, 16, 5, 8, 8, generator=torch.Generator().manual_seed(0))
        guider.sample(noise, torch.zeros_like(noise), sampler, sigmas)
        return [call["velocity"][call["roles"].index(0)] for call in probe.calls]

    got, null = calls(reach=core.region.Reach(mask_FHW)), calls(strength=0.0)
    assert len(got) == len(null) == 2
    assert (relative(got[0], null[0]) < 1e-5) is sharp
    assert relative(got[1], null[1]) > 1e-3


def test_where_the_tokens_of_a_call_stand(comfy, regions):
    latents = torch.zeros(2, 16, 3, 5, 8)
    plain = SimpleNamespace(patch_size=(1, 2, 2), ref_conv=None)
    tokens = regions.video_tokens(plain, latents, None, {"reference_latent": torch.zeros(2, 16, 6, 8)})
    assert (tokens.before, tokens.grid, tokens.after) == (0, (3, 3, 4), 0)
    with_picture = SimpleNamespace(patch_size=(1, 2, 2), ref_conv=torch.nn.Identity())
    extra = {"reference_latent": torch.zeros(2, 16, 6, 8), "context_latents": [torch.zeros(2, 16, 1, 4, 4)]}
    tokens = regions.video_tokens(with_picture, latents, torch.zeros(2, 16, 2, 5, 8), extra)
    assert (tokens.before, tokens.grid, tokens.after, tokens.total) == (12, (3, 3, 4), 24 + 4, 12 + 36 + 28)
    known = comfy.ldm.wan.model.WanModel.__new__(comfy.ldm.wan.model.WanModel)
    weights_Q = regions.video_weights(known, tokens, torch.ones(3, 3, 4), {})
    assert weights_Q.tolist() == [0] * 12 + [1] * 36 + [0] * 28


def test_a_window_with_an_anchor_and_a_backbone_with_other_tokens(comfy, regions, core):
    Wan = comfy.ldm.wan.model.WanModel
    known, other = Wan.__new__(Wan), type("SpeakingWan", (Wan,), {}).__new__(type("SpeakingWan", (Wan,), {}))
    tokens = regions.Tokens(0, (3, 1, 1), 0)
    weights_THW = torch.arange(6.0).view(6, 1, 1) / 10
    window = SimpleNamespace(index_list=[4, 5], causal_anchor_index=2, dim=2)
    got = regions.video_weights(known, tokens, weights_THW, {"context_window": window})
    torch.testing.assert_close(got, torch.tensor([0.2, 0.4, 0.5]))
    as_long_as_the_video = SimpleNamespace(index_list=[1, 2], causal_anchor_index=1, dim=2)
    got = regions.video_weights(known, tokens, weights_THW[:3], {"context_window": as_long_as_the_video})
    torch.testing.assert_close(got, torch.tensor([0.1, 0.1, 0.2]))
    over_the_batch = {"context_window": SimpleNamespace(index_list=[0, 1], dim=0)}
    whole = regions.video_weights(known, regions.Tokens(0, (6, 1, 1), 0), weights_THW, over_the_batch)
    assert torch.equal(whole, weights_THW.flatten())
    for options in ({}, {"context_window": SimpleNamespace(index_list=[4, 5], dim=2)}):
        with pytest.raises(core.errors.SlotIDError, match="3 x 1 x 1 tokens .* of a video of 6 x 1 x 1"):
            regions.video_weights(known, tokens, weights_THW, options)
    with pytest.raises(core.errors.SlotIDError, match="SpeakingWan, in which Slot-ID does not know"):
        regions.video_weights(other, tokens, weights_THW, {})
