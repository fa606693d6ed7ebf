"""Identity Score: its arithmetic by a backend whose embeddings are angles, and real clips with dlib.

A frame of :class:`Angles` says in its first pixel what it shows: the angle of its embedding to the person's in degrees,
the head's yaw, and how many faces there are.
"""

import importlib.util
import io
import json
from math import cos, radians

import numpy as np
import pytest
import torch
from PIL import Image

from slotid_core.errors import SlotIDError
from slotid_core.reference import (
    Box,
    Reference,
    analyse,
    choose_backend,
    read_clip,
    score_identity,
    score_plot,
    score_sheet,
)
from slotid_core.reference.faces import Expression, Face, Pose
from slotid_core.reference.score import IdentityScore

RED, BLUE = (200, 60, 50), (40, 90, 200)
MIDDLE = 100  # of the numbers in a pixel, so that there are negative ones


class Angles:
    """Faces at fixed places; the second one, on the right, is a stranger at 90 degrees."""

    name, licence, same_person, strangers = "angles", "none", 0.5, 0.25

    def detect(self, frame_HWC, index, smallest_px=0.0):
        angle, yaw, count = (int(value) for value in frame_HWC[0, 0])
        face = Face(
            box_xyxy=(20.0, 20.0, 80.0, 80.0),
            score=1.0,
            pose=Pose(yaw=float(yaw - MIDDLE), pitch=0.0, roll=0.0),
            expression=Expression(eyes_open=1.0, mouth_open=1.0 if yaw > MIDDLE else 0.0, smile=0.0),
        )
        other = Face(box_xyxy=(120.0, 20.0, 180.0, 80.0), score=2.0)
        return [other, face][2 - count :] if count else []

    def best_score(self, frame_HWC):
        return None

    def limits(self, height, width):
        return "angles finds what it is told"

    def embed(self, frame_HWC, face):
        angle = radians(90.0 if face.box_xyxy[0] > 100 else int(frame_HWC[0, 0, 0]) - MIDDLE)
        return np.array([np.cos(angle), np.sin(angle)])


def frames_of(angles, yaws=0, counts=1):
    """``[F, 120, 200, 3]`` uint8."""
    rng = np.random.default_rng(0)
    frames = rng.integers(90, 110, (len(angles), 120, 200, 3)).astype(np.uint8)
    frames[:, 0, 0] = np.stack(np.broadcast_arrays(np.array(angles) + MIDDLE, np.array(yaws) + MIDDLE, counts), axis=1)
    return torch.from_numpy(frames)


def reference_of(angles=(0,) * 9, **what) -> Reference:
    frames = frames_of(angles, **what)
    return Reference(frames_FHWC=frames, fps=16.0, analysis=analyse(frames, Angles(), fps=16.0, every=1))


@pytest.fixture(scope="module")
def score():
    """``score(angles, ...)``: of frames that show those angles."""

    def function(angles, *, yaws=0, counts=1, reference=None, others=None, **options) -> IdentityScore:
        frames = frames_of(angles, yaws, counts)
        others = None if others is None else frames_of(others)
        return score_identity(frames, reference or reference_of(), Angles(), other_people_FHWC=others, **options)

    return function


def test_the_score_lies_between_floor_and_ceiling(score):
    same = score([0, 0], others=[90, 90])
    assert (same.similarity, same.ceiling, same.floor) == pytest.approx((1, 1, 0), abs=1e-9)
    assert same.score == pytest.approx(1)
    assert score([60, 60], others=[90]).score == pytest.approx(0.5)
    assert score([90], others=[60]).score == pytest.approx(-1), "worse than other people: not clamped"
    assert score([60]).floor == 0.25 and score([60]).score == pytest.approx((0.5 - 0.25) / 0.75)
    assert score([60]).to_dict()["floor_from"] == "backend"


def test_the_ceiling_is_of_frames_that_were_held_out(score):
    """Halves at 10 degrees to either side: each is 20 degrees from the other, and what lies between 10 from both."""
    reference = reference_of([-10] * 5 + [10] * 4)
    measured = score([0], reference=reference)
    assert measured.ceiling == pytest.approx(cos(radians(20)))
    assert measured.similarity == pytest.approx(cos(radians(10)))
    assert measured.score > 1


def test_frames_without_a_face_are_counted_and_in_no_mean(score):
    measured = score([0, 0, 60, 0], counts=[1, 0, 1, 0], others=[90])
    assert measured.without_face == [1, 3]
    assert measured.similarity == pytest.approx(0.75)
    report = json.loads(json.dumps(measured.to_dict()))
    assert (report["frames"], report["frames_with_face"], report["frames_without_face"]) == (4, 2, [1, 3])
    assert [frame["similarity"] for frame in report["per_frame"]][1::2] == [None, None]
    assert "NO FACE FOUND in 2 frames, which are in no mean: 1, 3." in measured.describe()


def test_the_worst_frames_come_first(score):
    measured = score([0, 50, 20, 70], others=[90])
    assert [frame.index for frame in measured.worst] == [3, 1, 2, 0] == measured.to_dict()["worst"]


