#!/usr/bin/env python3
"""Slot-ID from a fresh clone: makes .venv beside this file, installs into it, and runs there. Standard library only.

The syntax is held to what Python 3.6 parses, so that an older Python gets a sentence instead of a SyntaxError.
"""

import hashlib
import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

USAGE = """\
usage: python run.py demo [options]   reference clip + prompt -> identity -> generated video
       python run.py test [options]   run the tests
       python run.py --help           this text

  demo options (all of them: python run.py demo --help), for example
      --clip FILE --prompt TEXT       your own reference clip and prompt; FILE is relative to where you are.
                                      Finding the face needs dlib or insightface, which is not installed here for
                                      you, since their weights are not free for every use; the error says how.
      --clip FILE --box X,Y,W,H       the same, and you say where the face is: nothing more is needed
      --install-demo COMFYUI          only copies what the demo workflows need into that folder; installs nothing
  test options
      --full                          also the heavy campaigns
      tests/core -k NAME -x ...       anything pytest takes; paths are relative to the repository

The first start makes .venv beside run.py and installs into it (a few minutes, several GB, mostly PyTorch);
later starts go straight on. Delete .venv to begin anew. pip's own settings (its environment variables and its
configuration file) apply, for instance to choose a CPU-only PyTorch.

Tests against ComfyUI use the checkout at COMFYUI_PATH, else at ~/comfy/ComfyUI, and skip where there is none;
with SLOTID_REQUIRE_HOST=1 they fail instead. Real clips (clips/*.mp4) are yours, in SLOTID_SHARED or ../shared.
"""

MIN_PYTHON = (3, 10)
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "slotid-install.json"
LOG = VENV / "slotid-install.log"
NO_HOST = "needs a ComfyUI checkout: set COMFYUI_PATH or place one at ~/comfy/ComfyUI"

# `python -m pytest` would put the repository first on sys.path, where nodes/ hides ComfyUI's own nodes.py.
PYTEST_START = "import sys; sys.path[:] = [p for p in sys.path if p]; import pytest; sys.exit(pytest.main())"
# Without arguments a process for each core, up to four; with some it is one, so that -x, -s and --pdb work as ever.
WHOLE_SUITE = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"]


class SetupError(Exception):
    """What a person has to put right; `code` is the exit status."""

    def __init__(self, message, code=1):
        super().__init__(message)
        self.code = code


def old_python_message(version, executable):
    """The sentence for a Python older than MIN_PYTHON, or None for one that will do."""
    if tuple(version[:2]) >= MIN_PYTHON:
        return None
    return (
        f"Slot-ID needs Python {MIN_PYTHON[0]}.{MIN_PYTHON[1]} or newer, but this is Python "
        f"{version[0]}.{version[1]} ({executable}).\n"
        "Install a newer Python and start run.py with it, for example: python3.12 run.py demo"
    )


def venv_python(venv, windows):
    """The interpreter inside a virtual environment."""
    return venv / "Scripts" / "python.exe" if windows else venv / "bin" / "python"


def find_host(environ, home):
    """The ComfyUI checkout that the tests run against, or None.

    COMFYUI_PATH wins; then comfy-cli's default folder. A COMFYUI_PATH that is no checkout raises SetupError:
    the person asked for that one.
    """
    named = environ.get("COMFYUI_PATH", "")
    root = Path(named).expanduser().resolve() if named else home / "comfy" / "ComfyUI"
    missing = [name for name in ("main.py", "comfy", "requirements.txt") if not (root / name).exists()]
    if not missing:
        return root
    if named:
        raise SetupError(f"COMFYUI_PATH is {root}, which is no ComfyUI checkout: it has no {missing[0]}.")
    return None


