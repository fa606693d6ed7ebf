"""People in regions of the frame: what every video token attends to, held against sums written out here.

Shape letters: Q video tokens, K keys, D backbone width, H W pixels of masks.

The tiny Wan's latents here are 3 x 8 x 8: 3 x 4 x 4 = 48 video tokens; it has 4 blocks, FiLM modulates 2 and 3.
"""

from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import torch

GRID, WORDS = (3, 4, 4), 5


def half(side: str) -> torch.Tensor:
    mask_1HW = torch.zeros(1, 64, 64)
    mask_1HW[:, :, slice(0, 32) if side == "left" else slice(32, 64)] = 1
    return mask_1HW


LEFT = torch.tensor([[[True, True, False, False]]]).expand(GRID).flatten()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.fixture(scope="module")
def reach(core):
    return core.region.Reach


class Seen:
    """Inputs and outputs of a backbone's cross-attention and blocks in the next call, row by row."""

    def __init__(self, backbone):
        self.attention, self.blocks = [], []
        self.stack = ExitStack()
        for block in backbone.blocks:
            self._hook(block.cross_attn, self.attention)
            self._hook(block, self.blocks)

    def _hook(self, module, found):
        def note(module, args, kwargs, out):
            found.append(SimpleNamespace(module=module, x=args[0].detach().clone(), out=out.detach().clone()))

        handle = module.register_forward_hook(note, with_kwargs=True)
        self.stack.callback(handle.remove)


@pytest.fixture
def look(tools):
    """``look(model)``: what one evaluation of the positive and the negative did inside, with the positive's row."""

    def function(model, sigma=0.7, **setting):
        probe = tools.Probe()
        probed = tools.probed(model, probe)
        backbone = model.model.diffusion_model
        seen = Seen(backbone)
        with seen.stack:
            tools.evaluate(probed, sigma, **setting)
        (call,) = probe.calls
        row = call["roles"].index(0)
        return SimpleNamespace(seen=seen, row=row, velocity=call["velocity"][row], negative=call["velocity"][1 - row])

    return function


def expected_attention(module, x_QD, prompt, prefixes, masks_QN) -> torch.Tensor:
    """Cross-attention of one row, written out: a prefix token counts ``mask`` times, the pad in whose place it stands
    one minus that. Every pad is the same key.
    """
    words = prompt[0][0][0, :WORDS]
    text_embedding = module.text_embedding
    tokens = torch.cat([words, torch.zeros(1, 4096), *prefixes])
    factors_QK = torch.ones(len(x_QD), len(tokens))
    counts = [len(prefix) for prefix in prefixes]
    factors_QK[:, WORDS] = 512 - WORDS - masks_QN @ torch.tensor(counts, dtype=torch.float32)
    factors_QK[:, WORDS + 1 :] = masks_QN.repeat_interleave(torch.tensor(counts), dim=1)
    attention = module.attention
    with torch.no_grad():
        context_KD = text_embedding(tokens[None])
        q, k, v = (
            attention.norm_q(attention.q(x_QD[None])),
            attention.norm_k(attention.k(context_KD)),
            attention.v(context_KD),
        )
        q, k, v = (t[0].unflatten(-1, (attention.num_heads, -1)).transpose(0, 1).double() for t in (q, k, v))
        weights = factors_QK * (q @ k.mT / q.shape[-1] ** 0.5).exp()
        out = (weights / weights.sum(-1, keepdim=True)) @ v
        return attention.o(out.transpose(0, 1).flatten(1).float())


def tokens_of(core, weights, person, sigma=0.7) -> torch.Tensor:
    """The prefix of one person at that noise level."""
    part = core.injection.Injection(weights.model, person.embedding)
    return core.injection.condition([(part, torch.tensor([True]))], torch.tensor([sigma])).prefix_BPE[0]


