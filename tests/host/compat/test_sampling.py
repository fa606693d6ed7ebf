"""Samplers, guiders, prompts and windows: the identity reaches the positive rows in each."""

import pytest
import torch


@pytest.fixture
def schedule(tiny, t2v):
    """The noise levels of *BasicScheduler*: two steps."""
    (sigmas,) = tiny.core_node("nodes_custom_sampler", "BasicScheduler")(
        model=t2v, scheduler="simple", steps=2, denoise=1.0
    )
    return sigmas


@pytest.fixture
def guided(tiny, t2v, schedule):
    """``guided(node, inputs_of)`` -> ``sample(patch)``: a guider into *SamplerCustomAdvanced*."""

    def function(node: str, **inputs):
        guider_of, latent = tiny.core_node("nodes_custom_sampler", node), tiny.video_latent()

        def sample(patch):
            model = patch(t2v)
            made = {name: value(model) if callable(value) else value for name, value in inputs.items()}
            return tiny.advanced(guider_of(model=model, **made)[0], schedule, latent)

        return sample

    return function


def test_samplers(run, tiny, t2v, prompts):
    """Samplers that call the model several times a step, go back in noise, or keep a history."""
    latent = tiny.video_latent()
    for sampler in ("uni_pc", "dpmpp_sde", "res_multistep", "lcm", "euler_ancestral"):

        def sample(patch, sampler=sampler):
            return tiny.ksampler(patch(t2v), prompts["positive"], prompts["negative"], latent, steps=2, sampler=sampler)

        null, a, b = run(sample, strength=0.0), run(sample, 0), run(sample, 1)
        assert min(tiny.relative(a.latents, other.latents) for other in (null, b)) > 1e-3, sampler
        assert a.counts == [(len(a.calls), len(a.calls), 2 * len(a.calls))], sampler


def test_sampler_custom(shows_the_person, tiny, t2v, prompts, schedule):
    (euler,) = tiny.core_node("nodes_custom_sampler", "KSamplerSelect")(sampler_name="euler")
    sample_custom, latent = tiny.core_node("nodes_custom_sampler", "SamplerCustom"), tiny.video_latent()
    shows_the_person(
        lambda patch: sample_custom(
            model=patch(t2v), add_noise=True, noise_seed=7, cfg=5.0, positive=prompts["positive"],
            negative=prompts["negative"], sampler=euler, sigmas=schedule, latent_image=latent,
        )[0]["samples"],
        bypass=True,
    )  # fmt: skip


def test_basic_guider(shows_the_person, guided, prompts):
    shown = shows_the_person(guided("BasicGuider", conditioning=prompts["positive"]))
    assert shown.counts == [(2, 2, 4)]


def test_cfg_guider(shows_the_person, guided, prompts):
    shows_the_person(guided("CFGGuider", positive=prompts["positive"], negative=prompts["negative"], cfg=5.0))


@pytest.mark.parametrize("style", ["regular", "nested"])
def test_dual_cfg_guider(shows_the_person, guided, prompts, style):
    """The one in the middle is a negative of the first: it does not show the person."""
    sample = guided(
        "DualCFGGuider", cond1=prompts["positive"], cond2=prompts["middle"], negative=prompts["negative"],
        cfg_conds=5.0, cfg_cond2_negative=3.0, style=style,
    )  # fmt: skip
    shown = shows_the_person(sample)
    assert {row.role for row in shown.calls[0]} == {"positive", "middle", "negative"}


def test_dual_model_guider(shows_the_person, guided, prompts, load):
    """The negative by the same patched MODEL, and by another one without Apply."""
    other = load(2)
    for negative_model in (lambda model: model, lambda model: other):
        shown = shows_the_person(
            guided(
                "DualModelGuider", positive=prompts["positive"], negative=prompts["negative"], cfg=4.0,
                model_negative=negative_model,
            )
        )  # fmt: skip
        assert [[row.role for row in call] for call in shown.calls] == [["positive"], ["negative"]] * 2


