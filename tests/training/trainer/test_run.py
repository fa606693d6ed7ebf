"""A whole run on the real tiny Wan: it learns, stops when told, goes on bit for bit, and refuses other settings."""

import hashlib
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from safetensors.torch import save_file

from slotid_core.checkpoint import load_weights
from slotid_core.errors import SlotIDError
from training.trainer import log as logging
from training.trainer import run as running
from training.trainer.batches import BatchOrder, TrainingClips
from training.trainer.processes import Processes
from training.trainer.state import checkpoints
from training.trainer.validate import HeldOut, Validation, validate
from training.wan_diffusers import tiny_transformer

SMALL = ("optim.steps=6", "checkpoint.every=2", "validation.every=3", "validation.sigmas=[0.5]", "optim.warmup=0")


@pytest.fixture
def train(cache, make_settings, monkeypatch):
    """``train(*overrides)``: a run on the cache in memory."""
    monkeypatch.setattr(running, "open_cache", lambda settings: cache)

    def start(*overrides: str) -> running.Outcome:
        settings = make_settings(*SMALL, *overrides)
        return running.train(settings, Processes("cpu"), "plain", show_progress=False)

    return start


def stop_after(monkeypatch, updates: int) -> None:
    """SIGTERM in the middle of an update, as a cluster sends it."""
    real = running.update

    def update(adapter, state, *rest):
        if state.step == updates - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(adapter, state, *rest)

    monkeypatch.setattr(running, "update", update)


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in (folder / "weights").iterdir()}


@pytest.mark.parametrize("more", [(), ("contrast.weight=0.1",)], ids=["plain", "contrast"])
def test_a_run_that_is_stopped_goes_on_bit_for_bit(train, tmp_path, monkeypatch, more):
    whole = train(f"run.folder={tmp_path / 'whole'}", *more)
    assert whole.finished and whole.step == 6
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        stopped = train(*more)
    assert not stopped.finished and stopped.step == 3 and stopped.written == ()
    assert [p.name for p in checkpoints(tmp_path / "run" / "checkpoints")] == ["step_000002", "step_000003"]
    torch.manual_seed(12345)  # nothing depends on torch's global random state
    assert train(*more).finished
    assert bytes_of(tmp_path / "run") == bytes_of(tmp_path / "whole")
    told = [
        [{k: v for k, v in line.items() if k != "seconds"} for kind in ("train", "validation")
         for line in logging.read(tmp_path / name, kind)]
        for name in ("run", "whole")
    ]  # fmt: skip
    assert told[0] == told[1] and len(told[0]) == 6 + 3


def test_a_stop_in_a_validation_waits_for_no_further_update(train, tmp_path, monkeypatch):
    """Nor is a checkpoint due then."""
    whole = train(f"run.folder={tmp_path / 'whole'}")
    real = running.validate

    def validate(adapter, held_out, **how):
        if adapter.slotid.reader.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(adapter, held_out, **how)

    with monkeypatch.context() as patch:
        patch.setattr(running, "validate", validate)
        stopped = train()
    assert not stopped.finished and stopped.step == 3
    assert checkpoints(tmp_path / "run" / "checkpoints")[-1].name == "step_000003"
    assert whole.finished and train().finished and bytes_of(tmp_path / "run") == bytes_of(tmp_path / "whole")
    assert [line["step"] for line in logging.read(tmp_path / "run", "validation")] == [0, 3, 6]


def test_a_base_in_another_format_is_never_taken_for_want_of_memory_alone(train, make_settings, tmp_path, capsys):
    train("optim.steps=2")
    with pytest.raises(SlotIDError, match="a base in fp32, and .* takes 'fp8', .*memory.plan=fp8"):
        running.train(make_settings(*SMALL, "optim.steps=2"), Processes("cpu"), "fp8", show_progress=False)
    asked = make_settings(*SMALL, "optim.steps=2", "memory.plan=fp8")
    assert running.train(asked, Processes("cpu"), "fp8", show_progress=False).finished
    assert "From here on the base is held in fp8; until step_000002 it was in fp32" in capsys.readouterr().out
    assert load_weights(tmp_path / "run" / "weights" / "slotid.safetensors").facts["base"] == "fp8"


