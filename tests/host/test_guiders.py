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

    run.people = people
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

    with pytest.raises(core.errors.SlotIDError, match="no conditioning named 'positive'.*but mine"):
        rows(guider_of)
    assert rows(guider_of, negative="same"), "with 'same' every row gets the identity"


def test_a_guider_without_a_positive_is_told_before_the_first_step(comfy, tools, apply, wan, people, core, prompts):
    probe = tools.Probe()
    guider = comfy.samplers.CFGGuider(apply(tools.probed(wan, probe), people[0]))
    guider.inner_set_conds({"mine": prompts[0]["positive"]})
    with pytest.raises(core.errors.SlotIDError, match="no conditioning named 'positive'"):
        tools.evaluate(None, guider=guider)
    assert probe.calls == []


def test_a_second_positive_that_gets_nobody_is_told(comfy, tools, apply, wan, people, prompts, caplog):
    """As public guiders name theirs: positive, positive2, negative."""

    class Two(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options=None, seed=None):
            conds = [self.conds["positive"], self.conds["positive2"]]
            return sum(comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options)) / 2

    for settings, warned in (({}, True), ({"negative": "same"}, False), ({"strength": 0.0}, False)):
        guider = Two(apply(wan, people[0], **settings))
        guider.inner_set_conds({name: prompts[0]["positive"] for name in ("positive", "positive2")})
        caplog.clear()
        with caplog.at_level("WARNING", logger="slotid"):
            tools.evaluate(None, guider=guider)
        assert ("positive2 get no identity" in caplog.text) is warned, settings


@pytest.mark.parametrize(("identity_cfg", "warned"), [(3.0, True), (5.0, False)])
def test_nodes_that_act_after_guidance_are_told(by_identity, wan, caplog, identity_cfg, warned):
    """Skip-layer guidance evaluates the positive once more, with the whole identity."""
    model = wan.clone()
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    with caplog.at_level("WARNING", logger="slotid"):
        by_identity(5.0, identity_cfg, model=model)
    assert ("act after guidance" in caplog.text) is warned


@pytest.fixture
def by_identity(pack, apply, wan, people, prompts):
    """``by_identity(text_cfg, identity_cfg, ...)``: the pack's guider on a model with person A."""
    import importlib

    guider = importlib.import_module("slotid_pack.nodes.host_guider").IdentityGuider

    def build(text_cfg, identity_cfg, model=None, **setting):
        patched = apply(wan if model is None else model, people[0], **setting)
        return guider(patched, prompts[0]["positive"], prompts[0]["negative"], text_cfg, identity_cfg)

    return build


def ordinary(comfy, prompts, model, cfg):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(prompts[0]["positive"], prompts[0]["negative"])
    guider.set_cfg(cfg)
    return guider


def test_text_and_identity_are_guided_apart(tools, wan, apply, people, prompts, by_identity):
    """Against the formula, with predictions from three runs of their own."""

    def alone(prompt, **setting):
        return tools.evaluate(
            None, guider=build("basic", {"positive": prompts[0][prompt]})(apply(wan, people[0], **setting))
        )

    person, without, negative = alone("positive"), alone("positive", strength=0.0), alone("negative", strength=0.0)
    for text_cfg, identity_cfg in ((5.0, 2.0), (3.0, 6.0), (1.0, 4.0), (4.0, 0.0)):
        got = tools.evaluate(None, guider=by_identity(text_cfg, identity_cfg))
        expected = negative + text_cfg * (without - negative) + identity_cfg * (person - without)
        assert float((got - expected).norm() / expected.norm()) < 1e-5, (text_cfg, identity_cfg)


def test_equal_scales_are_ordinary_guidance(tools, comfy, wan, apply, people, prompts, by_identity):
    for setting in ({}, {"negative_identity": people[1]}):
        usual = tools.evaluate(None, guider=ordinary(comfy, prompts, apply(wan, people[0], **setting), 4.0))
        got = tools.evaluate(None, guider=by_identity(4.0, 4.0, **setting))
        assert float((got - usual).norm() / usual.norm()) < 1e-5
        assert (
            float((tools.evaluate(None, guider=by_identity(4.0, 3.0, **setting)) - usual).norm() / usual.norm()) > 1e-2
        )


