"""The shipped tiny.yaml through the programs' own entry points, killed with SIGKILL at random moments.

``tests/training/data/test_kill_prepare.py`` and ``trainer/test_kill_train.py`` do the same in seconds, on drawn clips.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLER = Path(__file__).with_name("tiny_killer.py")


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("kills", [20, 100])
@pytest.mark.parametrize("program", ["prepare", "train"])
def test_kills_change_no_byte(program, kills, tiny_run, tmp_path):
    result = subprocess.run(
        [sys.executable, KILLER, program, tiny_run, tmp_path, str(kills), str(kills)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    said = json.loads(result.stdout.splitlines()[-1])
    print(said)
    assert said["problems"] == [] and said["killed"] == kills
    assert said["finished"] >= 2, "the first is not killed, and the last is let finish"
    assert said["lost"] < kills, "no kill came after something had been finished"
