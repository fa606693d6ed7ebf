"""Time that the pack adds to ComfyUI's start: each figure from fresh Python processes.

    python benchmarks/bench_import.py [--out FILE]

The core is imported on top of torch, which ComfyUI has loaded long before. The pack is loaded as ComfyUI loads it, by
path, after ComfyUI's own ``nodes``, up to and with the schemas of its nodes; this needs a checkout (COMFYUI_PATH, or
~/comfy/ComfyUI) whose requirements are installed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from machine import describe, load_average, run_facts

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from run import find_host  # noqa: E402

GOAL_S = 0.3

# Each program runs as `python -c PROGRAM ROOT [HOST]`.
MEASURED = """
import json, sys, time
before = set(sys.modules)
start = time.perf_counter()
WORK
seconds = time.perf_counter() - start
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print("RESULT" + json.dumps({"seconds": seconds, "new_packages": sorted(n for n in new if n.isidentifier())}))
"""

CORE = """
import importlib, pkgutil, sys
import numpy, safetensors.torch, torch
sys.path.insert(0, sys.argv[1])
""" + MEASURED.replace(
    "WORK",
    """
import slotid_core
for module in pkgutil.walk_packages(slotid_core.__path__, "slotid_core."):
    importlib.import_module(module.name)
""",
)

PACK = """
import asyncio, importlib.util, sys
root, host = sys.argv[1:]
sys.path.insert(0, host)
from comfy.cli_args import args
args.cpu = True
import nodes
import comfy_api.latest
name = root.replace(".", "_x_")
""" + MEASURED.replace(
    "WORK",
    """
spec = importlib.util.spec_from_file_location(name, root + "/__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)

async def schemas():
    extension = await module.comfy_entrypoint()
    await extension.on_load()
    return [node.GET_SCHEMA() for node in await extension.get_node_list()]

asyncio.run(schemas())
""",
)


def measure(program: str, cwd: Path, arguments: list[str], repeats: int) -> dict:
    """Median over fresh processes, after one that fills the disk cache."""
    runs = []
    for _ in range(repeats + 1):
        done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=cwd, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the measured process failed:\n{done.stderr[-2000:]}")
        line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
        runs.append(json.loads(line.removeprefix("RESULT")))
    seconds = [run["seconds"] for run in runs[1:]]
    return {
        "median_s": round(statistics.median(seconds), 4),
        "fastest_s": round(min(seconds), 4),
        "first_s": round(runs[0]["seconds"], 4),
        "repeats": repeats,
        "new_packages": [name for name in runs[-1]["new_packages"] if name not in sys.stdlib_module_names],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "import.json")
    arguments = parser.parse_args()
    report = {
        **run_facts(__file__, seed=None),
        "machine": describe("cpu"),
        "goal_s": GOAL_S,
        "results": {"every module of slotid_core": measure(CORE, ROOT, [str(ROOT)], arguments.repeats)},
    }
    host = find_host(os.environ, Path.home())
    if host is None:
        print("no ComfyUI checkout (COMFYUI_PATH, ~/comfy/ComfyUI): the pack is not measured", file=sys.stderr)
    else:
        paths = [str(ROOT), str(host)]
        report["results"]["the pack in ComfyUI"] = measure(PACK, host, paths, arguments.repeats)
    report["machine"]["load_average_at_end"] = load_average()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, result in report["results"].items():
        print(f"{name}: {result['median_s']:.3f} s (goal {GOAL_S} s)")
    print(arguments.out)


if __name__ == "__main__":
    main()
