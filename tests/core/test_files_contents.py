"""Well-formed files with wrong contents: documents, configs, tensors and shapes that are refused with the reason."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from slotid_core import checkpoint
from slotid_core.config import SlotIDConfig
from slotid_core.errors import SlotIDError
from slotid_core.model import SlotID
from slotid_core.safe_file import write

KINDS = ["weights", "identity"]


def metadata_of(path) -> dict:
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    return json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]


def write_with_metadata(path, good_path, text: str) -> None:
    """The good file's tensors under another document, so that whatever is refused is the document."""
    save_file(load_file(good_path), path, metadata={**metadata_of(good_path), "slotid": text})


DOCUMENTS = {
    "no JSON": ("{kind: weights}", "no JSON"),
    "empty": ("", "no JSON"),
    "a list": ("[1, 2]", "Slot-ID [1, 2] file"),
    "a string": ('"weights"', "file. Choose"),
    "no kind": ("{}", "Slot-ID None file"),
    "deep": ("[" * 100_000, "no JSON"),
    "deep in an object": ('{"kind":' * 100_000, "no JSON"),
    "deep kind": ('{"kind": %s}' % ("[" * 900 + "]" * 900), "Can't use bad"),
    "a long kind": (json.dumps({"kind": "x" * 900_000}), "file. Choose"),
    "2 MB": (json.dumps({"kind": "weights", "x": "x" * 2_000_000}), "characters, at most"),
    "a huge number": ('{"kind": %s}' % ("9" * 100_000), "Can't use bad"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", list(DOCUMENTS))
def test_a_hostile_document(name, kind, good, tmp_path, refused):
    text, reason = DOCUMENTS[name]
    write_with_metadata(tmp_path / "bad.safetensors", good[kind], text)
    refused(kind, tmp_path / "bad.safetensors", reason)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("version", "reason"),
    [(2, "Update Slot-ID"), (10**4000, "Update Slot-ID"), (0, "version is 0"), ("1", "version is '1'")]
    + [(None, "version is None"), (True, "version is True"), (1.0, "version is 1.0"), (["x" * 10**5], "version is")],
    ids=lambda value: str(value)[:20],
)
def test_another_format_version(version, reason, kind, good, tmp_path, refused):
    document = {**json.loads(metadata_of(good[kind])["slotid"]), "format_version": version}
    write_with_metadata(tmp_path / "bad.safetensors", good[kind], json.dumps(document))
    refused(kind, tmp_path / "bad.safetensors", reason)


def change_document(good_path, path, **changes) -> None:
    document = {**json.loads(metadata_of(good_path)["slotid"]), **changes}
    write_with_metadata(path, good_path, json.dumps(document))


def huge(**parts) -> dict:
    """A config of the small Wan with parts enlarged."""
    config = SlotIDConfig.preset("tiny").to_dict()
    return {
        name: {**value, **parts.get(name, {})} if isinstance(value, dict) else value for name, value in config.items()
    }


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "its config is not valid"),
        ([], "its config is not valid"),
        ({}, "config.backbone"),
        (huge(encoder={"width": 10**9}), "encoder.width"),
        (huge(encoder={"layers": 10**9}), "encoder.layers"),
        (huge(backbone={"blocks": 10**9}), "backbone.blocks"),
        (huge(lora={"rank": 10**9}), "lora.rank"),
        (huge(encoder={"width": "x" * 10**5}), "encoder.width"),
        (huge(encoder={"x" * 10**5: 1}), "encoder.x"),
        # Within the ranges, and terabytes if any of it were made before the shapes were compared:
        (
            huge(encoder={"width": 8192, "layers": 64, "mlp_ratio": 16}, backbone={"dim": 16384, "blocks": 256}),
            "missing",
        ),
        (huge(encoder={"kind": "conv_pool", "width": 8192, "layers": 64}, reader={"slots": 64}), "missing"),
        (huge(film={"hidden": 8192, "rank": 1024, "fraction": 1.0}, lora={"rank": 1024}), "expected"),
    ],
    ids=range(12),
)
def test_a_hostile_config(config, reason, good, tmp_path, monkeypatch, refused):
    class Guarded(SlotID):
        def __init__(self, config):
            assert torch.empty(0).device.type == "meta", "memory would be taken before the shapes were compared"
            super().__init__(config)

    monkeypatch.setattr(checkpoint, "SlotID", Guarded)
    change_document(good["weights"], tmp_path / "bad.safetensors", config=config)
    refused("weights", tmp_path / "bad.safetensors", reason)


