"""A disk that fills up while a run writes about itself. Checkpoints and weights: test_state.py and test_weights.py."""

from pathlib import Path

import pytest

from slotid_core.errors import SlotIDError
from training.trainer import run as running
from training.trainer.log import Log
from training.trainer.processes import Processes

FULL = Path("/dev/full")
ROOM = "Make room and start the same command again"
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full, a disk without room")


@needs_full
def test_numbers_can_not_be_written(make_settings, tmp_path):
    (tmp_path / "log.jsonl").symlink_to(FULL)
    log = Log(tmp_path, make_settings(), 0, validated_again=True)
    with pytest.raises(SlotIDError, match=f"log.jsonl can't be written: No space left on device. {ROOM}"):
        log.write(1, "train", {"loss": 1.0})


@needs_full
def test_settings_can_not_be_written(cache, make_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "open_cache", lambda settings: cache)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".settings.partial").symlink_to(FULL)
    with pytest.raises(SlotIDError, match=f"settings.yaml can't be written: No space left on device. {ROOM}"):
        running.train(make_settings(), Processes("cpu"), "plain", show_progress=False)


def test_curves_can_not_be_written(make_settings, tmp_path):
    """TensorBoard names its file itself, so something stands where its folder belongs."""
    (tmp_path / "tensorboard").touch()
    with pytest.raises(SlotIDError, match=f"tensorboard can't be written: .*{ROOM}"):
        Log(tmp_path, make_settings("log.tensorboard=true"), 0, validated_again=True)
