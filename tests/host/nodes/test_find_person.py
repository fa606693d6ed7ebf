"""The nodes that find and follow a person, on rendered heads, with real dlib."""

import json

import pytest
import torch

dlib = pytest.importorskip("dlib", reason="needs the face backend dlib: pip install dlib-bin face-recognition-models")

FRAMES, SIZE = 9, 64


@pytest.fixture(scope="module")
def head():
    """A rendered head that turns; uint8 ``[F, H, W, 3]``."""
    from slotid_core.reference.faces import Pose
    from training.world.clips import Motion, head_clip, move
    from training.world.scene import sample_scene
    from training.world.traits import sample_traits

    scene = sample_scene(3, pose=Pose(yaw=0.0, pitch=0.0, roll=0.0))
    scenes = move(scene, Motion(yaw=15.0), frames=FRAMES)
    return head_clip(sample_traits(3), scenes, height=256, width=256)


@pytest.fixture(scope="module")
def video(head, folders):
    from training.media import write_mp4

    write_mp4(folders.input / "head.mp4", head.frames_FHWC, 16.0)
    return "head.mp4"


@pytest.fixture(scope="module")
def loaded(run, video):
    return run("SlotIDLoadReferenceClip", video=video, frame_count=FRAMES, size=SIZE)


def test_the_loader_finds_and_follows_the_person(loaded):
    assert loaded.clip.shape == (FRAMES, SIZE, SIZE, 3)
    assert loaded.frames.shape == (FRAMES, 256, 256, 3)
    assert "Faces by dlib" in loaded.info
    assert loaded.reference.analysis.kept == range(FRAMES)


def test_the_portrait_is_of_the_reference_and_white_around_it(run, loaded):
    portrait = run("SlotIDExtractPortrait", reference=loaded.reference, size=128)
    assert portrait.portrait.shape == (1, 128, 128, 3)
    assert portrait.frame_index == loaded.reference.analysis.candidates[0].index
    assert "built-in matte" in portrait.info
    assert float(portrait.portrait[0, :6, :6].mean()) > 0.97
    kept = run("SlotIDExtractPortrait", reference=loaded.reference, size=128, background="keep")
    assert "kept" in kept.info
    assert float(kept.portrait[0, :6, :6].mean()) < 0.97


def test_several_portraits_and_the_next_best(run, loaded):
    several = run("SlotIDExtractPortrait", reference=loaded.reference, size=64, count=2, background="keep")
    assert several.portrait.shape[0] == 2
    second = run("SlotIDExtractPortrait", reference=loaded.reference, size=64, rank=2, background="keep")
    assert second.frame_index == loaded.reference.analysis.candidates[1].index


def test_the_report_shows_and_says_what_is_missing(run, loaded):
    report = run("SlotIDReferenceReport", reference=loaded.reference)
    assert report.contact_sheet.ndim == report.coverage_plot.ndim == 4
    assert float(report.contact_sheet.std()) > 0.05
    coverage = json.loads(report.data)
    assert coverage["faces"] > 0
    assert report.missing.splitlines() == coverage["missing"]
    assert len(report.ui["images"]) == 2


@pytest.fixture(scope="module")
def encode(run, core, vae, loaded):
    """``encode(**inputs)``: Encode Slot-ID of the loaded clip."""
    weights = core.checkpoint.untrained_weights("tiny")
    portrait = run("SlotIDExtractPortrait", reference=loaded.reference, size=64).portrait
    given = {"slotid_model": weights, "vae": vae, "clip": loaded.clip, "portrait": portrait}
    return lambda **inputs: run("SlotIDEncode", **{**given, **inputs})


def test_the_coverage_is_kept_with_the_identity(encode, loaded, core, tmp_path):
    encoded = encode(reference=loaded.reference)
    coverage = encoded.identity.coverage
    assert coverage == loaded.reference.analysis.coverage
    assert (coverage.backend, coverage.first_frame, coverage.frames) == ("dlib", 0, FRAMES) and coverage.missing
    for sentence in coverage.missing:
        assert f"Missing: {sentence}." in encoded.ui["text"][0]
    face = encoded.identity.face
    assert face.backend == "dlib" and "the face's embedding by dlib" in encoded.ui["text"][0]
    assert face.vector_D.tolist() == loaded.reference.analysis.people.persons[0].embedding_D.astype("float32").tolist()
    assert encoded.identity.frames == FRAMES and encoded.identity.backbone.startswith("Wan with width 256")
    core.identity_file.save_identity(tmp_path / "someone.safetensors", encoded.identity)
    assert core.identity_file.load_identity(tmp_path / "someone.safetensors").coverage == coverage
    plain = encode(reference=None)
    assert plain.identity.coverage is None and plain.identity.face is None and "Missing" not in plain.ui["text"][0]


