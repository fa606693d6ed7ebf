"""A training that is killed with SIGKILL at random moments and started again ends in the bytes of one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLER = Path(__file__).with_name("train_killer.py")
SLOWLY_SAVED = {"every": 3, "keep": 2}


def campaign(settings, folder: Path, *, steps: int, kills: int) -> dict:
    data = settings.to_dict()
    data["optim"] |= {"steps": steps, "batch": 1, "micro_batch": 1, "warmup": 2}
    data["validation"] |= {"every": 20, "clips": 2, "sigmas": [0.6], "samples": 0}
    data["data"]["workers"], data["checkpoint"], data["log"]["tensorboard"] = 0, SLOWLY_SAVED, False
    data["memory"]["precision"] = "fp32"
    file = folder / "settings.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, KILLER, file, folder, str(kills), "0"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    said = json.loads(result.stdout.splitlines()[-1])
    print(said)
    assert said["problems"] == [] and said["killed"] == kills and said["finished"] >= 1, result.stderr[-3000:]
    return said


@pytest.mark.skipif(os.name == "nt", reason="forks, which Windows can't")
def test_twenty_kills_change_no_byte(drawn_cache, tmp_path):
    campaign(drawn_cache, tmp_path, steps=30, kills=20)


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="forks, which Windows can't")
def test_a_hundred_kills_change_no_byte(drawn_cache, tmp_path):
    campaign(drawn_cache, tmp_path, steps=60, kills=100)
