"""The nodes that show: what slots read, the gate over a sampler's steps, and how alike faces are."""

import json

import pytest
import torch

pytest.importorskip("matplotlib", reason="needs matplotlib")

FRAMES, SIZE = 9, 64


@pytest.fixture(scope="module")
def clip():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(FRAMES, 3, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(smooth, (SIZE, SIZE), mode="bilinear").permute(0, 2, 3, 1)


@pytest.fixture(scope="module")
def encoded(run, weights, vae, clip):
    return run("SlotIDEncode", slotid_model=weights, vae=vae, clip=clip, portrait=clip[:1])


def test_routing_preview_shows_what_encode_read(run, encoded, weights, clip):
    shown = run("SlotIDRoutingPreview", routing=encoded.routing)
    slots = weights.model.config.reader.slots
    numbers = json.loads(shown.data)
    assert len(numbers["entropy"]) == slots and 0 < numbers["overlap"] < 1 and numbers["face"] is None
    assert f"Slot {slots}: entropy" in shown.info and "UNTRAINED" not in shown.info
    assert shown.overlay.shape[0] == FRAMES and 0 <= shown.overlay.min() and shown.overlay.max() <= 1
    assert shown.grid.ndim == 4 and shown.ui["images"][0]["type"] == "temp"
    second = run("SlotIDRoutingPreview", routing=encoded.routing, slot=2)
    assert not torch.equal(second.overlay, shown.overlay) and torch.equal(second.grid, shown.grid)


def test_routing_is_what_the_encoder_gives_and_follows_the_clip(run, encoded, weights, vae, clip):
    torch.testing.assert_close(
        encoded.routing.routing.weights_BSTHW.sum((2, 3, 4)), torch.ones(1, weights.model.config.reader.slots)
    )
    other = run("SlotIDEncode", slotid_model=weights, vae=vae, clip=clip.flip(2), portrait=clip[:1])
    assert not torch.allclose(
        other.routing.routing.weights_BSTHW, encoded.routing.routing.weights_BSTHW, rtol=1e-2, atol=0
    )


def test_untrained_weights_say_so_in_the_routing(run, core, vae, clip):
    untrained = core.checkpoint.untrained_weights("tiny")
    encoded = run("SlotIDEncode", slotid_model=untrained, vae=vae, clip=clip, portrait=clip[:1])
    assert run("SlotIDRoutingPreview", routing=encoded.routing).info.startswith("UNTRAINED WEIGHTS")


def test_weights_without_slots_have_no_routing_to_show(run, core, vae, clip):
    config = core.config.SlotIDConfig.preset("tiny").replace(encoder={"kind": "conv_pool"})
    weights = core.checkpoint.untrained_weights_of(config, seed=0)
    encoded = run("SlotIDEncode", slotid_model=weights, vae=vae, clip=clip, portrait=clip[:1])
    assert encoded.routing is None
    with pytest.raises(core.errors.SlotIDError, match="pool the clip without slots"):
        run("SlotIDRoutingPreview", routing=encoded.routing)


@pytest.fixture
def interrupted(comfy):
    """The next look at it finds that the user has stopped the run."""
    management = comfy.model_management
    management.interrupt_current_processing(True)
    yield management.InterruptProcessingException
    management.interrupt_current_processing(False)


def test_routing_preview_can_be_interrupted(run, encoded, interrupted):
    with pytest.raises(interrupted):
        run("SlotIDRoutingPreview", routing=encoded.routing)


def shifted(model, shift: float):
    """By ComfyUI's own node."""
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    return ModelSamplingSD3().patch(model, shift)[0]


def sampled_sigmas(comfy, tools, model, **settings) -> list[float]:
    """The noise levels at which a real KSampler run calls the backbone."""
    probe = tools.Probe()
    noise = tools.latent_noise()
    comfy.sample.sample(
        tools.probed(model, probe), noise, cfg=1.0, positive=tools.conditioning(1), negative=tools.conditioning(2),
        latent_image=torch.zeros_like(noise), **settings,
    )  # fmt: skip
    return [float(call["sigma"].flatten()[0]) for call in probe.calls]


def sigmas_said(info: str) -> list[float]:
    return [float(line.split("sigma ")[1].split(",")[0]) for line in info.splitlines() if line.startswith("step ")]


@pytest.mark.parametrize(
    ("shift", "sampler", "scheduler", "denoise"),
    [(8.0, "euler", "simple", 1.0), (1.0, "euler", "simple", 1.0), (5.0, "uni_pc", "beta", 0.6)],
)
def test_gate_preview_shows_the_noise_levels_of_a_real_run(
    run, comfy, tools, wan, weights, shift, sampler, scheduler, denoise
):
    model = shifted(wan, shift)
    shown = run(
        "SlotIDGatePreview", model=model, slotid_model=weights, sampler_name=sampler, scheduler=scheduler, steps=4,
        denoise=denoise,
    )  # fmt: skip
    called = sampled_sigmas(comfy, tools, model, steps=4, sampler_name=sampler, scheduler=scheduler, denoise=denoise)
    assert sigmas_said(shown.info) == pytest.approx(called[: len(sigmas_said(shown.info))], abs=2e-3)
    assert len(set(called)) == len(sigmas_said(shown.info)) == 4
    assert shown.plot.shape == (1, 440, 1000, 3) and len(shown.ui["images"]) == 1


def test_gate_preview_shows_the_weights_gate_or_what_is_asked_for(run, core, wan, weights):
    inputs = {"model": shifted(wan, 8.0), "slotid_model": weights, "steps": 3, "scheduler": "simple"}
    gate = weights.model.config.gate
    first = f"portrait {gate.start:.2f}, clip {1 - gate.start:.2f}"
    assert first in run("SlotIDGatePreview", **inputs).info
    assert run("SlotIDGatePreview", gate="clip only", **inputs).info.count("portrait 0.00, clip 1.00") == 3
    assert run("SlotIDGatePreview", gate="portrait only", **inputs).info.count("portrait 1.00, clip 0.00") == 3


def test_gate_preview_takes_a_custom_samplers_noise_levels(run, wan, weights):
    sigmas = torch.tensor([0.9, 0.4, 0.0])
    shown = run("SlotIDGatePreview", model=wan, slotid_model=weights, sigmas=sigmas)
    assert sigmas_said(shown.info) == pytest.approx([0.9, 0.4])


def test_gate_preview_shows_where_the_identity_is_on(run, comfy, tools, apply, people, wan, weights):
    """The same steps as those in which Apply really puts rows in."""
    model = shifted(wan, 8.0)
    shown = run("SlotIDGatePreview", model=model, slotid_model=weights, steps=6, scheduler="simple", start=0.2, end=0.7)
    off = [line.endswith("identity off") for line in shown.info.splitlines() if line.startswith("step ")]
    probe = tools.Probe()
    noise = tools.latent_noise()
    # The probe lies under what Apply puts on, so it sees the context with or without the identity.
    patched = tools.probed(apply(model, people[0], start=0.2, end=0.7), probe)
    comfy.sample.sample(
        patched, noise, steps=6, cfg=1.0, sampler_name="euler", scheduler="simple", positive=tools.conditioning(1),
        negative=tools.conditioning(2), latent_image=torch.zeros_like(noise),
    )  # fmt: skip
    plain = tools.conditioning(1)[0][0]
    assert off == [torch.equal(call["context"][:1, -8:].cpu(), plain[:, -8:]) for call in probe.calls]
    assert True in off and False in off


def test_gate_preview_refuses_what_apply_refuses(run, core, wan):
    other = core.checkpoint.untrained_weights("wan-1.3b")
    with pytest.raises(core.errors.SlotIDError, match="weights are for"):
        run("SlotIDGatePreview", model=wan, slotid_model=other)


@pytest.fixture(scope="module")
def head():
    """``head(person, yaw)``: a rendered head that turns a little, ``[F, 256, 256, 3]`` in [0, 1]."""
    from slotid_core.reference.faces import Pose
    from training.world.clips import Motion, head_clip, move
    from training.world.scene import sample_scene
    from training.world.traits import sample_traits

    def function(person: int, yaw: float):
        scene = sample_scene(3, pose=Pose(yaw=yaw, pitch=0.0, roll=0.0))
        scenes = move(scene, Motion(yaw=10.0), frames=5)
        drawn = head_clip(sample_traits(person), scenes, height=256, width=256)
        return torch.from_numpy(drawn.frames_FHWC).float() / 255

    return function


@pytest.fixture(scope="module")
def reference(run, head):
    pytest.importorskip("dlib", reason="needs dlib: pip install dlib-bin face-recognition-models")
    return run("SlotIDFindPerson", frames=head(3, -5.0), faces="dlib", size=SIZE).reference


def test_identity_score_knows_the_person(run, head, reference):
    same, other = head(3, 5.0), head(4, 0.0)
    same[2] = 0.5  # nothing is seen in this frame
    scored = run("SlotIDIdentityScore", frames=same, reference=reference, faces="dlib", other_people=other[:2])
    report = json.loads(scored.report)
    assert report["frames_without_face"] == [2] and report["floor_from"] == "other people"
    assert scored.score == pytest.approx(report["score"]) and scored.similarity == pytest.approx(report["similarity"])
    assert len(scored.ui["images"]) == 2 and scored.plot.ndim == scored.sheet.ndim == 4
    of_other = run("SlotIDIdentityScore", frames=other, reference=reference, faces="dlib", other_people=other[:2])
    assert scored.score > 0.5 > of_other.score
    without = run("SlotIDIdentityScore", frames=same, reference=reference, faces="dlib", every=4)
    report = json.loads(without.report)
    assert report["floor_from"] == "backend" and report["frames"] == 2


def test_identity_score_can_be_interrupted(run, head, reference, interrupted):
    with pytest.raises(interrupted):
        run("SlotIDIdentityScore", frames=head(3, 5.0), reference=reference, faces="dlib")


def test_identity_score_of_frames_without_any_face(run, reference):
    """A graph that compares methods goes on; this one's pictures and report say it, and its number is none."""
    scored = run("SlotIDIdentityScore", frames=torch.rand(3, 128, 128, 3), reference=reference, faces="dlib")
    assert scored.score != scored.score and scored.similarity != scored.similarity
    report = json.loads(scored.report)
    assert (report["score"], report["frames_without_face"]) == (None, [0, 1, 2])
    assert len(scored.ui["images"]) == 2
