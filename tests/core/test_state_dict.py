"""The names, shapes and dtypes in a weights file are frozen: released files must keep loading."""

import json
from pathlib import Path

from safetensors import safe_open

from slotid_core.checkpoint import save_weights, untrained_weights

SNAPSHOT = Path(__file__).with_name("state_dict_tiny.json")


def test_tensors_of_the_tiny_preset_are_the_frozen_ones(tmp_path):
    save_weights(tmp_path / "tiny.safetensors", untrained_weights("tiny"))
    with safe_open(tmp_path / "tiny.safetensors", framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}
        got = {name: [s.get_dtype(), *s.get_shape()] for name, s in slices.items()}
    frozen = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    changed = sorted(name for name in got.keys() | frozen.keys() if got.get(name) != frozen.get(name))
    assert not changed, (
        f"{changed} differ from {SNAPSHOT.name}. Files that people have would no longer load: if that is meant, raise "
        "FORMAT_VERSION in slotid_core/checkpoint.py, decide what becomes of old files, and edit the snapshot."
    )
