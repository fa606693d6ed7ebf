"""Checkpoints: whole or not at all, and everything comes back."""

import json
import random
import shutil

import pytest
import torch
from safetensors.torch import save_file

from slotid_core.errors import SlotIDError
from training.settings import OptimSettings
from training.trainer import state as checkpointing
from training.trainer.optim import AveragedWeights, make_optimizer
from training.trainer.state import State, checkpoints, read_facts, read_tensors, restore, save, sealed


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


@pytest.fixture
def spoilt(tmp_path):
    """A whole checkpoint of step 3 whose content was changed: ``spoilt(tensors=..., facts=...)``."""

    def make(tensors=lambda held: None, facts=lambda told: None, optimizer="adamw"):
        state = make_state(0, optimizer=optimizer)
        for seed in range(3):
            update(state, seed)
        path = save(tmp_path, state, {}, keep=1)
        held, told = read_tensors(path), read_facts(path)
        tensors(held)
        facts(told)
        save_file(held, path / "state.safetensors")
        (path / "state.json").write_text(json.dumps(sealed(told, held)))
        return path

    return make


def refuses(path, match: str, optimizer: str = "adamw") -> None:
    """It can't be restored, and what would have been overwritten stays as it was."""
    state = make_state(1, optimizer=optimizer)
    with pytest.raises(SlotIDError, match=match):
        restore(path, state)
    assert same(state, make_state(1, optimizer=optimizer)) and not any(state.optimizer.state.values())


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
def test_no_flipped_bit_is_restored(spoilt, file):
    path = spoilt()
    restore(path, make_state(1))
    whole = (path / file).read_bytes()
    for seed in range(300):
        moments, content = random.Random(seed), bytearray(whole)
        content[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
        if file == "state.json" and json.loads(whole) == tolerantly(bytes(content)):
            continue  # one white space became another
        (path / file).write_bytes(content)
        refuses(path, "step_000003 (can't be read|has no hash)")


def tolerantly(content: bytes):
    try:
        return json.loads(content)
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("weights.a", torch.tensor([5.0]), r"1 tensors differ, the first is weights.a .got \(1,\), expected \(3, 2\)"),
        ("weights.a", torch.ones(3, 3), r"weights.a .got \(3, 3\)"),
        ("averaged.vector", None, "averaged.vector .got none"),
        ("optimizer.a/exp_avg", None, "optimizer.a/exp_avg .got none"),
        ("optimizer.a/exp_avg", torch.ones(2), r"optimizer.a/exp_avg .got \(2,\)"),
        ("optimizer.a/step", torch.ones(2), "optimizer.a/step"),
        ("optimizer.a/momentum_buffer", torch.ones(3, 2), "optimizer.a/momentum_buffer .*expected none"),
        ("optimizer.z/step", torch.tensor(1.0), "optimizer.z/step .*expected none"),
        ("weights.a", torch.full((3, 2), float("nan")), "NaN or infinity.*Remove that folder"),
        ("optimizer.vector/exp_avg_sq", torch.full((3,), float("inf")), "NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(spoilt, name, value, match):
    refuses(spoilt(lambda held: held.pop(name, None) if value is None else held.update({name: value})), match)


def test_of_muon_the_momentum_has_to_fit(spoilt):
    path = spoilt(lambda held: held.update({"optimizer.a/momentum_buffer": torch.ones(2)}), optimizer="muon")
    refuses(path, r"optimizer.a/momentum_buffer .got \(2,\), expected \(3, 2\)", optimizer="muon")


def test_what_no_gradient_has_reached_needs_nothing_of_the_optimizer(spoilt):
    def unreached(held):
        for key in [key for key in held if key.startswith("optimizer.a/")]:
            del held[key]

    state = make_state(1)
    restore(spoilt(unreached), state)
    assert not state.optimizer.state[state.trainable["a"]] and state.optimizer.state[state.trainable["b"]]


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", '"x"', "[" * 5000, '{"sha256": 1}', '{"sha256": null, "step": "x"}']
)
def test_facts_that_are_none_are_one_clear_error(spoilt, text):
    path = spoilt()
    (path / "state.json").write_text(text)
    refuses(path, "can't be read.*Remove that folder")


def test_a_checkpoint_without_hashes_is_refused(spoilt):
    path = spoilt()
    (path / "state.json").write_text(json.dumps({"step": 3}))
    refuses(path, "has no hash.*older Slot-ID.*another run.folder")


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
    told = json.loads((path / "state.json").read_text())
    assert told.keys() == {"step", "settings", "tensors_sha256", "sha256"}
    assert read_facts(path) == {"step": 0, "settings": {"a": 1}}
