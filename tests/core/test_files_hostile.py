"""Files that are damaged, foreign or made to harm: each is refused by name, with the reason, and nothing runs."""

import pickle
import random
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from slotid_core.errors import SlotIDError
from slotid_core.lora import to_tensors

KINDS = ["weights", "identity"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_of_ours(kind, good, tmp_path, make_weights, refused):
    path = tmp_path / "bad.safetensors"
    refused(kind, tmp_path / "nowhere" / "none.safetensors", "There is no file")
    refused(kind, tmp_path, "There is no file")
    (tmp_path / "folder.safetensors").mkdir()
    refused(kind, tmp_path / "folder.safetensors", "There is no file")

    for suffix in (".pt", ".ckpt", ".bin", ".sft", ""):
        renamed = tmp_path / f"renamed{suffix}"
        renamed.write_bytes(good[kind].read_bytes())
        refused(kind, renamed, "only .safetensors files are read")

    path.write_bytes(b"")
    refused(kind, path, "it is empty")
    path.write_bytes(random.Random(0).randbytes(4096))
    refused(kind, path, "damaged")
    path.write_bytes(b"\0" * 4096)
    refused(kind, path, "damaged")
    path.write_text("<!DOCTYPE html><html>404 Not Found</html>")
    refused(kind, path, "damaged")
    save_file(to_tensors(make_weights().lora), path)
    refused(kind, path, "no Slot-ID metadata", "plain LoRA")
    save_file(to_tensors(make_weights().lora), path, metadata={"format": "pt"})
    refused(kind, path, "no Slot-ID metadata")
    other = next(k for k in KINDS if k != kind)
    refused(kind, good[other], f"it is a Slot-ID '{other}' file. Choose a {kind} file")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_may_not_be_read(kind, good, unreadable, refused):
    with unreadable(good[kind]) as closed:
        refused(kind, closed, "it can't be read (Permission denied)")


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_anywhere_or_too_long(kind, good, tmp_path, refused):
    content, path = good[kind].read_bytes(), tmp_path / "cut.safetensors"
    header_end = 8 + struct.unpack("<Q", content[:8])[0]
    near = [edge + d for edge in (8, header_end, len(content)) for d in (-2, -1, 0, 1, 2)]
    spread = [i * len(content) // 40 for i in range(40)]
    for length in sorted({0, 1, 2, 7, *near, *spread} - {len(content)}):
        path.write_bytes(content[:length] + b"\0" * max(0, length - len(content)))
        refused(kind, path, "it is empty", "it is damaged")


@pytest.mark.parametrize("length", [0, 1, 100, 2**20, 100_000_001, 2**31, 2**63, 2**64 - 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_header_length_that_lies(kind, length, good, tmp_path, refused):
    path = tmp_path / "lies.safetensors"
    path.write_bytes(struct.pack("<Q", length) + good[kind].read_bytes()[8:])
    refused(kind, path, "damaged")


def flipped(content: bytes, seed: int) -> bytes:
    """One to three bytes changed, in the header for every other seed."""
    rng = random.Random(seed)
    header_end = 8 + struct.unpack("<Q", content[:8])[0]
    low, high = (0, header_end) if seed % 2 else (header_end, len(content))
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        damaged[rng.randrange(low, high)] ^= rng.randint(1, 255)
    return bytes(damaged)


def flip_and_load(load, save, content: bytes, seeds, tmp_path) -> int:
    """How many damaged files were refused. One that loads must hold what the good one holds."""
    path, again, refusals = tmp_path / "flipped.safetensors", tmp_path / "again.safetensors", 0
    for seed in seeds:
        path.write_bytes(flipped(content, seed))
        try:
            loaded = load(path)
        except SlotIDError as error:
            assert path.name in str(error)
            refusals += 1
            continue
        save(again, loaded)
        assert again.read_bytes() == content, f"seed {seed}: damage was not seen"
    return refusals


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_are_seen(kind, good, tmp_path, file_kinds):
    assert flip_and_load(*file_kinds[kind], good[kind].read_bytes(), range(120), tmp_path) > 100


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_many_flipped_bytes_are_seen(kind, good, tmp_path, file_kinds):
    flip_and_load(*file_kinds[kind], good[kind].read_bytes(), range(120, 6000), tmp_path)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_does_not_run(kind, tmp_path, refused):
    marker = tmp_path / "it ran"
    contents = [pickle.dumps(Evil(marker), protocol=protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    contents.append(b"\x80\x02K\x01000{" + contents[2][2:])  # a brace where safetensors has one
    for zipped in (True, False):
        torch.save({"x": Evil(marker)}, tmp_path / "x", _use_new_zipfile_serialization=zipped)
        contents.append((tmp_path / "x").read_bytes())
    with zipfile.ZipFile(tmp_path / "y", "w") as archive:
        archive.writestr("data.pkl", contents[2])
    contents.append((tmp_path / "y").read_bytes())

    for i, content in enumerate(contents):
        for suffix in (".safetensors", ".pt", ".pkl"):
            path = tmp_path / f"evil {i}{suffix}"
            path.write_bytes(content)
            refused(kind, path, "pickle", "damaged", "other formats can run code")
    assert not marker.exists()
    pickle.loads(contents[2]).close()
    assert marker.exists(), "the test must be able to fail"
