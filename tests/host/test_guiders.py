"""Identity reaches exactly the rows it is meant for, whatever order and roles a guider uses."""

import pytest
import torch


@pytest.fixture
def rows(tools, wan, apply, people):
    """``rows(guider_of, person, ...)`` -> velocity of each conditioning, keyed by its prompt."""

    def run(guider_of, person=0, **setting):
        probe = tools.Probe()
        guider = guider_of(apply(tools.probed(wan, probe), people[person], **setting))
        tools.evaluate(None, guider=guider)
        return {
            hash(context.numpy().tobytes()): velocity
            for call in probe.calls
            for context, velocity in zip(call["context"], call["velocity"], strict=True)
        }

    return run


@pytest.fixture
def prompts(tools):
    named = {name: tools.conditioning(seed) for seed, name in enumerate(("positive", "middle", "negative"))}
    keys = {name: hash(cond[0][0][0].numpy().tobytes()) for name, cond in named.items()}
    return named, keys


def build(kind, prompts):
    import comfy.samplers
    from comfy_extras import nodes_custom_sampler as custom

    def guider_of(model):
        if kind == "cfg":
            guider = comfy.samplers.CFGGuider(model)
            guider.set_conds(prompts["positive"], prompts["negative"])
            guider.set_cfg(4.0)
        elif kind == "basic":
            guider = custom.Guider_Basic(model)
            guider.set_conds(prompts["positive"])
        else:
            guider = custom.Guider_DualCFG(model)
            guider.set_conds(prompts["positive"], prompts["middle"], prompts["negative"])
            guider.set_cfg(4.0, 3.0, nested=kind == "dual nested")
        return guider

    return guider_of


@pytest.mark.parametrize("kind", ["cfg", "basic", "dual", "dual nested"])
@pytest.mark.parametrize("negative", ["none", "same"])
def test_identity_reaches_the_intended_rows(rows, prompts, kind, negative):
    named, keys = prompts
    guider_of = build(kind, named)
    null = rows(guider_of, strength=0.0)
    person_a = rows(guider_of, person=0, negative=negative)
    person_b = rows(guider_of, person=1, negative=negative)
    roles = {"cfg": ["positive", "negative"], "basic": ["positive"]}.get(kind, list(keys))
    assert set(null) == {keys[role] for role in roles}
    for role in roles:
        with_identity = role == "positive" or negative == "same"
        assert torch.equal(person_a[keys[role]], null[keys[role]]) is not with_identity, role
        assert torch.equal(person_a[keys[role]], person_b[keys[role]]) is not with_identity, role


def test_a_guider_that_evaluates_the_negative_alone_gives_it_no_identity(comfy, rows, prompts):
    """A list of one: the negative stands at position 0, where other guiders have the positive."""

    class Apart(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options=None, seed=None):
            return sum(
                comfy.samplers.calc_cond_batch(self.inner_model, [self.conds[name]], x, timestep, model_options)[0]
                for name in ("negative", "positive")
            )

    def guider_of(model):
        guider = Apart(model)
        guider.set_conds(prompts[0]["positive"], prompts[0]["negative"])
        return guider

    null, got = rows(guider_of, strength=0.0), rows(guider_of)
    assert torch.equal(got[prompts[1]["negative"]], null[prompts[1]["negative"]])
    assert not torch.equal(got[prompts[1]["positive"]], null[prompts[1]["positive"]])


def test_dual_model_guider_with_the_same_patched_model(comfy, rows, prompts):
    from comfy_extras import nodes_custom_sampler as custom

    if not hasattr(custom, "Guider_DualModel"):
        pytest.skip("this ComfyUI has no DualModelGuider")

    def guider_of(model):
        guider = custom.Guider_DualModel(model, model)
        guider.set_conds(prompts[0]["positive"], prompts[0]["negative"])
        guider.set_cfg(4.0)
        return guider

    null, got = rows(guider_of, strength=0.0), rows(guider_of)
    assert torch.equal(got[prompts[1]["negative"]], null[prompts[1]["negative"]])
    assert not torch.equal(got[prompts[1]["positive"]], null[prompts[1]["positive"]])


def test_an_area_prompt_does_not_leak_identity_into_the_negative(comfy, rows, tools, prompts):
    """ComfyUI copies the positive's area entry, uuid and all, into the negative."""
    positive = [[prompts[0]["positive"][0][0], {"area": (4, 4, 0, 0), "strength": 1.0}]]
    both_positive = positive + prompts[0]["middle"]

    def guider_of(model):
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(both_positive, prompts[0]["negative"])
        guider.set_cfg(4.0)
        return guider

    null, got = rows(guider_of, strength=0.0), rows(guider_of)
    assert torch.equal(got[prompts[1]["negative"]], null[prompts[1]["negative"]])
    for name in ("positive", "middle"):
        assert not torch.equal(got[prompts[1][name]], null[prompts[1][name]]), name


def test_no_positive_conditioning_is_an_error(core, comfy, rows, prompts):
    class Unnamed(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options=None, seed=None):
            return comfy.samplers.calc_cond_batch(self.inner_model, [self.conds["mine"]], x, timestep, model_options)[0]

    def guider_of(model):
        guider = Unnamed(model)
        guider.inner_set_conds({"mine": prompts[0]["positive"]})
        return guider

    with pytest.raises(core.errors.SlotIDError, match="no conditioning named 'positive'"):
        rows(guider_of)
    assert rows(guider_of, negative="same"), "with 'same' every row gets the identity"
