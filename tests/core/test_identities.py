"""Identities merged, blended, described, noted, and told apart; what their files keep, and what of it is refused."""

import copy
import itertools
import json
import random
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from slotid_core.errors import SlotIDError
from slotid_core.identities import add_note, blend, check_weights, describe, merge, parse_weights, quality
from slotid_core.identity_file import load_identity, save_identity
from slotid_core.reference.coverage import join
from slotid_core.reference.faces.choose import same_person_of
from slotid_core.reference.faces.dlib_faces import DlibFaces
from slotid_core.reference.faces.insightface_faces import InsightFaces
from slotid_core.safe_file import SafeFile, write
from slotid_core.types import FaceEmbedding, IdentityEmbedding

TENSORS = [field.name for field in fields(IdentityEmbedding)]


def face(*numbers: float, backend: str = "dlib") -> FaceEmbedding:
    vector_D = torch.tensor(numbers, dtype=torch.float64)
    return FaceEmbedding(backend, (vector_D / vector_D.norm()).float())


@pytest.fixture
def three(make_identity):
    """Three clips of one person, by their faces."""
    return [replace(make_identity(n), face=face(10, n), frames=33, name=f"clip{n}.safetensors") for n in range(3)]


def same_tensors(a, b) -> bool:
    return all(torch.equal(getattr(a.embedding, name), getattr(b.embedding, name)) for name in TENSORS)


def close_tensors(a, b) -> bool:
    return all(torch.allclose(getattr(a.embedding, name), getattr(b.embedding, name), atol=1e-6) for name in TENSORS)


@pytest.mark.parametrize("count", range(2, 9))
def test_equal_identities_merge_into_themselves(count, three):
    weights = [1 / (n + 3) for n in range(count)]
    merged = merge([three[1]] * count, weighting="given", weights=weights).identity
    assert same_tensors(merged, three[1])
    assert torch.allclose(merged.face.vector_D, three[1].face.vector_D, atol=1e-7)


def test_the_mean_goes_by_the_weights(three):
    by_hand = {"equal": (1 / 3, 1 / 3, 1 / 3), "given": (0.5, 0.0, 0.5)}
    for weighting, shares in by_hand.items():
        merged = merge(three, weighting=weighting, weights=(3, 0, 3))
        assert merged.weights == pytest.approx(shares)
        for name in TENSORS:
            mean = sum(share * getattr(i.embedding, name) for share, i in zip(shares, three, strict=True))
            torch.testing.assert_close(getattr(merged.identity.embedding, name), mean)
    alone = merge(three, weighting="given", weights=(0, 7, 0)).identity
    assert same_tensors(alone, three[1]) and torch.equal(alone.thumbnail_HWC, three[1].thumbnail_HWC)


def test_slots_stay_in_their_places(three):
    """Slot k of one clip answers the query of slot k of the other: nothing is sorted or matched."""
    a, b = three[:2]
    order = torch.tensor([5, 3, 1, 0, 2, 4])
    shuffled = [
        replace(i, embedding=replace(i.embedding, clip_tokens_BSE=i.embedding.clip_tokens_BSE[:, order]))
        for i in (a, b)
    ]
    plain, moved = merge([a, b]).identity, merge(shuffled).identity
    assert torch.equal(moved.embedding.clip_tokens_BSE, plain.embedding.clip_tokens_BSE[:, order])
    assert not close_tensors(merge([a, shuffled[1]]).identity, plain)


def test_the_order_of_the_clips_does_not_count(three):
    first = merge(three, weighting="quality")
    for order in itertools.permutations(range(3)):
        other = merge([three[n] for n in order])
        assert close_tensors(other.identity, first.identity)
        assert other.weights == pytest.approx([first.weights[n] for n in order])


