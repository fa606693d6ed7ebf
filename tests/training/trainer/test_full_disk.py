"""A disk that fills up while a run writes about itself. Checkpoints and weights: test_state.py and test_weights.py."""

import sys

import pytest

from slotid_core.errors import SlotIDError
from training.trainer import run as running
from training.trainer.log import Log
from training.trainer.processes import Processes

if sys.platform == "win32":
    pytest.skip("needs a limit of file sizes", allow_module_level=True)
import resource
import signal


@pytest.fixture
def full_disk():
    """No file may grow beyond nothing: what a full disk does, without a mount."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


ROOM = "can't be written: .*Make room and start the same command again"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the board writes in a thread
def test_curves_can_not_be_written(make_settings, tmp_path, full_disk):
    with pytest.raises(SlotIDError, match=f"tensorboard {ROOM}"):
        Log(tmp_path, make_settings("log.tensorboard=true"), 0)


def test_numbers_can_not_be_written(make_settings, tmp_path, full_disk):
    log = Log(tmp_path, make_settings(), 0)
    with pytest.raises(SlotIDError, match=f"log.jsonl {ROOM}"):
        log.write(1, "train", {"loss": 1.0})


def test_settings_can_not_be_written(cache, make_settings, tmp_path, monkeypatch, full_disk):
    monkeypatch.setattr(running, "open_cache", lambda settings: cache)
    with pytest.raises(SlotIDError, match=f"settings.yaml {ROOM}"):
        running.train(make_settings(), Processes("cpu"), "plain", show_progress=False)