@pytest.mark.parametrize("clips", [(2, 2), (1, 1, 1, 1, 1), (3, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1)])
def test_the_gaps_interval_is_students_over_people(clips):
    """Two clips of a person say less than two people."""
    people = tuple(f"person{i}" for i, count in enumerate(clips) for _ in range(count))
    generator = torch.Generator().manual_seed(len(clips))
    losses_VSW = 1 + 0.1 * torch.rand(len(people), 2, 3, generator=generator)
    figures = Validation((0.3, 0.7), people, losses_VSW, {}).figures()
    right, _, other = losses_VSW.double().mean(1).unbind(1)
    gap_V = (100 * (other - right) / right).numpy()
    gaps = np.array([gap_V[np.array(people) == person].mean() for person in sorted({*people})])
    expected = scipy.stats.t.interval(0.95, len(gaps) - 1, loc=gaps.mean(), scale=scipy.stats.sem(gaps))
    assert (figures["gap_low"], figures["gap_high"]) == pytest.approx(expected, rel=1e-3)
    assert figures["gap"] == pytest.approx(gaps.mean(), abs=1e-4)


def test_the_weights_hold_what_was_trained_and_nothing_of_this_machine(train, cache, tmp_path):
    train()
    path = tmp_path / "run" / "weights" / "slotid.safetensors"
    weights = load_weights(path)
    assert not weights.untrained and weights.facts["trained_steps"] == 6 and weights.facts["cache"] == cache.key
    assert int(weights.model.reader.step) == 6
    assert weights.facts["settings"]["optim"]["steps"] == 6
    assert str(tmp_path).encode() not in path.read_bytes()


def test_a_finished_run_started_again_changes_nothing(train, tmp_path):
    train()
    before = bytes_of(tmp_path / "run")
    again = train()
    assert again.finished and bytes_of(tmp_path / "run") == before


def test_a_second_training_in_the_folder_is_refused_before_it_touches_anything(train, tmp_path, held_elsewhere):
    """It would cut the log back to the last checkpoint, and remove one that is being written."""
    train("optim.steps=2")
    folder = tmp_path / "run"
    (folder / "checkpoints" / ".step_000004.partial").mkdir()
    with (folder / logging.LOG).open("a") as log:
        log.write('{"step": 3, "kind": "train"}\n')

    def content():
        return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}

    before = content()
    with held_elsewhere(folder), pytest.raises(SlotIDError, match="Another training is running.*another run.folder"):
        train("optim.steps=2")
    assert content() == before
    assert train("optim.steps=2").finished


def test_other_settings_in_the_same_folder_are_refused_by_name(train):
    train("optim.steps=2")
    with pytest.raises(SlotIDError, match=r"optim.lr was 0.001 and is 0.5.*run.folder"):
        train("optim.steps=2", "optim.lr=0.5")


def test_what_does_not_shape_learning_may_change(train):
    train("optim.steps=2")
    assert train("optim.steps=2", "checkpoint.keep=1", "validation.clips=2", "data.workers=1").finished


def test_another_cache_under_an_old_run_is_refused(train, cache):
    train("optim.steps=2")
    cache.key = "1" * 64
    with pytest.raises(SlotIDError, match="another cache"):
        train("optim.steps=2")


def test_another_backbone_of_the_same_name_under_an_old_run_is_refused(train, tmp_path):
    path, tensors = tmp_path / "wan.safetensors", tiny_transformer().state_dict()
    save_file(tensors, path)
    first = train("optim.steps=2", f"model.transformer={path}")
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / path.name)
    assert train("optim.steps=2", f"model.transformer={moved}").finished
    assert load_weights(first.written[0]).facts["backbone"] == hashlib.sha256(moved.read_bytes()).hexdigest()
    save_file(tensors | {"proj_out.bias": tensors["proj_out.bias"] + 1}, moved)
    with pytest.raises(SlotIDError, match="another backbone.*SHA-256.*set model.transformer to the one that it had"):
        train("optim.steps=2", f"model.transformer={moved}")


def test_a_clip_that_is_no_number_stops_the_run_and_names_it(train, cache, tmp_path):
    train("optim.steps=2", "checkpoint.every=1")
    spoilt = cache.entries[-1].id
    load = cache.load

    def load_spoilt(entry, **how):
        sample = load(entry, **how)
        if entry.id == spoilt:
            sample.target_CTHW.fill_(float("nan"))
        return sample

    cache.load = load_spoilt
    with pytest.raises(SlotIDError, match=f"not a finite number.*{spoilt} "):
        train(f"run.folder={tmp_path / 'other'}")


