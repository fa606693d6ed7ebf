"""Reading a finished cache, and every way in which it may not be the one that is wanted."""

import contextlib
import json
import random
import shutil

import pytest
import torch
from safetensors.torch import save_file

from slotid_core.errors import SlotIDError
from training.data import hashes as hashing
from training.data.cache import open_cache
from training.data.clip import prepare_clip
from training.data.hashes import FileHashes
from training.data.make import make_cache
from training.data.origin import model_hashes
from training.data.shard_file import shard_key
from training.data.shards import ShardJob, finished_shard
from training.data.sources import SourceVideo


@pytest.fixture
def copied(drawn_cache, drawn_dataset, tiny_settings, tmp_path):
    """Settings of a copy of the cache, to be spoilt."""

    def copy(source=drawn_dataset, **data):
        settings = tiny_settings(source, tmp_path / "copy", **data)
        shutil.copytree(drawn_cache.data.cache, settings.data.cache, dirs_exist_ok=True)
        return settings

    return copy


def test_entries_say_what_is_there(drawn_cache):
    cache = open_cache(drawn_cache)
    assert [entry.id for entry in cache.entries] == [f"person{n}/clip" for n in range(4)]
    entry = cache.entries[2]
    assert (entry.person, entry.video, entry.caption) == (
        "person2",
        "person2/clip.mp4",
        "A drawn head turns, number 2.",
    )
    assert sum(entry.held_out for entry in cache.entries) == 2 == len(cache.facts["held_out_people"])
    assert cache.facts["windows"] == {"disjoint": 4} and cache.facts["faces"] == "box" and cache.rejects == ()


def test_samples_hold_what_the_clip_gave(drawn_cache, drawn_dataset, make_bench):
    cache = open_cache(drawn_cache)
    entry = cache.entries[1]
    path = drawn_dataset / "person1" / "clip.mp4"
    video = SourceVideo(id=entry.id, path=path, caption=entry.caption, person=entry.person)
    tensors = prepare_clip(make_bench(drawn_cache), video).tensors
    for variant in range(entry.variants):
        sample = cache.load(entry, variant=variant)
        torch.testing.assert_close(sample.reference_CTHW, tensors[f"reference.{variant}"], rtol=0, atol=1e-5)
    assert torch.equal(sample.text_LE, tensors["text"]) and sample.text_LE.shape == (entry.text_tokens, 4096)
    torch.testing.assert_close(sample.target_CTHW, tensors["target"])
    torch.testing.assert_close(sample.portrait_CTHW, tensors["portrait"], rtol=0, atol=1e-5)
    assert sample.target_CTHW.shape == (16, *entry.target_shape) and sample.target_CTHW.dtype == torch.bfloat16
    assert sample.reference_CTHW.shape == (16, *entry.reference_shape)
    assert sample.portrait_CTHW.shape == (16, *entry.portrait_shape) and entry.portrait_shape[0] == 1


def test_reference_and_portrait_may_be_another_clips(drawn_cache):
    cache = open_cache(drawn_cache)
    own, other = (cache.load(entry, variant=1) for entry in cache.entries[:2])
    mixed = cache.load(cache.entries[0], reference=cache.entries[1], variant=1)
    assert torch.equal(mixed.target_CTHW, own.target_CTHW) and torch.equal(mixed.text_LE, own.text_LE)
    assert torch.equal(mixed.reference_CTHW, other.reference_CTHW)
    assert torch.equal(mixed.portrait_CTHW, other.portrait_CTHW)


def test_no_cache_and_one_that_is_not_finished(copied, tiny_settings, drawn_dataset, tmp_path):
    with pytest.raises(SlotIDError, match="is not there. Make it with"):
        open_cache(tiny_settings(drawn_dataset, tmp_path / "nowhere"))
    settings = copied()
    (settings.data.cache / "manifest.json").unlink()
    with pytest.raises(SlotIDError, match="is not finished. Make it with"):
        open_cache(settings)


@pytest.mark.parametrize(
    "data, named",
    [
        ({"lengths": [9]}, r"data.lengths was \[5\], now \[9\]"),
        ({"augment": {"variants": 3}}, "data.augment was"),
        ({"held_out": 0.6}, "data.held_out was 0.5, now 0.6"),
        ({"seed": 4}, "data.seed was 0, now 4"),
        ({"slotid": {"clip_order": "shuffled"}}, "model.slotid.clip_order was temporal, now shuffled, each clip"),
    ],
)
def test_other_settings_are_named(copied, data, named):
    with pytest.raises(SlotIDError, match=named):
        open_cache(copied(**data))


