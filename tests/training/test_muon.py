"""Muon in one go, against torch's own."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from training.muon import Muon

SHAPES = [(24, 8), (8, 24), (16, 16), (24, 8), (6, 40), (8, 24), (16, 16), (40, 6), (24, 8), (1, 5)]
SILENT = 3


def matrices(shapes) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(*shape, generator=generator)) for shape in shapes]


def give_gradients(optimizer: torch.optim.Optimizer, seed: int) -> None:
    """Random ones, the same for every optimizer; one matrix gets none."""
    generator = torch.Generator().manual_seed(seed)
    for place, parameter in enumerate(optimizer.param_groups[0]["params"]):
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = None if place == SILENT else gradient


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust_lr_fn", ["original", "match_rms_adamw"])
def test_steps_are_torchs_own(adjust_lr_fn, nesterov):
    options = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": adjust_lr_fn, "nesterov": nesterov}
    ours, theirs = (kind(matrices(SHAPES), **options) for kind in (Muon, torch.optim.Muon))
    start = [p.detach() for p in matrices(SHAPES)]
    for seed in range(6):
        for optimizer in (ours, theirs):
            give_gradients(optimizer, seed)
            optimizer.step()
    for place, first in enumerate(start):
        mine, other = (o.param_groups[0]["params"][place].detach() for o in (ours, theirs))
        if place == SILENT:
            assert torch.equal(mine, first)
            continue
        far = float((other - first).abs().max())
        # Where this was written no bit differed; sums in another order (shuffled rows) differed by at most so much.
        torch.testing.assert_close(mine, other, rtol=0, atol=far * 2**-8)
        assert far > 0.01


def test_what_is_kept_is_torchs_own_and_either_goes_on_from_the_others():
    ours, theirs = Muon(matrices(SHAPES)), torch.optim.Muon(matrices(SHAPES))
    for optimizer in (ours, theirs):
        give_gradients(optimizer, 0)
        optimizer.step()
    mine, other = ours.state_dict(), theirs.state_dict()
    assert mine["param_groups"] == other["param_groups"]
    assert mine["state"].keys() == other["state"].keys() == set(range(len(SHAPES))) - {SILENT}
    for place, kept in other["state"].items():
        assert list(kept) == list(mine["state"][place]) == ["momentum_buffer"]
        assert torch.equal(kept["momentum_buffer"], mine["state"][place]["momentum_buffer"])
    ours.load_state_dict(other)
    theirs.load_state_dict(mine)


def test_without_any_gradient_nothing_moves_and_a_closure_is_called():
    ours = Muon(matrices(SHAPES))
    assert ours.step(lambda: torch.tensor(3.0)) == 3.0
    assert all(torch.equal(a, b) for a, b in zip(ours.param_groups[0]["params"], matrices(SHAPES), strict=True))


class Counting(TorchDispatchMode):
    """Counts the operations that torch is asked for."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))


def test_many_matrices_of_one_shape_take_hardly_more_operations_than_one():
    def operations(kind, count: int) -> int:
        optimizer = kind(matrices([(8, 24)] * count))
        for seed in range(2):  # the first also makes the momenta
            give_gradients(optimizer, seed)
            with Counting() as counting:
                optimizer.step()
        return counting.counts.total()

    one, many, theirs = operations(Muon, 1), operations(Muon, 13), operations(torch.optim.Muon, 13)
    assert many == one  # the thirteenth has no gradient
    assert many * 5 < theirs
