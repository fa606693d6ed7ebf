"""The loss, against its definition, and what is trained.

Shape letters: B clips, C latent channels, T H W latent frames, height, width.
"""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from training.trainer.adapter import unused_parts
from training.wan_diffusers import tiny_transformer


def test_the_loss_of_an_untrained_adapter_is_flow_matching_of_the_plain_backbone(
    cache, make_settings, make_adapter, take_batch
):
    settings = make_settings()
    items = take_batch(cache, settings, 2)
    losses_B = make_adapter(settings).losses(items)
    plain = tiny_transformer()
    for item, loss in zip(items, losses_B, strict=True):
        t, z, eps = item.draw.sigma, item.target_CTHW, item.draw.noise_CTHW
        with torch.no_grad():
            velocity = plain(
                hidden_states=((1 - t) * z + t * eps)[None],
                timestep=torch.tensor([1000.0 * t]),
                encoder_hidden_states=functional.pad(item.text_LE, (0, 0, 0, 64 - len(item.text_LE)))[None],
                return_dict=False,
            )[0][0]
        expected = functional.mse_loss(velocity, eps - z)
        assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


def test_a_clip_has_the_loss_that_it_has_alone(cache, make_settings, make_adapter, awake, take_batch):
    """Dropout, noise and identity of a row do not depend on the rows beside it."""
    settings = make_settings("model.slotid.encoder.token_dropout=0.5")
    adapter = awake(make_adapter(settings))
    items = take_batch(cache, settings, 4)
    together_B = adapter.losses(items)
    alone_B = torch.cat([adapter.losses([item]) for item in items])
    torch.testing.assert_close(together_B, alone_B, rtol=1e-5, atol=1e-5)


class MaskedPicks(TorchDispatchMode):
    """Counts what is picked by a mask: on a GPU each waits for the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_):
            self.count += any(index is not None and index.dtype == torch.bool for index in args[1])
        return func(*args, **(kwargs or {}))


def test_rows_that_are_alike_are_not_picked_by_masks(cache, make_settings, make_adapter, awake, take_batch):
    settings = make_settings()
    adapter, items = awake(make_adapter(settings)), take_batch(cache, settings, 4)
    with MaskedPicks() as masked:
        adapter.losses(items)
    assert masked.count == 0
    with MaskedPicks() as masked:  # of the demo's 64 tokens only 4 are left for the 8 of the identity
        adapter.losses([*items, replace(items[0], text_LE=torch.ones(60, 4096))])
    assert masked.count > 0


def test_each_thing_that_can_be_dropped_changes_the_loss(cache, make_settings, make_adapter, awake, take_batch):
    settings = make_settings()
    adapter = awake(make_adapter(settings))
    item = take_batch(cache, settings, 2)[0]
    keep = torch.ones(8, dtype=torch.bool)
    item = replace(item, draw=replace(item.draw, keep_identity=True, keep_prefix_P=keep))

    def loss(**changes):
        return float(adapter.losses([replace(item, draw=replace(item.draw, **changes))]).detach())

    whole = loss()
    no_anchor, no_slot = keep.clone(), keep.clone()
    no_anchor[0], no_slot[7] = False, False
    others = [loss(keep_identity=False), loss(keep_prefix_P=no_anchor), loss(keep_prefix_P=no_slot)]
    assert len({whole, *others}) == 4
    assert float(adapter.losses([replace(item, text_LE=item.text_LE[:0])]).detach()) != whole


def test_an_identity_that_is_dropped_leaves_the_backbone_with_its_lora(
    cache, make_settings, make_adapter, awake, take_batch
):
    settings = make_settings()
    adapter = awake(make_adapter(settings))
    item = take_batch(cache, settings, 2)[0]
    item = replace(item, draw=replace(item.draw, keep_identity=False))
    other = replace(item, reference_CTHW=item.reference_CTHW + 1, portrait_CTHW=item.portrait_CTHW - 1)
    assert torch.equal(adapter.losses([item]), adapter.losses([other])), "nothing of the person is left"
    without_lora = awake(make_adapter(make_settings("model.slotid.lora.rank=0")))
    assert not torch.equal(adapter.losses([item]), without_lora.losses([item])), "the LoRA is on every row"


def test_what_is_trained_is_float32_and_the_backbone_is_frozen(cache, make_settings, make_adapter):
    settings = make_settings()
    adapter = make_adapter(settings)
    trainable = adapter.trainable()
    assert {p.dtype for p in trainable.values()} == {torch.float32}
    frozen = [p for p in adapter.transformer.parameters() if not any(p is q for q in trainable.values())]
    assert frozen and not any(p.requires_grad for p in frozen)
    config = settings.model.slotid_config()
    assert sum(name.startswith("lora.") for name in trainable) == 2 * len(config.lora.targets) * config.backbone.blocks


def test_the_lora_comes_out_as_it_lies_in_the_backbone(make_settings, make_adapter, awake):
    adapter = awake(make_adapter(make_settings()))
    lora = adapter.lora()
    layer = adapter.transformer.blocks[2].attn2.to_k
    pair = lora.pairs["blocks.2.cross_attn.k"]
    x = torch.randn(3, 256)
    expected = layer(x) - layer.base_layer(x)
    got = pair.alpha / pair.down_RI.shape[0] * (x @ pair.down_RI.T @ pair.up_OR.T)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_the_temperature_follows_the_step(make_settings, make_adapter):
    adapter = make_adapter(make_settings("model.slotid.reader.tau_decay_steps=10"))
    temperatures = []
    for step in (0, 5, 10, 20):
        adapter.set_step(step)
        temperatures.append(adapter.slotid.reader.temperature)
    assert temperatures == pytest.approx([1.0, 0.55, 0.1, 0.1])


VARIANTS = {
    "the method": ([], 0),
    "portrait only": (["model.slotid.gate={start: 1.0, end: 1.0}"], 4),
    "clip only": (["model.slotid.gate={start: 0.0, end: 0.0}"], 3),
    "no FiLM": (["model.slotid.film.fraction=0.0"], 3),
    "3DConv-Pool": (["model.slotid.encoder.kind=conv_pool"], 0),
    "softmax routing": (["model.slotid.reader.routing=softmax"], 0),
    "learned dustbin": (["model.slotid.reader.dustbin=learned"], 0),
    "no LoRA": (["model.slotid.lora.rank=0"], 0),
    "one slot": (["model.slotid.reader.slots=1"], 0),
    "no difference": (["model.slotid.encoder.temporal_difference=false"], 0),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_exactly_what_something_reads(
    variant, cache, make_settings, make_adapter, awake, take_batch
):
    """All of it gets gradient once the outputs are not zero, and what is left out could get none."""
    overrides, unused = VARIANTS[variant]
    settings = make_settings(*overrides)
    adapter = awake(make_adapter(settings))
    assert len(unused_parts(adapter.slotid)) == unused
    items = [replace(i, draw=replace(i.draw, keep_identity=True, sigma=0.6)) for i in take_batch(cache, settings, 2)]
    adapter.losses(items).mean().backward()
    silent = [name for name, p in adapter.trainable().items() if p.grad is None or not p.grad.any()]
    assert silent == []
