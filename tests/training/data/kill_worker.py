"""Makes one cache again and again in forked children and kills them, in a process that is warm and has one thread.

    python kill_worker.py SETTINGS.json FOLDER KILLS SEED BOX

Prints one JSON object: what happened, and what was not as it should be.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open

from slotid_core.reference import Box
from slotid_core.reference.faces.box import BoxFaces
from training.data.clip import Bench
from training.data.make import make_cache
from training.settings_file import from_dict

torch.set_num_threads(1)


class Killer:
    def __init__(self, settings: dict, folder: Path, box: str):
        self.settings, self.folder = settings, folder
        self.bench = self._bench(folder / "warm", box)
        self._make(folder / "warm")
        started = time.monotonic()
        self.child(folder / "whole")
        os.wait()
        self.seconds = time.monotonic() - started
        self.whole = files(folder / "whole")
        self.problems: list[str] = []

    def _bench(self, cache: Path, box: str) -> Bench:
        faces = BoxFaces(Box(*json.loads(box)), frames=1)
        return Bench(self._settings(cache), faces=faces, device=torch.device("cpu"))

    def _settings(self, cache: Path):
        data = {**self.settings["data"], "cache": str(cache)}
        return from_dict({**self.settings, "data": data}, "kill_worker")

    def _make(self, cache: Path) -> None:
        self.bench.settings = self._settings(cache)
        with contextlib.redirect_stderr(io.StringIO()):
            make_cache(self.bench.settings, bench=self.bench, say=lambda line: None)

    def child(self, cache: Path, renames: int | None = None) -> int:
        """A child that makes the cache; with a number it kills itself before that rename."""
        pid = os.fork()
        if pid == 0:
            if renames is not None:
                _die_before_rename(renames)
            try:
                self._make(cache)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        return pid

    def check(self, cache: Path, status: int) -> bool:
        """What is there under its name is whole; after a run that came to its end it is everything."""
        for shard in (cache / "shards").glob("*.safetensors"):
            with safe_open(shard, framework="pt") as file:
                file.keys()
        if os.WIFSIGNALED(status):
            return False
        if os.waitstatus_to_exitcode(status) != 0:
            self.problems.append(f"a run ended with {status}")
        elif files(cache) != self.whole:
            self.problems.append(f"other bytes than a run that was not killed: {cache.name}")
        return True

    def at_random(self, kills: int, seed: int) -> tuple[int, int]:
        """Kill at random moments and go on; from the beginning where a run came to its end."""
        random_moments, killed, finished = random.Random(seed), 0, 0
        cache = self.folder / "random"
        while killed < kills and not self.problems:
            pid = self.child(cache)
            time.sleep(random_moments.uniform(0, 0.7 * self.seconds))
            os.kill(pid, signal.SIGKILL)  # a child that has ended waits as a zombie and takes it
            _, status = os.waitpid(pid, 0)
            if self.check(cache, status):
                finished += 1
                shutil.rmtree(cache)
            else:
                killed += 1
        _, status = os.waitpid(self.child(cache), 0)
        return killed, finished + self.check(cache, status)

    def before_renames(self) -> int:
        """Kill before the first rename, then go on and kill before the second one, until a run comes to its end."""
        cache, rename = self.folder / "renames", 0
        while not self.problems:
            rename += 1
            _, status = os.waitpid(self.child(cache, renames=rename), 0)
            if self.check(cache, status):
                break
        return rename - 1


def _die_before_rename(count: int) -> None:
    left, rename = count, os.replace

    def replace(*args, **kwargs):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(*args, **kwargs)

    os.replace = replace
    Path.replace = lambda self, target: replace(self, target)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def main() -> None:
    settings, folder, kills, seed, box = sys.argv[1:]
    killer = Killer(json.loads(Path(settings).read_text(encoding="utf-8")), Path(folder), box)
    at_renames = killer.before_renames()
    killed, finished = killer.at_random(int(kills), int(seed))
    said = {"killed": killed, "finished": finished, "at_renames": at_renames, "problems": killer.problems}
    print(json.dumps({**said, "seconds_of_a_run": killer.seconds, "files": len(killer.whole)}))


if __name__ == "__main__":
    main()