def test_frames_nearer_to_another_person_are_said(score):
    measured = score([0, 70, 50, 80], counts=[1, 1, 1, 0], others=[90])
    assert measured.nearer_floor == [1] == measured.to_dict()["frames_nearer_floor"]
    assert measured.score > 0.5 and "Nearer to another person in 1 frames: 1." in measured.describe()


def test_of_several_faces_the_most_alike_counts(score):
    measured = score([30, 0], counts=[2, 1], others=[90])
    assert [frame.faces for frame in measured.frames] == [2, 1]
    assert measured.frames[0].similarity == pytest.approx(cos(radians(30)))
    assert measured.frames[0].face.box_xyxy[0] == 20
    assert "Several faces in 1 frames" in " ".join(measured.describe())


def test_bins_by_yaw_and_expression(score):
    reference = reference_of([0] * 9, yaws=[-30, -30, 0, 0, 0, 0, 0, 15, 15])
    measured = score([60, 60, 0, 45], yaws=[-15, -15, 0, 40], reference=reference)
    bins = {b.name: b for b in measured.by_yaw()}
    assert [b.frames for b in measured.by_yaw()] == [0, 2, 1, 0, 1]
    assert [b.held_out_frames for b in measured.by_yaw()] == [2, 0, 5, 2, 0]
    assert bins["10-25 left"].similarity == pytest.approx(0.5) and bins["10-25 left"].held_out is None
    assert bins["over 25 right"].similarity == pytest.approx(cos(radians(45)))
    assert bins["over 25 left"].similarity is None and bins["over 25 left"].held_out == pytest.approx(1)
    by_expression = {b.name: (b.frames, b.held_out_frames) for b in measured.by_expression()}
    assert by_expression == {"neutral": (3, 7), "smiling": (0, 0), "mouth open": (1, 2), "eyes closed": (0, 0)}


def test_every_and_progress(score):
    ticks = []
    measured = score([0, 60, 0, 60, 0], every=2, others=[90], progress=lambda *tick: ticks.append(tick))
    assert [frame.index for frame in measured.frames] == [0, 2, 4] and measured.score == pytest.approx(1)
    assert ticks == [(done, 13) for done in range(1, 14)]  # 9 of the reference, 1 other, 3 frames

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score([0], progress=interrupt)


def test_frames_without_any_face_get_no_score_and_no_error(score):
    measured = score([0, 0], counts=0, others=[90])
    assert np.isnan([measured.score, measured.similarity]).all()
    assert (measured.without_face, measured.worst, measured.nearer_floor) == ([0, 1], [], [])
    report = json.loads(json.dumps(measured.to_dict(), allow_nan=False))
    assert (report["score"], report["similarity"], report["frames_with_face"]) == (None, None, 0)
    assert report["ceiling"] == pytest.approx(1) and report["floor"] == pytest.approx(0, abs=1e-9)
    said = " ".join(measured.describe())
    assert "NO FACE FOUND in any of 2 frames" in said and "angles finds" in said and "nan" not in said


def test_other_people_like_the_person_are_an_error(score):
    with pytest.raises(SlotIDError, match="Check that other_people shows somebody else"):
        score([0], others=[0])


def test_other_people_without_a_face_are_an_error():
    with pytest.raises(SlotIDError, match="in the frames of other people"):
        score_identity(frames_of([0]), reference_of(), Angles(), other_people_FHWC=frames_of([90], counts=0))


def test_a_reference_with_faces_at_one_end_only_is_an_error():
    """Found by another backend than the one that compares: here by a box."""
    frames = frames_of([0] * 9, counts=[1] * 5 + [0] * 4)
    box = choose_backend("box", frames=9, box=Box(20, 20, 60, 60))
    reference = Reference(frames_FHWC=frames, fps=16.0, analysis=analyse(frames, box, fps=16.0))
    with pytest.raises(SlotIDError, match="in 5 frames of the reference's first half and 0 of its second"):
        score_identity(frames_of([0]), reference, Angles())
    with pytest.raises(SlotIDError, match="box has no embeddings.*insightface or dlib"):
        score_identity(frames_of([0]), reference, box)


def test_the_followed_person_is_compared_and_nobody_else():
    """Two faces in the reference; whoever is followed has the other one as a stranger."""
    frames = frames_of([0] * 9, counts=2)
    for number in (1, 2):
        analysis = analyse(frames, Angles(), fps=16.0, person_index=number, every=1)
        left = analysis.frames[0].face.box_xyxy[0] < 100
        reference = Reference(frames_FHWC=frames, fps=16.0, analysis=analysis)
        measured = score_identity(frames_of([0]), reference, Angles())
        assert measured.similarity == pytest.approx(1.0 if left else 0.0, abs=1e-9), number


