"""One video to tensors: what a node would make of the same window, and a reason for each that is left out."""

import numpy as np
import pytest
import torch

from slotid_core.latents import shuffle_frames
from slotid_core.reference import Box, analyse, crop_along, head_portraits, read_clip
from slotid_core.reference.faces.box import BoxFaces
from slotid_core.reference.faces.face import Face
from training.data.clip import PreparedClip, prepare_clip
from training.data.sources import PersonHint, Reject, SourceVideo, TrackBox
from training.demo_clip import demo_clip
from training.media import write_mp4
from training.wan_diffusers import encode_frames

BOX = (38, 34, 50, 54)


def video(path, hint=None):
    return SourceVideo(id="a/clip", path=path, caption="A head turns.", person="a", person_hint=hint)


@pytest.fixture
def prepare(drawn_dataset, tiny_settings, make_bench, tmp_path):
    """Prepares a video of the dataset, or another one, under changed settings and with other faces."""

    def run(path=drawn_dataset / "person0" / "clip.mp4", hint=None, faces=None, **data):
        bench = make_bench(tiny_settings(drawn_dataset, tmp_path / "cache", **data))
        bench.faces = faces or bench.faces
        return prepare_clip(bench, video(path, hint))

    return run


class FacesOf:
    """Faces that a function of the frame's number says."""

    name, licence, same_person = "said", "none", None

    def __init__(self, boxes_of):
        self._boxes_of = boxes_of

    def detect(self, frame_HWC, index, smallest_px=0.0):
        return [Face(box_xyxy=tuple(map(float, box)), score=1.0) for box in self._boxes_of(index)]

    def best_score(self, frame_HWC):
        return None

    def limits(self, height, width):
        return "said"


def write(tmp_path, frames):
    path = tmp_path / "video.mp4"
    write_mp4(path, frames)
    return path


def test_reference_and_portrait_are_the_reference_pipelines(drawn_dataset, prepare, vae):
    clip = prepare()
    assert isinstance(clip, PreparedClip)
    start = clip.facts["reference_seconds"][0]
    frames = read_clip(drawn_dataset / "person0" / "clip.mp4", start=start, frames=5, max_side=1280).frames_FHWC
    analysis = analyse(frames, BoxFaces(Box(*BOX), frames=1), fps=16.0)
    reference = encode_frames(vae, crop_along(frames, analysis.path, 64))[0]
    portrait = head_portraits(frames, analysis, size=64)[0]
    torch.testing.assert_close(clip.tensors["reference.0"], reference)
    torch.testing.assert_close(clip.tensors["portrait"], encode_frames(vae, portrait.image_HWC.unsqueeze(0))[0])
    assert clip.facts["portrait_second"] == pytest.approx(start + portrait.frame_index / 16)
    assert clip.facts["coverage"] == analysis.coverage.to_dict()


def test_windows_shapes_and_kinds_of_numbers(prepare):
    clip = prepare(sizes=[[64, 96], [64, 64]], lengths=[9, 5])
    assert clip.facts["windows"] == "overlapping" and clip.facts["target_shape"] == (3, 8, 8)
    assert prepare().facts["windows"] == "disjoint"
    assert prepare(lengths=[5], reference_frames=9).facts["reference_shape"] == (3, 8, 8)
    kinds = {name: tensor.dtype for name, tensor in clip.tensors.items() if not name.startswith("thumbnail")}
    assert kinds.pop("target") == kinds.pop("text") == torch.bfloat16
    assert set(kinds) == {"reference.0", "reference.1", "portrait"} and set(kinds.values()) == {torch.float32}
    assert clip.tensors["text"].shape == (3, 4096)


def test_the_target_shows_the_targets_frames(drawn_dataset, prepare, vae):
    clip = prepare(sizes=[[128, 128]])
    first = round(clip.facts["target_seconds"][0] * 16)
    shown = read_clip(drawn_dataset / "person0" / "clip.mp4", start=first / 16, frames=5).as_float()
    expected = encode_frames(vae, shown)[0].to(torch.bfloat16)
    assert clip.facts["target_seconds"] == (first / 16, (first + 5) / 16)
    torch.testing.assert_close(clip.tensors["target"], expected)


