"""``python training/train.py``: from settings and a cache to weights, and one clear sentence for what can't be."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from slotid_core.checkpoint import load_weights
from training import sample
from training import train as command
from training.trainer import log as logging
from training.trainer import run as running
from training.trainer.state import checkpoints


@pytest.fixture
def config(drawn_cache, tmp_path):
    """``config("optim.steps=2", ...)`` -> arguments of train.py for a small run on the drawn cache."""
    data = drawn_cache.to_dict()
    data["run"]["folder"] = str(tmp_path / "run")
    data["optim"] |= {"steps": 2, "batch": 2, "micro_batch": 1}
    data["validation"] |= {"every": 2, "clips": 2, "sigmas": [0.6], "samples": 1, "sample_steps": 2}
    data["data"]["workers"], data["memory"]["precision"] = 0, "fp32"
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return lambda *overrides: [str(path), "--device", "cpu", *overrides]


def test_a_run_leaves_weights_samples_curves_and_its_settings(config, tmp_path, capsys):
    assert command.main(config()) == 0
    run = tmp_path / "run"
    said = capsys.readouterr().out
    assert "PREDICTED" in said.upper() and str(run / "weights" / "slotid.safetensors") in said
    (printed,) = (line.split("python training/sample.py ")[1] for line in said.splitlines() if "sample.py" in line)
    small = "--size 32x48 --frames 5 --steps 1 --clip-frames 5 --clip-size 64 --portrait-size 64 --no-compare --out"
    assert sample.main([*shlex.split(printed), *small.split(), str(tmp_path / "sampled")]) == 0
    assert load_weights(run / "weights" / "slotid.safetensors").facts["trained_steps"] == 2
    assert (run / "weights" / "slotid_lora.safetensors").is_file()
    assert sorted(p.name for p in (run / "samples").iterdir()) == [
        f"step_{step:06d}_0{suffix}" for step in (0, 2) for suffix in (".mp4", ".png")
    ]
    assert list((run / "tensorboard").glob("events*"))
    assert yaml.safe_load((run / "settings.yaml").read_text())["optim"]["steps"] == 2
    assert len(logging.read(run, "train")) == 2 and len(logging.read(run, "validation")) == 2


@pytest.mark.parametrize("plan", ["checkpointed", "streamed"])
def test_every_kind_of_plan_trains(plan, config, tmp_path):
    assert command.main(config(f"memory.plan={plan}", "validation.samples=0")) == 0
    assert len(logging.read(tmp_path / "run", "train")) == 2


def test_half_precision_trains(config, tmp_path):
    assert command.main(config("memory.precision=bf16")) == 0
    weights = load_weights(tmp_path / "run" / "weights" / "slotid.safetensors")
    assert {p.dtype for p in weights.model.parameters()} == {next(weights.model.parameters()).dtype}


@pytest.mark.full
def test_compiled_blocks_train_as_they_are(config, tmp_path):
    """In half precision, where two programs of one block round in other places."""
    losses = []
    for compiled in ("true", "false"):
        folder = tmp_path / compiled
        few = ("memory.precision=bf16", "validation.samples=0", "log.tensorboard=false")
        assert command.main(config(*few, f"memory.compile={compiled}", f"run.folder={folder}")) == 0
        losses.append([line["loss"] for line in logging.read(folder, "train")])
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_without_a_lora_there_is_one_file(config, tmp_path, capsys):
    assert command.main(config("model.slotid.lora.rank=0", "validation.samples=0")) == 0
    assert [path.name for path in (tmp_path / "run" / "weights").iterdir()] == ["slotid.safetensors"]
    said = capsys.readouterr().out
    assert "for ComfyUI/models/slotid" in said and "models/loras" not in said


REFUSED = {
    "a slip of the pen": (["optim.stepps=3"], "optim.stepps is not known; the nearest that is: steps"),
    "no cache": (["data.cache=/nowhere/at/all"], "is not there. Make it with: python training/prepare.py"),
    "another cache": (["data.fps=15"], "made with other settings: data.fps was 16.0, now 15.0"),
    "no such transformer": (["model.transformer=/nowhere/wan.safetensors"], "/nowhere/wan.safetensors"),
    "too large": (["memory.plan=plain", "data.sizes=[[4096, 4096]]", "data.lengths=[257]"], "Too large"),
    "a batch that can't be shared": (["optim.batch=3", "optim.micro_batch=2"], "multiple of optim.micro_batch"),
    "betas that AdamW refuses": (["optim.betas=[0.9,1.0]"], "optim.betas.1: Input should be less than 1 (got 1.0)"),
    "guidance that the sampler refuses": (["validation.guidance=101"], "validation.guidance: Input should be less"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_is_one_clear_error(case, config, capsys):
    overrides, expected = REFUSED[case]
    assert command.main(config(*overrides)) == 1
    said = capsys.readouterr().err.strip()
    assert expected in said and "Traceback" not in said


def test_a_shard_that_changed_is_named_before_training(config, drawn_cache, tmp_path, capsys):
    import shutil

    broken = tmp_path / "cache"
    shutil.copytree(drawn_cache.data.cache, broken)
    shard = sorted((broken / "shards").iterdir())[1]
    shard.write_bytes(shard.read_bytes()[:-40])
    assert command.main(config(f"data.cache={broken}")) == 1
    assert shard.name in capsys.readouterr().err


def test_a_card_that_is_too_small_after_all_is_one_clear_error(config, monkeypatch, capsys):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(running, "update", full)
    assert command.main(config("memory.plan=offloaded", "validation.samples=0")) == 1
    said = capsys.readouterr().err
    assert "'offloaded', which was predicted to fit: CUDA out of memory. Tried" in said and "memory.plan=fp8" in said


def test_an_interruption_before_the_first_update_is_no_traceback(config, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "open_cache", interrupt)
    assert command.main(config()) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_missing_settings_file_names_the_shipped_ones(capsys):
    assert command.main(["nowhere.yaml"]) == 1
    said = capsys.readouterr().err
    for name in ("tiny.yaml", "wan2.1_14b.yaml", "wan2.1_14b_24gb.yaml", "wan2.1_1.3b.yaml"):
        assert name in said


def test_it_runs_as_a_script_and_tells_a_slip_before_it_loads_anything(config):
    script = Path(command.__file__)
    result = subprocess.run(
        [sys.executable, "-X", "importtime", script, *config("optim.lrr=1")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1 and "optim.lrr is not known" in result.stderr
    assert "diffusers" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_lets_the_update_be_finished(config, tmp_path, number):
    """A terminal and a cluster signal every process of the run, workers of the loader too."""
    overrides = ["optim.steps=400", "optim.batch=8", "data.workers=2", "validation.samples=0", "validation.every=400"]
    run = subprocess.Popen(
        [sys.executable, Path(command.__file__), *config(*overrides, "checkpoint.every=400", "optim.warmup=2")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    folder = tmp_path / "run"
    while run.poll() is None and not ((folder / "log.jsonl").is_file() and len(logging.read(folder, "train")) > 2):
        time.sleep(0.05)
    os.killpg(run.pid, number)
    said, wrong = run.communicate(timeout=120)
    assert run.returncode == 130, wrong[-3000:]
    (kept,) = checkpoints(folder / "checkpoints")
    assert "Traceback" not in wrong and f"Stopped after update {int(kept.name[5:])};" in said + wrong
    assert logging.read(folder, "train")[-1]["step"] == int(kept.name[5:]) < 400


def test_a_run_that_dies_of_an_error_takes_its_workers_along(config):
    """On the way out Python ends the loader's workers and waits for them."""
    code = "import sys; from training import train; from training.trainer import run as r\n"
    code += "def die(*_): raise MemoryError\n"
    code += "r.update = die; sys.exit(train.main(sys.argv[1:]))"
    arguments = config("data.workers=2", "validation.samples=0", "optim.batch=8")
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert run.returncode == 1 and "MemoryError" in run.stderr
