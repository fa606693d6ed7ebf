"""One process at a time in a folder, and none that is dead."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from slotid_core.errors import SlotIDError
from training import lock

FORKED = """
import os, signal, sys, time
from pathlib import Path
from training.lock import alone_in
with alone_in(Path(sys.argv[1]), "training", "", print):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def take(folder, say=print):
    with lock.alone_in(folder, "training", "Wait for it.", say):
        pass


def test_another_process_is_refused_as_long_as_one_is_there(tmp_path, held_elsewhere):
    with held_elsewhere(tmp_path):
        for _ in range(2):
            with pytest.raises(SlotIDError, match=f"Another training is running in {tmp_path}. Wait for it."):
                take(tmp_path)
    take(tmp_path)
    take(tmp_path / "of" / "its" / "own")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_kill_leaves_it_free_at_once_even_with_children_alive(tmp_path):
    """As data workers are for some seconds; they are in a group of their own here, to be ended with it."""
    command = [sys.executable, "-c", FORKED, tmp_path]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SlotIDError, match="Another training"):
            take(tmp_path)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        take(tmp_path)
        time.sleep(0.1)
        os.killpg(holder.pid, 0)  # a child is alive
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.stdout.close()


def test_a_disk_that_knows_no_locks_is_said(tmp_path, monkeypatch):
    """The refusal is made here: a disk of that kind needs a mount."""

    def refuse(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", refuse)
    said = []
    take(tmp_path, said.append)
    assert len(said) == 1 and "No locks available" in said[0] and "no other training" in said[0]


def test_a_folder_that_can_not_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SlotIDError, match="lock can't be written"):
        take(tmp_path / "file" / "run")
