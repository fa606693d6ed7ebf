"""Kills the shipped tiny.yaml at random moments and starts it again, until it has been killed often enough.

    python tiny_killer.py prepare|train WHOLE FOLDER KILLS SEED

WHOLE is the folder of a run of ``python training/train.py training/configs/tiny.yaml run.folder=WHOLE
data.cache=WHOLE/cache`` that nobody killed. What is killed here are the programs themselves (``main`` of prepare.py and
train.py with a command line), in forked children of a process that has loaded the libraries and has one thread. Folders
are all that is overridden.

Prints one JSON object: what happened, and what was not as it should be.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.utils.tensorboard  # noqa: F401 - as the next ones: loaded once, not in each child

import training.planner.machine
import training.trainer.run
import training.trainer.samples  # noqa: F401
from slotid_core.checkpoint import load_weights
from training import prepare, settings_file, train
from training.trainer.state import checkpoints, read_facts, read_tensors

torch.set_num_threads(1)
CONFIG = Path(settings_file.__file__).parent / "configs" / "tiny.yaml"


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@dataclass
class Prepare:
    """Into an empty cache: rendering, latents, manifest."""

    whole: Path
    longest: float = 0.25
    """A life is at most this share of a run that is not killed, so that several kills fall into each."""
    files: int = 18
    """12 videos and 6 shards."""

    def main(self, folder: Path) -> int:
        return prepare.main([str(CONFIG), f"run.folder={folder}", f"data.cache={folder / 'cache'}"])

    def results(self, folder: Path) -> dict[str, bytes]:
        files = bytes_of(folder / "cache")
        del files["hashes.json"]  # it remembers when files were changed
        return files

    def progress(self, folder: Path, expected: dict[str, bytes]) -> int:
        """Finished videos and shards, all of which must be whole."""
        files = bytes_of(folder / "cache")
        done = [name for name in files if name.endswith((".mp4", ".safetensors")) and "/." not in name]
        assert all(files[name] == expected[name] for name in done), "a file under its name that is not whole"
        return len(done)

    def where(self, done: int) -> str:
        return f"{done} files of {self.files} finished"


@dataclass
class Train:
    """60 updates on the cache of the run that nobody killed, with its validations, samples and checkpoints."""

    whole: Path
    longest: float = 0.6

    def main(self, folder: Path) -> int:
        return train.main([str(CONFIG), f"run.folder={folder}", f"data.cache={self.whole / 'cache'}"])

    def results(self, folder: Path) -> dict[str, bytes]:
        load_weights(folder / "weights" / "slotid.safetensors")
        parts = ("weights", "checkpoints")
        return {f"{part}/{name}": data for part in parts for name, data in bytes_of(folder / part).items()}

    def progress(self, folder: Path, expected: dict[str, bytes]) -> int:
        """The update that a start would go on from; every checkpoint under its name must be whole."""
        steps = [0]
        for checkpoint in checkpoints(folder / "checkpoints"):
            read_tensors(checkpoint)
            steps.append(read_facts(checkpoint)["step"])
        return max(steps)

    def where(self, done: int) -> str:
        return f"checkpoint of update {done}" if done else "no checkpoint"


@dataclass
class Campaign:
    """Lives of one program after each other; where one comes to its end the next begins from nothing."""

    program: Prepare | Train
    folder: Path
    where: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    killed: int = 0
    finished: int = 0
    lost: int = 0
    """Kills in whose life nothing was finished."""

    def start(self) -> int:
        """A child that runs the program."""
        pid = os.fork()
        if pid:
            return pid
        status = 1
        with open(self.folder / "child.log", "a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
            with contextlib.redirect_stderr(log):
                try:
                    status = self.program.main(self.folder / "run")
                except BaseException as error:
                    print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(status)

    def run(self, kills: int, seed: int) -> None:
        moments, expected = random.Random(seed), self.program.results(self.program.whole)
        began = time.monotonic()
        self._end(os.waitpid(self.start(), 0)[1], expected)
        longest = self.program.longest * (time.monotonic() - began)
        before, is_begun = 0, False
        while (self.killed < kills or is_begun) and not self.problems:
            pid = self.start()
            if self.killed < kills:
                time.sleep(moments.uniform(0, longest))
                os.kill(pid, signal.SIGKILL)  # a child that has ended waits as a zombie and takes it
            _, status = os.waitpid(pid, 0)
            is_begun = os.WIFSIGNALED(status)
            if not is_begun:
                self._end(status, expected)
                before = 0
                continue
            self.killed += 1
            done = self.program.progress(self.folder / "run", expected)
            self.where[self.program.where(done)] += 1
            self.lost += done == before
            if done < before:
                self.problems.append(f"went back from {before} to {done}")
            before = done
            print(f"killed {self.killed} times, {self.finished} ended: {self.program.where(done)}", file=sys.stderr)

    def _end(self, status: int, expected: dict[str, bytes]) -> None:
        if os.waitstatus_to_exitcode(status) != 0:
            self.problems.append(f"a run ended with {status}")
            return
        got = self.program.results(self.folder / "run")
        differ = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
        if differ:
            self.problems.append(f"other bytes than a run that was not killed: {differ}")
            return
        self.finished += 1
        shutil.rmtree(self.folder / "run")


def main() -> None:
    which, whole, folder, kills, seed = sys.argv[1:]
    program = {"prepare": Prepare, "train": Train}[which](Path(whole))
    campaign = Campaign(program, Path(folder))
    campaign.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    campaign.run(int(kills), int(seed))
    said = {name: getattr(campaign, name) for name in ("killed", "finished", "lost", "where", "problems")}
    print(json.dumps({**said, "seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
