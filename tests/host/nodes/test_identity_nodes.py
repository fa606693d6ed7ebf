"""Save, load, merge and blend identities by the nodes, in folders of the tests' own."""

import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="module")
def slotid_model(run, folders, weights_file):
    shutil.copy(weights_file, folders.slotid / "random.safetensors")
    return run("SlotIDLoadModel", model_name="random.safetensors").slotid_model


@pytest.fixture
def saved(run, folders, people):
    """``saved(name, person=0, **inputs)``: where Save Identity has put one of two people, by the folder's listing."""
    root = folders.slotid / "identities"

    def function(name: str, person: int = 0, **inputs):
        before = set(root.rglob("*"))
        run("SlotIDSaveIdentity", identity=people[person], name=name, **inputs)
        new = [path for path in set(root.rglob("*")) - before if path.is_file()]
        return new[0].relative_to(root).as_posix() if new else None

    yield function
    shutil.rmtree(root, ignore_errors=True)


def same(a, b) -> bool:
    return all(torch.equal(tensor, getattr(b.embedding, name)) for name, tensor in vars(a.embedding).items())


def listed(nodes) -> list[str]:
    return nodes["SlotIDLoadIdentity"].define_schema().inputs[0].options


def test_a_saved_person_comes_back(run, nodes, saved, people, slotid_model, folders):
    assert listed(nodes) == []
    shown = run("SlotIDSaveIdentity", identity=people[0], name=" family/ann ", note="Ann agreed")
    path = folders.slotid / "identities" / "family" / "ann.safetensors"
    assert path.is_file() and str(path) in shown.ui["text"][0] and "Note: Ann agreed" in shown.ui["text"][0]
    (name,) = listed(nodes)
    assert name == os.path.join("family", "ann.safetensors")
    loaded = run("SlotIDLoadIdentity", identity_name=name, slotid_model=slotid_model)
    assert same(loaded.identity, people[0]) and loaded.identity.notes == ("Ann agreed",)
    assert loaded.identity.name == "ann.safetensors" and loaded.identity.weights_hash == slotid_model.sha256
    assert loaded.info == loaded.ui["text"][0] and slotid_model.sha256[:12] in loaded.info
    assert people[0].notes == (), "what came in is not changed"


def test_the_thumbnail_is_shown(run, saved, people, folders):
    import numpy as np
    from PIL import Image

    picture = torch.randint(0, 256, (16, 12, 3), dtype=torch.uint8)
    person = replace(people[0], thumbnail_HWC=picture)
    for shown in (
        run("SlotIDSaveIdentity", identity=person, name="ann"),
        run("SlotIDLoadIdentity", identity_name="ann.safetensors"),
    ):
        (image,) = shown.ui["images"]
        assert image["type"] == "temp"
        pixels = np.array(Image.open(folders.temp / image["subfolder"] / image["filename"]))
        assert np.array_equal(pixels, picture.numpy())


def test_nothing_is_overwritten_in_silence(saved, run, people):
    assert [saved("ann", n % 2) for n in range(3)] == ["ann.safetensors", "ann_2.safetensors", "ann_3.safetensors"]
    assert same(run("SlotIDLoadIdentity", identity_name="ann.safetensors").identity, people[0])
    assert saved("ann", 1, overwrite=True) is None
    assert same(run("SlotIDLoadIdentity", identity_name="ann.safetensors").identity, people[1])
    assert saved("ann.safetensors") == "ann_4.safetensors", "the suffix may be given"
    assert saved("a.n.n") == "a.n.n.safetensors"
    assert saved("a\\b") == "a/b.safetensors"


HARMFUL = ["", " ", "..", "../ann", "a/../../ann", "/etc/ann", "a//b", "a/", "./a", "C:\\ann", "C:ann", "\\\\host\\ann"]
HARMFUL += [
    "a\0b",
    "a\nb",
    "a*",
    "a?b",
    'a"b',
    "a|b",
    "<a>",
    ".hidden",
    "a.",
    "a /b",
    "con",
    "NUL.x",
    "lpt1/a",
    "x" * 101,
    "\u5b89" * 67,
]
HARMFUL += ["/".join("a" * 9), "\ud800", ".safetensors", "..\\ann", "~/../../x"]


@pytest.mark.parametrize("name", HARMFUL, ids=ascii)
def test_a_name_that_leads_out_or_fits_no_system_is_refused(name, run, people, folders, core):
    before = set(folders.slotid.parent.rglob("*"))
    with pytest.raises(core.errors.SlotIDError, match="expected one such as 'ann'"):
        run("SlotIDSaveIdentity", identity=people[0], name=name, overwrite=True)
    assert set(folders.slotid.parent.rglob("*")) == before