def install_plan(command, host):
    """What pip is asked for, and the files that decide it: ([pip arguments], [files]).

    Everything goes to pip in ONE request. `demo` installs torch alone and ComfyUI adds torchvision later,
    which is built against one torch: seeing both, pip keeps the torch that is there or moves the two
    together. Asked piecemeal, each step could undo what an earlier one chose. `test` contains all of `demo`.
    """
    training = Path("training") / "requirements.txt"
    files = [ROOT / training, ROOT / "pyproject.toml"]
    arguments = ["-r", str(training), "-e", ".[test]" if command == "test" else "."]
    if command == "test" and host is not None:
        # torchaudio 2.11, the last release, refuses at import a torch built for a CUDA other than 13.0: that is 2.15.
        arguments += ["torch<2.15", "-r", str(host / "requirements.txt")]
        files.append(host / "requirements.txt")
    return arguments, files


def fingerprint(arguments, files, python_version):
    """Changes when an install has to be repeated: other requirements, another Python, a moved checkout."""
    digest = hashlib.sha256(json.dumps([str(ROOT), python_version, arguments]).encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def read_stamp(path):
    """The fingerprints of what is installed, by command; empty where nothing is, or the file is damaged."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(path, stamp):
    """Write a stamp so that it is there whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(stamp), encoding="utf-8")
    os.replace(str(partial), str(path))


def ask_python(python, code):
    """What `code` prints in an interpreter cut off from the surroundings, or None where it fails."""
    try:
        command = [str(python), "-I", "-c", code]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return None
    return result.stdout.decode("ascii", "replace").strip() if result.returncode == 0 else None


def python_version(python):
    return ask_python(python, "import sys; print('%d.%d.%d' % sys.version_info[:3])")


def is_usable(python):
    """Whether a virtual environment is whole: its Python runs, is new enough, and has a working pip."""
    version = python_version(python)
    if version is None or tuple(int(part) for part in version.split(".")[:2]) < MIN_PYTHON:
        return False
    return ask_python(python, "import pip._internal.cli.main") is not None


def make_venv():
    if Path(sys.prefix).resolve() == VENV:
        raise SetupError(f"{VENV} is broken, and this Python runs from inside it: start run.py with another.")
    if ask_python(sys.executable, "import venv, ensurepip") is None:
        raise SetupError(
            f"This Python ({sys.executable}) cannot make virtual environments: its modules venv and "
            "ensurepip are not installed.\n"
            f"On Debian or Ubuntu: sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv\n"
            "Elsewhere: install a complete Python 3.10 or newer and start run.py with it."
        )
    print(f"Making {VENV}", flush=True)
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode != 0:
        raise SetupError(
            f"{result.stdout.decode('utf-8', 'replace').strip()}\n\n"
            f"The virtual environment could not be made. The command was:\n  {quoted(command)}",
            result.returncode,
        )


def quoted(command):
    """A command line to paste into this system's shell."""
    return subprocess.list2cmdline(command) if os.name == "nt" else " ".join(map(shlex.quote, command))


def progress_of(line, live):
    """The short form of a line of pip's output that is worth showing, or None.

    A terminal overwrites one line, so everything may pass; elsewhere only what takes long is kept.
    """
    line = line.strip()
    if line.startswith("Installing collected packages"):
        return f"Installing the packages: {line.count(',') + 1}"
    if line.startswith(("Downloading ", "Using cached ")) and ".metadata" not in line:
        size = re.search(r"\(([\d.]+) ([MG])B\)", line)
        large = size is not None and (size.group(2) == "G" or float(size.group(1)) >= 20)
        return line if live or large else None
    return line.split(" (from ")[0] if live and line.startswith("Collecting ") else None


