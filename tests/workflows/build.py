"""Writes the shipped workflows and their twins in API format.

    python tests/workflows/build.py http://127.0.0.1:8188

The address is that of a ComfyUI with this pack; what its nodes look like is asked there. ``--out DIR`` writes into
another folder than the repository, ``--info FILE`` reads the answer of ``/object_info`` instead of asking.
"""

import argparse
import json
import urllib.request
from pathlib import Path

import compare_recipes
import demo_recipes
import recipes
from flow import Flow, as_text
from parts import FILES

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {**demo_recipes.WORKFLOWS, **recipes.WORKFLOWS, **compare_recipes.WORKFLOWS}


def build(name: str, info: dict) -> Flow:
    flow = Flow(name, info, FILES)
    WORKFLOWS[name](flow)
    return flow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", nargs="?")
    parser.add_argument("--info", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT)
    args = parser.parse_args()
    if args.info:
        info = json.loads(args.info.read_text(encoding="utf-8"))
    else:
        with urllib.request.urlopen(f"{args.server}/object_info", timeout=60) as answer:
            info = json.loads(answer.read())
    for name in WORKFLOWS:
        flow = build(name, info)
        for folder, graph in (("workflows", flow.workflow()), ("tests/host/server/graphs", flow.graph())):
            path = args.out / folder / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(as_text(graph), encoding="utf-8")


if __name__ == "__main__":
    main()
