"""run.py's parts: what it decides, without making an environment. The `full` test makes a real one."""

import ast
import io
import json
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest


@pytest.fixture
def checkout(slotid_run, monkeypatch, tmp_path):
    """run.py pointed at a small copy of a repository in a folder with a space and an accent."""
    root = tmp_path / "slot id é"
    (root / "training").mkdir(parents=True)
    (root / "training" / "requirements.txt").write_text("torch\n", encoding="utf-8")
    (root / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    monkeypatch.setattr(slotid_run, "ROOT", root)
    monkeypatch.setattr(slotid_run, "VENV", root / ".venv")
    monkeypatch.setattr(slotid_run, "STAMP", root / ".venv" / "stamp.json")
    monkeypatch.setattr(slotid_run, "LOG", root / ".venv" / "install.log")
    return root


def make_host(folder: Path) -> Path:
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "requirements.txt").write_text("torchvision\n", encoding="utf-8")
    return folder


def test_an_old_python_can_parse_it(repo_root):
    ast.parse((repo_root / "run.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_it_needs_the_standard_library_only(repo_root):
    tree = ast.parse((repo_root / "run.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("version", "fine"), [((3, 6, 9), False), ((3, 9, 18), False), ((3, 10, 0), True), ((3, 13), True)]
)
def test_old_python_message(slotid_run, version, fine):
    message = slotid_run.old_python_message(version, "/usr/bin/python3")
    assert (message is None) == fine
    if not fine:
        for part in ("3.10 or newer", f"{version[0]}.{version[1]}", "/usr/bin/python3"):
            assert part in message


def test_main_refuses_an_old_python(slotid_run, monkeypatch, capsys):
    monkeypatch.setattr(slotid_run.sys, "version_info", (3, 8, 10))
    assert slotid_run.main(["demo"]) == 1
    assert "needs Python 3.10 or newer, but this is Python 3.8" in capsys.readouterr().err


def test_venv_python_on_both_kinds_of_system(slotid_run):
    assert str(slotid_run.venv_python(PurePosixPath("/a b/.venv"), windows=False)) == "/a b/.venv/bin/python"
    windows = slotid_run.venv_python(PureWindowsPath(r"C:\a b\.venv"), windows=True)
    assert str(windows) == r"C:\a b\.venv\Scripts\python.exe"


def test_host_from_the_environment_comes_first(slotid_run, tmp_path):
    named, default = make_host(tmp_path / "mine"), make_host(tmp_path / "comfy" / "ComfyUI")
    assert slotid_run.find_host({"COMFYUI_PATH": str(named)}, tmp_path) == named
    assert slotid_run.find_host({}, tmp_path) == default
    assert slotid_run.find_host({"COMFYUI_PATH": ""}, tmp_path) == default


def test_no_host(slotid_run, tmp_path):
    assert slotid_run.find_host({}, tmp_path) is None


def test_a_named_host_that_is_none_is_an_error(slotid_run, tmp_path):
    make_host(tmp_path / "comfy" / "ComfyUI")
    with pytest.raises(slotid_run.SetupError, match="no ComfyUI checkout: it has no main.py"):
        slotid_run.find_host({"COMFYUI_PATH": str(tmp_path)}, tmp_path)


def test_plans(slotid_run, checkout, tmp_path):
    host = make_host(tmp_path / "ComfyUI")
    demo, demo_files = slotid_run.install_plan("demo", None)
    alone, _ = slotid_run.install_plan("test", None)
    hosted, hosted_files = slotid_run.install_plan("test", host)
    assert demo[-2:] == ["-e", "."] and alone[-2:] == ["-e", ".[test]"]
    assert set(demo) - {"."} <= set(alone) and hosted == [*alone, "torch<2.15", "-r", str(host / "requirements.txt")]
    assert set(hosted_files) - set(demo_files) == {host / "requirements.txt"}


def test_fingerprint_follows_everything_that_decides_an_install(slotid_run, checkout, tmp_path, monkeypatch):
    host = make_host(tmp_path / "ComfyUI")

    def now(command="test", host=host, python="3.11.7"):
        return slotid_run.fingerprint(*slotid_run.install_plan(command, host), python)

    seen = [now(), now("demo", None), now(host=None), now(python="3.12.0")]
    training, project = checkout / "training" / "requirements.txt", checkout / "pyproject.toml"
    for file in (host / "requirements.txt", training, project):
        file.write_text(file.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")
        seen.append(now())
    assert now() == seen[-1]
    monkeypatch.setattr(slotid_run, "ROOT", checkout.rename(tmp_path / "moved"))
    seen.append(now())
    assert len(set(seen)) == len(seen)


def test_stamp_is_whole_or_not_there(slotid_run, tmp_path):
    stamp = tmp_path / "stamp.json"
    assert slotid_run.read_stamp(stamp) == {}
    slotid_run.write_stamp(stamp, {"demo": "a"})
    assert slotid_run.read_stamp(stamp) == {"demo": "a"}
    assert [path.name for path in tmp_path.iterdir()] == ["stamp.json"]
    for damaged in ("", '{"demo": "a', "[1]", "\x00"):
        stamp.write_text(damaged, encoding="utf-8")
        assert slotid_run.read_stamp(stamp) == {}


@pytest.fixture
def installs(slotid_run, checkout, monkeypatch):
    """prepare() with its three contacts to the world replaced; returns the list of what it did."""
    done = []

    def make_venv():
        done.append("venv")
        slotid_run.VENV.mkdir(exist_ok=True)

    monkeypatch.setattr(slotid_run, "make_venv", make_venv)
    there = slotid_run.VENV.is_dir
    monkeypatch.setattr(slotid_run, "python_version", lambda python: "3.11.7" if there() else None)
    monkeypatch.setattr(slotid_run, "is_usable", lambda python: there())
    monkeypatch.setattr(slotid_run, "pip_install", lambda python, arguments: done.append(arguments[-1]))
    return done


def test_second_start_is_instant(slotid_run, installs):
    slotid_run.prepare("demo", None)
    slotid_run.prepare("demo", None)
    assert installs == ["venv", "."]


def test_tests_contain_the_demo_but_not_the_other_way_round(slotid_run, installs):
    slotid_run.prepare("demo", None)
    slotid_run.prepare("test", None)
    slotid_run.prepare("demo", None)
    slotid_run.prepare("test", None)
    assert installs == ["venv", ".", ".[test]"]


def test_a_host_that_appears_or_changes_is_installed_for(slotid_run, installs, tmp_path):
    host = make_host(tmp_path / "ComfyUI")
    slotid_run.prepare("test", None)
    slotid_run.prepare("test", host)
    slotid_run.prepare("test", host)
    (host / "requirements.txt").write_text("torchvision\nkornia\n", encoding="utf-8")
    slotid_run.prepare("test", host)
    assert installs == ["venv", ".[test]", *[str(host / "requirements.txt")] * 2]


def test_an_interrupted_install_is_repeated(slotid_run, installs, checkout, monkeypatch):
    slotid_run.prepare("demo", None)
    before = (checkout / "pyproject.toml").read_text(encoding="utf-8")
    (checkout / "pyproject.toml").write_text("[project]\nname = 'x'\n", encoding="utf-8")

    def interrupted(python, arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(slotid_run, "pip_install", interrupted)
        with pytest.raises(KeyboardInterrupt):
            slotid_run.prepare("demo", None)
    # Even with the old requirements back: nobody knows what the interrupted pip had already changed.
    (checkout / "pyproject.toml").write_text(before, encoding="utf-8")
    slotid_run.prepare("demo", None)
    assert installs == ["venv", ".", "."]


def test_a_broken_environment_is_made_again(slotid_run, installs, monkeypatch):
    slotid_run.prepare("demo", None)
    monkeypatch.setattr(slotid_run, "python_version", lambda python: None if len(installs) < 3 else "3.11.7")
    monkeypatch.setattr(slotid_run, "is_usable", lambda python: False)
    slotid_run.prepare("demo", None)
    assert installs == ["venv", ".", "venv", "."]


def test_half_made_environments_are_not_usable(slotid_run, tmp_path):
    python = slotid_run.venv_python(tmp_path, windows=False)
    assert not slotid_run.is_usable(python)
    python.parent.mkdir()
    python.write_text("", encoding="utf-8")
    assert not slotid_run.is_usable(python)
    assert slotid_run.is_usable(Path(sys.executable))


def test_python_without_venv_is_told_what_to_install(slotid_run, checkout, monkeypatch):
    monkeypatch.setattr(slotid_run, "ask_python", lambda python, code: None)
    with pytest.raises(slotid_run.SetupError, match=r"ensurepip[\s\S]*apt install python3\.\d+-venv"):
        slotid_run.make_venv()
    assert not slotid_run.VENV.exists()


PIP_OUTPUT = """\
Collecting torch>=2.5 (from -r training/requirements.txt (line 3))
  Downloading torch-2.9.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (29 kB)
  Downloading torch-2.9.0-cp311-cp311-manylinux_2_28_x86_64.whl (846.9 MB)
  Downloading tqdm-4.67.1-py3-none-any.whl (78 kB)
Installing collected packages: tqdm, torch
"""


def test_compact_progress(slotid_run, capsys):
    class Process:
        stdout = io.BytesIO(PIP_OUTPUT.encode())

    log = io.StringIO()
    seen = slotid_run.follow(Process, log, live=False)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("] ")[1].split("-")[0] for line in shown] == [
        "Downloading torch",
        "Installing the packages: 2",
        "pip has ended",
    ]
    assert log.getvalue() == PIP_OUTPUT and len(seen) == 5


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("OSError: [Errno 28] No space left on device", "disk space"),
        ("WARNING: Retrying after connection broken by 'NewConnectionError'", "network"),
        ("ERROR: Could not find a version that satisfies torch (from versions: none)", "network"),
        ("ERROR: No matching distribution found for torch>=2.5", "3.10 to 3.13"),
    ],
)
def test_failure_names_what_failed_the_command_and_what_to_try(slotid_run, line, advice):
    command = ["/a b/python", "-m", "pip", "install", "torch"]
    text = slotid_run.install_failure(["Collecting torch", line], command)
    assert line in text and advice in text and "delete .venv" in text
    assert "'/a b/python' -m pip install torch" in text or '"/a b/python" -m pip install torch' in text


def test_pips_exit_code_is_kept(slotid_run, checkout, monkeypatch, capsys):
    """A pip that fails, for real: an option that does not exist ends it with 2."""
    slotid_run.VENV.mkdir()
    monkeypatch.setattr(slotid_run, "is_usable", lambda python: True)
    monkeypatch.setattr(slotid_run, "venv_python", lambda venv, windows: Path(sys.executable))
    monkeypatch.setattr(slotid_run, "install_plan", lambda command, host: (["--no-such-option"], []))
    assert slotid_run.main(["demo"]) == 2
    error = capsys.readouterr().err
    assert "no such option" in error and "The command was, in" in error
    assert not slotid_run.STAMP.exists()


def test_the_demo_keeps_the_users_folder_and_arguments(slotid_run, checkout, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slotid_run, "prepare", lambda command, host: Path("python"))
    calls = []
    monkeypatch.setattr(slotid_run, "hand_over", lambda command, cwd: calls.append((command, cwd)) or 7)
    assert slotid_run.main(["demo", "--clip", "my clip.mp4"]) == 7
    sample = str(checkout / "training" / "sample.py")
    assert calls == [(["python", sample, "--demo", "--clip", "my clip.mp4"], tmp_path)]


def test_tests_start_in_the_repository_with_the_persons_paths(slotid_run, checkout, monkeypatch, tmp_path):
    host = make_host(tmp_path / "host")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFYUI_PATH", "host")
    monkeypatch.setattr(slotid_run, "prepare", lambda command, host: Path("python"))
    calls = []
    monkeypatch.setattr(slotid_run, "hand_over", lambda command, cwd: calls.append((command, cwd)) or 0)
    assert slotid_run.main(["test", "--full", "-k", "x"]) == 0
    assert calls == [(["python", "-c", slotid_run.PYTEST_START, "--full", "-k", "x"], checkout)]
    assert slotid_run.os.environ["COMFYUI_PATH"] == str(host)


def test_the_whole_suite_is_shared_out_over_the_cores(slotid_run, checkout, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # the person's own choice stays
    monkeypatch.setattr(slotid_run, "prepare", lambda command, host: Path("python"))
    calls = []
    monkeypatch.setattr(slotid_run, "hand_over", lambda command, cwd: calls.append((command, cwd)) or 0)
    assert slotid_run.main(["test"]) == 0
    ((command, _),) = calls
    assert command[3:] == slotid_run.WHOLE_SUITE and "-n" in command
    assert slotid_run.os.environ["OMP_NUM_THREADS"] == "3"


def test_starting_pytest_leaves_the_repository_off_the_path(slotid_run, repo_root):
    code = slotid_run.PYTEST_START.split("import pytest")[0] + "import json; print(json.dumps(sys.path))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=True)
    assert {"", ".", str(repo_root)}.isdisjoint(json.loads(result.stdout))


def test_help_and_wrong_commands(slotid_run, capsys):
    assert slotid_run.main(["--help"]) == 0 and slotid_run.main([]) == 0
    assert "python run.py demo" in capsys.readouterr().out
    assert slotid_run.main(["tset"]) == 2
    assert "got 'tset', expected demo or test" in capsys.readouterr().err


@pytest.mark.full
def test_a_real_environment_is_made_and_made_again(slotid_run, checkout):
    slotid_run.make_venv()
    python = slotid_run.venv_python(slotid_run.VENV, sys.platform == "win32")
    assert slotid_run.is_usable(python)
    (slotid_run.VENV / "pyvenv.cfg").unlink()
    python.unlink()
    assert not slotid_run.is_usable(python)
    slotid_run.make_venv()
    assert slotid_run.is_usable(python)


@pytest.mark.parametrize("form", [["--install-demo", "there"], ["--install-demo=there"]])
def test_the_demos_files_are_copied_without_an_install(slotid_run, monkeypatch, form):
    started = []
    monkeypatch.setattr(slotid_run, "prepare", lambda *_: pytest.fail("something was installed"))
    monkeypatch.setattr(slotid_run, "hand_over", lambda command, cwd: started.append(command) or 0)
    assert slotid_run.main(["demo", *form]) == 0
    ((python, program, *arguments),) = started
    assert python == sys.executable and program.endswith("demo_models.py") and arguments == form