@pytest.mark.skipif(os.name != "posix", reason="making links needs rights on Windows")
def test_a_link_leads_nowhere_else(run, saved, people, folders, core, tmp_path):
    saved("ann")
    (folders.slotid / "identities" / "out").symlink_to(tmp_path)
    with pytest.raises(core.errors.SlotIDError, match="leads out .* by a link"):
        run("SlotIDSaveIdentity", identity=people[0], name="out/ann")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_others_is_not_written_into(run, people, folders, tmp_path, monkeypatch):
    """A slotid entry of extra_model_paths.yaml comes first: it is read before the pack is."""
    import folder_paths

    both = ([str(tmp_path), str(folders.slotid)], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "slotid", both)
    run("SlotIDSaveIdentity", identity=people[0], name="here")
    assert not list(tmp_path.iterdir())
    (folders.slotid / "identities" / "here.safetensors").unlink()


def test_what_a_note_says_is_text_in_the_page(nodes, people, monkeypatch, saved, folders):
    """ComfyUI's frontend takes a node's text for HTML, and sends it to everybody unless told whom."""
    import sys

    sent = []

    class Server:
        client_id = "asker"
        send_progress_text = staticmethod(lambda *args: sent.append(args))

    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=Server)))
    node = nodes["SlotIDSaveIdentity"].PREPARE_CLASS_CLONE({"hidden_inputs": None})
    node.hidden = SimpleNamespace(unique_id="7", prompt=None, extra_pnginfo=None)
    note = 'agreed <img src=x onerror="alert(1)"> & <ann@x.org>'
    out = node.execute(identity=people[0], name="ann", overwrite=True, note=note)
    ((text, node_id, to),) = sent
    assert (node_id, to) == ("7", "asker") and "<" not in text and "&lt;img src=x" in text
    assert note in out.ui.as_dict()["text"][0], "the history keeps it as it is"
    Server.client_id = None
    node.execute(identity=people[0], name="ann", overwrite=True, note="")
    assert len(sent) == 1, "nobody asked"
    (folders.slotid / "identities" / "ann.safetensors").unlink()


def test_a_note_that_is_too_long_is_refused(run, nodes, people, core, saved):
    with pytest.raises(core.errors.SlotIDError, match="1000 letters"):
        run("SlotIDSaveIdentity", identity=people[0], name="ann", note="x" * 1001)
    assert listed(nodes) == []


def test_identities_are_no_weights(nodes, saved):
    saved("ann")
    options = nodes["SlotIDLoadModel"].define_schema().inputs[0].options
    assert not [name for name in options if "ann" in name]


@pytest.mark.parametrize(
    "name", ["", "nobody.safetensors", "../random.safetensors", "/etc/passwd", "ann", "..\\ann.safetensors"]
)
def test_only_what_is_listed_is_loaded(name, run, nodes, saved, core, slotid_model):
    saved("ann")
    load = nodes["SlotIDLoadIdentity"]
    assert "Make one with Save Identity" in load.validate_inputs(name)
    with pytest.raises(core.errors.SlotIDError, match="There is no identity"):
        run("SlotIDLoadIdentity", identity_name=name)
    assert load.validate_inputs("ann.safetensors") is True


def test_the_list_and_the_file_are_fresh(run, nodes, saved, folders):
    load = nodes["SlotIDLoadIdentity"]
    saved("ann")
    saved("ben", 1)
    assert listed(nodes) == ["ann.safetensors", "ben.safetensors"]
    ann = load.fingerprint_inputs(identity_name="ann.safetensors")
    path = folders.slotid / "identities" / "ann.safetensors"
    os.utime(path, (1, 1))
    assert load.fingerprint_inputs(identity_name="ann.safetensors", slotid_model=None) == ann, "the same content"
    times = path.stat()
    shutil.copy(path.with_name("ben.safetensors"), path)
    os.utime(path, (times.st_atime, times.st_mtime))
    assert load.fingerprint_inputs(identity_name="ann.safetensors") != ann, "by content, not by time"
    path.unlink()
    assert listed(nodes) == ["ben.safetensors"]


def test_a_damaged_file_is_refused_by_name(run, saved, folders, core):
    saved("ann")
    path = folders.slotid / "identities" / "ann.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(core.errors.SlotIDError, match=r"ann\.safetensors.*the hash differs"):
        run("SlotIDLoadIdentity", identity_name="ann.safetensors")


def test_a_file_of_other_weights_is_refused_by_name(run, saved, people, wan, slotid_model, core):
    foreign = replace(people[0], weights_hash="f" * 64, backbone="Wan of old")
    run("SlotIDSaveIdentity", identity=foreign, name="foreign")
    said = (
        rf"foreign\.safetensors .*other Slot-ID weights: got ffffffffffff, for Wan of old.*{slotid_model.sha256[:12]}"
    )
    with pytest.raises(core.errors.SlotIDError, match=said):
        run("SlotIDLoadIdentity", identity_name="foreign.safetensors", slotid_model=slotid_model)
    loaded = run("SlotIDLoadIdentity", identity_name="foreign.safetensors").identity
    with pytest.raises(core.errors.SlotIDError, match=said):
        run("SlotIDApply", model=wan, slotid_model=slotid_model, identity=loaded)


