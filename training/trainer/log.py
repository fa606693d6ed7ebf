"""What a run says while it goes: a line of JSON an event, TensorBoard, wandb where asked for, and a progress bar."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slotid_core.errors import SlotIDError
from training.settings import Settings

LOG = "log.jsonl"


@contextmanager
def making_room(path: Path) -> Iterator[None]:
    """Where writing fails, most of all on a full disk, one clear error.

    Raises:
        SlotIDError: what is in the block can't be written; ``path`` is named.
    """
    try:
        yield
    except OSError as error:
        raise SlotIDError(
            f"{path} can't be written: {error.strerror or error}. Make room and start the same command again; it goes "
            "on from the last checkpoint."
        ) from error


class Log:
    """Numbers of a run, by step.

    Args:
        folder: the run's.
        step: where the run goes on. What was logged beyond it, by a run that was killed, is dropped.
        validated_again: the run goes on with the validation of that step; one that was logged is dropped too.

    Raises:
        SlotIDError: the folder can't be written; wandb is asked for and not installed.
    """

    def __init__(self, folder: Path, settings: Settings, step: int, *, validated_again: bool):
        self.path, self._curves = folder / LOG, folder / "tensorboard"
        with making_room(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            _drop_after(self.path, step, validated_again)
        self._board = self._wandb = None
        if settings.log.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            with making_room(self._curves):
                self._board = SummaryWriter(self._curves, purge_step=step + 1 if step else 0)
        if settings.log.wandb:
            try:
                import wandb
            except ImportError as error:
                raise SlotIDError("log.wandb is set, which needs the package wandb: pip install wandb.") from error
            self._wandb = wandb.init(
                project=settings.log.wandb, dir=folder, id=_run_id(folder), resume="allow", config=settings.to_dict()
            )

    def write(self, step: int, kind: str, figures: Mapping[str, Any]) -> None:
        """``kind`` is ``train`` or ``validation``; ``step`` counts the updates that were made.

        Raises:
            SlotIDError: the file can't be written.
        """
        with making_room(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **figures}) + "\n")
        numbers = {f"{kind}/{name}": value for name, value in figures.items() if isinstance(value, (int, float))}
        if self._board is not None:
            with making_room(self._curves):  # of an earlier event: the board writes in a thread of its own
                for name, value in numbers.items():
                    self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        if self._board is not None:
            with making_room(self._curves):
                self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def read(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind that a run has logged so far."""
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def _drop_after(path: Path, step: int, validated_again: bool) -> None:
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            told = json.loads(line)
            if told["step"] > step or (validated_again and (told["step"], told["kind"]) == (step, "validation")):
                break
        except ValueError:  # cut off by a kill
            break
        kept.append(line + "\n")
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    os.replace(partial, path)


def _run_id(folder: Path) -> str:
    """One wandb run for one folder, however often it is resumed."""
    file = folder / "wandb_id"
    if not file.is_file():
        file.write_text(os.urandom(6).hex(), encoding="utf-8")
    return file.read_text(encoding="utf-8")
