"""The world's people as a dataset: the pixels that were drawn, the person's other clip, and nobody searched for."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from slotid_core.errors import SlotIDError
from training.data.cache import open_cache
from training.data.make import make_cache
from training.settings_file import from_dict, load
from training.wan_diffusers import encode_frames, tiny_vae
from training.world.pictures import FRAMES, SIZE, people, picture_path, read_pictures


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Files of four people, with noise for pixels: what is drawn does not matter here."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    for clip in people("train", 4):
        path = picture_path(folder, clip)
        path.parent.mkdir(exist_ok=True)
        tensors = {
            name: torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            for name, shape in (("clip", [FRAMES, SIZE, SIZE, 3]), ("portrait", [SIZE, SIZE, 3]))
        }
        save_file(tensors, path, metadata={"format": "slotid-world-2"})
    return folder


def settings_of(drawn, tmp_path, **data):
    return from_dict(
        {
            "run": {"folder": str(tmp_path / "run")},
            "model": {"preset": "tiny", "transformer": "tiny", "vae": "tiny", "text_encoder": "hashed"},
            "data": {
                "layout": "world", "source": str(drawn / "train"), "cache": str(tmp_path / "cache"),
                "sizes": [[SIZE, SIZE]], "lengths": [FRAMES], "reference_frames": FRAMES, "reference_side": SIZE,
                "portrait_side": SIZE, "held_out": 0.5, "augment": {"variants": 1}, **data,
            },
            "optim": {"steps": 1, "batch": 1},
            "memory": {"precision": "fp32"},
        },
        "test",
    )  # fmt: skip


def test_the_cache_holds_what_was_drawn(drawn, tmp_path):
    settings = settings_of(drawn, tmp_path)
    make_cache(settings)
    cache = open_cache(settings)
    assert [entry.id for entry in cache.entries] == [clip.name for clip in people("train", 4)]
    for entry, clip in zip(cache.entries, people("train", 4), strict=True):
        assert entry.caption == clip.caption and entry.person == clip.person and entry.coverage is None
    entry, clip = cache.entries[3], list(people("train", 4))[3]
    pictures, sample = read_pictures(picture_path(drawn, clip)), cache.load(entry)
    latents = encode_frames(tiny_vae(), pictures["clip"].float() / 255)[0]
    assert torch.allclose(sample.reference_CTHW, latents, atol=1e-4)
    assert torch.equal(sample.target_CTHW, sample.reference_CTHW.bfloat16())
    portrait = encode_frames(tiny_vae(), pictures["portrait"][None].float() / 255)[0]
    assert torch.allclose(sample.portrait_CTHW, portrait, atol=1e-4)


def test_orderless_references_are_shuffled_and_targets_are_not(drawn, tmp_path):
    plain, shuffled = settings_of(drawn, tmp_path / "a"), settings_of(drawn, tmp_path / "b").to_dict()
    shuffled["model"]["slotid"] = {"clip_order": "shuffled"}
    shuffled = from_dict(shuffled, "test")
    samples = []
    for settings in (plain, shuffled):
        make_cache(settings)
        cache = open_cache(settings)
        samples.append(cache.load(cache.entries[0]))
    assert torch.equal(samples[0].target_CTHW, samples[1].target_CTHW)
    assert not torch.allclose(samples[0].reference_CTHW, samples[1].reference_CTHW, atol=0.1)


def test_another_size_than_was_drawn_is_refused(drawn, tmp_path):
    with pytest.raises(SlotIDError, match=r"holds 17 frames of 80x80. Set data.lengths to \[17\]"):
        make_cache(settings_of(drawn, tmp_path, sizes=[[64, 64]]))


def test_a_file_that_names_nobody_is_refused(drawn, tmp_path):
    stray = drawn / "train" / "somebody.safetensors"
    stray.write_bytes(b"x")
    try:
        with pytest.raises(SlotIDError, match="names no clip of the world"):
            make_cache(settings_of(drawn, tmp_path))
    finally:
        stray.unlink()


def test_versions_of_a_reference_are_refused(drawn, tmp_path):
    with pytest.raises(SlotIDError, match="expected 1 for layout world"):
        settings_of(drawn, tmp_path, augment={"variants": 2})


def test_more_versions_than_a_shard_can_describe_are_refused():
    config = Path(__file__).resolve().parents[3] / "training/configs/tiny.yaml"
    with pytest.raises(SlotIDError, match="clips_per_shard x data.augment.variants: expected 4096 at most.* got 8192"):
        load(config, ["data.clips_per_shard=256", "data.augment.variants=32"])


def test_a_rule_for_who_is_who_is_refused(drawn, tmp_path):
    with pytest.raises(SlotIDError, match="layout world says who is who; expected none"):
        settings_of(drawn, tmp_path, person="(.*)")