MASKS = {
    "side by side": (half("left"), half("right")),
    "overlapping": (half("left"), torch.ones(1, 64, 64)),
    "soft": (half("left") * 0.7, half("right") * 0.2 + 0.1),
    "frame by frame": (half("left").repeat(9, 1, 1) * torch.linspace(0, 1, 9)[:, None, None], half("right")),
    "one without a mask": (half("left"), None),
}


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
def test_every_token_attends_to_the_people_of_its_place(tools, wan, apply, people, core, weights, look, reach, masks):
    model = wan
    weights_QN = torch.zeros(48, 2)
    for n, (person, mask) in enumerate(zip(people, masks, strict=True)):
        model = apply(model, person, reach=reach(mask))
        mask = torch.ones(1, 64, 64) if mask is None else mask
        cells = mask.reshape(len(mask), 4, 16, 4, 16).mean((2, 4))
        if len(mask) == 1:
            frames = cells.expand(3, 4, 4)
        else:
            frames = torch.stack([cells[0], cells[1:5].mean(0), cells[5:9].mean(0)])
        weights_QN[:, n] = frames.flatten()
    got = look(model)
    prefixes = [tokens_of(core, weights, person) for person in people]
    text_embedding = wan.model.diffusion_model.text_embedding
    for block in (0, 1, 3):
        call = got.seen.attention[block]
        module = SimpleNamespace(attention=call.module, text_embedding=text_embedding)
        expected_QD = expected_attention(module, call.x[got.row], tools.conditioning(1), prefixes, weights_QN)
        assert relative(call.out[got.row], expected_QD) < 1e-5, block
    swapped_QD = expected_attention(module, call.x[got.row], tools.conditioning(1), prefixes[::-1], weights_QN)
    assert relative(call.out[got.row], swapped_QD) > 1e-3, "the check can tell people apart"


def test_film_acts_in_the_same_region(wan, apply, people, look, reach):
    """Block 2 is modulated: between its own output and what block 3 gets lies FiLM."""
    models = [
        apply(wan, person, reach=reach(half(side))) for person, side in zip(people, ("left", "right"), strict=True)
    ]
    both = apply(models[0], people[1], reach=reach(half("right")))
    changes = []
    for model in (*models, both):
        blocks = look(model).seen.blocks
        row = look(model).row
        changes.append((blocks[3].x[row] - blocks[2].out[row], blocks[2].out[row]))
    assert not changes[0][0][~LEFT].any() and not changes[1][0][LEFT].any()
    assert changes[0][0][LEFT].any(1).all() and changes[1][0][~LEFT].any(1).all()
    change_QD, hidden_QD = changes[2]
    for person, inside in ((0, LEFT), (1, ~LEFT)):
        # gamma and beta, from two tokens of the run with this person alone: change = gamma h + beta
        alone_QD, h_QD = changes[person]
        (c1, c2), (h1, h2) = alone_QD[inside][:2], h_QD[inside][:2]
        gamma_D = (c1 - c2) / (h1 - h2)
        sound = (h1 - h2).abs() > 0.3
        beta_D = c1 - gamma_D * h1
        torch.testing.assert_close(
            change_QD[inside][:, sound], (gamma_D * hidden_QD[inside] + beta_D)[:, sound], rtol=1e-3, atol=1e-3
        )


def test_swapping_the_people_swaps_the_regions(wan, apply, people, look, reach):
    """In block 0's cross-attention, whose queries no identity has touched: each half is that person's."""

    def sides(left, right):
        call = look(apply(apply(wan, left, reach=reach(half("left"))), right, reach=reach(half("right"))))
        return call.seen.attention[0].out[call.row]

    alone = []
    for person in people:
        call = look(apply(wan, person))
        alone.append(call.seen.attention[0].out[call.row])
    assert relative(alone[0], alone[1]) > 1e-3
    a, b = people
    for out_QD, left, right in ((sides(a, b), 0, 1), (sides(b, a), 1, 0)):
        assert relative(out_QD[LEFT], alone[left][LEFT]) < 1e-5
        assert relative(out_QD[~LEFT], alone[right][~LEFT]) < 1e-5


