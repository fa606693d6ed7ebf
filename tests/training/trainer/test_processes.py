"""Two processes on the CPU (gloo), started as torch starts them: they learn what one learns.

FSDP2 is tested on the CPU too: torch's ``fully_shard`` takes gloo. On GPUs it has not been run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from training.trainer import log as logging
from training.trainer.state import checkpoints

WORKER = Path(__file__).with_name("two_processes.py")


def config(settings, folder: Path, name: str, shard: bool = False) -> Path:
    data = settings.to_dict()
    data["run"]["folder"] = str(folder / name)
    data["optim"] |= {"steps": 20, "batch": 2, "micro_batch": 1, "warmup": 2, "ema": 0.9}
    data["validation"] |= {"every": 20, "clips": 2, "sigmas": [0.6], "samples": 0}
    data["data"]["workers"], data["checkpoint"], data["log"]["tensorboard"] = 0, {"every": 10, "keep": 5}, False
    data["memory"] |= {"precision": "fp32", "shard": shard}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def train(processes: int, *configs: Path) -> None:
    """One run after the other: starting the processes takes longer than what they learn."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "0"]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    result = subprocess.run(
        [*command, WORKER, *configs], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in logging.read(folder, "train")]


@pytest.fixture(scope="module")
def runs(drawn_cache, tmp_path_factory):
    """Folders of the same run by one process, by two, and by two with a shared-out backbone."""
    folder = tmp_path_factory.mktemp("processes")
    train(1, config(drawn_cache, folder, "one"))
    train(2, config(drawn_cache, folder, "two"), config(drawn_cache, folder, "shared", shard=True))
    return folder


@pytest.mark.parametrize("other", ["two", "shared"])
def test_two_processes_have_the_losses_of_one(runs, other):
    one, two = losses(runs / "one"), losses(runs / other)
    assert len(one) == 20 and two == pytest.approx(one, abs=1e-5)
    validations = [logging.read(runs / name, "validation")[-1] for name in ("one", other)]
    assert validations[1] == pytest.approx(validations[0], abs=1e-3)


def test_they_really_were_two_and_the_blocks_really_were_shared_out(runs):
    told = {name: json.loads((runs / name / "told.json").read_text()) for name in ("one", "two", "shared")}
    assert [told[name]["processes"] for name in ("one", "two", "shared")] == [1, 2, 2]
    assert told["two"]["sharded_blocks"] == 0 and told["shared"]["sharded_blocks"] == told["shared"]["blocks"] == 4
    assert told["two"]["whole_matrices"][0] > 0 and told["shared"]["whole_matrices"] == [0]
    assert told["shared"]["frozen_numbers_here"] < 0.6 * told["two"]["frozen_numbers_here"]


def test_what_no_process_reached_has_no_gradient_as_with_one(runs):
    told = {name: json.loads((runs / name / "told.json").read_text())["gradients"] for name in ("one", "two")}
    assert told["one"] == {"nobody": None, "last": [1, 1], "all": [1, 1]}
    assert told["two"] == {"nobody": None, "last": [1, 1], "all": [3, 3]}


def test_processes_plan_with_the_least_that_any_of_them_found(runs):
    told = {name: json.loads((runs / name / "told.json").read_text())["leanest"] for name in ("one", "two")}
    assert told == {"one": [100, 50, None], "two": [99, 50, None]}


def test_what_the_first_process_finds_all_of_them_hear(runs):
    told = {name: json.loads((runs / name / "told.json").read_text())["of_first"] for name in ("one", "two")}
    assert told == {"one": [0], "two": [0, 0]}


@pytest.mark.parametrize(("begun", "processes"), [("one", 2), ("two", 1)])
def test_checkpoints_go_from_one_process_to_two_and_back(drawn_cache, runs, tmp_path, begun, processes):
    path = config(drawn_cache, tmp_path, "moved")
    target = tmp_path / "moved"
    (target / "checkpoints").mkdir(parents=True)
    middle = checkpoints(runs / begun / "checkpoints")[0]
    assert middle.name == "step_000010"
    (target / "checkpoints" / middle.name).symlink_to(middle)
    train(processes, path)
    assert losses(target) == pytest.approx(losses(runs / "one")[10:], abs=1e-5)
