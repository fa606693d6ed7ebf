"""Eight clips, over and over: with the right person's identity the loss has to fall below that with another's.

The clips are latents from a seed, of people who differ in their mean, and the backbone is the random tiny Wan: this
shows that an identity is learned and reaches the loss by the right way, and nothing of a likeness.
"""

import pytest

from training.trainer import run as running
from training.trainer.processes import Processes
from training.trainer.validate import HeldOut, validate


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.full), pytest.param(2, marks=pytest.mark.full)])
def test_eight_clips_are_told_apart(seed, make_cache_in_memory, make_settings, monkeypatch):
    cache = make_cache_in_memory(people=10, clips=1, held_out=2)
    monkeypatch.setattr(running, "open_cache", lambda settings: cache)
    settings = make_settings(
        f"run.seed={seed}", "optim.steps=120", "optim.ema=0", "optim.batch=4", "optim.micro_batch=4",
        "optim.lr=1e-3", "optim.schedule=constant", "validation.clips=8",
    )  # fmt: skip
    run = running.Run(settings, Processes("cpu"), "plain", print)
    people = HeldOut(cache, settings, trained=True)
    assert len(people.clips) == 8
    before = validate(run.adapter, people).figures()
    batches = running.micro_batches(run.clips, run.order, settings, first_step=0, rank=0, processes=1)
    for _ in range(settings.optim.steps):
        running.update(run.adapter, run.state, batches, settings, run.processes, run.reached)
    after = validate(run.adapter, people).figures()
    print(seed, {name: round(after[name], 3) for name in ("loss/right", "loss/none", "loss/other", "gap", "gap_low")})
    assert abs(before["gap"]) < 1e-4 and before["loss/right"] == pytest.approx(before["loss/none"], rel=1e-6)
    assert after["loss/right"] < before["loss/right"]
    assert after["gap"] >= 5 and after["gap_low"] > 0
