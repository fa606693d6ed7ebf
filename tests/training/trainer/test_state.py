"""Checkpoints: whole or not at all, and everything comes back."""

import json
import shutil

import pytest
import torch

from slotid_core.errors import SlotIDError
from training.settings import OptimSettings
from training.trainer import state as checkpointing
from training.trainer.optim import AveragedWeights, make_optimizer
from training.trainer.state import State, checkpoints, read_facts, restore, save


def make_state(seed: int, names=("a", "b"), optimizer: str = "adamw") -> State:
    generator = torch.Generator().manual_seed(seed)
    trainable = {name: torch.nn.Parameter(torch.randn(3, 2, generator=generator)) for name in names}
    trainable["vector"] = torch.nn.Parameter(torch.randn(3, generator=generator))
    settings = OptimSettings(steps=10, batch=1, optimizer=optimizer)
    return State(trainable, AveragedWeights(0.9, trainable), make_optimizer(settings, trainable))


def update(state: State, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in state.trainable.values():
        p.grad = torch.randn(p.shape, generator=generator)
    state.optimizer.step()
    state.averaged.update(state.trainable, state.step)
    state.step += 1


def same(one: State, other: State) -> bool:
    return one.step == other.step and all(
        torch.equal(one.trainable[name], other.trainable[name])
        and torch.equal(one.averaged.tensors[name], other.averaged.tensors[name])
        for name in one.trainable
    )


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_goes_on_from_a_checkpoint_does_what_would_have_been_done(tmp_path, optimizer):
    state = make_state(0, optimizer=optimizer)
    for seed in range(3):
        update(state, seed)
    path = save(tmp_path, state, {"settings": {}}, keep=3)
    again = make_state(1, optimizer=optimizer)
    assert not same(state, again)
    restore(path, again)
    assert same(state, again)
    for seed in range(3, 6):  # the optimizer's moments count here
        update(state, seed)
        update(again, seed)
    assert same(state, again)


def test_the_last_ones_are_kept_in_the_order_of_their_steps(tmp_path):
    state = make_state(0)
    for seed in range(12):
        update(state, seed)
        save(tmp_path, state, {}, keep=3)
    assert [p.name for p in checkpoints(tmp_path)] == ["step_000010", "step_000011", "step_000012"]
    assert read_facts(checkpoints(tmp_path)[-1])["step"] == 12


def test_what_a_kill_left_half_written_is_no_checkpoint_and_goes(tmp_path):
    state = make_state(0)
    save(tmp_path, state, {}, keep=3)
    shutil.copytree(tmp_path / "step_000000", tmp_path / ".step_000007.partial")
    assert [p.name for p in checkpoints(tmp_path)] == ["step_000000"]
    update(state, 0)
    save(tmp_path, state, {}, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000000", "step_000001"]


@pytest.mark.parametrize("again", [False, True], ids=["an old one", "one that is written again"])
def test_a_kill_while_a_checkpoint_is_removed_leaves_none_in_half(tmp_path, monkeypatch, again):
    state = make_state(0)
    save(tmp_path, state, {}, keep=1)
    if not again:
        update(state, 0)

    def killed(folder, **_):
        (folder / "state.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpointing.shutil, "rmtree", killed)
        save(tmp_path, state, {}, keep=1)
    for checkpoint in checkpoints(tmp_path):
        restore(checkpoint, make_state(1))
    save(tmp_path, state, {}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == [f"step_{state.step:06d}"]


def test_a_checkpoint_may_be_written_again(tmp_path):
    state = make_state(0)
    for _ in range(2):
        path = save(tmp_path, state, {}, keep=3)
    restore(path, make_state(1))


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_checkpoint_is_one_clear_error(tmp_path, file, harm):
    path = save(tmp_path, make_state(0), {}, keep=1)
    if harm == "gone":
        (path / file).unlink()
    else:
        (path / file).write_bytes((path / file).read_bytes()[:5])
    with pytest.raises(SlotIDError, match="can't be read.*Remove that folder"):
        restore(path, make_state(0))
        read_facts(path)


def test_a_checkpoint_of_other_weights_names_the_first_that_differs(tmp_path):
    path = save(tmp_path, make_state(0), {}, keep=1)
    with pytest.raises(SlotIDError, match="2 tensors differ.*averaged.c"):
        restore(path, make_state(0, names=("a", "b", "c")))


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path, monkeypatch):
    """The disk is filled by a replaced ``save_file``: a real full one needs a mount."""
    state = make_state(0)
    save(tmp_path, state, {}, keep=1)
    update(state, 0)

    def full(tensors, path):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointing, "save_file", full)
    with pytest.raises(SlotIDError, match="No space left.*goes on from step_000000"):
        save(tmp_path, state, {}, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step_000000"]
    restore(tmp_path / "step_000000", make_state(1))


def test_there_is_no_pickle_in_a_checkpoint(tmp_path):
    path = save(tmp_path, make_state(0), {"settings": {"a": 1}}, keep=1)
    assert sorted(p.name for p in path.iterdir()) == ["state.json", "state.safetensors"]
    assert json.loads((path / "state.json").read_text()) == {"step": 0, "settings": {"a": 1}}
