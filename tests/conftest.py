"""What every test folder shares: data from outside the repository, the host, seeds, and the closing table."""

import contextlib
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SEED = 20260


def _load_run():
    """run.py, which is a script and not a module, knows how the host is found."""
    spec = importlib.util.spec_from_file_location("slotid_run", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUN = _load_run()


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="also run the heavy campaigns (marker: full)")


def pytest_configure(config):
    # The tests' tensors are tiny: beyond a few threads they spend their time on handing work over.
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(4, os.cpu_count() or 1))


def pytest_collection_modifyitems(items):
    for item in items:
        if (ROOT / "tests" / "host") in item.path.parents:
            item.add_marker("host")


def pytest_runtest_setup(item):
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    if item.get_closest_marker("full") and not item.config.getoption("--full"):
        pytest.skip("a heavy campaign: run it with --full")
    if item.get_closest_marker("host"):
        require_host()


def require_host() -> Path:
    """The ComfyUI checkout; skips where there is none, or fails under SLOTID_REQUIRE_HOST=1."""
    try:
        root = RUN.find_host(os.environ, Path.home())
    except RUN.SetupError as error:
        pytest.fail(str(error), pytrace=False)
    if root is not None:
        return root
    if os.environ.get("SLOTID_REQUIRE_HOST") == "1":
        pytest.fail(f"{RUN.NO_HOST} (SLOTID_REQUIRE_HOST=1)", pytrace=False)
    pytest.skip(RUN.NO_HOST)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def slotid_run():
    """run.py as a module."""
    return RUN


@pytest.fixture(scope="session")
def comfy_root() -> Path:
    """The ComfyUI checkout that host tests run against."""
    return require_host()


@pytest.fixture(scope="session")
def unreadable():
    """``with unreadable(path) as copy``: a file that is there and that this process may not read."""
    if os.name == "nt":
        pytest.skip("Windows keeps no such rights in a file's mode")

    @contextlib.contextmanager
    def copy_of(path: Path):
        with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to everybody else
            copy = Path(shutil.copy(path, folder))
            copy.chmod(0)
            Path(folder).chmod(0o755)
            everything = os.geteuid() == 0  # nothing is closed to root, so this process becomes somebody else
            try:
                if everything:
                    os.seteuid(65534)
                yield copy
            finally:
                if everything:
                    os.seteuid(0)

    return copy_of


def _shared() -> Path:
    named = os.environ.get("SLOTID_SHARED")
    return Path(named).expanduser().resolve() if named else ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared_clips() -> list[Path]:
    """Real video clips of people, sorted by name."""
    clips = sorted((_shared() / "clips").glob("*.mp4"))
    if not clips:
        pytest.skip("needs real clips: *.mp4 in ../shared/clips, or in SLOTID_SHARED's folder clips")
    return clips


@pytest.fixture(scope="session")
def shared_latents() -> Path:
    """A safetensors file with real, normalised Wan 2.1 latents."""
    path = _shared() / "latents" / "wan21_real.safetensors"
    if not path.is_file():
        pytest.skip("needs real latents: ../shared/latents/wan21_real.safetensors, or SLOTID_SHARED")
    return path


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Path:
    """The folder of a finished run on the tiny Wan: a few updates on latents in memory, averaged and not."""
    from training import settings_file
    from training.trainer import run as running
    from training.trainer.processes import Processes

    spec = importlib.util.spec_from_file_location("trainer_fixtures", ROOT / "tests/training/trainer/conftest.py")
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    cache = fixtures.MemoryCache(people=6, clips=2, held_out=2, cells=(2, 4, 4))
    folder = tmp_path_factory.mktemp("trained") / "run"
    changes = ["data.workers=0", "validation.samples=0", "validation.clips=2", "validation.sigmas=[0.5]"]
    changes += ["log.tensorboard=false", "optim.steps=12", "optim.batch=2", "optim.micro_batch=2", "optim.lr=1e-2"]
    # Without contrast so few updates may leave slots that say the same of everybody.
    changes += ["contrast.weight=0.1", "optim.warmup=0", "optim.ema=0.5", "checkpoint.every=6", f"run.folder={folder}"]
    settings = settings_file.load(fixtures.TINY, changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "open_cache", lambda settings: cache)
        assert running.train(settings, Processes("cpu"), "plain", show_progress=False).finished
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The folder of a run of the shipped tiny.yaml as a user starts it, with its cache; some 90 s, so for --full."""
    folder = tmp_path_factory.mktemp("tiny_yaml") / "run"
    command = [sys.executable, ROOT / "training" / "train.py", ROOT / "training" / "configs" / "tiny.yaml"]
    done = subprocess.run(
        [*command, f"run.folder={folder}", f"data.cache={folder / 'cache'}"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def _folder(nodeid: str) -> str:
    """`tests/core` of `tests/core/reader/test_x.py::test_y`."""
    return "/".join(nodeid.split("::")[0].split("/")[:-1][:2]) or "."


def _skip_reason(report) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter, config):
    """What ran and what did not, by folder, and why it did not. pytest's own summary line follows."""
    if config.option.collectonly:
        return
    stats = terminalreporter.stats
    outcomes = {}  # one outcome for each test: a failed teardown outweighs the passed call before it
    for outcome in ("passed", "xpassed", "xfailed", "skipped", "failed", "error"):
        for report in stats.get(outcome, []):
            outcomes[report.nodeid] = outcome
    table = defaultdict(Counter)
    for folder in sorted((ROOT / "tests").iterdir()):
        if any(folder.glob("**/test_*.py")):
            table[f"tests/{folder.name}"] = Counter()
    for nodeid, outcome in outcomes.items():
        row = table[_folder(nodeid)]
        row["executed"] += outcome != "skipped"
        row["skipped"] += outcome == "skipped"
        row["failed"] += outcome in ("failed", "error")
    table["all"] = sum(table.values(), Counter())

    write = terminalreporter.write_line
    terminalreporter.section("executed and skipped, by folder")
    width = max(map(len, table))
    write(f"{'':{width}}  executed  skipped  failed")
    for name, row in table.items():
        write(f"{name:{width}}  {row['executed']:8}  {row['skipped']:7}  {row['failed']:6}")

    reasons = defaultdict(Counter)
    for report in stats.get("skipped", []):
        reasons[_skip_reason(report)][_folder(report.nodeid)] += 1
    for reason, folders in sorted(reasons.items()):
        write(f"skipped: {reason}  [{', '.join(f'{name} x{count}' for name, count in folders.items())}]")