def test_a_loaded_person_does_what_the_encoded_one_does(run, saved, tools, wan, people, slotid_model):
    saved("ann")
    loaded = run("SlotIDLoadIdentity", identity_name="ann.safetensors").identity
    shown = [
        tools.evaluate(run("SlotIDApply", model=wan, slotid_model=slotid_model, identity=identity).model)
        for identity in (people[0], loaded, people[1])
    ]
    assert torch.equal(shown[0], shown[1])
    assert float((shown[0] - shown[2]).norm() / shown[2].norm()) > 1e-3


def test_merging_reaches_the_model_and_says_what_it_did(run, tools, wan, people, slotid_model, core):
    a, b = people
    with pytest.raises(core.errors.SlotIDError, match="has no coverage"):
        run("SlotIDMergeIdentities", identity_1=a, identity_2=b)
    itself = run(
        "SlotIDMergeIdentities", identity_1=a, identity_2=a, identity_8=a, weighting="equal", weights="nonsense"
    )
    assert same(itself.identity, a) and "NOT CHECKED" in itself.info and itself.ui["text"][0] == itself.info
    assert len(itself.ui["images"]) == 1
    heavy = run("SlotIDMergeIdentities", identity_1=a, identity_2=b, identity_5=b, weighting="given", weights="2, 1, 1")
    half = run("SlotIDMergeIdentities", identity_1=a, identity_2=b, weighting="equal")
    assert "(0.50)" in heavy.info and same(heavy.identity, half.identity)

    def evaluate(identity):
        return tools.evaluate(run("SlotIDApply", model=wan, slotid_model=slotid_model, identity=identity).model)

    assert torch.equal(evaluate(itself.identity), evaluate(a))
    assert not torch.allclose(evaluate(half.identity), evaluate(a), rtol=1e-3)
    for weights in ("1", "1, 1, 1", "a, b"):
        with pytest.raises(core.errors.SlotIDError, match="weights"):
            run("SlotIDMergeIdentities", identity_1=a, identity_2=b, weighting="given", weights=weights)


def test_different_people_are_refused_unless_told(run, people, core):
    faces = [core.types.FaceEmbedding("dlib", torch.tensor(vector)) for vector in ([1.0, 0.0], [0.6, 0.8])]
    a, b = (replace(person, face=face) for person, face in zip(people, faces, strict=True))
    with pytest.raises(core.errors.SlotIDError, match="different people.*allow_different_people"):
        run("SlotIDMergeIdentities", identity_1=a, identity_2=b, weighting="equal")
    told = run("SlotIDMergeIdentities", identity_1=a, identity_2=b, weighting="equal", allow_different_people=True)
    assert told.info.startswith("Different people, merged as asked")


def test_the_ends_of_the_slider_are_the_people(run, people):
    a, b = people
    first, half, second = (
        run("SlotIDBlendIdentities", identity_1=a, identity_2=b, blend=share) for share in (0.0, 0.5, 1.0)
    )
    assert first.identity is a and second.identity is b
    middle = (a.embedding.clip_tokens_BSE + b.embedding.clip_tokens_BSE) / 2
    torch.testing.assert_close(half.identity.embedding.clip_tokens_BSE, middle)
    assert "Blended from" in half.info and half.ui["text"][0] == half.info


def test_the_optional_clips_are_as_many_as_the_core_takes(nodes, core):
    inputs = [
        slot.id for slot in nodes["SlotIDMergeIdentities"].define_schema().inputs if slot.id.startswith("identity_")
    ]
    assert inputs == [f"identity_{n}" for n in range(1, core.identities.MOST_PARTS + 1)]


def test_real_clips_of_one_person_merge_and_those_of_two_do_not(run, folders, shared_clips, slotid_model, vae, core):
    pytest.importorskip("dlib", reason="needs the face backend dlib: pip install dlib-bin face-recognition-models")

    def encode(path, start: float):
        shutil.copy(path, folders.input / path.name)
        find = {"faces": "dlib", "person_index": 1, "on_break": "longest part"}
        read = run("SlotIDLoadReferenceClip", video=path.name, start=start, frame_count=17, size=64, **find)
        picture = run("SlotIDExtractPortrait", reference=read.reference, size=64, background="keep").portrait
        given = {"vae": vae, "clip": read.clip, "portrait": picture, "reference": read.reference}
        return run("SlotIDEncode", slotid_model=slotid_model, **given).identity

    first, later, other = encode(shared_clips[0], 0.0), encode(shared_clips[0], 1.5), encode(shared_clips[1], 0.0)
    merged = run("SlotIDMergeIdentities", identity_1=first, identity_2=later)
    assert merged.info.startswith("One person") and "NOT CHECKED" not in merged.info
    assert (
        merged.identity.frames == 34 and merged.identity.coverage.faces == first.coverage.faces + later.coverage.faces
    )
    run("SlotIDSaveIdentity", identity=merged.identity, name="merged")
    loaded = run("SlotIDLoadIdentity", identity_name="merged.safetensors").identity
    assert same(loaded, merged.identity) and loaded.coverage == merged.identity.coverage
    for person in (first, loaded):
        with pytest.raises(core.errors.SlotIDError, match="different people"):
            run("SlotIDMergeIdentities", identity_1=person, identity_2=other)
