"""Eight clips, over and over: with the right person's identity the loss has to fall below that with another's.

The clips are drawn heads through the tiny VAE, the backbone is the random tiny Wan: this shows that an identity is
learned and reaches the loss by the right way, and nothing of a likeness.
"""

import pytest

from training.data.cache import open_cache
from training.data.make import make_cache
from training.demo_clip import demo_clip
from training.media import write_mp4
from training.settings import from_dict
from training.trainer import run as running
from training.trainer.processes import Processes
from training.trainer.validate import HeldOut, validate


@pytest.fixture(scope="module")
def ten_people(tiny_settings, make_bench, tmp_path_factory):
    """Settings of a cache of ten drawn people, two of them held out: eight to learn."""
    folder = tmp_path_factory.mktemp("ten")
    for seed in range(10):
        (folder / "videos" / f"person{seed}").mkdir(parents=True)
        write_mp4(folder / "videos" / f"person{seed}" / "clip.mp4", demo_clip(seed, frames=12, size=128))
        (folder / "videos" / f"person{seed}" / "clip.txt").write_text("a person turns the head", encoding="utf-8")
    settings = tiny_settings(folder / "videos", folder / "cache", held_out=0.2, workers=0)
    make_cache(settings, bench=make_bench(settings), say=lambda line: None)
    return settings


def overfit(settings, cache, folder, seed: int, updates: int) -> dict[str, float]:
    data = settings.to_dict()
    data["run"] = {"folder": str(folder / "run"), "seed": seed}
    data["optim"] |= {"steps": updates, "batch": 4, "micro_batch": 4, "lr": 2e-3, "warmup": 5, "ema": 0.0}
    data["optim"]["schedule"] = "constant"
    data["validation"] |= {"clips": 8, "samples": 0}
    data["memory"]["precision"], data["log"]["tensorboard"] = "fp32", False
    settings = from_dict(data, "overfit")
    run = running.Run(settings, Processes("cpu"), "plain", print)
    people = HeldOut(cache, settings, trained=True)
    assert len(people.clips) == 8
    batches = running.micro_batches(run.clips, run.order, settings, first_step=0, rank=0, processes=1)
    for _ in range(updates):
        running.update(run.adapter, run.state, batches, settings.optim, run.processes, run.reached)
    return validate(run.adapter, people).figures()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.full), pytest.param(2, marks=pytest.mark.full)])
def test_eight_clips_are_told_apart(seed, ten_people, tmp_path, monkeypatch):
    cache = open_cache(ten_people)
    monkeypatch.setattr(running, "open_cache", lambda settings: cache)  # one cache, made with seed 0, for every seed
    figures = overfit(ten_people, cache, tmp_path, seed, updates=150)
    print(seed, {name: round(figures[name], 3) for name in ("loss/right", "loss/none", "loss/other", "gap", "gap_low")})
    assert figures["gap"] >= 5 and figures["gap_low"] > 0
