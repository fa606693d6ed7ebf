"""The pipeline with dlib: on rendered heads, whose truth is known, and on real clips where they are at hand.

Two heads are drawn that dlib's embedding tells apart when they look ahead (views that turn lie closer together).
Clips are made by moving their pictures over a larger frame, so that few have to be drawn.
"""

import dataclasses

import numpy as np
import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.reference import SeveralPeopleError, analyse, choose_backend, crop_along, read_clip
from slotid_core.reference.faces import Pose
from slotid_core.reference.faces.dlib_faces import missing_packages
from training.world.render import render
from training.world.scene import Background, sample_scene
from training.world.traits import sample_traits

pytestmark = pytest.mark.skipif(missing_packages() is not None, reason=f"dlib is not at hand: {missing_packages()}")

FPS, SIDE = 16.0, 200
WALL = (0.55, 0.62, 0.70)


@pytest.fixture(scope="module")
def dlib_faces():
    return choose_backend("dlib", frames=1)


def draw(seed, yaw, side=SIDE):
    """A head on a plain wall, ``[side, side, 3]`` uint8, and its face box."""
    scene = dataclasses.replace(
        sample_scene(100, pose=Pose(yaw=float(yaw), pitch=0.0, roll=0.0)),
        background=Background(kind="plain", colour=WALL, second=WALL),
    )
    drawn = render(sample_traits(seed), scene, side, side)
    return (drawn.image_BHW3[0] * 255).round().to(torch.uint8), drawn.face_box_B4[0].numpy()


@pytest.fixture(scope="module")
def heads():
    """``heads[name]``: three views of each person, turning from left to right."""
    return {name: [draw(seed, yaw) for yaw in (-12, 0, 12)] for name, seed in (("a", 3), ("b", 4))}


def frames_of(count, height=240, width=480, wall=WALL):
    """Empty frames with a little noise, as a camera's."""
    rng = np.random.default_rng(0)
    noise = rng.integers(-3, 4, (count, height, width, 1))
    return torch.from_numpy((np.array(wall) * 255 + noise).astype(np.uint8))


