"""SlotID as a whole: every variant, where gradients go, determinism, precision.

Shape letters: B batch.
"""

import pytest
import torch

from slotid_core.config import SlotIDConfig
from slotid_core.injection import Injection, condition
from slotid_core.model import SlotID

VARIANTS = {
    "default": {},
    "3DConv-Pool": {"encoder": {"kind": "conv_pool"}},
    "softmax": {"reader": {"routing": "softmax"}},
    "fixed dustbin": {"reader": {"dustbin": "fixed"}},
    "learned dustbin": {"reader": {"dustbin": "learned"}},
    "one slot": {"reader": {"slots": 1}},
    "no temporal difference": {"encoder": {"temporal_difference": False}},
    "no temporal rope": {"encoder": {"temporal_rope": False}},
    "absolute positions": {"encoder": {"absolute_positions": True}},
    "no blocks": {"encoder": {"layers": 0}},
    "orderless": {"clip_order": "shuffled"},
    "FiLM everywhere": {"film": {"fraction": 1.0}},
    "no FiLM": {"film": {"fraction": 0.0}},
}


def unread(variant: str) -> tuple[str, ...]:
    """Parameters that a variant has no use for, by how their names begin."""
    if variant == "no FiLM":
        return ("clip_global.", "portrait_global.", "film.")
    return ()


def push_back(model: SlotID, inputs) -> None:
    """Backward from everything that reaches a backbone, at a noise level where both streams speak."""
    encoding = model.encode(*inputs, [torch.Generator().manual_seed(row) for row in range(2)])
    sigma_B = torch.full((2,), 0.7)
    rows_B = torch.ones(2, dtype=torch.bool)
    conditioning = condition([(Injection(model, encoding.embedding), rows_B)], sigma_B)
    reaches = [conditioning.prefix_BPE]
    reaches += [part for film in conditioning.film.values() for part in (film.gamma_BD, film.beta_BD)]
    generator = torch.Generator().manual_seed(1)
    sum((x * torch.randn(x.shape, generator=generator)).sum() for x in reaches).backward()


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_shapes_of_every_variant(variant, make_model, make_inputs):
    model = make_model(**VARIANTS[variant])
    encoding = model.encode(*make_inputs(batch=2))
    slots = model.config.reader.slots
    embedding = encoding.embedding
    assert embedding.clip_tokens_BSE.shape == (2, slots, 24)
    assert embedding.portrait_tokens_BKE.shape == (2, 2, 24)
    assert embedding.clip_global_BG.shape == embedding.portrait_global_BG.shape == (2, 12)
    if variant == "3DConv-Pool":
        assert encoding.routing is None
    else:
        assert encoding.routing.weights_BSTHW.shape == (2, slots, 4, 2, 3)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_gradients_reach_every_parameter(variant, make_model, make_inputs):
    model = make_model(**VARIANTS[variant]).train()
    push_back(model, make_inputs(batch=2))
    for name, parameter in model.named_parameters():
        if name.startswith(unread(variant)):
            continue
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), f"{name} gets no gradient"


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_first_backward_reaches_the_zero_outputs_and_nothing_else(variant, small_config, make_inputs):
    model = SlotID(small_config.replace(**VARIANTS[variant]))
    assert not any(parameter.any() for parameter in model.output_layers)
    push_back(model, make_inputs(batch=2))
    reached = {id(p) for p in model.parameters() if p.grad is not None and p.grad.any()}
    assert reached == {id(p) for p in model.output_layers if p.numel()}


@torch.no_grad()
def test_tokens_come_from_each_slot_and_global_vectors_from_their_mean(make_model, make_inputs):
    model, (clip, portrait) = make_model(), make_inputs(batch=2)
    embedding = model.encode(clip, portrait).embedding
    slots_BSD, anchors_BKD = model.reader(model.encoder(clip)).slots_BSD, model.portrait(portrait)
    torch.testing.assert_close(embedding.clip_global_BG, model.clip_global(slots_BSD.sum(1) / 6))
    torch.testing.assert_close(embedding.portrait_global_BG, model.portrait_global(anchors_BKD.sum(1) / 2))
    for s in range(6):
        torch.testing.assert_close(embedding.clip_tokens_BSE[:, s], model.clip_tokens(slots_BSD[:, s]))
    for k in range(2):
        torch.testing.assert_close(embedding.portrait_tokens_BKE[:, k], model.portrait_tokens(anchors_BKD[:, k]))