@pytest.mark.parametrize(("text_cfg", "rows"), [(4.0, 3), (1.0, 2)])
def test_what_it_costs(tools, wan, by_identity, text_cfg, rows):
    probe = tools.Probe()
    tools.evaluate(None, guider=by_identity(text_cfg, 2.0, model=tools.probed(wan, probe)))
    assert sum(len(call["x"]) for call in probe.calls) == rows


def test_other_nodes_see_ordinary_guidance(tools, wan, by_identity):
    """A node that evaluates the conditionings itself, and one that changes the result of guidance."""
    seen = []

    def evaluate(args):
        import comfy.samplers

        positive, negative = args["conds"]
        return comfy.samplers.calc_cond_batch(
            args["model"], [positive, negative], args["input"], args["sigma"], args["model_options"]
        )

    def halve(args):
        seen.append(args)
        return args["denoised"] / 2

    model = wan.clone()
    model.set_model_sampler_calc_cond_batch_function(evaluate)
    plain = tools.evaluate(None, guider=by_identity(4.0, 2.0))
    got = tools.evaluate(None, guider=by_identity(4.0, 2.0, model=model))
    assert float((got - plain).norm() / plain.norm()) < 1e-5
    model.set_model_sampler_post_cfg_function(halve)
    assert not torch.allclose(tools.evaluate(None, guider=by_identity(4.0, 2.0, model=model)), plain, rtol=1e-2)
    (args,) = seen
    assert args["cond_scale"] == 4.0
    uncond = args["uncond_denoised"]
    assert torch.equal(args["denoised"], uncond + (args["cond_denoised"] - uncond) * 4.0)


def test_a_guider_without_an_identity_to_guide_by_is_refused(comfy, core, pack, wan, prompts, by_identity):
    import importlib

    guider = importlib.import_module("slotid_pack.nodes.host_guider").IdentityGuider
    with pytest.raises(core.errors.SlotIDError, match="no identity to guide by"):
        guider(wan, prompts[0]["positive"], prompts[0]["negative"], 4.0, 4.0)
    with pytest.raises(core.errors.SlotIDError, match="set negative to none"):
        by_identity(4.0, 4.0, negative="same")


@pytest.mark.parametrize("regional", [False, True])
def test_somebody_else_in_the_negative(core, rows, prompts, regional):
    """The negative prompt's rows are as if that person had been applied to it; the positive's do not change."""
    named, keys = prompts
    reach = core.region.Reach(blocks=range(0, 3)) if regional else core.region.EVERYWHERE

    def cfg(positive, negative):
        return build("cfg", {"positive": named[positive], "negative": named[negative]})

    plain = rows(cfg("positive", "negative"), reach=reach)
    got = rows(cfg("positive", "negative"), reach=reach, negative_identity=rows.people[1])
    swapped = rows(cfg("negative", "middle"), person=1, reach=reach)
    dual = rows(build("dual", named), reach=reach, negative_identity=rows.people[1])
    null = rows(build("dual", named), strength=0.0)

    def differ(left, right, role):
        return float((left[keys[role]] - right[keys[role]]).norm() / right[keys[role]].norm())

    assert differ(got, plain, "positive") < 1e-5
    assert differ(got, plain, "negative") > 1e-2
    assert differ(got, swapped, "negative") < 1e-5
    assert differ(dual, null, "middle") < 1e-5, "the one in the middle is no negative prompt"


def test_the_same_and_another_identity_in_the_negative_is_refused(core, wan, apply, people):
    with pytest.raises(core.errors.SlotIDError, match="the same identity and another one"):
        apply(wan, people[0], negative="same", negative_identity=people[1])
    from dataclasses import replace

    with pytest.raises(core.errors.SlotIDError, match="other Slot-ID weights"):
        apply(wan, people[0], negative_identity=replace(people[1], weights_hash="0" * 64))
