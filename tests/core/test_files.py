"""Weights and identity files: what is written is what is read, bit for bit."""

import dataclasses
import os
import stat

import pytest
import torch

from slotid_core.checkpoint import bundle, load_weights, save_weights, untrained_weights
from slotid_core.errors import SlotIDError
from slotid_core.identity_file import load_identity, save_identity
from slotid_core.model import SlotID
from slotid_core.safe_file import content_hash, pixel_hash, write

CONFIGS = {
    "default": {},
    "3DConv-Pool": {"encoder": {"kind": "conv_pool"}},
    "learned dustbin": {"reader": {"dustbin": "learned"}},
    "whole numbers for floats": {"gate": {"start": 1, "end": 1}, "lora": {"alpha": 1}},
    "nothing to store": {"film": {"fraction": 0.0}, "lora": {"rank": 0}},
}


def same_weights(a, b) -> bool:
    states = a.model.state_dict(), b.model.state_dict()
    return (
        a.model.config == b.model.config
        and a.facts == b.facts
        and a.sha256 == b.sha256
        and states[0].keys() == states[1].keys()
        and all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        and a.lora.pairs.keys() == b.lora.pairs.keys()
        and all(
            torch.equal(pair.down_RI, b.lora.pairs[name].down_RI)
            and torch.equal(pair.up_OR, b.lora.pairs[name].up_OR)
            and pair.alpha == b.lora.pairs[name].alpha
            for name, pair in a.lora.pairs.items()
        )
    )


def same_identity(a, b) -> bool:
    hashes = [(i.weights_hash, i.clip_hash, i.portrait_hash) for i in (a, b)]
    tensors = [{**vars(i.embedding), "thumbnail": i.thumbnail_HWC} for i in (a, b)]
    same_tensors = all(torch.equal(tensors[0][n], tensors[1][n]) for n in tensors[0])
    return hashes[0] == hashes[1] and same_tensors and a.coverage == b.coverage


@pytest.mark.parametrize("name", list(CONFIGS))
def test_weights_round_trip(name, tmp_path, make_weights):
    weights = make_weights(facts={"trained_steps": 3, "data": ["ä", None, {"x": 0.1}]}, **CONFIGS[name])
    if "reader" in dict(weights.model.named_children()):
        weights.model.reader.step.fill_(1234)
        weights = bundle(weights.model, weights.lora, weights.facts)
    path = tmp_path / "a folder" / "Überprüfung 1.safetensors"
    save_weights(path, weights)
    loaded = load_weights(path)
    assert same_weights(loaded, weights)
    assert not loaded.untrained
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert all(p.dtype == torch.float32 and p.device.type == "cpu" for p in loaded.model.parameters())


@torch.no_grad()
def test_loaded_weights_encode_the_same_bits(tmp_path, make_weights, make_inputs, one_thread):
    weights = make_weights(reader={"tau_decay_steps": 10})
    weights.model.reader.step.fill_(5)
    save_weights(tmp_path / "w.safetensors", bundle(weights.model, weights.lora, {}))
    loaded, inputs = load_weights(tmp_path / "w.safetensors"), make_inputs()
    assert loaded.model.reader.temperature == pytest.approx(0.55)
    a, b = (m.encode(*inputs).embedding for m in (weights.model, loaded.model))
    assert all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def test_identity_round_trip(tmp_path, make_identity):
    identity, path = make_identity(), tmp_path / "someone.safetensors"
    save_identity(path, identity)
    loaded = load_identity(path)
    assert same_identity(loaded, identity)
    assert loaded.thumbnail_HWC.dtype == torch.uint8 and loaded.embedding.batch == 1


def test_an_identity_without_coverage_is_a_good_one(tmp_path, make_identity):
    """As files were before there was any."""
    identity, path = dataclasses.replace(make_identity(), coverage=None), tmp_path / "someone.safetensors"
    save_identity(path, identity)
    assert b"coverage" not in path.read_bytes()
    loaded = load_identity(path)
    assert same_identity(loaded, identity) and loaded.coverage is None


def test_tensors_that_are_windows_are_saved_as_they_look(tmp_path, make_identity):
    identity = make_identity()
    flipped = dataclasses.replace(identity, thumbnail_HWC=identity.thumbnail_HWC.flip(0)[:, ::2])
    save_identity(tmp_path / "i.safetensors", flipped)
    assert same_identity(load_identity(tmp_path / "i.safetensors"), flipped)


def test_half_precision_is_read_as_float32(tmp_path, make_identity):
    identity = make_identity()
    half = dataclasses.replace(identity, embedding=identity.embedding.to(torch.device("cpu"), torch.bfloat16))
    save_identity(tmp_path / "i.safetensors", half)
    loaded = load_identity(tmp_path / "i.safetensors").embedding
    for name, tensor in vars(loaded).items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, getattr(half.embedding, name).float()), name


