"""The same content is the same file, to the byte."""

import torch
from safetensors import safe_open

from slotid_core import safe_file


def test_writing_again_gives_the_same_bytes(tmp_path):
    tensors = {f"t{n}": torch.arange(n + 1.0) for n in range(9)}
    files = [tmp_path / f"{n}.safetensors" for n in range(8)]
    for path in files:
        safe_file.write(path, "test", 1, tensors, {"a": "ä", "b": 2})
    assert len({path.read_bytes() for path in files}) == 1
    with safe_open(files[0], framework="pt") as file:
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())
    with safe_file.SafeFile(files[0], "test", 1) as file:
        assert file.info["a"] == "ä"
        assert file.read({name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}).keys() == tensors.keys()