def test_an_untrained_model_says_nothing(small_config, make_inputs):
    model = SlotID(small_config).eval()
    embedding = model.encode(*make_inputs()).embedding
    assert not embedding.clip_tokens_BSE.any() and not embedding.portrait_tokens_BKE.any()
    assert embedding.clip_global_BG.any(), "the global vectors are not outputs: FiLM's heads silence them"
    conditioning = condition([(Injection(model, embedding), torch.tensor([True]))], torch.tensor([0.5]))
    assert not conditioning.prefix_BPE.any()
    assert not any(film.gamma_BD.any() or film.beta_BD.any() for film in conditioning.film.values())


def test_each_stream_reads_its_own_input_and_rows_do_not_mix(make_model, make_inputs):
    model = make_model()
    clip, portrait = make_inputs(batch=2)
    other_clip, other_portrait = make_inputs(batch=2, seed=1)
    names = ("clip_tokens_BSE", "clip_global_BG", "portrait_tokens_BKE", "portrait_global_BG")

    def changed(clip, portrait):
        embedding = model.encode(clip, portrait).embedding
        return {n for n in names if (getattr(embedding, n) - getattr(reference, n)).abs().max() > 1e-2}

    with torch.no_grad():
        reference = model.encode(clip, portrait).embedding
        assert changed(other_clip, portrait) == set(names[:2])
        assert changed(clip, other_portrait) == set(names[2:])
        alone = model.encode(clip[1:], portrait[1:]).embedding
    for name in names:
        torch.testing.assert_close(getattr(alone, name)[0], getattr(reference, name)[1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_encoding_twice_gives_the_same_bits(make_model, make_inputs, one_thread):
    model, inputs = make_model(), make_inputs(batch=2)
    first, again = model.encode(*inputs), model.encode(*inputs)
    for name in vars(first.embedding):
        assert torch.equal(getattr(first.embedding, name), getattr(again.embedding, name)), name
    assert torch.equal(first.routing.weights_BSTHW, again.routing.weights_BSTHW)


def test_training_encodes_by_its_generator(make_model, make_inputs, one_thread):
    model, inputs = make_model(encoder={"token_dropout": 0.5}).train(), make_inputs(batch=1)

    def tokens(seed):
        return model.encode(*inputs, [torch.Generator().manual_seed(seed)]).embedding.clip_tokens_BSE

    assert torch.equal(tokens(0), tokens(0)) and not torch.equal(tokens(0), tokens(1))


@pytest.mark.parametrize("variant", ["default", "3DConv-Pool", "learned dustbin"])
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_autocast_gives_finite_numbers_near_those_of_float32(variant, make_model, make_inputs):
    model, inputs = make_model(**VARIANTS[variant]), make_inputs(batch=2)
    plain = model.encode(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model.encode(*inputs)
        cast.embedding.clip_tokens_BSE.float().sum().backward()
    for name in vars(plain.embedding):
        expected, got = (getattr(e.embedding, name).detach().float() for e in (plain, cast))
        assert got.isfinite().all(), name
        assert float((got - expected).norm() / expected.norm()) < 0.1, name
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    if plain.routing is not None:
        weights_BSTHW = cast.routing.weights_BSTHW
        assert weights_BSTHW.dtype == torch.float32
        assert (weights_BSTHW.flatten(2).sum(-1) - 1).abs().max() <= 1e-5


def test_identities_differ_between_people(make_model, make_inputs):
    model = make_model()
    with torch.no_grad():
        a, b = (model.encode(*make_inputs(seed=seed)).embedding for seed in (0, 1))
    for name in vars(a):
        one, other = getattr(a, name), getattr(b, name)
        assert float((one - other).norm() / one.norm()) > 0.05, name


@pytest.mark.parametrize("preset", ["tiny", "wan-1.3b", "wan-14b"])
def test_presets_build(preset):
    with torch.device("meta"):
        model = SlotID(SlotIDConfig.preset(preset))
    blocks, width = model.config.backbone.blocks, model.config.backbone.dim
    assert model.film.up.shape == (blocks // 2, 2 * width, model.config.film.rank)
    assert model.clip_tokens[-1].weight.shape == (4096, model.config.encoder.width)