def test_a_reference_has_to_be_the_clips_own(encode, run, loaded, core, folders):
    from training.demo_clip import demo_clip
    from training.media import write_mp4

    encode(reference=loaded.reference, clip=(loaded.clip**1.8 + 0.03 * torch.randn_like(loaded.clip)).clamp(0, 1))
    with pytest.raises(core.errors.SlotIDError, match=f"of {FRAMES} frames, and the clip has 5"):
        encode(reference=loaded.reference, clip=loaded.clip[:5])
    write_mp4(folders.input / "drawn.mp4", demo_clip())
    drawn = run("SlotIDLoadReferenceClip", video="drawn.mp4", frame_count=FRAMES, size=SIZE)
    with pytest.raises(core.errors.SlotIDError, match="shows something else than the clip"):
        encode(reference=drawn.reference)


def test_frames_of_another_node_give_the_same(run, loaded):
    found = run("SlotIDFindPerson", frames=loaded.frames, faces="dlib", size=SIZE)
    torch.testing.assert_close(found.clip, loaded.clip)
    assert found.info in loaded.info


def test_a_mask_says_where_the_face_is(run, video, loaded, core):
    """With no face backend: what a box does, frame by frame."""
    box = {"box_x": 60, "box_y": 40, "box_width": 120, "box_height": 140}
    boxed = run("SlotIDLoadReferenceClip", video=video, frame_count=FRAMES, size=SIZE, **box)
    mask = torch.zeros(FRAMES, 256, 256)
    mask[:, 40:180, 60:180] = 1
    for given in (mask, mask[:1]):
        found = run("SlotIDFindPerson", frames=loaded.frames, mask=given, size=SIZE)
        assert torch.equal(found.clip, boxed.clip) and found.reference.analysis.backend == "box"
    moving = torch.stack([frame.roll(5 * i, dims=1) for i, frame in enumerate(mask)])
    followed = run("SlotIDFindPerson", frames=loaded.frames, mask=moving, size=SIZE)
    assert [f.face.box_xyxy[0] for f in followed.reference.analysis.candidates if f.index == 8] == [100]
    gone = torch.cat([mask[:5], torch.zeros_like(mask[5:])])
    with pytest.raises(core.errors.SlotIDError, match="not in the whole clip: of 9 frames 4 x no face"):
        run("SlotIDFindPerson", frames=loaded.frames, mask=gone, size=SIZE)
    with pytest.raises(core.errors.SlotIDError, match="backend dlib does not use it"):
        run("SlotIDFindPerson", frames=loaded.frames, mask=mask, faces="dlib", size=SIZE)
    with pytest.raises(core.errors.SlotIDError, match="a mask of 128x256 pixels for frames of 256x256"):
        run("SlotIDFindPerson", frames=loaded.frames, mask=mask[..., :128], size=SIZE)


def test_several_people_are_an_error_until_one_is_chosen(run, head, core):
    two = torch.from_numpy(head.frames_FHWC).float() / 255
    two = torch.cat([two, two.flip(0)], dim=2)
    with pytest.raises(core.errors.SlotIDError, match="person_index"):
        run("SlotIDFindPerson", frames=two, faces="dlib", size=SIZE)
    right = run("SlotIDFindPerson", frames=two, faces="dlib", size=SIZE, person_index=2)
    left = run("SlotIDFindPerson", frames=two, faces="dlib", size=SIZE, person_index=1)
    assert not torch.allclose(right.clip, left.clip, atol=0.05)


def test_what_does_not_go_together_is_an_error(run, loaded, core):
    for inputs, said in [
        ({}, "neither a reference nor frames"),
        ({"frames": loaded.frames, "rank": 2}, "only a reference is ranked"),
        ({"reference": loaded.reference, "box_width": 9, "box_height": 9}, "a box and a reference"),
        ({"reference": loaded.reference, "rank": 60}, "Ask for fewer"),
    ]:
        with pytest.raises(core.errors.SlotIDError, match=said):
            run("SlotIDExtractPortrait", size=64, **inputs)
    with pytest.raises(core.errors.SlotIDError, match="No face was found"):
        run("SlotIDFindPerson", frames=torch.rand(5, 128, 128, 3), faces="dlib", size=SIZE)
    with pytest.raises(core.errors.SlotIDError, match="needs face landmarks"):
        run("SlotIDFindPerson", frames=loaded.frames, faces="mediapipe", size=SIZE)


def test_no_frames_are_an_error(run, core):
    with pytest.raises(core.errors.SlotIDError, match="Got no frames to find a person in"):
        run("SlotIDFindPerson", frames=torch.zeros(0, 64, 64, 3))


@pytest.mark.parametrize("faces", [1, 2])
def test_landmarks_of_one_face_a_frame_are_said_to_be(nodes, faces):
    """ComfyUI's landmark node gives one unless told otherwise, so a second person is never seen."""
    import sys

    module = sys.modules[nodes["SlotIDFindPerson"].__module__]
    said = module._one_a_frame({"frames": [[], [{}] * faces, [{}]]})
    assert module._one_a_frame(None) == [] and len(said) == (faces == 1)
    assert all("set num_faces to 0" in line for line in said)