def test_a_better_clip_counts_more(three):
    coverage = three[0].coverage
    better = {
        "faces": replace(coverage, faces=12),
        "sharpness": replace(coverage, sharpness=(0.03, 0.04)),
        "size_px": replace(coverage, size_px=(120.0, 130.0)),
    }
    for changed in better.values():
        assert quality(changed) > quality(coverage)
        shares = merge([three[0], replace(three[1], coverage=changed)], weighting="quality").weights
        assert shares[1] > 0.5 and sum(shares) == pytest.approx(1)
    most = replace(coverage, faces=16, size_px=(150.0, 150.0))
    assert quality(replace(most, faces=33, size_px=(900.0, 900.0))) == quality(most)


def test_a_clip_whose_quality_is_not_known_is_not_guessed(three):
    parts = [three[0], replace(three[1], coverage=None)]
    with pytest.raises(SlotIDError, match=r"Identity 2 \(clip1.safetensors\) has no coverage.*'equal'"):
        merge(parts)
    merged = merge(parts, weighting="equal").identity
    assert merged.coverage == join([three[0].coverage])


@pytest.mark.parametrize("given", [(), (1,), (1, 1, 1), (0, 0), (-1, 2), (float("nan"), 1), (float("inf"), 1)], ids=str)
def test_weights_that_are_none(given, three):
    with pytest.raises(SlotIDError, match="weights"):
        merge(three[:2], weighting="given", weights=given)


def test_weights_are_read_from_text():
    assert parse_weights(" 2, 1.5 ,0") == (2.0, 1.5, 0.0) and parse_weights(" ") == ()
    for text in ("2; 1", "a", "1,,2", "1,"):
        with pytest.raises(SlotIDError, match="expected numbers with commas"):
            parse_weights(text)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_too_few_or_too_many(count, three):
    with pytest.raises(SlotIDError, match=f"Got {count} identities to merge, expected 2 to 8"):
        merge([three[0]] * count)


def test_other_weights_are_refused_and_named(three):
    foreign = replace(three[1], weights_hash="f" * 64)
    for together in (lambda: merge([three[0], foreign]), lambda: blend(three[0], foreign, 0.0)):
        with pytest.raises(SlotIDError, match=r"aaaaaaaaaaaa, identity 2 \(clip1.safetensors\) with ffffffffffff"):
            together()


def test_shapes_that_do_not_agree_are_refused(three, make_embedding):
    """A file can claim any weights."""
    hostile = replace(three[1], embedding=make_embedding(slots=5))
    for together in (lambda: merge([three[0], hostile]), lambda: blend(hostile, three[0], 0.5)):
        with pytest.raises(SlotIDError, match="other shapes"):
            together()


def test_different_people_are_refused_unless_told(three):
    stranger = replace(three[2], face=face(1, 3))
    with pytest.raises(SlotIDError, match=r"Identities 1 \(clip0.* and 3 .*likeness of 0.316 by dlib.*0.945 or more"):
        merge([*three[:2], stranger])
    merged = merge([*three[:2], stranger], allow_different_people=True)
    assert merged.person.startswith("Different people, merged as asked") and "NOT CHECKED" not in merged.person
    assert merged.identity.face is None, "the mean of two people's faces is nobody's"


def test_one_person_is_said_with_the_figures(three):
    merged = merge(three)
    assert merged.person.startswith("One person") and "1 (clip0.safetensors) and 3" in merged.person
    assert "0.981 by dlib; 0.945 is enough" in merged.person
    assert merged.identity.face.backend == "dlib"
    assert float(merged.identity.face.vector_D.norm()) == pytest.approx(1)


@pytest.mark.parametrize(
    "other",
    [None, face(10, 1, backend="insightface buffalo_l"), face(10, 1, 0), face(10, 1, backend="a newer backend")],
    ids=["no embedding", "another backend", "another width", "not known here"],
)
def test_what_was_not_compared_is_said(other, three):
    first = (
        replace(three[0], face=face(10, 0, backend="a newer backend")) if other and "new" in other.backend else three[0]
    )
    merged = merge([first, three[0], replace(three[1], face=other)])
    assert "NOT CHECKED" in merged.person and "1 and 3" in merged.person
    assert merged.identity.face is None
    nothing = merge([replace(i, face=None) for i in three])
    assert nothing.person.startswith("NOT CHECKED") and "1 and 2, 1 and 3, 2 and 3" in nothing.person