def test_more_slots_fit_while_every_caption_stays_whole(copied):
    """They leave a prompt less room: 56 tokens with 6 slots, 50 with 12."""
    settings = copied(slotid={"reader": {"slots": 12}})
    longest = max(entry.text_tokens for entry in open_cache(settings).entries)
    too_many = 64 - 2 - longest + 1
    with pytest.raises(SlotIDError, match=f"text tokens was 56, now {longest - 1}"):
        open_cache(copied(slotid={"reader": {"slots": too_many}}))
    assert open_cache(copied(slotid={"reader": {"slots": too_many - 1}})).entries


def test_what_does_not_shape_it_may_change(copied):
    settings = copied(reference_from="the same clip")
    assert len(open_cache(settings).entries) == 4


def test_another_vae_is_noticed(copied, tmp_path):
    settings = copied()
    save_file({"x": torch.zeros(1)}, tmp_path / "vae.safetensors")
    other = settings.model_copy(
        update={"model": settings.model.model_copy(update={"vae": tmp_path / "vae.safetensors"})}
    )
    with pytest.raises(SlotIDError, match="another model.vae"):
        open_cache(other)


def test_a_changed_or_lost_video_is_noticed_and_a_lost_dataset_is_none(copied, drawn_dataset, tmp_path):
    source = tmp_path / "dataset"
    shutil.copytree(drawn_dataset, source)
    settings = copied(source)
    assert len(open_cache(settings).entries) == 4
    with (source / "person1" / "clip.mp4").open("ab") as file:
        file.write(b"more")
    with pytest.raises(SlotIDError, match="1 videos are changed, the first is person1/clip.mp4. Run prepare.py"):
        open_cache(settings)
    (source / "person1" / "clip.mp4").unlink()
    with pytest.raises(SlotIDError, match="1 videos are not there any more, the first is person1/clip.mp4"):
        open_cache(settings)
    shutil.rmtree(source)
    assert len(open_cache(settings).entries) == 4


def test_missing_truncated_and_exchanged_shards(copied):
    settings = copied()
    shard, other = (settings.data.cache / "shards" / f"shard-0000{n}.safetensors" for n in (1, 2))
    whole = shard.read_bytes()
    for spoil in (shard.unlink, lambda: shard.write_bytes(whole[:-10]), lambda: shard.write_bytes(b"")):
        spoil()
        with pytest.raises(SlotIDError, match="shard-00001.safetensors of .* Run prepare.py again"):
            open_cache(settings)
    shutil.copy(other, shard)
    with pytest.raises(SlotIDError, match="another than the manifest names"):
        open_cache(settings)


def test_altered_tensors_are_noticed_when_they_are_loaded(copied):
    settings = copied()
    shard = settings.data.cache / "shards" / "shard-00001.safetensors"
    content = bytearray(shard.read_bytes())
    header = json.loads(content[8 : (begin := 8 + int.from_bytes(content[:8], "little"))])
    content[begin + header["00000.target"]["data_offsets"][0]] ^= 1
    shard.write_bytes(content)
    cache = open_cache(settings)
    with pytest.raises(SlotIDError, match="target of person1/clip is not what was written"):
        cache.load(cache.entries[1])
    assert cache.load(cache.entries[0]).entry.id == "person0/clip"


def flipped(whole: bytes, seed: int) -> bytes:
    """The file with one bit of its header flipped: names, shapes, places, and what it says of itself."""
    moments, content = random.Random(seed), bytearray(whole)
    content[moments.randrange(8, 8 + int.from_bytes(whole[:8], "little"))] ^= 1 << moments.randrange(8)
    return bytes(content)


def test_no_flipped_bit_of_a_shards_header_is_taken_as_good(copied):
    """Neither where prepare.py looks for what is finished, nor where training begins."""
    settings = copied()
    shard = settings.data.cache / "shards" / "shard-00000.safetensors"
    whole, job = shard.read_bytes(), ShardJob(file=shard.name, key=shard_key(shard), videos=())
    assert len(finished_shard(settings.data.cache, job).clips) == 1
    for seed in range(300):
        shard.write_bytes(flipped(whole, seed))
        with contextlib.suppress(SlotIDError):
            assert finished_shard(settings.data.cache, job) is None, f"seed {seed}"
        with pytest.raises(SlotIDError, match="shard-00000.*[Rr]un prepare.py again"):
            _ = open_cache(settings).empty_text_LE