@pytest.mark.parametrize("low_bytes", [b"\x80", b"PK"])
def test_a_header_whose_length_looks_like_a_pickle_or_a_zip_is_neither(low_bytes, tmp_path, make_weights):
    """Safetensors begins with the header's length: one file in 32 begins with the byte that a pickle begins with."""
    path, plain = tmp_path / "w.safetensors", make_weights(facts={"note": ""})
    save_weights(path, plain)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    modulus = 256 ** len(low_bytes)
    pad = (int.from_bytes(low_bytes, "little") - length) % modulus
    for extra in range(-8, 9):  # the header is padded to a multiple of 8
        weights = bundle(plain.model, plain.lora, {"note": "x" * (pad + extra + modulus)})
        save_weights(path, weights)
        assert same_weights(load_weights(path), weights)
        if path.read_bytes().startswith(low_bytes):
            return
    raise AssertionError("no header length of that form was made")


def test_what_was_loaded_does_not_follow_the_file(tmp_path, make_weights, make_identity):
    """Tensors that stay windows into a file change, or crash the process, when somebody writes into it."""
    weights, identity = make_weights(), make_identity()
    files = {
        "w.safetensors": (save_weights, load_weights, weights),
        "i.safetensors": (save_identity, load_identity, identity),
    }
    for name, (save, load, value) in files.items():
        path = tmp_path / name
        save(path, value)
        loaded = load(path)
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.write(b"\0" * size)
        assert (same_weights if load is load_weights else same_identity)(loaded, value), name
        save(path, value)  # over a file that was loaded


def test_the_hash_names_config_and_tensors_and_not_the_facts(make_weights):
    weights = make_weights()
    assert bundle(weights.model, weights.lora, {"other": 1}).sha256 == weights.sha256 == make_weights().sha256
    assert make_weights(seed=1).sha256 != weights.sha256
    assert make_weights(gate={"shift": 4.0}).sha256 != weights.sha256
    next(iter(weights.lora.pairs.values())).up_OR[0, 0] += 1
    assert bundle(weights.model, weights.lora, {}).sha256 != weights.sha256


def test_content_hash_sees_names_dtypes_shapes_and_bytes():
    def tensors():
        return {"a": torch.arange(6.0), "b": torch.zeros(2, dtype=torch.int64)}

    base = content_hash(tensors(), {"x": 1})
    assert content_hash(dict(reversed(list(tensors().items()))), {"x": 1}) == base, "the order is no content"
    changed = [
        content_hash(tensors(), {"x": 2}),
        content_hash({**tensors(), "a": torch.arange(6.0).view(2, 3)}, {"x": 1}),
        content_hash({**tensors(), "b": torch.zeros(4, dtype=torch.int32)}, {"x": 1}),
        content_hash({**tensors(), "a": torch.arange(6.0) + 1}, {"x": 1}),
        content_hash({"c": tensors()["a"], "b": tensors()["b"]}, {"x": 1}),
    ]
    assert len({base, *changed}) == 6


def test_pixel_hash_sees_grey_levels_and_no_less():
    frames_FHWC = torch.randint(0, 256, (2, 4, 4, 3)) / 255
    assert pixel_hash(frames_FHWC + 1e-4) == pixel_hash(frames_FHWC)
    brighter = frames_FHWC.clone()
    brighter[1, 2, 3, 0] = (brighter[1, 2, 3, 0] + 0.5) % 1
    assert pixel_hash(brighter) != pixel_hash(frames_FHWC)
    assert pixel_hash(frames_FHWC.flip(0)) != pixel_hash(frames_FHWC), "the order of frames is content"


def test_untrained_weights_say_so(small_config, make_weights):
    weights = untrained_weights("tiny")
    assert weights.untrained and weights.facts == {"preset": "tiny", "trained_steps": 0}
    trained = make_weights()
    zero = bundle(SlotID(small_config), weights.lora, {})
    assert zero.untrained
    assert not bundle(SlotID(small_config), trained.lora, {}).untrained, "the LoRA alone would act"
    assert not bundle(trained.model, weights.lora, {}).untrained, "the model alone would act"
    for parameter in zero.model.output_layers:
        with torch.no_grad():
            parameter.view(-1)[-1] = 1e-3
        assert not zero.untrained
        with torch.no_grad():
            parameter.zero_()


def test_untrained_weights_follow_their_seed_and_leave_the_hosts_random_numbers_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    state = torch.get_rng_state()
    first, again, other = (untrained_weights("tiny", seed) for seed in (0, 0, 1))
    assert same_weights(first, again) and first.sha256 != other.sha256
    assert torch.equal(torch.get_rng_state(), state) and not seeded
    with pytest.raises(SlotIDError, match="no Slot-ID preset 'huge'"):
        untrained_weights("huge")


@pytest.mark.parametrize("name", ["w.pt", "w.ckpt", "w", "safetensors", "w.safetensors.tmp"])
def test_only_safetensors_names_are_written(name, tmp_path, make_weights, make_identity):
    for save, value in ((save_weights, make_weights()), (save_identity, make_identity())):
        with pytest.raises(SlotIDError, match=r"ends in \.safetensors"):
            save(tmp_path / name, value)
    assert not list(tmp_path.iterdir())


def test_facts_that_could_not_be_read_again_are_not_written(tmp_path, make_weights):
    with pytest.raises(SlotIDError, match=r"w\.safetensors take \d+ characters, at most"):
        save_weights(tmp_path / "w.safetensors", make_weights(facts={"log": "x" * 2_000_000}))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_files_have_the_mode_that_the_user_asks_for(tmp_path):
    umask = os.umask(0o022)
    try:
        write(tmp_path / "x.safetensors", "weights", 1, {"x": torch.zeros(1)}, {})
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o644
