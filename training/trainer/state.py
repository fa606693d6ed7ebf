"""Checkpoints: what a run needs to go on as if it had never stopped. Written whole or not at all, without pickle.

A checkpoint is a folder ``step_000250`` with one safetensors file (weights, averages, optimizer) and one JSON file, in
which stand the hashes of both. There is no random state in it and no loader position: both are functions of the seed
and the step.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slotid_core.errors import SlotIDError
from slotid_core.safe_file import content_hash
from training.trainer.optim import SCALES, AveragedWeights, MuonAndAdamW, all_finite, kept_shapes

_NAME = re.compile(r"step_(\d{6,})$")
_TENSORS, _FACTS = "state.safetensors", "state.json"
_HASH, _TENSORS_HASH = "sha256", "tensors_sha256"


@dataclass
class State:
    """All that changes from update to update."""

    trainable: Mapping[str, nn.Parameter]
    averaged: AveragedWeights
    optimizer: torch.optim.Optimizer | MuonAndAdamW
    step: int = 0
    """Updates that were made."""


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    found = [p for p in folder.glob("step_*") if _NAME.match(p.name)] if folder.is_dir() else []
    return sorted(found, key=lambda p: int(_NAME.match(p.name)[1]))


def save(folder: Path, state: State, facts: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint and remove the oldest beyond ``keep``.

    The folder appears under its name only when all of it is on the disk.

    Raises:
        SlotIDError: it can't be written; the checkpoints that were there stay.
    """
    final = folder / f"step_{state.step:06d}"
    partial = folder / f".{final.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".step_*.partial"):  # of a run that was killed while it wrote
            shutil.rmtree(left)
        partial.mkdir()
        tensors = _tensors(state)
        save_file(tensors, partial / _TENSORS)
        told = sealed({"step": state.step, **facts}, tensors)
        (partial / _FACTS).write_text(json.dumps(told, indent=1), encoding="utf-8")
        for file in (partial / _TENSORS, partial / _FACTS, partial):
            _flush(file)
        if final.exists():
            _remove(final)
        partial.rename(final)
        _flush(folder)
        for old in checkpoints(folder)[:-keep]:
            _remove(old)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        left = [p.name for p in checkpoints(folder)]
        raise SlotIDError(
            f"The checkpoint of step {state.step} can't be written into {folder}: {error}. Make room and start the "
            f"same command again; it goes on from {left[-1] if left else 'the beginning'}."
        ) from error
    return final


def _remove(checkpoint: Path) -> None:
    """First from under its name, at once: a kill in between would leave half a checkpoint there."""
    gone = checkpoint.with_name(f".{checkpoint.name}.old.partial")
    checkpoint.rename(gone)
    shutil.rmtree(gone)