def test_the_order_of_the_nodes_is_no_matter(tools, wan, apply, people, reach):
    a, b = ((person, reach(half(side))) for person, side in zip(people, ("left", "right"), strict=True))
    ab = tools.evaluate(apply(apply(wan, a[0], reach=a[1]), b[0], reach=b[1]))
    ba = tools.evaluate(apply(apply(wan, b[0], reach=b[1]), a[0], reach=a[1]))
    swapped = tools.evaluate(apply(apply(wan, a[0], reach=b[1]), b[0], reach=a[1]))
    assert relative(ab, ba) < 1e-5 and relative(ab, swapped) > 1e-2


@pytest.mark.parametrize("words", [5, 510])
def test_a_region_of_ones_is_no_region(tools, wan, apply, people, reach, words):
    """Also where the prompt leaves two pads for eight tokens."""
    prompt = tools.conditioning(1, words=words)
    masked = tools.evaluate(apply(wan, people[0], reach=reach(torch.ones(1, 64, 64))), positive=prompt)
    whole = tools.evaluate(apply(wan, people[0]), positive=prompt)
    nobody = tools.evaluate(apply(wan, people[0], strength=0.0), positive=prompt)
    assert relative(masked, whole) < 1e-5 and relative(nobody, whole) > 1e-2


def test_an_empty_region_is_refused(tools, wan, apply, people, reach, core):
    with pytest.raises(core.errors.SlotIDError, match="mask of Apply Slot-ID to Wan is empty"):
        tools.evaluate(apply(wan, people[0], reach=reach(torch.zeros(1, 64, 64))))


def test_negative_rows_and_other_steps_get_no_one(wan, apply, people, look, reach):
    null = look(apply(wan, people[0], strength=0.0))
    regional = look(apply(wan, people[0], reach=reach(half("left"))))
    assert relative(regional.negative, null.negative) < 1e-5
    assert relative(regional.velocity, null.velocity) > 1e-2
    outside = look(apply(wan, people[0], reach=reach(half("left")), end=0.2))
    assert torch.equal(outside.velocity, null.velocity) and torch.equal(outside.negative, null.negative)


def test_a_batch_of_videos(comfy, tools, wan, apply, people, reach):
    model = apply(wan, people[0], reach=reach(half("left")))
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(tools.conditioning(1), tools.conditioning(2))
    guider.set_cfg(5.0)
    sampler, sigmas = tools.one_call_sampler(0.7)
    noise = tools.latent_noise(batch=2)
    both = guider.sample(noise, torch.zeros_like(noise), sampler, sigmas)
    for row in range(2):
        alone = guider.sample(noise[row : row + 1], torch.zeros_like(noise[:1]), sampler, sigmas)
        assert relative(both[row], alone[0]) < 1e-5


def test_as_many_video_tokens_as_keys(comfy, tools, wan, apply, people, reach):
    """520 of each: self-attention must not be taken for cross-attention."""

    def sample(where):
        guider = comfy.samplers.CFGGuider(apply(wan, people[0], reach=where))
        guider.set_conds(tools.conditioning(1), tools.conditioning(2))
        guider.set_cfg(5.0)
        noise = torch.randn(1, 16, 5, 16, 26, generator=torch.Generator().manual_seed(0))
        return guider.sample(noise, torch.zeros_like(noise), *tools.one_call_sampler(0.7))

    whole = sample(reach())
    assert relative(sample(reach(torch.ones(1, 128, 208))), whole) < 1e-5
    assert relative(sample(reach(torch.ones(1, 128, 208) * (torch.arange(208) < 40))), whole) > 1e-2
    assert relative(sample(reach(blocks=range(0, 3))), whole) > 1e-3


def test_the_model_that_came_in_is_unchanged(tools, wan, apply, people, reach):
    before = tools.evaluate(wan)
    with_regions = tools.evaluate(apply(wan, people[0], reach=reach(half("left"), range(1, 3))))
    assert not torch.equal(with_regions, before)
    assert torch.equal(tools.evaluate(wan), before)