def follow(process, log, live):
    """Log a pip's output and show its progress; returns its lines once it has ended."""
    lines = queue.Queue()

    def read():
        for raw in process.stdout:
            lines.put(raw.decode("utf-8", "replace").rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    began, seen, shown = time.monotonic(), [], "Asking for packages"
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            line = ""  # nothing new: only the clock moves on
        if line is None:
            break
        if line:
            seen.append(line)
            log.write(line + "\n")
        news = progress_of(line, live)
        shown = news or shown
        clock = f"[{time.monotonic() - began:4.0f} s]"
        if live:
            width = max(20, shutil.get_terminal_size().columns - len(clock) - 2)
            print(f"\r{clock} {shown[:width]:{width}}", end="", flush=True)
        elif news:
            print(f"{clock} {news}", flush=True)
    print(("\n" if live else "") + f"[{time.monotonic() - began:4.0f} s] pip has ended", flush=True)
    return seen


def pip_install(python, arguments):
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command = [str(python), "-m", "pip", "install", *options, *arguments]
    print("Installing (only now; interrupted or failed, it is repeated at the next start)", flush=True)
    process = subprocess.Popen(
        command, cwd=str(ROOT), env=dict(os.environ, PYTHONIOENCODING="utf-8"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        with LOG.open("w", encoding="utf-8") as log:
            seen = follow(process, log, sys.stdout.isatty())
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.wait() != 0:
        raise SetupError(install_failure(seen, command), process.returncode)


def install_failure(seen, command):
    """What failed, the command, and what to try."""
    text = "\n".join(seen[-25:])
    tries = []
    if "No space left" in text or "Errno 28" in text:
        tries.append("free some disk space: about 10 GB are needed, mostly for PyTorch")
    offline = ("Temporary failure", "Connection", "Retrying", "timed out", "from versions: none")
    if any(sign in text for sign in offline):
        tries.append("check the network and any proxy settings, then start the same command again")
    if "No matching distribution" in text or "Failed building" in text or "Failed to build" in text:
        tries.append(
            "use a Python from 3.10 to 3.13, as packages may not be ready for a newer one (this is "
            f"{sys.version_info[0]}.{sys.version_info[1]}), and delete .venv when you change it"
        )
    tries.append("delete .venv and start again")
    advice = "\n".join(f"  - {item}" for item in tries)
    return (
        f"{text}\n\nThe installation failed. pip's whole output is in {LOG}\n"
        f"The command was, in {ROOT}:\n  {quoted(command)}\nWhat to try:\n{advice}"
    )


def prepare(command, host):
    """Bring .venv up to what `command` needs; returns its interpreter."""
    python = venv_python(VENV, os.name == "nt")
    arguments, files = install_plan(command, host)
    version = python_version(python)
    if version is not None and read_stamp(STAMP).get(command) == fingerprint(arguments, files, version):
        return python

    if not is_usable(python):
        if VENV.exists():
            print(f"{VENV} is broken or half-made", flush=True)
        make_venv()
    # An install that is cut short leaves neither the old state nor the new one.
    if STAMP.exists():
        STAMP.unlink()
    pip_install(python, arguments)

    version = python_version(python)
    stamp = {command: fingerprint(arguments, files, version)}
    if command == "test":
        stamp["demo"] = fingerprint(*install_plan("demo", None), version)
    write_stamp(STAMP, stamp)
    return python


def hand_over(command, cwd):
    """Become `command`; where the system cannot (Windows), run it and return its exit status."""
    sys.stdout.flush()
    if os.name != "nt":
        os.chdir(str(cwd))
        os.execv(command[0], command)
    process = subprocess.Popen(command, cwd=str(cwd))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            pass  # Ctrl+C reached the child too: how it ends is its decision


def main(argv):
    message = old_python_message(sys.version_info, sys.executable)
    if message:
        print(message, file=sys.stderr)
        return 1
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    command, arguments = argv[0], argv[1:]
    if command not in ("demo", "test"):
        print(f"run.py: got {command!r}, expected demo or test.\n\n{USAGE}", file=sys.stderr)
        return 2
    if command == "demo" and any(a.split("=")[0] == "--install-demo" for a in arguments):
        # Nothing has to be installed for that.
        return hand_over([sys.executable, str(ROOT / "training" / "demo_models.py"), *arguments], Path.cwd())
    try:
        host = find_host(os.environ, Path.home()) if command == "test" else None
        python = str(prepare(command, host))
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    if command == "demo":
        return hand_over([python, str(ROOT / "training" / "sample.py"), "--demo", *arguments], Path.cwd())
    for name in ("COMFYUI_PATH", "SLOTID_SHARED"):
        if os.environ.get(name):  # pytest starts in another folder than the person did
            os.environ[name] = str(Path(os.environ[name]).expanduser().resolve())
    if not arguments:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    return hand_over([python, "-c", PYTEST_START, *(arguments or WHOLE_SUITE)], ROOT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