def sealed(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The content of a checkpoint's JSON file: facts, and the hashes of its tensors and of itself."""
    told = json.loads(json.dumps({**facts, _TENSORS_HASH: content_hash(tensors)}))
    return {**told, _HASH: content_hash({}, told)}


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """What the run said of itself when it wrote the checkpoint.

    Raises:
        SlotIDError: unreadable, not what was written, or of a Slot-ID that kept no hash.
    """
    return {name: fact for name, fact in _told(checkpoint).items() if name != _TENSORS_HASH}


def read_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Its tensors: ``weights.…``, ``averaged.…`` and ``optimizer.…``.

    Raises:
        SlotIDError: unreadable, not what was written, or of a Slot-ID that kept no hash.
    """
    wanted = _told(checkpoint)[_TENSORS_HASH]
    try:
        tensors = load_file(checkpoint / _TENSORS)
    except (OSError, SafetensorError) as error:
        raise _damaged(checkpoint, error) from error
    if content_hash(tensors) != wanted:
        raise _damaged(checkpoint, f"{_TENSORS} is not what was written: the hash differs")
    return tensors


def _told(checkpoint: Path) -> dict[str, Any]:
    try:
        told = json.loads((checkpoint / _FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(checkpoint, error) from error
    if not isinstance(told, dict):
        raise _damaged(checkpoint, f"{_FACTS} holds {type(told).__name__}")
    if _HASH not in told:
        raise SlotIDError(
            f"The checkpoint {checkpoint} has no hash to check it by: an older Slot-ID wrote it. Give another "
            "run.folder to begin anew, or use the Slot-ID that wrote it."
        )
    if told.pop(_HASH) != content_hash({}, told):
        raise _damaged(checkpoint, f"{_FACTS} is not what was written: the hash differs")
    return told


def restore(checkpoint: Path, state: State) -> None:
    """Bring weights, averages and optimizer to where the checkpoint was.

    Raises:
        SlotIDError: damaged, or of other weights or another optimizer. Nothing was changed then.
    """
    tensors = read_tensors(checkpoint)
    _check_fits(checkpoint, tensors, state)
    if not all_finite(tensors):
        raise _damaged(checkpoint, "it holds NaN or infinity: the run that wrote it had gone wrong")
    step = read_facts(checkpoint)["step"]
    with torch.no_grad():
        for name, parameter in state.trainable.items():
            parameter.copy_(tensors[f"weights.{name}"])
        for name, average in state.averaged.tensors.items():
            average.copy_(tensors[f"averaged.{name}"])
    _restore_optimizer(state, tensors)
    state.step = step


def _check_fits(checkpoint: Path, tensors: Mapping[str, Tensor], state: State) -> None:
    """Every tensor has its place and every place its tensor, of the same shape."""
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted = {f"weights.{name}": tuple(p.shape) for name, p in state.trainable.items()}
    wanted |= {f"averaged.{name}": tuple(average.shape) for name, average in state.averaged.tensors.items()}
    # An optimizer keeps nothing of what no gradient has reached yet.
    moved = {name.removeprefix("optimizer.").rpartition("/")[0] for name in got if name.startswith("optimizer.")}
    for name, parameter in state.trainable.items():
        if name in moved:
            kept = kept_shapes(state.optimizer, parameter)
            wanted |= {f"optimizer.{name}/{key}": shape for key, shape in kept.items()}
            for key in SCALES:
                got.pop(f"optimizer.{name}/{key}", None)
    if odd := differences(got, wanted):
        raise SlotIDError(
            f"{checkpoint} does not fit these settings: {odd}. Start another run.folder, or go back to the settings "
            "that the checkpoint was made with."
        )


def differences(got: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> str:
    """In words, how many tensors are missing, left over or of another shape, and the first of them; empty if none."""
    odd = sorted(name for name in got.keys() | wanted.keys() if got.get(name) != wanted.get(name))
    if not odd:
        return ""
    first = f"{odd[0]} (got {got.get(odd[0], 'none')}, expected {wanted.get(odd[0], 'none')})"
    return f"{len(odd)} tensors differ, the first is {first}"


def _tensors(state: State) -> dict[str, Tensor]:
    tensors = {f"weights.{name}": p.detach() for name, p in state.trainable.items()}
    tensors |= {f"averaged.{name}": average for name, average in state.averaged.tensors.items()}
    for name, parameter in state.trainable.items():
        for key, value in state.optimizer.state[parameter].items():
            tensors[f"optimizer.{name}/{key}"] = torch.as_tensor(value)
    return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}


def _restore_optimizer(state: State, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in state.trainable.items():
        prefix = f"optimizer.{name}/"
        held = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        # Torch counts an optimizer's steps on the CPU, and bitsandbytes in a plain number.
        state.optimizer.state[parameter] = {
            key: (int(value) if state.optimizer.__class__.__module__.startswith("bitsandbytes") else value)
            if key == "step"
            else value.to(parameter.device)
            for key, value in held.items()
        }


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows can't open a folder to flush it
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows flushes what can be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(checkpoint: Path, why: Exception | str) -> SlotIDError:
    return SlotIDError(
        f"The checkpoint {checkpoint} can't be read ({why}). Remove that folder: the run then goes on from the one "
        "before, which can be exported too."
    )