def test_a_run_that_dies_before_its_first_checkpoint_begins_its_log_anew(train, tmp_path, monkeypatch):
    def die(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(running, "update", die)
        for _ in range(2):
            with pytest.raises(MemoryError):
                train()
    train()
    assert [line["step"] for line in logging.read(tmp_path / "run", "validation")] == [0, 3, 6]


def test_a_validation_that_fails_loses_no_update_and_is_made_again(train, tmp_path, monkeypatch):
    train(f"run.folder={tmp_path / 'whole'}")

    def dies_at(step):
        def dying(adapter, *rest, **how):
            if int(adapter.slotid.reader.step) == step:
                raise SlotIDError("no room for a sample")
            return validate(adapter, *rest, **how)

        return dying

    for step in (3, 6):
        with monkeypatch.context() as patch:
            patch.setattr(running, "validate", dies_at(step))
            with pytest.raises(SlotIDError, match="no room"):
                train("checkpoint.every=3")
        assert checkpoints(tmp_path / "run" / "checkpoints")[-1].name == f"step_{step:06d}"
    assert train("checkpoint.every=3").finished
    told = [logging.read(tmp_path / name, "validation") for name in ("run", "whole")]
    assert told[0] == told[1] and [line["step"] for line in told[0]] == [0, 3, 6]


def test_validation_shared_out_over_processes_is_the_same(cache, make_settings, make_adapter, awake):
    settings = make_settings("validation.sigmas=[0.5]")
    adapter, people = awake(make_adapter(settings)), HeldOut(cache, settings)
    alone = validate(adapter, people)
    parts = []
    for rank in range(3):
        validate(
            adapter, people, rank=rank, processes=3, gather=lambda rows: parts.append(rows) or rows.repeat(3, 1, 1)
        )
    shared = validate(adapter, people, rank=0, processes=3, gather=lambda rows: torch.cat(parts))
    assert torch.equal(alone.losses_VSW, shared.losses_VSW) and alone.losses_VSW.shape == (4, 1, 3)


def test_the_spread_tells_a_dead_stream(cache, make_settings, make_adapter, awake):
    settings = make_settings("validation.sigmas=[0.5]")
    adapter, people = awake(make_adapter(settings)), HeldOut(cache, settings)
    figures = validate(adapter, people).figures()
    assert figures["spread/clip_tokens"] > 1e-4 and figures["spread/portrait_tokens"] > 1e-4
    with torch.no_grad():
        adapter.slotid.clip_tokens[1].weight.zero_()  # only its bias is left: the same for everybody
    figures = validate(adapter, people).figures()
    assert figures["spread/clip_tokens"] < 1e-9 and figures["spread/portrait_tokens"] > 1e-4
    untrained = validate(make_adapter(settings), people).figures()
    # The three rows of a clip lie at different places of a batch, where kernels round otherwise.
    assert untrained["spread/clip_tokens"] == 0.0 and abs(untrained["gap"]) < 1e-4


def test_mfu_is_what_the_peak_would_take_for_these_clips_over_what_was_taken(cache, make_settings, monkeypatch):
    """Half of the clips are shorter, and shorter ones go together."""
    settings = make_settings(*SMALL, "optim.steps=4")
    cache.entries = tuple(
        replace(entry, target_shape=(1, 4, 4)) if entry.person in ("person03", "person05") else entry
        for entry in cache.entries
    )
    clips = TrainingClips(cache, settings).entries
    order = BatchOrder(clips, settings.optim.batch, settings.run.seed)
    frames = [clips[order.at(step)[0]].target_shape[0] for step in range(4)]
    assert set(frames) == {1, 2}
    monkeypatch.setattr(running, "open_cache", lambda settings: cache)
    running.train(settings, Processes("cpu"), "plain", ideal_seconds={16: 0.2, 32: 0.5}, show_progress=False)
    told = logging.read(settings.run.folder, "train")
    assert [line["mfu"] * line["seconds"] for line in told] == pytest.approx(
        [{1: 0.2, 2: 0.5}[count] for count in frames]
    )