def test_a_text_encoder_is_its_own_folders_and_not_the_wan_beside_them(
    make_umt5, tiny_settings, drawn_dataset, tmp_path
):
    """As in diffusers' repositories, of which the transformer may be fetched after the cache was made."""
    folder = shutil.copytree(make_umt5(32), tmp_path / "Wan")
    settings = tiny_settings(drawn_dataset, tmp_path / "cache")
    model = settings.model.model_copy(update={"text_encoder": folder})
    settings = settings.model_copy(update={"model": model})

    def found(**how):
        return model_hashes(settings, FileHashes(tmp_path), **how)["model.text_encoder"]

    before = found()
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text("{}")
    assert found() == before
    (folder / "tokenizer" / "another.json").write_text("{}")
    assert found() != before
    shutil.rmtree(folder / "text_encoder")  # training does not need it
    assert found(must_be_there=False) is None
    with pytest.raises(SlotIDError, match="text_encoder. Set model.text_encoder to where it is"):
        found()


def test_a_damaged_manifest(copied):
    settings = copied()
    path = settings.data.cache / "manifest.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(SlotIDError, match="manifest.json is damaged"):
        open_cache(settings)
    path.write_text(json.dumps({"version": 99}))
    with pytest.raises(SlotIDError, match="version 99"):
        open_cache(settings)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("entries"),
        lambda content: content.pop("facts"),
        lambda content: content["facts"].pop("models"),
        lambda content: content["entries"][0].pop("id"),
        lambda content: content["entries"][0].update(sha256=3),
        lambda content: content["shards"].pop("shard-00000.safetensors"),
        lambda content: content["shards"]["shard-00000.safetensors"].pop("key"),
        lambda content: content.update(more=1),
        lambda content: content.update(entries=[]),
        lambda content: content.update(entries=[1]),
        lambda content: content.update(entries=None),
        lambda content: content.update(rejects=[{"id": "a"}]),
        lambda content: content.update(rejects=[{"id": "a", "reason": "b", "detail": 3}]),
        lambda content: content.update(settings=[]),
        lambda content: content.update(shards=[]),
    ],
    ids=range(15),
)
def test_a_manifest_that_lacks_something(copied, change):
    settings = copied()
    path = settings.data.cache / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SlotIDError, match="manifest.json is damaged .* run prepare.py again"):
        open_cache(settings)


NO_FACTS = [b"\xff", b"[1]", b"3", b"null", b'"x"', b"{", b"[" * 5000]


@pytest.mark.parametrize("content", NO_FACTS, ids=range(len(NO_FACTS)))
def test_files_that_hold_no_facts(copied, make_bench, content):
    settings = copied()
    bench = make_bench(settings)
    for name, advice, read in (
        ("manifest.json", "run prepare.py again", lambda: open_cache(settings)),
        ("hashes.json", "Delete it; files are then read again", lambda: open_cache(settings)),
        ("settings.json", "Delete the folder", lambda: make_cache(settings, bench=bench, say=print)),
    ):
        path = settings.data.cache / name
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(SlotIDError, match=f"{name} is damaged .*{advice}"):
            read()
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "known", [{"a": 1}, {"a": [1, 2]}, {"a": [1, 2, 3]}, {"a": [1, 2, "x", 4]}, {"a": None}], ids=str
)
def test_memories_that_are_none(copied, known):
    settings = copied()
    (settings.data.cache / "hashes.json").write_text(json.dumps(known))
    with pytest.raises(SlotIDError, match="hashes.json is damaged"):
        open_cache(settings)


@pytest.mark.parametrize("lacks", ["settings", "models", "faces"])
def test_a_folder_that_does_not_say_whose_it_is(copied, make_bench, lacks):
    settings = copied()
    path = settings.data.cache / "settings.json"
    stored = json.loads(path.read_text())
    for content in ({**stored, lacks: 3}, {name: value for name, value in stored.items() if name != lacks}):
        path.write_text(json.dumps(content))
        with pytest.raises(SlotIDError, match="settings.json is damaged|face backend was 3"):
            make_cache(settings, bench=make_bench(settings), say=print)


def test_what_was_read_once_is_remembered(copied, monkeypatch):
    """Someone deletes ``hashes.json``, as they may: the next start reads every video, and the one after it none."""
    settings = copied()
    (settings.data.cache / "hashes.json").unlink()
    read, digest = [], hashing._digest
    monkeypatch.setattr(hashing, "_digest", lambda file: read.append(file.name) or digest(file))
    open_cache(settings)
    assert len(read) == len(set(read)) == 4
    open_cache(settings)
    assert len(read) == 4
