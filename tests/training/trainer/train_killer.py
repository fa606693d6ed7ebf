"""Trains the same run again and again in forked children and kills them, in a process that is warm and has one thread.

    python train_killer.py SETTINGS.json FOLDER KILLS SEED

Prints one JSON object: what happened, and what was not as it should be.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from slotid_core.checkpoint import load_weights
from training.settings_file import from_dict
from training.trainer.processes import Processes
from training.trainer.run import train
from training.trainer.state import checkpoints, read_facts, read_tensors

torch.set_num_threads(1)


def start(settings: dict, folder: Path) -> int:
    """A child that trains into the folder."""
    pid = os.fork()
    if pid:
        return pid
    data = {**settings, "run": {**settings["run"], "folder": str(folder)}}
    try:
        train(from_dict(data, "train_killer"), Processes("cpu"), "plain", show_progress=False)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def results(folder: Path) -> dict[str, bytes]:
    """Weights and the last checkpoint, byte for byte."""
    last = checkpoints(folder / "checkpoints")[-1]
    return {p.name: p.read_bytes() for p in [*(folder / "weights").iterdir(), *last.iterdir()]}


def newest(folder: Path) -> int:
    """The step that a start would go on from; every checkpoint under its name must be whole."""
    steps = [0]
    for checkpoint in checkpoints(folder / "checkpoints"):
        read_tensors(checkpoint)
        steps.append(read_facts(checkpoint)["step"])
    return max(steps)


def main() -> None:
    settings, folder, kills, seed = sys.argv[1:]
    settings, folder = json.loads(Path(settings).read_text(encoding="utf-8")), Path(folder)
    moments = random.Random(int(seed))
    began = time.monotonic()
    _, status = os.waitpid(start(settings, folder / "whole"), 0)
    seconds = time.monotonic() - began
    assert status == 0, "the run that is not killed failed"
    whole, run = results(folder / "whole"), folder / "run"
    killed, finished, furthest, problems = 0, 0, 0, []

    while (killed < int(kills) or finished == 0) and not problems:
        pid = start(settings, run)
        if killed < int(kills):
            time.sleep(moments.uniform(0, 0.35 * seconds))
            os.kill(pid, signal.SIGKILL)  # a child that has ended waits as a zombie and takes it
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            step = newest(run)
            if step < furthest:
                problems.append(f"went back from update {furthest} to {step}")
            furthest = step
            continue
        if os.waitstatus_to_exitcode(status) != 0:
            problems.append(f"a run ended with {status}")
            break
        if results(run) != whole:
            problems.append("other bytes than a run that was not killed")
        load_weights(run / "weights" / "slotid.safetensors")
        finished, furthest = finished + 1, 0
        shutil.rmtree(run)
    print(json.dumps({"killed": killed, "finished": finished, "problems": problems, "seconds_of_a_run": seconds}))


if __name__ == "__main__":
    main()