def test_a_difference_is_found_beside_what_can_not_be_compared(three):
    with pytest.raises(SlotIDError, match="Identities 2 .* and 3"):
        merge([replace(three[0], face=None), three[1], replace(three[2], face=face(0, 1))])


def test_thresholds_are_the_backends():
    assert same_person_of("dlib") == DlibFaces.same_person
    assert same_person_of("insightface antelopev2") == InsightFaces.same_person
    assert same_person_of("box") is same_person_of("mediapipe") is same_person_of("") is None


def test_what_a_merge_carries(three):
    parts = [replace(three[0], notes=("Ann agreed", "x")), replace(three[1], notes=("x", "until 2030"))]
    merged = merge(parts, weighting="given", weights=(1, 3)).identity
    assert merged.notes == ("Ann agreed", "x", "until 2030")
    assert merged.frames == 66 and merged.weights_hash == parts[0].weights_hash and merged.name == ""
    assert merged.origin == "Merged from clip0.safetensors (0.25), clip1.safetensors (0.75)"
    assert torch.equal(merged.thumbnail_HWC, parts[1].thumbnail_HWC)
    assert len({merged.clip_hash, merged.portrait_hash, parts[0].clip_hash, parts[1].clip_hash}) == 3
    assert merge(parts, weighting="given", weights=(2, 6)).identity.clip_hash == merged.clip_hash
    assert merge(parts, weighting="equal").identity.clip_hash != merged.clip_hash
    assert merge([parts[0], replace(parts[1], frames=None)]).identity.frames is None
    odd = replace(parts[0], name="a\x1b[2J.safetensors")
    assert "clip bbbbbbbbbbbb" in merge([odd, parts[1]]).identity.origin


def test_coverages_are_joined(three):
    base = replace(
        three[0].coverage, yaw=(-40.0, -20.0), eyes_open=(0.5, 0.9), missing=("no view within 15 ...", "no blink")
    )
    right = replace(base, yaw=(10.0, 60.0), pitch=(-20.0, 20.0), missing=("no view within 15 ...",), backend="box")
    joined = join([base, right])
    assert joined.yaw == (-40.0, 60.0) and joined.pitch == (-20.0, 20.0) and joined.mouth_open == base.mouth_open
    assert (joined.frames, joined.faces, joined.backend) == (66, 18, "box + dlib")
    assert any(said.startswith("no view within 15") for said in joined.missing)
    assert any("40 degrees to the left" in said for said in joined.missing)
    assert not any("right" in said or "blink" in said or "down" in said for said in joined.missing)
    frontal = replace(right, missing=())
    assert not any(said.startswith("no view within") for said in join([base, frontal]).missing)
    assert "no blink" in join([base, base]).missing
    assert join([joined, base]).backend == "box + dlib"
    blind = replace(base, yaw=None, eyes_open=None, missing=())
    assert join([base, blind]).missing == join([base, base]).missing, "who can't tell has not seen it"


def test_the_ends_of_a_blend_are_the_people(three):
    a, b = three[:2]
    assert blend(a, b, 0.0) is a and blend(a, b, 1.0) is b


def test_a_blend_is_linear(three):
    a, b = three[:2]
    for share in (1e-9, 0.25, 0.5, 0.999):
        mixed = blend(a, b, share)
        for name in TENSORS:
            x, y = (getattr(i.embedding, name).double() for i in (a, b))
            torch.testing.assert_close(
                getattr(mixed.embedding, name).double(), x + share * (y - x), rtol=1e-6, atol=1e-6
            )
        assert close_tensors(blend(b, a, 1 - share), mixed)
    assert same_tensors(blend(a, a, 0.3), a)


