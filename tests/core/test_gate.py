"""The image-against-video gate over noise levels."""

import pytest
import torch

from slotid_core.config import GateConfig
from slotid_core.errors import SlotIDError
from slotid_core.gate import GateEnds, gate_weight, in_window, undo_shift

GATES = [GateConfig(), GateConfig(start=0.7, end=0.0, shift=1.0), GateConfig(start=0.2, end=0.8, shift=8.0)]


def shifted(u: torch.Tensor, k: float) -> torch.Tensor:
    """The flow-matching timestep shift."""
    return k * u / (1 + (k - 1) * u)


@pytest.mark.parametrize("gate", GATES, ids=str)
def test_ends(gate):
    at_noise, at_clean = gate_weight(torch.tensor([1.0, 0.0]), gate).tolist()
    assert at_noise == pytest.approx(gate.start) and at_clean == pytest.approx(gate.end)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0])
def test_shift_is_undone(shift):
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(undo_shift(shifted(u, shift), shift), u)


@pytest.mark.parametrize("shift", [3.0, 5.0])
def test_the_shift_is_the_one_that_diffusers_scheduler_applies(shift):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    u = torch.arange(1000, 0, -1) / 1000
    torch.testing.assert_close(undo_shift(scheduler.sigmas, shift), u, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gate", GATES, ids=str)
def test_equal_steps_of_denoising_time_are_equal_steps_of_the_weight(gate):
    """With a sampler that shifts as the gate does, w falls linearly from step to step, however many steps there are."""
    for steps in (4, 30):
        w = gate_weight(shifted(torch.linspace(1, 0, steps + 1, dtype=torch.float64), gate.shift), gate)
        torch.testing.assert_close(w.diff(), torch.full_like(w[1:], (gate.end - gate.start) / steps))


def test_half_way_through_the_default_sampler_both_streams_weigh_the_same():
    """Linear in sigma the portrait would weigh 0.77 there."""
    sigma = shifted(torch.tensor(0.5), 5.0)
    assert float(sigma) == pytest.approx(5 / 6)
    assert float(gate_weight(sigma, GateConfig())) == pytest.approx(0.5)


@pytest.mark.parametrize("gate", GATES, ids=str)
def test_bounded_and_monotone(gate):
    w = gate_weight(torch.linspace(0, 1, 1001), gate)
    low, high = sorted((gate.start, gate.end))
    assert float(w.min()) >= low - 1e-6 and float(w.max()) <= high + 1e-6
    falls = w.diff() if gate.start > gate.end else -w.diff()
    assert (falls > 0).all()


@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_equal_ends_make_it_constant_exactly(level):
    w = gate_weight(torch.linspace(0, 1, 101), GateConfig(start=level, end=level))
    assert torch.equal(w, torch.full((101,), level))


def test_ends_of_ones_own_keep_the_shift_of_the_weights():
    assert GateEnds(0.3, 0.8).over(GateConfig(shift=3.0)) == GateConfig(start=0.3, end=0.8, shift=3.0)
    with pytest.raises(SlotIDError, match="gate.end is 1.5"):
        GateEnds(0.3, 1.5).over(GateConfig())


@pytest.mark.parametrize("shift", [1.32, 4.03, 5.0, 8.14])
def test_rounding_moves_no_step_out_of_the_window(shift):
    """Samplers shift float32 levels, whose first may be a little more than 1; percents are shifted in Python."""
    sigma = shifted(torch.linspace(1, 0, 21), shift)
    if shift != 5.0:
        assert float(shifted(torch.tensor(1.0), shift)) > 1
    assert in_window(sigma[:-1], 1.0, 0.0).all()
    for step in range(1, 20):
        start = shift * (1 - step / 20) / (1 + (shift - 1) * (1 - step / 20))
        assert in_window(sigma, start, 0.0).tolist() == [n >= step for n in range(21)]
        assert in_window(sigma, 1.0, start).tolist() == [n <= step for n in range(21)]