def test_the_pictures(score):
    reference = reference_of()
    frames = frames_of([0, 50, 70, 0], counts=[1, 1, 1, 0])
    measured = score_identity(frames, reference, Angles(), other_people_FHWC=frames_of([90, 80]))
    sheet = score_sheet(measured, frames, reference)
    assert sheet.dtype == torch.uint8
    assert (sheet[:, -6:] > 240).all() and (sheet[-6:] > 240).all(), "nothing over the edge"
    widths = [int((sheet.numpy() == colour).all(-1).sum(1).max()) for colour in (BLUE, RED)]
    assert widths[0] == pytest.approx(160, abs=3) and widths[1] == pytest.approx(320, abs=6), "no face, and the worst"
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    plot, other = (score_plot(m) for m in (measured, score([0, 0, 0, 0])))
    assert plot.shape == other.shape == (720, 1000, 3) and not torch.equal(plot, other)


def test_the_pictures_of_frames_without_any_face(score):
    frames, measured = frames_of([0] * 7, counts=0), score([0] * 7, counts=0)
    sheet = score_sheet(measured, frames, reference_of())
    widths = [int((sheet.numpy() == colour).all(-1).sum(1).max()) for colour in (BLUE, RED)]
    assert widths[0] == pytest.approx(160, abs=3) and widths[1] > 3 * widths[0], "the reference, and frames as lost"
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    assert not torch.equal(score_plot(measured), score_plot(score([60] * 7)))


class Remembering:
    """dlib, which sees each picture once."""

    def __init__(self, backend):
        self._backend, self._faces, self._embeddings = backend, {}, {}

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def detect(self, frame_HWC, index, smallest_px=0.0):
        key = frame_HWC.tobytes()
        if key not in self._faces:
            self._faces[key] = self._backend.detect(frame_HWC, index)
        return self._faces[key]

    def embed(self, frame_HWC, face):
        key = frame_HWC.tobytes(), face.box_xyxy
        if key not in self._embeddings:
            self._embeddings[key] = self._backend.embed(frame_HWC, face)
        return self._embeddings[key]


def jittered(frame_HWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other colours, a crop of 80 to 100 % of each side, shrunk, and JPEG at quality 25 to 60."""
    height, width = frame_HWC.shape[:2]
    share = rng.uniform(0.8, 1.0)
    h, w = int(share * height), int(share * width)
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    cut = (frame_HWC[top : top + h, left : left + w] / 255) ** rng.uniform(0.7, 1.4) * rng.uniform(0.8, 1.15, 3)
    picture = Image.fromarray((cut.clip(0, 1) * 255).round().astype(np.uint8))
    smaller = rng.uniform(0.7, 1.0)
    picture = picture.resize((int(smaller * w), int(smaller * h)), Image.Resampling.BICUBIC)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=int(rng.integers(25, 61)))
    # On paper of one size, so that frames of different sizes are one batch.
    paper = Image.new("RGB", (width, height), (128, 128, 128))
    paper.paste(Image.open(written), (0, 0))
    return np.asarray(paper)


def area_under_curve(same, different) -> float:
    same, different = np.array(same)[:, None], np.array(different)[None]
    return float(((same > different) + 0.5 * (same == different)).mean())


def test_real_people_are_told_apart(shared_clips):
    """Two windows of a clip, the second one jittered, against other people's second windows, with dlib."""
    pytest.importorskip("dlib", reason="needs dlib: pip install dlib-bin face-recognition-models")
    assert len(shared_clips) >= 3, "too few people to say anything"
    backend = Remembering(choose_backend("dlib", frames=1))
    rng = np.random.default_rng(1)
    references, windows = [], []
    for path in shared_clips:
        first = read_clip(path, frames=17, max_side=640)
        frames = first.frames_FHWC
        references.append(Reference(frames_FHWC=frames, fps=16.0, analysis=analyse(frames, backend, fps=16.0)))
        start = first.source.duration_s - 1.2
        assert start > 17 / 16, f"{path.name} is too short for two windows"
        second = read_clip(path, start=start, frames=17, max_side=640).frames_FHWC[::3]
        windows.append(torch.from_numpy(np.stack([jittered(frame.numpy(), rng) for frame in second])))
    frames, scores = ([], []), ([], [])
    lost = 0
    for r, reference in enumerate(references):
        for w, window in enumerate(windows):
            measured = score_identity(window, reference, backend)
            scores[r != w].append(measured.score)
            frames[r != w].extend(frame.similarity for frame in measured.frames if frame.face is not None)
            lost += len(measured.without_face) if r == 0 else 0
    by_frame, by_window = area_under_curve(*frames), area_under_curve(*scores)
    said = f"AUC {by_frame:.4f} by frame, {by_window:.4f} by window; "
    said += f"scores of the same {min(scores[0]):.2f} to {max(scores[0]):.2f}, of others up to {max(scores[1]):.2f}; "
    said += f"cosines from {min(frames[0]):.3f} on, others to {max(frames[1]):.3f}; {lost} frames without a face"
    print(said)
    assert min(by_frame, by_window) >= 0.95, said
    assert lost < 0.2 * sum(map(len, windows)), said
