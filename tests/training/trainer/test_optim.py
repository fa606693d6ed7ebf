"""The update, against torch's own."""

import pytest
import torch
from torch.torch_version import TorchVersion

from slotid_core.errors import SlotIDError
from training.settings import OptimSettings
from training.torch_version import require_torch
from training.trainer.optim import AveragedWeights, clip, learning_rate, make_optimizer


def settings(**changes) -> OptimSettings:
    return OptimSettings(**{"steps": 100, "batch": 1, "lr": 1e-2, "warmup": 10, "floor": 0.1, **changes})


@pytest.mark.parametrize(
    ("schedule", "scheduler"),
    [
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=90, eta_min=1e-3)),
        ("linear", lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=90)),
        ("constant", lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    ],
)
def test_schedules_agree_with_torchs(schedule, scheduler):
    ours = settings(schedule=schedule)
    assert [learning_rate(ours, s) for s in (0, 4, 9)] == pytest.approx([1e-3, 5e-3, 1e-2])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    theirs = scheduler(optimizer)
    for step in range(10, 100):
        assert learning_rate(ours, step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-5), step
        optimizer.step()
        theirs.step()


def test_no_warm_up_starts_at_the_full_rate():
    assert learning_rate(settings(warmup=0), 0) == 1e-2


def test_vectors_are_not_decayed():
    trainable = {name: torch.nn.Parameter(torch.ones(*shape)) for name, shape in (("m", (2, 2)), ("v", (2,)))}
    optimizer = make_optimizer(settings(weight_decay=0.5), trainable)
    for p in trainable.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert float(trainable["m"].detach().max()) == pytest.approx(1 - 0.5 * 1e-2)
    assert torch.equal(trainable["v"].detach(), torch.ones(2))


def test_muon_steps_matrices_and_adamw_the_rest_as_torchs_own_do():
    shapes = {"matrix": (4, 6), "kernel": (3, 2, 2), "vector": (5,)}
    ours, theirs = ({name: torch.nn.Parameter(torch.ones(*shape)) for name, shape in shapes.items()} for _ in range(2))
    told = settings(optimizer="muon", weight_decay=0.0)
    optimizer = make_optimizer(told, ours)
    muon = torch.optim.Muon([theirs["matrix"]], lr=told.lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([theirs["kernel"], theirs["vector"]], lr=told.lr, betas=told.betas, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for name, shape in shapes.items():
            ours[name].grad = torch.randn(*shape, generator=generator)
            theirs[name].grad = ours[name].grad.clone()
        for step in (optimizer, muon, adamw):
            step.step()
        optimizer.zero_grad()
    assert all(torch.equal(ours[name], theirs[name]) for name in shapes)
    assert all(p.grad is None for p in ours.values())


def test_clipping_tells_the_norm_there_was():
    p = torch.nn.Parameter(torch.zeros(4))
    p.grad = torch.full((4,), 3.0)
    assert clip({"p": p}, 1.0) == pytest.approx(6.0)
    assert float(p.grad.norm()) == pytest.approx(1.0, rel=1e-4)


def test_averages_follow_slowly_and_swap_twice_is_nothing():
    p = torch.nn.Parameter(torch.zeros(2))
    averaged = AveragedWeights(0.9, {"p": p})
    expected = 0.0
    for step in range(200):
        p.data = torch.full((2,), float(step))
        averaged.update({"p": p}, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert averaged.tensors["p"].tolist() == pytest.approx([expected] * 2, rel=1e-5)
    averaged.swap({"p": p})
    assert float(p.detach()[0]) == pytest.approx(expected, rel=1e-5)
    averaged.swap({"p": p})
    assert p.tolist() == [199.0, 199.0]


def test_no_averaging_leaves_the_weights_themselves():
    p = torch.nn.Parameter(torch.ones(2))
    averaged = AveragedWeights(0.0, {"p": p})
    averaged.update({"p": p}, 0)
    averaged.swap({"p": p})
    assert p.tolist() == [1.0, 1.0]


def test_an_old_torch_is_told_what_it_lacks(monkeypatch):
    require_torch("2.9", "optim.optimizer=muon")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.1+cu128"))
    with pytest.raises(SlotIDError, match=r"optim.optimizer=muon needs torch 2.9 or newer, and torch 2.8.1"):
        make_optimizer(settings(optimizer="muon"), {})
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.10.0"))
    require_torch("2.9", "optim.optimizer=muon")
