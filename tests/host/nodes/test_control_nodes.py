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
