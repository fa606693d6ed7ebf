"""A run that is killed and run again leaves the cache that one run leaves, to the byte."""

import json
import os
import subprocess
import sys

import pytest


def _kill(drawn_dataset, tiny_settings, tmp_path, kills, seed):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(tiny_settings(drawn_dataset, tmp_path / "cache").to_dict()), encoding="utf-8")
    worker = os.path.join(os.path.dirname(__file__), "kill_worker.py")
    ended = subprocess.run(
        [sys.executable, worker, str(settings), str(tmp_path), str(kills), str(seed), json.dumps([38, 34, 50, 54])],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    said = json.loads(ended.stdout)
    print(said)
    assert said["problems"] == [], ended.stderr[-3000:]
    return said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_at_any_moment_and_resumed_the_cache_is_the_same(drawn_dataset, tiny_settings, tmp_path):
    said = _kill(drawn_dataset, tiny_settings, tmp_path, kills=20, seed=0)
    assert said["killed"] == 20 and said["finished"] >= 1
    # Settings, hashes, four shards, rejects, summary and manifest are renamed into place.
    assert said["at_renames"] >= 4


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_a_hundred_times(drawn_dataset, tiny_settings, tmp_path):
    assert _kill(drawn_dataset, tiny_settings, tmp_path, kills=100, seed=1)["killed"] == 100
