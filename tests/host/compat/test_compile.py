"""TorchCompileModel drops all guards on what comes through ``transformer_options``, which is where Slot-ID lives."""

import pytest
import torch


@pytest.fixture
def compiled_and_not(monkeypatch, tiny, t2v, prompts):
    """``compiled_and_not(backend)``: a MODEL through the node and the same without it, as samplers of one guider that
    evaluates positive and negative apart, in batches of one. All Apply nodes behind it share one compiled backbone."""
    import comfy.ldm.modules.attention as attention
    import comfy.ldm.wan.model as wan
    import comfy.samplers

    class Apart(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options=None, seed=None):
            first, second = (
                comfy.samplers.calc_cond_batch(self.inner_model, [self.conds[name]], x, timestep, model_options)[0]
                for name in ("positive", "negative")
            )
            return second + 4 * (first - second)

    # On the CPU ComfyUI's default attention asks for free memory at every call, which ends the graph each time.
    monkeypatch.setattr(wan, "optimized_attention", attention.attention_pytorch)
    torch._dynamo.reset()

    def function(backend):
        node, latent = tiny.core_node("nodes_torch_compile", "TorchCompileModel"), tiny.video_latent(5)
        (compiled,) = node(model=t2v, backend=backend)

        def sample_of(model):
            def sample(patch):
                guider = Apart(patch(model))
                guider.set_conds(prompts["positive"], prompts["negative"])
                return tiny.advanced(guider, torch.tensor([1.0, 0.9, 0.3, 0.0]), latent)

            return sample

        return sample_of(compiled), sample_of(t2v)

    yield function
    torch._dynamo.reset()


def test_torch_compile(run, compiled_and_not, tiny):
    """Traced whole and run by torch itself. One compiled MODEL with another person, another window and nobody."""
    compiled, plain = compiled_and_not("eager")
    for person, setting in ((0, {}), (1, {}), (0, {"end": 0.5}), (None, {})):
        expected, got = run(plain, person, **setting), run(compiled, person, **setting)
        assert got.counts == expected.counts
        assert tiny.relative(got.latents, expected.latents) < 1e-5, (person, setting)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    run(compiled, 1)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs, "every run compiles again"


@pytest.mark.full
def test_torch_compile_inductor(run, compiled_and_not, tiny):
    """The same by the compiler that the node names, inductor."""
    compiled, plain = compiled_and_not("inductor")
    for person in (0, 1, None):
        expected, got = run(plain, person), run(compiled, person)
        assert got.counts == expected.counts
        assert tiny.relative(got.latents, expected.latents) < 1e-3
