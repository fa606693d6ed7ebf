"""Reading a shard whose header is remembered."""

import os

import pytest
import torch
from safetensors.torch import save_file

from slotid_core.errors import SlotIDError
from training.data.shard_file import Shard


def test_a_header_is_remembered_until_the_file_is_another(tmp_path):
    path = tmp_path / "shards" / "a.safetensors"
    path.parent.mkdir()
    first = {"x": torch.randn(3, 5), "empty": torch.zeros(0, 4), "y": torch.randn(7).bfloat16()}
    save_file(first, path)
    shard = Shard(path)
    for _ in range(2):
        for name, tensor in zip(first, shard.read(first), strict=True):
            assert torch.equal(tensor, first[name]) and tensor.dtype == first[name].dtype
    with pytest.raises(SlotIDError, match="a.safetensors of .*does not contain tensor z"):
        shard.read(["z"])
    second = {"w": torch.randn(4), "x": torch.randn(2, 2)}
    save_file(second, tmp_path / "new")
    os.replace(tmp_path / "new", path)
    assert torch.equal(shard.read(["x"])[0], second["x"])
    whole = path.read_bytes()
    for spoil in (lambda: path.write_bytes(whole[:-3]), lambda: path.write_bytes(b""), path.unlink):
        spoil()
        with pytest.raises(SlotIDError, match="a.safetensors of .* Run prepare.py again"):
            shard.read(["x"])
    path.write_bytes(whole)
    assert torch.equal(shard.read(["x"])[0], second["x"])
