"""The benchmark that measures what the pre-flight predicts: the one command is ready, though no GPU has run it."""

import json
import os
import subprocess
import sys


def test_the_one_command_runs_on_a_cpu(repo_root, tmp_path):
    command = [sys.executable, repo_root / "benchmarks" / "bench_training.py", repo_root / "training/configs/tiny.yaml"]
    done = subprocess.run(
        [*command, "--updates", "1", "--out", tmp_path / "figures.json"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["memory_plan"] == "plain" and figures["clip"] == "13 frames of 64 x 64, 4 at once"
    assert figures["predicted"]["card_gib"] > 0 and len(figures["measured"]["seconds"]) == 1