def test_block_range(tools, wan, apply, people, look, reach):
    """Outside of the range both cross-attention and FiLM are the null identity's."""
    null, whole = look(apply(wan, people[0], strength=0.0)), look(apply(wan, people[0]))
    got = look(apply(wan, people[0], reach=reach(blocks=range(1, 3))))

    def attention(call, block):
        return call.seen.attention[block].out[call.row]

    def film(call, block):
        """FiLM's change to the output of that block, as a part of it."""
        blocks, row = call.seen.blocks, call.row
        return relative(blocks[block + 1].x[row], blocks[block].out[row])

    assert relative(attention(got, 0), attention(null, 0)) < 1e-5
    assert relative(attention(whole, 0), attention(null, 0)) > 1e-3
    assert relative(attention(got, 1), attention(null, 1)) > 1e-3
    assert film(got, 2) > 1e-2
    early = look(apply(wan, people[0], reach=reach(blocks=range(0, 2))))
    assert film(early, 2) == 0 and film(whole, 2) > 1e-2
    assert relative(attention(early, 0), attention(whole, 0)) < 1e-5
    late = look(apply(wan, people[0], reach=reach(blocks=range(3, 4))))
    assert relative(attention(late, 2), attention(null, 2)) < 1e-5
    assert relative(late.velocity, null.velocity) > 1e-3


def test_the_model_in_bfloat16(comfy, tools, transformer, apply, people, reach):
    from training.wan_keys import transformer_to_original

    state = {transformer_to_original(name): tensor.bfloat16() for name, tensor in transformer.state_dict().items()}
    wan = comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": torch.bfloat16})
    masked = tools.evaluate(apply(wan, people[0], reach=reach(torch.ones(1, 64, 64))))
    plain, null = tools.evaluate(apply(wan, people[0])), tools.evaluate(apply(wan, people[0], strength=0.0))
    assert relative(masked, plain) < 0.1 * relative(null, plain)


def test_somebody_elses_attention_is_still_called(tools, wan, apply, people, reach):
    """For self-attention, and computes nothing else than before: ours has the cross-attention with the text."""
    calls = []

    def theirs(func, *args, **kwargs):
        calls.append(args[1].shape[-2])
        return func(*args, **kwargs)

    model = wan.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = theirs
    settings = reach(half("left"))
    assert (
        relative(
            tools.evaluate(apply(model, people[0], reach=settings)),
            tools.evaluate(apply(wan, people[0], reach=settings)),
        )
        == 0
    )
    assert calls == [48] * 4


def test_a_mask_that_cannot_fit_is_refused(tools, wan, apply, people, reach, core):
    for mask, message in ((torch.ones(2, 64, 64), r"\[9, height, width\]"), (torch.ones(1, 64, 96), "96 x 64 pixels")):
        with pytest.raises(core.errors.SlotIDError, match=message):
            tools.evaluate(apply(wan, people[0], reach=reach(mask)))


def test_an_area_prompt_is_refused(tools, wan, apply, people, reach, core):
    positive = [[tools.conditioning(1)[0][0], {"area": (4, 4, 0, 0), "strength": 1.0}]]
    with pytest.raises(core.errors.SlotIDError, match="3 x 2 x 2 tokens .* of a video of 3 x 4 x 4"):
        tools.evaluate(apply(wan, people[0], reach=reach(half("left"))), positive=positive)


def test_cross_attention_that_never_comes_by_is_an_error(tools, wan, apply, people, reach, core):
    def drop(executor, *args, **kwargs):
        options = {k: v for k, v in args[5].items() if k != "optimized_attention_override"}
        return executor(*args[:5], options, **kwargs)

    patched = apply(wan, people[0], reach=reach(half("left")))
    patched.add_wrapper_with_key("diffusion_model", "drops", drop)
    with pytest.raises(core.errors.SlotIDError, match="cross-attention never came by"):
        tools.evaluate(patched)
