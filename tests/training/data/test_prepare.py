"""Making a cache: the same bytes however it is made, nothing lost where it can't go on."""

import importlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from slotid_core.errors import SlotIDError
from training import prepare
from training.data import engines, shards
from training.data.cache import open_cache
from training.data.make import hold_out, make_cache

BOX = (38, 34, 50, 54)


@pytest.fixture
def make(make_bench):
    """Makes a cache and returns the manifest and what was said."""

    def run(settings, **options):
        lines = []
        return make_cache(settings, bench=make_bench(settings), say=lines.append, **options), lines

    return run


def test_another_run_gives_the_same_bytes(drawn_cache, drawn_dataset, tiny_settings, make, files_of, tmp_path):
    settings = tiny_settings(drawn_dataset, tmp_path / "cache")
    make(settings)
    assert files_of(settings.data.cache) == files_of(drawn_cache.data.cache)


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_finished_cache_stays_as_it_is(engine, drawn_cache, files_of, make_bench):
    """Nothing is to be made, so Ray need not even be there."""
    before = files_of(drawn_cache.data.cache)
    bench = make_bench(drawn_cache)
    bench.encode = None
    make_cache(drawn_cache, engine=engine, bench=bench, say=lambda line: None)
    assert files_of(drawn_cache.data.cache) == before


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_other_processes_give_the_same_bytes(
    engine, drawn_cache, drawn_dataset, tiny_settings, make, files_of, tmp_path, monkeypatch
):
    if engine == "ray":
        pytest.importorskip("ray")
    # A module of its own, since other processes import what they are given by name.
    (tmp_path / "box_bench.py").write_text(
        "import torch\nfrom slotid_core.reference import Box\nfrom slotid_core.reference.faces.box import BoxFaces\n"
        "from training.data.clip import Bench\n\n\n"
        "def box_bench(settings):\n"
        f"    return Bench(settings, faces=BoxFaces(Box(*{BOX}), frames=1), device=torch.device('cpu'))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(engines, "Bench", importlib.import_module("box_bench").box_bench)
    settings = tiny_settings(drawn_dataset, tmp_path / "cache")
    make(settings, engine=engine, workers=2)
    assert files_of(settings.data.cache) == files_of(drawn_cache.data.cache)


def test_ray_that_is_not_installed_says_how_to_install_it(tiny_settings, drawn_dataset, make, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "ray" else find(name, *a))
    with pytest.raises(SlotIDError, match=r'pip install "ray\[data\]"'):
        make(tiny_settings(drawn_dataset, tmp_path / "cache"), engine="ray")


def test_every_video_is_used_or_left_out_with_a_reason(drawn_dataset, tiny_settings, make, tmp_path):
    source = tmp_path / "dataset"
    shutil.copytree(drawn_dataset, source)
    (source / "person0" / "broken.mp4").write_bytes(b"no video at all")
    (source / "person0" / "broken.txt").write_text("Nothing.")
    (source / "person1" / "silent.mp4").write_bytes((source / "person1" / "clip.mp4").read_bytes())
    settings = tiny_settings(source, tmp_path / "cache", clips_per_shard=3)
    manifest, lines = make(settings)
    assert [e.id for e in manifest.entries] == [f"person{n}/clip" for n in range(4)]
    assert [(r.id, r.reason) for r in manifest.rejects] == [
        ("person0/broken", "unreadable"), ("person1/silent", "no caption"),
    ]  # fmt: skip
    assert len(lines) == 2 and all(line.startswith("left out: person") for line in lines)
    written = json.loads((settings.data.cache / "rejects.json").read_text())
    assert [(r["id"], r["reason"]) for r in written] == [(r.id, r.reason) for r in manifest.rejects]
    assert manifest.facts["rejected"] == {"no caption": 1, "unreadable": 1}
    assert open_cache(settings).rejects == manifest.rejects


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_files_whose_names_are_no_text(drawn_dataset, tiny_settings, make, tmp_path):
    """Named in Latin-1, as an old archive unpacks: a clip, one that can't be read, and a caption alone."""
    source = tmp_path / "dataset"
    shutil.copytree(drawn_dataset, source)
    here = os.fsencode(source / "person0")
    shutil.copy(source / "person0" / "clip.mp4", here + b"/Zo\xeb.mp4")
    open(here + b"/caf\xe9.mp4", "wb").close()
    for name in (b"/Zo\xeb.txt", b"/caf\xe9.txt", b"/al\xf6ne.txt"):
        with open(here + name, "w") as file:
            file.write("Zoe turns.")
    settings = tiny_settings(source, tmp_path / "cache")
    manifest, lines = make(settings)
    assert [reject.id for reject in manifest.rejects] == [r"person0/al\udcf6ne", r"person0/caf\udce9"]
    assert len(lines) == 2 and all(line.isprintable() for line in lines)
    assert len(manifest.entries) == 5 and open_cache(settings).entries == manifest.entries, "its video is found again"
    os.remove(here + b"/Zo\xeb.mp4")
    with pytest.raises(SlotIDError, match=r"the first is person0/Zo\\udceb.mp4") as caught:
        open_cache(settings)
    assert str(caught.value).isprintable()


def test_a_changed_dataset_is_made_anew_where_it_changed(drawn_dataset, tiny_settings, make, files_of, tmp_path):
    source = tmp_path / "dataset"
    shutil.copytree(drawn_dataset, source)
    settings = tiny_settings(source, tmp_path / "cache")
    make(settings)
    before = files_of(settings.data.cache)
    (source / "person2" / "clip.txt").write_text("Something else happens.")
    make(settings)
    after = files_of(settings.data.cache)
    changed = {name for name in after if after[name] != before[name] and name.startswith("shards")}
    assert changed == {"shards/shard-00002.safetensors"}
    fresh = tiny_settings(source, tmp_path / "fresh")
    make(fresh)
    assert files_of(fresh.data.cache) == after
    assert open_cache(settings).entries[2].caption == "Something else happens."


@pytest.mark.parametrize("slip", ["another dataset", "no captions"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_cache_of_other_videos_is_not_touched(
    slip, finished, drawn_cache, drawn_dataset, tiny_settings, make, files_of, tmp_path
):
    source = tmp_path / "dataset"
    shutil.copytree(drawn_dataset, source)
    for folder in source.iterdir():
        if slip == "no captions":
            (folder / "clip.txt").unlink()
        else:
            (folder / "clip.mp4").write_bytes(f"another video, {folder.name}".encode())
    settings = tiny_settings(source, tmp_path / "cache")
    shutil.copytree(drawn_cache.data.cache, settings.data.cache)
    if not finished:
        (settings.data.cache / "manifest.json").unlink()
    before = files_of(settings.data.cache)
    with pytest.raises(SlotIDError, match=r"none of its 4 is among the \d with a caption in .*another data.cache"):
        make(settings)
    assert files_of(settings.data.cache) == before


def test_what_the_cache_was_made_from_has_to_be_readable(drawn_cache, drawn_dataset, tiny_settings, make, tmp_path):
    settings = tiny_settings(drawn_dataset, tmp_path / "cache")
    shutil.copytree(drawn_cache.data.cache, settings.data.cache)
    (settings.data.cache / "videos.json").write_text("[[1", encoding="utf-8")
    with pytest.raises(SlotIDError, match=r"videos.json is damaged .*If data.source is right, delete that file"):
        make(settings)


def test_a_card_that_is_too_small_for_preparing_is_said_to_be(
    drawn_dataset, tiny_settings, make, files_of, monkeypatch, tmp_path
):
    """The error is torch's own; there is no card here that is too small."""
    settings, prepare = tiny_settings(drawn_dataset, tmp_path / "cache"), shards.prepare_clip

    def too_large(bench, video):
        if video.id.startswith("person3"):
            raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB.")
        return prepare(bench, video)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "prepare_clip", too_large)
        with pytest.raises(SlotIDError, match=r"too little memory to prepare person3.* 20.00 GiB.* fewer --workers"):
            make(settings)
    kept = {name for name in files_of(settings.data.cache) if name.startswith("shards")}
    assert kept, "finished shards are kept"


def test_damaged_shards_and_leftovers_are_put_right(
    drawn_cache, drawn_dataset, tiny_settings, make, files_of, tmp_path
):
    settings = tiny_settings(drawn_dataset, tmp_path / "cache")
    shutil.copytree(drawn_cache.data.cache, settings.data.cache)
    shards = settings.data.cache / "shards"
    content = bytearray((shards / "shard-00001.safetensors").read_bytes())
    content[-1] ^= 1
    (shards / "shard-00001.safetensors").write_bytes(content)
    (shards / "shard-00002.safetensors").write_bytes(bytes(content[:100]))
    (shards / "shard-00009.safetensors").write_bytes(b"of a larger dataset")
    (shards / ".shard-00001-abc.tmp").write_bytes(b"half")
    _, lines = make(settings)
    assert [line.split(" is made anew")[0] for line in lines] == [f"shard-0000{n}.safetensors" for n in (1, 2)]
    assert files_of(settings.data.cache) == files_of(drawn_cache.data.cache)


def test_a_cache_of_other_settings_is_not_touched(drawn_cache, drawn_dataset, tiny_settings, make, files_of):
    before = files_of(drawn_cache.data.cache)
    with pytest.raises(SlotIDError, match=r"data.lengths was \[5\], now \[9\]. Set them back, give another"):
        make(tiny_settings(drawn_dataset, drawn_cache.data.cache, lengths=[9]))
    assert files_of(drawn_cache.data.cache) == before


def test_a_second_preparation_is_refused_before_it_sweeps(
    drawn_cache, drawn_dataset, tiny_settings, make, files_of, tmp_path, held_elsewhere
):
    settings = tiny_settings(drawn_dataset, tmp_path / "cache")
    shutil.copytree(drawn_cache.data.cache, settings.data.cache)
    (settings.data.cache / "shards" / ".shard-00001-abc.tmp").write_bytes(b"what the other one is writing")
    before = files_of(settings.data.cache)
    with (
        held_elsewhere(settings.data.cache),
        pytest.raises(SlotIDError, match="Another preparation is running.*another data.cache"),
    ):
        make(settings)
    assert files_of(settings.data.cache) == before


def test_who_is_held_out_may_change(drawn_cache, drawn_dataset, tiny_settings, make, tmp_path):
    settings = tiny_settings(drawn_dataset, tmp_path / "cache", held_out=0.7)
    shutil.copytree(drawn_cache.data.cache, settings.data.cache)
    manifest, _ = make(settings)
    assert len(manifest.facts["held_out_people"]) == 3
    assert manifest.shards == {
        name: {"key": shard["key"], "bytes": shard["bytes"]}
        for name, shard in json.loads((drawn_cache.data.cache / "manifest.json").read_text())["shards"].items()
    }


def test_held_out_people():
    people = {f"p{n}" for n in range(20)}
    assert hold_out(people, 0.25, seed=1) == hold_out(people, 0.25, seed=1) != hold_out(people, 0.25, seed=2)
    assert len(hold_out(people, 0.25, seed=0)) == 5 and len(hold_out(people, 0.001, seed=0)) == 2
    # Whoever is held out stays so when others join, but for those that the share leaves no room for.
    assert len(hold_out(people | {"new"}, 0.25, seed=1) & hold_out(people, 0.25, seed=1)) >= 4


def test_too_few_people(drawn_dataset, tiny_settings, make, tmp_path):
    source = tmp_path / "dataset"
    shutil.copytree(drawn_dataset, source)
    shutil.rmtree(source / "person3")
    settings = tiny_settings(source, tmp_path / "cache")
    with pytest.raises(SlotIDError, match="3 people are usable, at least 4 are needed"):
        make(settings)
    assert (settings.data.cache / "summary.html").is_file() and not (settings.data.cache / "manifest.json").exists()


def test_an_empty_dataset(tiny_settings, make, tmp_path):
    (tmp_path / "dataset").mkdir()
    with pytest.raises(SlotIDError, match="There is no video in"):
        make(tiny_settings(tmp_path / "dataset", tmp_path / "cache"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of file sizes")
def test_a_full_disk_loses_nothing(drawn_dataset, tiny_settings, make, files_of, drawn_cache, tmp_path, monkeypatch):
    """Of the first shard the half fits; then there is room."""
    settings = tiny_settings(drawn_dataset, tmp_path / "cache")
    size = (drawn_cache.data.cache / "shards" / "shard-00002.safetensors").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
        with pytest.raises(SlotIDError, match="Can't write shard-00000.safetensors into .*: File too large"):
            make(settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list((settings.data.cache / "shards").iterdir()) == []
    make(settings)
    assert files_of(settings.data.cache) == files_of(drawn_cache.data.cache)


def test_the_program_says_what_is_wrong_and_ends_with_1(drawn_dataset, tiny_settings, tmp_path, capsys):
    import yaml

    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tiny_settings(drawn_dataset, tmp_path / "cache").to_dict()))
    for override, said in (
        ("model.vae=models/none", "error: There is no file or folder models/none. Set model.vae"),
        ("model.text_encoder=models/none", "Set model.text_encoder to where it is; docs/training.md"),
        (f"data.source={tmp_path / 'none'}", "There is no folder"),
        ("data.length=[5]", "data.length is not known; the nearest that is: lengths"),
    ):
        assert prepare.main([str(config), override]) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "cache" / "shards").exists()


def test_the_program_runs_as_a_file(repo_root):
    ended = subprocess.run(
        [sys.executable, "training/prepare.py", "--help"], cwd=repo_root, capture_output=True, text=True
    )
    assert ended.returncode == 0 and "--workers N" in ended.stdout