def test_other_versions_differ_from_the_first(prepare):
    clip = prepare(augment={"variants": 3})
    versions = [clip.tensors[f"reference.{v}"] for v in range(3)]
    assert not any(torch.allclose(versions[a], versions[b], atol=0.05) for a, b in ((0, 1), (0, 2), (1, 2)))
    same = prepare(augment={"variants": 2, "brightness": 0, "contrast": 0, "saturation": 0, "crop": 0})
    assert torch.equal(same.tensors["reference.0"], same.tensors["reference.1"])


def test_ablation_b_shuffles_pixels_before_the_vae(drawn_dataset, prepare, vae):
    clip = prepare(slotid={"clip_order": "shuffled"})
    start = clip.facts["reference_seconds"][0]
    frames = read_clip(drawn_dataset / "person0" / "clip.mp4", start=start, frames=5).frames_FHWC
    analysis = analyse(frames, BoxFaces(Box(*BOX), frames=1), fps=16.0)
    shuffled = shuffle_frames(crop_along(frames, analysis.path, 64))
    torch.testing.assert_close(clip.tensors["reference.0"], encode_frames(vae, shuffled)[0])


def test_of_a_cut_video_the_longest_part_is_taken(prepare, tmp_path):
    frames = np.concatenate([demo_clip(0, frames=6, size=128), 255 - demo_clip(3, frames=14, size=128)])
    clip = prepare(write(tmp_path, frames))
    assert min(clip.facts["target_seconds"] + clip.facts["reference_seconds"]) >= 6 / 16


FACE = (38, 34, 88, 88)
OTHER = (2, 2, 60, 60)


@pytest.mark.parametrize(
    "reason, faces, data",
    [
        ("no face", lambda i: [], {}),
        ("small face", lambda i: [(40, 40, 70, 70)], {}),
        ("several people", lambda i: [(0, 30, 60, 90), (66, 30, 126, 90)], {}),
        ("too short", lambda i: [FACE], {"lengths": [17]}),
        ("too short", lambda i: [FACE], {"reference_frames": 13}),
        ("too small", lambda i: [FACE], {"sizes": [[208, 208]]}),
        ("face leaves the crop", lambda i: [(5 + 6 * i, 34, 60 + 6 * i, 88)], {"sizes": [[96, 32]]}),
        ("no portrait", lambda i: [(1, 1, 127, 127)], {}),
    ],
)
def test_what_is_left_out_says_why(prepare, reason, faces, data):
    reject = prepare(faces=FacesOf(faces), **data)
    assert isinstance(reject, Reject) and (reject.id, reject.reason) == ("a/clip", reason)
    assert len(reject.detail) > 20


def test_files_that_are_no_videos_are_left_out(prepare, tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    assert prepare(path).reason == "unreadable"
    path.write_bytes(b"")
    assert prepare(path).reason == "unreadable"


def test_a_video_of_a_few_frames_is_too_short(prepare, tmp_path):
    assert prepare(write(tmp_path, demo_clip(0, frames=3, size=128))).reason == "too short"


class Hint:
    def __init__(self, *boxes):
        self._boxes = boxes

    def read(self):
        return PersonHint(boxes=tuple(TrackBox(second=s, box_xyxy=b) for s, b in self._boxes), step_s=1 / 16)


def test_a_hint_says_whose_face_counts(prepare):
    def faces(index):
        return [(0, 30, 60, 90), (66, 30, 126, 90)]

    left, right = (Hint((0.0, (x, 0.2, x + 0.5, 0.8)), (0.7, (x, 0.2, x + 0.5, 0.8))) for x in (0.0, 0.5))
    first, second = (prepare(faces=FacesOf(faces), hint=hint) for hint in (left, right))
    assert isinstance(first, PreparedClip) and isinstance(second, PreparedClip)
    assert not torch.allclose(first.tensors["reference.0"], second.tensors["reference.0"], atol=0.05)
    nowhere = prepare(faces=FacesOf(faces), hint=Hint((0.0, (0.9, 0.9, 1.0, 1.0)), (0.7, (0.9, 0.9, 1.0, 1.0))))
    assert nowhere.reason == "no face"


def test_with_a_hint_only_its_time_is_read(prepare):
    whole = (0.2, 0.2, 0.8, 0.8)
    clip = prepare(hint=Hint((0.25, whole), (0.6, whole)))
    assert min(clip.facts["reference_seconds"] + clip.facts["target_seconds"]) >= 0.25