@pytest.mark.parametrize("facts", [None, [], "many steps", 3])
def test_facts_are_a_mapping(facts, good, tmp_path, refused):
    change_document(good["weights"], tmp_path / "bad.safetensors", facts=facts)
    refused("weights", tmp_path / "bad.safetensors", "training facts")


@pytest.mark.parametrize(
    "changes", [{"facts": {"trained_steps": 10**6}}, {"config": {"gate": {"shift": 3.0}}}], ids=str
)
def test_a_document_that_was_edited(changes, good, tmp_path, refused):
    document = json.loads(metadata_of(good["weights"])["slotid"])
    if "config" in changes:
        changes = {"config": {**document["config"], "gate": {**document["config"]["gate"], "shift": 3.0}}}
    change_document(good["weights"], tmp_path / "bad.safetensors", **changes)
    refused("weights", tmp_path / "bad.safetensors", "the hash differs")


@pytest.mark.parametrize("name", ["weights_hash", "clip_hash", "portrait_hash"])
@pytest.mark.parametrize("value", [None, "", "a" * 63, "A" * 64, "a" * 64 + "\n", 7, ["a" * 10**5]], ids=range(7))
def test_an_identity_names_hashes(name, value, good, tmp_path, refused):
    change_document(good["identity"], tmp_path / "bad.safetensors", **{name: value})
    refused("identity", tmp_path / "bad.safetensors", name)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *(({name: value}, name) for name in ("brightness", "size_px", "sharpness") for value in (None, [1e7, 2e7])),
        *(
            ({"yaw": value}, "yaw")
            for value in ([0.0], [1.0, -1.0], [float("nan"), 0.0], [0.0, float("inf")], [0, "1"], [False, True])
        ),
        *(({"yaw": value}, "yaw") for value in ([-181, 0], [0, 10**400], {"low": 0}, "00", [[0] * 10**4, 1])),
        *(({"faces": value}, "faces") for value in (0, -1, 9.0, True, None, 34, 10**400, "9" * 10**5)),
        *(({"frames": value}, "frames") for value in (0, "33", 10**7)),
        *(({"first_frame": value}, "first_frame") for value in (-1, None, 0.5)),
        *(({"backend": value}, "backend") for value in ("", None, 7, "x" * 10**5, "a\nb", "\x1b[2J")),
        *(({"missing": value}, "missing") for value in (None, "no blink", [7], [""], ["x" * 10**5], ["a\nb"])),
        *(({"missing": value}, "missing") for value in (["\x1b[2J"], ["no blink"] * 10**4, {"no blink": 1})),
        ({"x" * 10**5: 1}, "got {"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_hostile_coverage(changes, reason, good, tmp_path, refused):
    coverage = json.loads(metadata_of(good["identity"])["slotid"])["coverage"]
    change_document(good["identity"], tmp_path / "bad.safetensors", coverage={**coverage, **changes})
    refused("identity", tmp_path / "bad.safetensors", f"its coverage is not valid: {reason}")


@pytest.mark.parametrize("coverage", [None, [], "none", 3, {}, {"yaw": [0, 1]}], ids=str)
def test_a_coverage_is_a_mapping_with_every_name(coverage, good, tmp_path, refused):
    change_document(good["identity"], tmp_path / "bad.safetensors", coverage=coverage)
    refused("identity", tmp_path / "bad.safetensors", "expected a mapping with the names backend, brightness")


def float_name(kind: str) -> str:
    return "model.reader.queries" if kind == "weights" else "clip_tokens_BSE"


TENSORS = {
    "missing": (lambda t, name: t.pop(name), ("missing", "has shape []")),
    "extra": (lambda t, name: t.update(extra=torch.zeros(1)), ("do not belong",)),
    "extra with a long name": (lambda t, name: t.update({"x" * 10**5: torch.zeros(1)}), ("do not belong",)),
    "transposed": (lambda t, name: t.update({name: t[name].mT.contiguous()}), ("expected", "belong together")),
    "flat": (lambda t, name: t.update({name: t[name].flatten()}), ("expected",)),
    "empty": (lambda t, name: t.update({name: t[name][..., :0].contiguous()}), ("expected",)),
    "integers": (lambda t, name: t.update({name: t[name].long()}), ("expected torch.float32",)),
    "float64": (lambda t, name: t.update({name: t[name].double()}), ("expected torch.float32",)),
    "float8": (lambda t, name: t.update({name: t[name].to(torch.float8_e4m3fn)}), ("expected torch.float32",)),
    "bool": (lambda t, name: t.update({name: t[name] > 0}), ("expected torch.float32",)),
    "NaN": (lambda t, name: t[name].view(-1)[-1:].fill_(float("nan")), ("holds NaN or infinity",)),
    "infinity": (lambda t, name: t[name].view(-1)[:1].fill_(float("-inf")), ("holds NaN or infinity",)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", list(TENSORS))
def test_tensors_that_do_not_fit(name, kind, good, tmp_path, refused):
    """Written by the writer itself, hash and all: what is refused is the tensor."""
    change, reasons = TENSORS[name]
    tensors = load_file(good[kind])
    change(tensors, float_name(kind))
    document = json.loads(metadata_of(good[kind])["slotid"])
    write(tmp_path / "bad.safetensors", document.pop("kind"), document.pop("format_version"), tensors, document)
    refused(kind, tmp_path / "bad.safetensors", *reasons)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edited_tensor(kind, good, tmp_path, refused):
    tensors = load_file(good[kind])
    tensors[float_name(kind)].view(-1)[0] += 1
    save_file(tensors, tmp_path / "bad.safetensors", metadata=metadata_of(good[kind]))
    refused(kind, tmp_path / "bad.safetensors", "the hash differs")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.float32], ids=str)
def test_a_thumbnail_of_other_numbers_is_not_wrapped_into_bytes(dtype, good, tmp_path, refused):
    tensors = load_file(good["identity"])
    tensors["thumbnail_HWC"] = tensors["thumbnail_HWC"].to(dtype)
    document = json.loads(metadata_of(good["identity"])["slotid"])
    write(tmp_path / "bad.safetensors", document.pop("kind"), document.pop("format_version"), tensors, document)
    refused("identity", tmp_path / "bad.safetensors", "thumbnail_HWC is torch", "thumbnail_HWC is I8")


@pytest.mark.parametrize(
    "changes",
    [
        {"portrait_tokens_BKE": (1, 2, 23)},
        {"clip_global_BG": (1, 11)},
        {"clip_tokens_BSE": (2, 6, 24), "portrait_tokens_BKE": (2, 2, 24)},
        {"clip_global_BG": (2, 12), "portrait_global_BG": (2, 12)},
        {"thumbnail_HWC": (8, 6, 4)},
        {"thumbnail_HWC": (8, 20_000, 3)},
        {"clip_tokens_BSE": (1, 6, 24, 1)},
    ],
    ids=str,
)
def test_an_identity_whose_shapes_do_not_belong_together(changes, good, tmp_path, refused):
    tensors = load_file(good["identity"])
    for name, shape in changes.items():
        tensors[name] = torch.zeros(shape, dtype=tensors[name].dtype)
    document = json.loads(metadata_of(good["identity"])["slotid"])
    write(tmp_path / "bad.safetensors", document.pop("kind"), document.pop("format_version"), tensors, document)
    refused("identity", tmp_path / "bad.safetensors", "belong together", "expected")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see what a process has mapped")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_let_go_whether_it_was_loaded_or_refused(kind, good, tmp_path, file_kinds):
    """Windows lets nobody replace a file that is mapped, and an error may live long."""
    load, other = file_kinds[kind][0], good[next(k for k in KINDS if k != kind)]
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    change_document(good[kind], tmp_path / "edited.safetensors", note="an edit")
    held = [load(good[kind])]
    for path in (other, tmp_path / "foreign.safetensors", tmp_path / "edited.safetensors"):
        with pytest.raises(SlotIDError) as error:
            load(path)
        held.append(error)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