def test_a_blend_is_nobodys(three):
    a, b = (replace(i, notes=(f"note {n}",)) for n, i in enumerate(three[:2]))
    mixed = blend(a, b, 0.25)
    assert mixed.coverage is None and mixed.face is None and mixed.notes == ("note 0", "note 1")
    assert mixed.origin == "Blended from clip0.safetensors (0.75), clip1.safetensors (0.25)"
    black, white = (
        replace(i, thumbnail_HWC=torch.full((8, 6, 3), v, dtype=torch.uint8)) for i, v in ((a, 0), (b, 255))
    )
    thumbnail = blend(black, white, 0.25).thumbnail_HWC
    assert thumbnail.shape == (128, 128, 3) and thumbnail.dtype == torch.uint8
    assert not thumbnail[:, :96].any() and bool((thumbnail[:, 96:] == 255).all())


@pytest.mark.parametrize("share", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_share_is_between_0_and_1(share, three):
    with pytest.raises(SlotIDError, match="from 0 "):
        blend(*three[:2], share)


def test_an_identity_goes_with_its_weights(make_weights, make_inputs, make_identity, make_embedding):
    weights = make_weights()
    with torch.no_grad():
        embedding = weights.model.encode(*make_inputs()).embedding
    fits = replace(make_identity(), embedding=embedding, weights_hash=weights.sha256, name="ann.safetensors")
    check_weights(fits, weights)
    foreign = replace(fits, weights_hash="f" * 64, backbone="Wan of old")
    with pytest.raises(
        SlotIDError, match=rf"identity ann.safetensors was .*ffffffffffff, for Wan of old.*{weights.sha256[:12]}"
    ):
        check_weights(foreign, weights)
    for change in ({"slots": 5}, {"anchors": 3}):
        with pytest.raises(SlotIDError, match="ann.safetensors names these weights, and its"):
            check_weights(replace(fits, embedding=make_embedding(**change)), weights)


def test_the_description_says_what_there_is(three):
    text = describe(replace(three[0], backbone="Wan with width 16", notes=("Ann agreed",), origin="Merged from x"))
    for said in (
        "6 clip tokens and 2",
        "aaaaaaaaaaaa (Wan with width 16)",
        "33 frames read",
        "Merged from x.",
        "by dlib",
    ):
        assert said in text
    assert "Missing: no blink." in text and "Note: Ann agreed" in text
    bare = describe(replace(three[0], coverage=None, face=None, frames=None))
    assert "No coverage" in bare and "number of frames not kept" in bare and "face embedding" not in bare


def test_notes_are_added_once(three):
    noted = add_note(add_note(three[0], " agreed\nin writing "), "agreed\nin writing")
    assert noted.notes == ("agreed\nin writing",) and add_note(noted, "  \n") is noted
    with pytest.raises(SlotIDError, match="expected a text of 1 to 1000"):
        add_note(noted, "x" * 1001)
    for note, code in (
        ("a\x1b[2J", "001B"),
        ("a\0b", "0000"),
        ("a\tb", "0009"),
        ("a\u202eb", "202E"),
        ("\ud800", "D800"),
    ):
        with pytest.raises(SlotIDError, match=rf"control character U\+{code}"):
            add_note(noted, note)
    for note in ("\u5b89\u3000\u540c\u610f", "Ann\xa0agreed", "\u0645\u06cc\u200c\u062e", "\U0001f469\u200d\U0001f467"):
        assert add_note(noted, note).notes[-1] == note
    full = replace(noted, notes=tuple(map(str, range(64))))
    with pytest.raises(SlotIDError, match="65 notes, at most 64"):
        add_note(full, "one more")
    with pytest.raises(SlotIDError, match="72 notes"):
        merge([replace(full, notes=full.notes[:36]), replace(full, notes=tuple(f"b{n}" for n in range(36)))])


def test_everything_is_kept_in_the_file(tmp_path, three):
    rng = np.random.default_rng(0)
    vector = torch.from_numpy(rng.normal(size=512))
    identity = replace(
        three[0],
        face=face(*vector.tolist(), backend="insightface buffalo_l"),
        frames=65,
        backbone="Wan with width 16",
        origin="Merged from a (0.50), b (0.50)",
        notes=("Änne agreed\nin writing", "until 2030"),
    )
    path = tmp_path / "anne.safetensors"
    save_identity(path, identity)
    loaded = load_identity(path)
    assert torch.equal(loaded.face.vector_D, identity.face.vector_D) and loaded.face.backend == identity.face.backend
    assert loaded.name == "anne.safetensors"
    for name in ("frames", "backbone", "origin", "notes", "coverage", "clip_hash", "weights_hash"):
        assert getattr(loaded, name) == getattr(identity, name), name
    assert same_tensors(loaded, identity)
    before = path.read_bytes()
    save_identity(path, loaded)
    assert path.read_bytes() == before


def test_a_merge_of_files_is_the_merge(tmp_path, three):
    for identity in three:
        save_identity(tmp_path / identity.name, identity)
    merged, again = merge(three), merge([load_identity(tmp_path / identity.name) for identity in three])
    assert same_tensors(again.identity, merged.identity) and again.person == merged.person
    save_identity(tmp_path / "merged.safetensors", again.identity)
    loaded = load_identity(tmp_path / "merged.safetensors")
    assert same_tensors(loaded, merged.identity) and loaded.coverage == merged.identity.coverage
    assert loaded.origin == merged.identity.origin


def test_files_from_before_still_load(tmp_path, make_identity):
    """Nothing is written of what is not known, so the file is as it was before there was any."""
    path = tmp_path / "old.safetensors"
    save_identity(path, make_identity())
    with SafeFile(path, "identity", 1) as file:
        assert file.info.keys() == {"kind", "format_version", "weights_hash", "clip_hash", "portrait_hash", "coverage"}
    old = load_identity(path)
    assert (old.face, old.frames, old.backbone, old.origin, old.notes) == (None, None, "", "", ())


def test_notes_that_could_not_be_read_again_are_not_written(tmp_path, make_identity):
    with pytest.raises(SlotIDError, match="1000 letters"):
        save_identity(tmp_path / "x.safetensors", replace(make_identity(), notes=("x" * 1001,)))
    assert not list(tmp_path.iterdir())


def test_an_identity_that_could_not_be_read_again_leaves_the_file_that_was_there(tmp_path, make_identity):
    path, good = tmp_path / "x.safetensors", make_identity()
    save_identity(path, good)
    embedding = replace(good.embedding, clip_tokens_BSE=good.embedding.clip_tokens_BSE * torch.nan)
    with pytest.raises(SlotIDError, match="clip_tokens_BSE holds NaN"):
        save_identity(path, replace(good, embedding=embedding))
    assert load_identity(path).clip_hash == good.clip_hash and len(list(tmp_path.iterdir())) == 1
    many = tmp_path / "many.safetensors"
    save_identity(many, replace(good, frames=2_000_000))
    assert load_identity(many).frames == 1_000_000


SAVES = """
import sys
from pathlib import Path
from slotid_core.identity_file import load_identity, save_new_identity
root = Path(sys.argv[1])
identity = load_identity(root / "source.safetensors")
for _ in range(20):
    save_new_identity(root / "ann.safetensors", identity)
"""


def test_two_processes_that_save_at_once_take_no_name_from_each_other(tmp_path, make_identity, repo_root):
    save_identity(tmp_path / "source.safetensors", make_identity())
    command = [sys.executable, "-c", SAVES, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=repo_root) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    saved = sorted(tmp_path.glob("ann*"))
    assert len(saved) == 40 == len(list(tmp_path.iterdir())) - 1
    assert all(load_identity(path).name == path.name for path in saved)


UNIT = [0.6, 0.8]
HOSTILE = [
    *(("face", value) for value in (None, [], {}, {"backend": "dlib"}, {"backend": "dlib", "vector": UNIT, "x": 1})),
    *(("face", {"backend": value, "vector": UNIT}) for value in (None, "", 7, "x" * 2001, "a\nb", "\x1b[2J", ["dlib"])),
    *(
        ("face", {"backend": "dlib", "vector": value})
        for value in (None, [], [1.0], "11", [0, 1], [True, 0.0], [3.0, 4.0], [0.0, 0.0], [float("nan"), 1.0])
    ),
    *(
        ("face", {"backend": "dlib", "vector": value})
        for value in ([float("inf"), 0.0], [[1.0], 0.0], [1e308] * 4, [1 / 91] * 8281, {"0": 1.0}, ["0.6", "0.8"])
    ),
    *(("frames", value) for value in (None, 0, -1, 1.0, True, "65", 10**7, 10**400, [65])),
    *(("notes", value) for value in (None, "agreed", {}, [""], [7], ["a\x1b[2J"], ["a\0"], ["x" * 1001], ["x"] * 65)),
    *(
        (name, value)
        for name in ("backbone", "origin")
        for value in (None, "", 7, "a\nb", "x" * 2001, ["x"], "\x1b[2J")
    ),
]


@pytest.mark.parametrize(("name", "value"), HOSTILE, ids=lambda value: str(value)[:30])
def test_a_hostile_fact(name, value, good, tmp_path, refused):
    """Written by the writer itself, hash and all: what is refused is the fact."""
    with SafeFile(good["identity"], "identity", 1) as file:
        document = {**file.info, name: value}
    kind, version = document.pop("kind"), document.pop("format_version")
    tensors = load_file(good["identity"])
    write(tmp_path / "bad.safetensors", kind, version, tensors, document)
    refused("identity", tmp_path / "bad.safetensors", f"its {name}")
    fine = {
        "face": {"backend": "dlib", "vector": UNIT},
        "frames": 65,
        "notes": ["a\nb"],
        "backbone": "Wan",
        "origin": "x",
    }
    write(tmp_path / "fine.safetensors", kind, version, tensors, json.loads(json.dumps({**document, name: fine[name]})))
    assert getattr(load_identity(tmp_path / "fine.safetensors"), name), "the test must be able to fail"


NASTY = [
    None,
    True,
    0,
    -1,
    2,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    10**400,
    "",
    "x",
    "\0",
    "\ud800",
    "x" * 5000,
    [],
    {},
]
NASTY += [[0.6, 0.8], ["x"], [[]], [None] * 70, {"x": 1}, {"backend": "dlib", "vector": [1.0, 0.0]}]


def mutated(value, rng):
    """One place of a document replaced, taken out or added to."""
    if isinstance(value, dict | list) and value and rng.random() < 0.8:
        changed = copy.deepcopy(value)
        keys = list(changed) if isinstance(changed, dict) else range(len(changed))
        key, how = rng.choice(keys), rng.random()
        if how < 0.1:
            del changed[key]
        elif how < 0.2 and isinstance(changed, dict):
            changed[rng.choice(["face", "notes", "x", "coverage"])] = rng.choice(NASTY)
        else:
            changed[key] = mutated(changed[key], rng)
        return changed
    return rng.choice(NASTY)


def mutate_and_load(good, tmp_path, seeds) -> int:
    """How many documents were refused; hashes are right, so that only what they say can be the reason."""
    tensors = load_file(good["identity"])
    with SafeFile(good["identity"], "identity", 1) as file:
        document = file.info
    path, again, refusals = tmp_path / "mutated.safetensors", tmp_path / "again.safetensors", 0
    for seed in seeds:
        changed = mutated(document, random.Random(seed))
        if not isinstance(changed, dict):
            continue
        write(path, changed.pop("kind", None), changed.pop("format_version", None), tensors, changed)
        try:
            loaded = load_identity(path)
        except SlotIDError as error:
            assert path.name in str(error) and len(str(error)) < 1000
            refusals += 1
            continue
        save_identity(again, loaded)
        assert same_tensors(load_identity(again), loaded)
        describe(loaded)
    return refusals


def test_mutated_documents_are_refused_or_read(good, tmp_path):
    assert 100 < mutate_and_load(good, tmp_path, range(250)) < 250


@pytest.mark.full
def test_many_mutated_documents_are_refused_or_read(good, tmp_path):
    assert 5_000 < mutate_and_load(good, tmp_path, range(1000, 11_000)) < 10_000
