"""The gate over a sampler's steps, as numbers and as a plot."""

import pytest
import torch

from slotid_core.config import GateConfig
from slotid_core.errors import SlotIDError
from slotid_core.gate import gate_weight
from slotid_core.gate_view import gate_plot, gate_steps

SIGMAS = torch.tensor([1.0, 0.9, 0.5, 0.2, 0.0])


def test_the_gate_at_every_step_but_not_at_the_last_noise_level():
    gate = GateConfig(start=0.8, end=0.2, shift=3.0)
    steps = gate_steps(SIGMAS, gate)
    assert steps.sigma == pytest.approx((1.0, 0.9, 0.5, 0.2))
    assert steps.portrait == pytest.approx(tuple(gate_weight(SIGMAS[:-1], gate).tolist()))
    assert steps.portrait[0] == pytest.approx(0.8) and steps.portrait[2] == pytest.approx(0.2 + 0.6 * 0.25)
    assert steps.active == (True,) * 4


def test_the_window_includes_its_ends():
    steps = gate_steps(SIGMAS, GateConfig(), sigma_start=0.9, sigma_end=0.5)
    assert steps.active == (False, True, True, False)
    said = steps.describe()
    assert said[1] == "The identity is on in 2 of 4 steps."
    assert [line.endswith("identity off") for line in said[2:]] == [True, False, False, True]


def test_the_summary_counts_who_leads():
    said = gate_steps(SIGMAS, GateConfig(start=0.9, end=0.1, shift=1.0)).describe()
    assert said[0] == "4 steps; portrait 0.90 to 0.26, on average 0.62; the clip leads in 1."
    assert said[1] == "step 1: sigma 1.000, portrait 0.90, clip 0.10" and len(said) == 5


@pytest.mark.parametrize("sigmas", [torch.tensor([]), torch.tensor([1.0])])
def test_no_step_is_an_error(sigmas):
    with pytest.raises(SlotIDError, match="there is no step to show"):
        gate_steps(sigmas, GateConfig())


def test_another_models_noise_levels_are_an_error():
    with pytest.raises(SlotIDError, match="from 14.600 to 1.000, expected 1 to 0"):
        gate_steps(torch.tensor([14.6, 1.0, 0.0]), GateConfig())


@pytest.mark.parametrize("count", [1, 4, 60])
def test_the_plot(count):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    sigmas = torch.linspace(1, 0, count + 1)
    plots = [
        gate_plot(gate_steps(sigmas, gate, sigma_start=start))
        for gate, start in ((GateConfig(), 1.0), (GateConfig(start=1.0, end=1.0), 1.0), (GateConfig(), 0.5))
    ]
    assert all(plot.shape == (440, 1000, 3) and plot.dtype == torch.uint8 for plot in plots)
    assert not torch.equal(plots[0], plots[1]) and not torch.equal(plots[0], plots[2])