def put(frames_FHWC, views, place, frames=None):
    """Paste a turning head, its upper left corner at ``place(i)``; returns the true centres of the face."""
    centres = {}
    _, height, width, _ = frames_FHWC.shape
    for i in range(len(frames_FHWC)) if frames is None else frames:
        picture, box = views[(0, 1, 2, 1)[i // 3 % 4] if len(views) > 1 else 0]
        x, y = (round(value) for value in place(i))
        left, top, right, bottom = max(0, x), max(0, y), min(width, x + len(picture)), min(height, y + len(picture))
        frames_FHWC[i, top:bottom, left:right] = picture[top - y : bottom - y, left - x : right - x]
        centres[i] = np.array([x + (box[0] + box[2]) / 2, y + (box[1] + box[3]) / 2])
    return centres


def deviation(analysis, centres):
    """Largest distance of the crop from the true face, in pixels."""
    return max(
        np.linalg.norm(analysis.path.centre_F2[i - analysis.kept.start] - centres[i])
        for i in analysis.kept
        if i in centres
    )


def cosine(person, picture_and_box, backend):
    """Likeness of a person who was found to a head that was drawn."""
    picture = picture_and_box[0].numpy()
    return float(person.embedding_D @ backend.embed(picture, backend.detect(picture, 0)[0]))


def test_a_moving_head_is_followed(heads, dlib_faces):
    clip = frames_of(33)
    centres = put(clip, heads["a"], lambda i: (20 + 6 * i, 20))
    analysis = analyse(clip, dlib_faces, fps=FPS)
    assert analysis.kept == range(33) and analysis.coverage.faces == 9
    assert analysis.path.side_F.max() / analysis.path.side_F.min() < 1.01
    # Landmarks of a turned head lie elsewhere than the drawn ones by some pixels; the crop is 160 wide.
    assert deviation(analysis, centres) < 10
    best = analysis.candidates[0]
    assert abs(best.face.pose.yaw) < 8
    assert crop_along(clip[:33], analysis.path, 128).shape == (33, 128, 128, 3)


def test_two_people_side_by_side(heads, dlib_faces):
    clip = frames_of(25)
    centres = {
        "a": put(clip, heads["a"], lambda i: (10 + i, 20)),
        "b": put(clip, heads["b"], lambda i: (270 - i, 30)),
    }
    with pytest.raises(SeveralPeopleError, match=r"2 people could be meant \(numbers 1, 2\)") as caught:
        analyse(clip, dlib_faces, fps=FPS)
    assert len(caught.value.people.persons) == 2
    followed = set()
    for number in (1, 2):
        analysis = analyse(clip, dlib_faces, fps=FPS, person_index=number)
        name = min(centres, key=lambda name: deviation(analysis, centres[name]))
        assert deviation(analysis, centres[name]) < 12 and analysis.kept == range(25)
        followed.add(name)
    assert followed == {"a", "b"}


def test_a_clip_cut_together_from_two_people(heads, dlib_faces):
    clip = torch.cat([frames_of(18), frames_of(23, wall=(0.35, 0.25, 0.2))])
    put(clip, heads["a"], lambda i: (100, 20), range(18))
    put(clip, heads["b"], lambda i: (130, 20), range(18, 41))
    with pytest.raises(SeveralPeopleError, match="Hard cut at frame 18"):
        analyse(clip, dlib_faces, fps=FPS)
    with pytest.raises(SlotIDError, match=r"Hard cut at frame 18\."):
        analyse(clip, dlib_faces, fps=FPS, person_index=1)
    for number, name, kept in ((1, "b", range(18, 39)), (2, "a", range(0, 17))):
        analysis = analyse(clip, dlib_faces, fps=FPS, person_index=number, on_break="longest part")
        person = analysis.people.persons[number - 1]
        other = "b" if name == "a" else "a"
        assert analysis.kept == kept
        assert cosine(person, heads[name][1], dlib_faces) > cosine(person, heads[other][1], dlib_faces) + 0.02
        assert {f.dropped for f in analysis.frames} == {None, "another person", "rounded to 4n+1"}


def test_another_person_fades_in_at_the_same_place(heads, dlib_faces):
    clip, after = frames_of(45), frames_of(45)
    # Frontal ones alone: turned heads are less alike to themselves than these two are to each other.
    put(clip, heads["a"][1:2], lambda i: (120, 20))
    put(after, heads["b"][1:2], lambda i: (120, 20))
    share_F111 = ((torch.arange(45) - 22) / 8).clamp(0, 1)[:, None, None, None]
    clip = (clip * (1 - share_F111) + after * share_F111).round().to(torch.uint8)
    with pytest.raises(SeveralPeopleError):
        analyse(clip, dlib_faces, fps=FPS)
    analyses = [analyse(clip, dlib_faces, fps=FPS, person_index=n, on_break="longest part", every=2) for n in (1, 2)]
    early, late = sorted(analyses, key=lambda analysis: analysis.kept.start)
    assert early.cuts == late.cuts == ()
    assert early.kept.start == 0 and early.kept.stop <= 28 and late.kept.start >= 24
    assert "another person" in {f.dropped for f in early.frames}


def test_a_third_of_the_frames_without_a_face(heads, dlib_faces):
    clip = frames_of(60)
    put(clip, heads["a"], lambda i: (120, 20), [*range(16), *range(36, 60)])
    with pytest.raises(SlotIDError, match="x no face") as caught:
        analyse(clip, dlib_faces, fps=FPS)
    assert "longest part has 21 frames from frame 36" in str(caught.value)
    analysis = analyse(clip, dlib_faces, fps=FPS, on_break="longest part")
    assert analysis.kept.start == 36 and len(analysis.people.persons) == 1


def test_no_face(dlib_faces):
    with pytest.raises(SlotIDError, match="No face was found in 3 frames; .*dlib finds upright faces.*a box"):
        analyse(frames_of(9), dlib_faces, fps=FPS)


def test_a_face_of_24_px_in_1080p(dlib_faces):
    small = draw(3, 0, side=60)
    assert 20 < small[1][3] - small[1][1] < 28
    clip = frames_of(5, 1080, 1920)
    put(clip, [small], lambda i: (900, 500))
    with pytest.raises(SlotIDError, match=r"No face was found in 2 frames.*1920x1080, at least \d\d pixels high"):
        analyse(clip, dlib_faces, fps=FPS)


@pytest.mark.parametrize("place", [(-35, 20), (315, 60)])
def test_a_face_at_the_border(heads, dlib_faces, place):
    clip = frames_of(13)
    put(clip, heads["a"][1:2], lambda i: place)
    analysis = analyse(clip, dlib_faces, fps=FPS)
    half = analysis.path.side_F[:, None] / 2
    assert (analysis.path.centre_F2 >= half).all() and (analysis.path.centre_F2 + half <= [480, 240]).all()
    x0, y0, x1, y1 = np.clip(analysis.candidates[0].face.box_xyxy, 0, [480, 240, 480, 240])
    (x, y), h = analysis.path.centre_F2[0], half[0, 0]
    assert x - h <= x0 + 1 and x1 - 1 <= x + h and y - h <= y0 + 1 and y1 - 1 <= y + h


def test_profiles_only(dlib_faces):
    clip = frames_of(9)
    put(clip, [draw(3, 85)], lambda i: (120, 20))
    with pytest.raises(SlotIDError, match="No face was found in 3 frames.*turned by less than about 40 degrees"):
        analyse(clip, dlib_faces, fps=FPS)


def test_extreme_dark_is_said(heads, dlib_faces):
    clip = frames_of(13)
    put(clip, heads["a"], lambda i: (120, 20))
    dark = (clip.float() * 0.08).round().to(torch.uint8)
    try:
        said = " ".join(analyse(dark, dlib_faces, fps=FPS).coverage.missing)
    except SlotIDError as error:
        said = str(error)
    assert "dark" in said
    with pytest.raises(SlotIDError, match="No face was found.*The picture is dark"):
        analyse((clip.float() * 0.01).round().to(torch.uint8), dlib_faces, fps=FPS)


def test_the_person_of_each_real_clip_is_found(shared_clips, dlib_faces):
    for path in shared_clips:
        clip = read_clip(path, frames=17, max_side=800)
        analysis = analyse(clip.frames_FHWC, dlib_faces, fps=clip.fps)
        assert len(analysis.people.persons) == 1, path.name
        assert analysis.kept == range(17) and analysis.coverage.faces == 5, path.name
        assert analysis.path.side_F.max() / analysis.path.side_F.min() < 1.05, path.name
        # A frame of the same clip is the smoothest path's own yardstick: no jump from one frame to the next.
        step_F = np.linalg.norm(np.diff(analysis.path.centre_F2, axis=0), axis=1)
        assert np.abs(np.diff(step_F)).max() < 0.02 * analysis.path.side_F.mean(), path.name
        yaws = [report.face.pose.yaw for report in analysis.candidates]
        best = analysis.candidates[0]
        if min(map(abs, yaws)) < 15:
            assert abs(best.face.pose.yaw) < 15, path.name
        assert best.face.expression.eyes_open > 0.25, path.name
        for sentence in analysis.coverage.missing:
            assert "nan" not in sentence and "-" not in sentence, sentence
