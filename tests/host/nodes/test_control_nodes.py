"""The nodes by which people control an identity: every widget and socket reaches the sampler."""

import pytest
import torch


@pytest.fixture(scope="module")
def shown(run, wan, weights, people, tools):
    """``shown(...)``: what one model evaluation gives after Apply Slot-ID to Wan with these inputs."""

    def function(person: int = 0, **inputs) -> torch.Tensor:
        patched = run("SlotIDApply", model=wan, slotid_model=weights, identity=people[person], **inputs).model
        return tools.evaluate(patched)

    return function


@pytest.fixture(scope="module")
def plain(shown):
    return shown()


def test_optional_inputs_at_their_defaults_change_no_bit(nodes, shown, plain):
    schema = nodes["SlotIDApply"].GET_SCHEMA()
    defaults = {slot.id: getattr(slot, "default", None) for slot in schema.inputs if slot.optional}
    assert torch.equal(shown(**defaults), plain)


def test_a_gate_of_ones_own_takes_the_place_of_the_widget(run, shown, plain):
    def gate(start, end):
        return run("SlotIDGate", start=start, end=end).gate_curve

    portrait_only = shown(gate="portrait only")
    assert not torch.equal(portrait_only, plain)
    assert torch.equal(shown(gate_curve=gate(1, 1)), portrait_only)
    assert torch.equal(shown(gate="clip only", gate_curve=gate(1, 1)), portrait_only)
    assert torch.equal(shown(gate_curve=run("SlotIDGate").gate_curve), plain), "the defaults are the trained gate"


def test_gate_preview_shows_that_gate(run, wan, weights):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    curve = run("SlotIDGate", start=0.2, end=0.7).gate_curve
    info = run("SlotIDGatePreview", model=wan, slotid_model=weights, steps=4, gate_curve=curve).info
    assert "portrait 0.20" in info.splitlines()[1]


def test_prefix_strength(shown, plain):
    without = shown(prefix_strength=0.0)
    assert not torch.equal(without, plain)
    assert not torch.equal(without, shown(strength=0.0)), "FiLM stays"
    assert torch.equal(without, shown(prefix_strength=0.0)), "repeatable"


def test_mask_and_negative_identity_reach_the_model(shown, plain, people):
    left = torch.zeros(1, 64, 64)
    left[:, :, :32] = 1
    got = {"left": shown(mask=left), "right": shown(mask=1 - left), "away": shown(negative_identity=people[1])}
    for name, velocity in got.items():
        assert not torch.allclose(velocity, plain, rtol=1e-2), name
    assert not torch.allclose(got["left"], got["right"], rtol=1e-2)


def test_block_range(shown, plain, core):
    assert torch.equal(shown(first_block=0, last_block=3), plain), "the tiny Wan has four blocks"
    assert not torch.allclose(shown(last_block=1), shown(first_block=2), rtol=1e-2)
    with pytest.raises(core.errors.SlotIDError, match="from 3 to 40.*4 blocks"):
        shown(first_block=3, last_block=40)


def test_slotid_guider_in_the_custom_sampler(run, wan, weights, people, tools, plain):
    """Its two scales reach the sampling; equal ones are KSampler's CFG."""
    patched = run("SlotIDApply", model=wan, slotid_model=weights, identity=people[0]).model
    prompts = {"positive": tools.conditioning(1), "negative": tools.conditioning(2)}

    def guided(text_cfg, identity_cfg):
        guider = run("SlotIDGuider", model=patched, text_cfg=text_cfg, identity_cfg=identity_cfg, **prompts).guider
        return tools.evaluate(None, guider=guider)

    assert torch.allclose(guided(5.0, 5.0), plain, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(guided(5.0, 2.0), plain, rtol=1e-2)
    assert not torch.allclose(guided(2.0, 5.0), guided(5.0, 2.0), rtol=1e-2)
