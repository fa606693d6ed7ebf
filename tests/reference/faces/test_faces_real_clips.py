"""dlib on real clips of people, where they are at hand. Shape letters: H W height and width, C channels (RGB).

What the clips show was looked at: wide_room's woman looks to the right of the picture, outdoor_zoom's to the left and
smiles all the time, turning_woman's closes her eyes for some seconds, still_man's opens his mouth wide.
"""

import av
import numpy as np
import pytest
from PIL import Image

from slotid_core.reference import read_clip


@pytest.fixture(scope="module")
def seen(shared_clips, dlib_faces):
    """By clip: frames spread over all of it, and the faces in each."""
    result = {}
    for path in shared_clips:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            seconds = min(10.0, float(stream.duration * stream.time_base))
        # 21 frames over four fifths of the clip (or of its first 10 s), and every other one of them.
        frames_FHWC = read_clip(path, start=0.02 * seconds, frames=21, fps=25 / seconds).frames_FHWC.numpy()[1::2]
        result[path.stem] = [(frame_HWC, dlib_faces.detect(frame_HWC, i)) for i, frame_HWC in enumerate(frames_FHWC)]
    return result


def poses(seen, stem):
    return np.array([(f[0].pose.yaw, f[0].pose.pitch, f[0].pose.roll) for _, f in clip(seen, stem) if f])


def expressions(seen, stem):
    return [f[0].expression for _, f in clip(seen, stem) if f]


def clip(seen, stem):
    if stem not in seen:
        pytest.skip(f"needs the clip {stem}.mp4")
    return seen[stem]


def test_every_clip_has_one_face_in_most_frames(seen):
    for stem, frames in seen.items():
        with_one = sum(len(faces) == 1 for _, faces in frames)
        assert with_one >= 0.9 * len(frames), stem


def test_boxes_are_plausible_faces(seen):
    for stem, frames in seen.items():
        for frame_HWC, faces in frames:
            for face in faces:
                left, top, right, bottom = face.box_xyxy
                assert 0.7 < (right - left) / (bottom - top) < 1.3, stem
                assert -10 < left < right < frame_HWC.shape[1] + 10 and -10 < top < bottom < frame_HWC.shape[0] + 10


def test_signs_of_the_yaw(seen):
    assert poses(seen, "wide_room")[:, 0].min() > 8
    assert np.median(poses(seen, "outdoor_zoom")[:, 0]) < -8
    turning = poses(seen, "turning_woman")[:, 0]
    assert np.ptp(turning) > 4 and np.abs(turning).max() < 15
    assert np.abs(poses(seen, "smile_greenscreen")[:, 0]).max() < 8


def test_eyes(seen):
    openness = [e.eyes_open for e in expressions(seen, "turning_woman")]
    assert min(openness) < 0.2 and max(openness) > 0.7
    assert np.median([e.eyes_open for e in expressions(seen, "wide_room")]) > 0.7


def test_mouths(seen):
    openness = [e.mouth_open for e in expressions(seen, "still_man")]
    assert min(openness) < 0.1 and max(openness) > 0.7
    assert max(e.mouth_open for e in expressions(seen, "wide_room")) < 0.1


def test_smiles(seen):
    assert min(e.smile for e in expressions(seen, "outdoor_zoom")) > 0.6
    assert max(e.smile for e in expressions(seen, "wide_room")) < 0.2
    greenscreen = [e.smile for e in expressions(seen, "smile_greenscreen")]
    assert min(greenscreen) < 0.1 and max(greenscreen) > 0.6


def test_the_mirror_flips_yaw_and_roll(seen, dlib_faces):
    for stem, frames in seen.items():
        frame_HWC, faces = next((frame, faces) for frame, faces in frames if faces)
        mirrored = dlib_faces.detect(frame_HWC[:, ::-1], 0)[0]
        assert mirrored.pose.yaw == pytest.approx(-faces[0].pose.yaw, abs=4), stem
        assert mirrored.pose.roll == pytest.approx(-faces[0].pose.roll, abs=3), stem
        assert mirrored.pose.pitch == pytest.approx(faces[0].pose.pitch, abs=4), stem


@pytest.mark.parametrize("clockwise", [-15, 15])
def test_turning_the_frame_turns_the_roll(seen, dlib_faces, clockwise):
    for stem in ("smile_greenscreen", "still_man"):
        frame_HWC, faces = clip(seen, stem)[0]
        turned_HWC = np.array(Image.fromarray(frame_HWC).rotate(-clockwise, Image.Resampling.BICUBIC))
        turned = dlib_faces.detect(turned_HWC, 0)[0]
        assert turned.pose.roll - faces[0].pose.roll == pytest.approx(clockwise, abs=3), stem
        assert turned.pose.yaw == pytest.approx(faces[0].pose.yaw, abs=5), stem


def test_embeddings_tell_people_apart(seen, dlib_faces):
    vectors_by_clip = {
        stem: np.array([dlib_faces.embed(frame_HWC, faces[0]) for frame_HWC, faces in frames[::3] if faces])
        for stem, frames in seen.items()
    }
    for stem, vectors_ND in vectors_by_clip.items():
        assert (vectors_ND @ vectors_ND.T).min() >= dlib_faces.same_person, stem
        for other, others_ND in vectors_by_clip.items():
            if other != stem:
                assert (vectors_ND @ others_ND.T).max() < dlib_faces.same_person, (stem, other)
