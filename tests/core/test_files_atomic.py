"""A write that is cut short leaves the old file or the new one, whole."""

import errno
import os
import random
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.safe_file import NameTakenError, SafeFile, write

SIZE = 1_000_000  # floats: 4 MB, many blocks of any disk


def write_version(path, number: int) -> None:
    write(path, "weights", 1, {"x": torch.full((SIZE,), float(number))}, {"number": number})


def read_version(path) -> int:
    """The number of the version that a file holds; fails unless it is whole."""
    with SafeFile(path, "weights", 1) as file:
        x = file.read({"x": ((SIZE,), torch.float32)})["x"]
        number = file.info["number"]
    assert torch.equal(x, torch.full((SIZE,), float(number)))
    return number


def raise_this(error: BaseException):
    def function(*args, **kwargs):
        raise error

    return function


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [(OSError(errno.ENOSPC, "No space left on device"), SlotIDError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["disk full", "interrupted"],
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(call, error, expected, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    write_version(path, 1)
    monkeypatch.setattr(os, call, raise_this(error))
    with pytest.raises(expected) as caught:
        write_version(path, 2)
    monkeypatch.undo()
    if expected is SlotIDError:
        assert "w.safetensors" in str(caught.value) and "No space left on device" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    assert read_version(path) == 1


def test_a_name_that_could_be_taken_and_not_written_is_free_again(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", raise_this(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(SlotIDError, match="Input/output error"):
        write(tmp_path / "w.safetensors", "weights", 1, {"x": torch.zeros(1)}, {}, replace=False)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_not_written_over(tmp_path):
    path = tmp_path / "w.safetensors"
    write_version(path, 1)
    with pytest.raises(NameTakenError, match="There is a file w.safetensors"):
        write(path, "weights", 1, {"x": torch.zeros(1)}, {}, replace=False)
    assert read_version(path) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.safetensors").mkdir()
    for path in (tmp_path / "file" / "w.safetensors", tmp_path / "file" / "deep" / "w.safetensors"):
        with pytest.raises(SlotIDError, match=r"Can't write w\.safetensors into .*file"):
            write_version(path, 1)
    with pytest.raises(SlotIDError, match=r"Can't write folder\.safetensors"):
        write_version(tmp_path / "folder.safetensors", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.safetensors"]


# The process ends itself as SIGKILL ends it: no `finally`, no flush.
CHILD = textwrap.dedent(
    """
    import importlib.util, itertools, os, pathlib, signal, sys
    spec = importlib.util.spec_from_file_location("atomic", sys.argv[1])
    atomic = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(atomic)
    moment, path = sys.argv[2], pathlib.Path(sys.argv[3])

    def die(*args):
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    class HalfAFile:
        def __init__(self, file):
            self.file = file
        def __enter__(self):
            return self
        def __exit__(self, *error):
            self.file.close()
        def write(self, content):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            die()

    really_open, really_replace = pathlib.Path.open, os.replace
    if moment == "half written":
        pathlib.Path.open = lambda self, *args: HalfAFile(really_open(self, *args))
    elif moment == "before the rename":
        os.replace = die
    elif moment == "after the rename":
        os.replace = lambda *args: (really_replace(*args), die())
    print("ready", flush=True)
    for number in itertools.count(2):
        atomic.write_version(path, number)
    """
)


def start(moment: str, path, repo_root) -> subprocess.Popen:
    write_version(path, 1)
    environment = {**os.environ, "PYTHONPATH": str(repo_root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, __file__, moment, str(path)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def kill_at_any_moment(path, repo_root, seed: int) -> int:
    with start("any", path, repo_root) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(random.Random(seed).uniform(0.0, 0.3))
        assert process.poll() is None, "the writer ended by itself"
        process.kill()
    return read_version(path)


def test_a_kill_at_each_step_of_a_write_leaves_a_whole_file(tmp_path, repo_root):
    expected = {"half written": 1, "before the rename": 1, "after the rename": 2}
    processes = {moment: start(moment, tmp_path / f"{moment}.safetensors", repo_root) for moment in expected}
    for moment, process in processes.items():
        with process:
            assert process.wait(timeout=120) != 0, moment
        assert read_version(tmp_path / f"{moment}.safetensors") == expected[moment], moment
    assert len(list(tmp_path.glob("*.safetensors"))) == len(expected), "what is left over must not look like a file"
    assert len(list(tmp_path.glob(".*.tmp"))) == 2, "two were killed with their temporary file still there"


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path, repo_root):
    assert kill_at_any_moment(tmp_path / "w.safetensors", repo_root, seed=0) >= 1


@pytest.mark.full
def test_forty_kills_leave_whole_files(tmp_path, repo_root):
    versions = [kill_at_any_moment(tmp_path / "w.safetensors", repo_root, seed) for seed in range(40)]
    assert max(versions) > 1, "some kill must have come after a first write"