def test_context_windows(shows_the_person, tiny, t2v, prompts):
    """33 frames in windows of 17, as for long videos: every window shows the person."""
    windows, latent = tiny.core_node("nodes_context_windows", "WanContextWindowsManualNode"), tiny.video_latent(33)
    settings = {"context_schedule": "standard_static", "fuse_method": "pyramid", "context_stride": 1}
    settings |= {"context_length": 17, "context_overlap": 8, "closed_loop": False, "freenoise": True}

    def sample(*order):
        def through(patch):
            model = t2v
            for step in order:
                model = patch(model) if step == "apply" else windows(model=model, **settings)[0]
            return tiny.ksampler(model, prompts["positive"], prompts["negative"], latent)

        return through

    for order in (("apply", "windows"), ("windows", "apply")):
        shown = shows_the_person(sample(*order))
        assert len(shown.calls) > 1 and {tuple(row.velocity.shape) for row in shown.calls[0]} == {(16, 5, 8, 8)}


def test_several_prompts(shows_the_person, tiny, t2v, prompts):
    """Two positive prompts side by side, then one after the other by *ConditioningSetTimestepRange*."""
    import nodes

    latent = tiny.video_latent()
    (together,) = nodes.ConditioningCombine().combine(prompts["positive"], prompts["middle"])
    first, second = (
        nodes.ConditioningSetTimestepRange().set_range(prompts[name], *window)[0]
        for name, window in (("positive", (0.0, 0.5)), ("middle", (0.5, 1.0)))
    )
    for positive in (together, first + second):
        shows_the_person(
            lambda patch, positive=positive: tiny.ksampler(patch(t2v), positive, prompts["negative"], latent, steps=4),
            positives=("positive", "middle"),
        )


def test_area_prompt(shows_the_person, tiny, t2v, prompts):
    """An area of its own for one positive prompt: ComfyUI fills the negative with a copy of that entry."""
    import nodes

    (area,) = nodes.ConditioningSetArea().append(prompts["middle"], 32, 32, 0, 0, 1.0)
    latent = tiny.video_latent()
    shown = shows_the_person(
        lambda patch: tiny.ksampler(patch(t2v), area + prompts["positive"], prompts["negative"], latent),
        positives=("positive", "middle"),
    )
    assert {row.role for call in shown.calls for row in call} == {"positive", "middle", "negative"}


def test_batch_of_videos(shows_the_person, tiny, t2v, prompts):
    latent = tiny.video_latent(batch_size=2)
    shown = shows_the_person(lambda patch: tiny.ksampler(patch(t2v), prompts["positive"], prompts["negative"], latent))
    assert [row.role for row in shown.calls[0]] == ["negative"] * 2 + ["positive"] * 2


def test_long_prompt(apply, people, tiny, t2v, tools):
    """A prompt that fills all 512 tokens: its context grows by eight, the negative's does not."""
    positive, negative, latent = tools.conditioning(1, words=512), tools.conditioning(2), tiny.video_latent()
    shapes = []

    def watch(executor, x, timestep, context, *args, **kwargs):
        shapes.append(tuple(context.shape))
        return executor(x, timestep, context, *args, **kwargs)

    def sample(person):
        model = apply(t2v, people[person])
        model.add_wrapper_with_key("diffusion_model", "watch", watch)
        return tiny.ksampler(model, positive, negative, latent)

    assert tiny.relative(sample(0), sample(1)) > 1e-3
    assert set(shapes) == {(1, 520, 4096), (1, 512, 4096)}


def test_image_to_image(shows_the_person, tiny, t2v, prompts, vae):
    """Starting from a video, with denoise 0.5 and an inpainting mask."""
    import nodes

    (latent,) = nodes.VAEEncode().encode(vae, tiny.pictures(4, frames=9))
    mask = torch.zeros(1, 64, 64)
    mask[:, :32] = 1.0
    (masked,) = nodes.SetLatentNoiseMask().set_mask(latent, mask)

    def sample(patch):
        (out,) = nodes.KSampler().sample(
            patch(t2v), 7, 2, 5.0, "euler", "simple", prompts["positive"], prompts["negative"], masked, 0.5
        )
        return out["samples"]

    shows_the_person(sample)
