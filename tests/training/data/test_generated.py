"""People who do not exist, as a dataset."""

import itertools

import pytest

from slotid_core.reference import read_clip
from training.data.clip import Bench, PreparedClip, prepare_clip
from training.data.generated import GeneratedSource
from training.settings_file import from_dict


def settings_in(cache, **generated):
    model = {"preset": "tiny", "transformer": "tiny", "vae": "tiny", "text_encoder": "hashed"}
    data = {
        "layout": "generated", "cache": str(cache), "generated": generated, "sizes": [[64, 64]], "lengths": [5],
        "reference_frames": 5, "reference_side": 64, "portrait_side": 64, "augment": {"variants": 1},
        "faces": "dlib",
    }  # fmt: skip
    return from_dict({"run": {"folder": "r"}, "model": model, "data": data, "optim": {"steps": 1, "batch": 1}}, "test")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    settings = settings_in(tmp_path_factory.mktemp("generated"), people=2, clips=2, frames=5)
    return settings, GeneratedSource(settings).videos()[0]


def test_clips_of_a_person_differ_in_scene_and_not_in_person(dataset):
    _, videos = dataset
    assert [video.id for video in videos] == [f"person0000{p}/clip0{c}" for p in (0, 1) for c in (0, 1)]
    assert [video.person for video in videos] == ["person00000"] * 2 + ["person00001"] * 2
    frames = [read_clip(video.path, frames=5).as_float() for video in videos]
    for a, b in itertools.combinations(frames, 2):
        assert (a - b).abs().mean() > 0.03
    assert all("person" in video.caption.lower() and "0" not in video.caption for video in videos)


def test_what_is_missing_is_rendered_again_to_the_byte(dataset):
    settings, videos = dataset
    content = videos[2].path.read_bytes()
    others = {video.path: video.path.stat().st_mtime_ns for video in videos if video is not videos[2]}
    videos[2].path.unlink()
    GeneratedSource(settings).videos()
    assert videos[2].path.read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_dlib_finds_the_faces(dataset):
    pytest.importorskip("dlib")
    settings, videos = dataset
    prepared = [prepare_clip(Bench(settings), video) for video in videos[::2]]
    assert all(isinstance(clip, PreparedClip) for clip in prepared), prepared
    assert all(clip.facts["coverage"]["size_px"][0] >= 48 for clip in prepared)
