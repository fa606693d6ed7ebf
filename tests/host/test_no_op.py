"""What must change nothing changes no bit: untrained weights, strength 0, bypass, rows and steps without identity."""

import pytest
import torch


@pytest.fixture(scope="module")
def untrained(core):
    return core.checkpoint.untrained_weights("tiny")


@pytest.fixture(scope="module")
def stranger(core, untrained):
    """An identity encoded by the untrained weights."""
    embedding = untrained.model.encode(torch.randn(1, 16, 3, 4, 4), torch.randn(1, 16, 1, 8, 8)).embedding
    thumbnail = torch.zeros(8, 8, 3, dtype=torch.uint8)
    return core.types.Identity(embedding, untrained.sha256, "0" * 64, "0" * 64, thumbnail)


def test_untrained_weights(tools, wan, apply, untrained, stranger):
    patched = apply(wan, stranger, weights=untrained)
    assert torch.equal(tools.evaluate(patched), tools.evaluate(wan))
    assert not patched.patches, "untrained weights add no LoRA"


def test_strength_zero(tools, wan, apply, people):
    assert torch.equal(tools.evaluate(apply(wan, people[0], strength=0.0, lora=0.0)), tools.evaluate(wan))


def test_bypass_after_a_run(tools, wan, apply, people):
    before = tools.evaluate(wan)
    with_identity = tools.evaluate(apply(wan, people[0]))
    assert not torch.equal(with_identity, before)
    assert torch.equal(tools.evaluate(wan), before), "the model that came in was changed"
    assert "slotid" not in wan.model_options["transformer_options"]


def test_untrained_weights_in_diffusers(tools, transformer):
    from slotid_core.checkpoint import untrained_weights
    from slotid_core.injection import Injection
    from training.wan_injection import inject

    weights = untrained_weights("tiny")
    embedding = weights.model.encode(torch.randn(1, 16, 3, 4, 4), torch.randn(1, 16, 1, 8, 8)).embedding
    noise, sigma = tools.latent_noise(batch=2), torch.tensor([0.7, 0.7])
    context = torch.cat([tools.conditioning(1)[0][0], tools.conditioning(2)[0][0]])

    def plain():
        with torch.no_grad():
            return transformer(noise, 1000 * sigma, context, return_dict=False)[0]

    before = plain()
    with inject(transformer, [Injection(weights.model, embedding)], weights.lora) as injected, torch.no_grad():
        assert torch.equal(injected(noise, sigma, context, torch.tensor([True, False])), before)
    assert torch.equal(plain(), before)


def test_random_weights_in_diffusers_leave_nothing_behind(tools, transformer, weights_file):
    from slotid_core.checkpoint import load_weights
    from slotid_core.injection import Injection
    from training.wan_injection import inject

    weights = load_weights(weights_file)
    embedding = weights.model.encode(torch.randn(1, 16, 3, 4, 4), torch.randn(1, 16, 1, 8, 8)).embedding
    noise, sigma, context = tools.latent_noise(), torch.tensor([0.7]), tools.conditioning(1)[0][0]

    def plain():
        with torch.no_grad():
            return transformer(noise, 1000 * sigma, context, return_dict=False)[0]

    before, names = plain(), set(transformer.state_dict())
    everyone = torch.tensor([True])
    with torch.no_grad():
        with inject(transformer, [Injection(weights.model, embedding)], weights.lora) as injected:
            assert not torch.equal(injected(noise, sigma, context, everyone), before)
        assert torch.equal(plain(), before)
        assert set(transformer.state_dict()) == names
        silent = Injection(weights.model, embedding, strength=0.0)
        with inject(transformer, [silent], weights.lora, lora_strength=0.0) as injected:
            assert torch.equal(injected(noise, sigma, context, everyone), before)


def null_identity(tools, model, apply, person, **setting):
    """Velocity by row role with the LoRA on and no identity: what training sees when it drops the identity."""
    probe = tools.Probe()
    tools.evaluate(apply(tools.probed(model, probe), person, strength=0.0), **setting)
    (call,) = probe.calls
    return dict(zip(call["roles"], call["velocity"], strict=True))


def test_negative_rows_are_the_null_identity_with_the_lora_on(tools, wan, apply, people):
    null = null_identity(tools, wan, apply, people[0])
    plain = tools.Probe()
    tools.evaluate(tools.probed(wan, plain))
    plain = dict(zip(plain.calls[0]["roles"], plain.calls[0]["velocity"], strict=True))
    probe = tools.Probe()
    tools.evaluate(apply(tools.probed(wan, probe), people[0]))
    got = dict(zip(probe.calls[0]["roles"], probe.calls[0]["velocity"], strict=True))
    assert torch.equal(got[1], null[1])
    assert not torch.equal(got[0], null[0])
    assert not torch.equal(null[1], plain[1]), "the LoRA is on in every row"


def test_outside_the_window_is_the_null_identity(tools, wan, apply, people):
    for window, sigma, active in [
        ({"start": 0.5}, 0.95, False),
        ({"start": 0.5}, 0.3, True),
        ({"end": 0.5}, 0.3, False),
        ({"end": 0.5}, 0.95, True),
    ]:
        null = null_identity(tools, wan, apply, people[0], sigma=sigma)
        probe = tools.Probe()
        tools.evaluate(apply(tools.probed(wan, probe), people[0], **window), sigma)
        got = dict(zip(probe.calls[0]["roles"], probe.calls[0]["velocity"], strict=True))
        assert torch.equal(got[0], null[0]) is not active, (window, sigma)
        assert torch.equal(got[1], null[1]), (window, sigma)


def test_window_follows_a_model_sampling_node_that_comes_later(comfy, tools, wan, apply, people):
    """At shift 8, sigma 0.8 lies early (percent 0.67 of the denoising is to come); at shift 1 it is 0.2 in."""
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    patched = apply(wan, people[0], start=0.5)
    changed = {}
    for shift in (1.0, 8.0):
        probe = tools.Probe()
        model = ModelSamplingSD3().patch(tools.probed(patched, probe), shift)[0]
        sigma_at_half = float(model.get_model_object("model_sampling").percent_to_sigma(0.5))
        results = []
        for sigma in (sigma_at_half + 0.02, sigma_at_half - 0.02):
            tools.evaluate(model, sigma)
            null = null_identity(tools, wan, apply, people[0], sigma=sigma)
            row = probe.calls[-1]["roles"].index(0)
            results.append(torch.equal(probe.calls[-1]["velocity"][row], null[0]))
        changed[shift] = results
    assert changed == {1.0: [True, False], 8.0: [True, False]}
