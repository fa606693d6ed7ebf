"""The best portrait of a clip: planted truth among everything that spoils one.

Shape letters: H W height and width, C channels (RGB), D embedding width.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slotid_core.reference.faces.face import Expression as SeenExpression
from slotid_core.reference.faces.face import Face, Pose
from slotid_core.reference.faces.landmarks import face_from_landmarks
from slotid_core.reference.measures import FaceMeasures, Features, measure_face, pick_diverse, score_portraits
from training.world.render import render
from training.world.scene import Expression, sample_scene
from training.world.traits import sample_traits

SIDE = 224
TRIALS, NEEDED = 200, 0.95
BAD_FRAMES = 10


@dataclass(frozen=True)
class Picture:
    kind: str
    frame_HWC: Tensor
    face: Face
    embedding_D: np.ndarray


def _pictures_of(person: int, embed) -> list[Picture]:
    """One good picture, the first, and one or more of every kind of bad one."""
    random = np.random.RandomState(person)

    def nearly_frontal() -> Pose:
        return Pose(yaw=random.uniform(-5, 5), pitch=random.uniform(-5, 5), roll=random.uniform(-5, 5))

    shots = [
        ("good", nearly_frontal(), Expression()),
        ("turned", Pose(yaw=random.uniform(22, 35), pitch=0.0, roll=0.0), Expression()),
        ("turned", Pose(yaw=-random.uniform(22, 35), pitch=0.0, roll=0.0), Expression()),
        ("nodding", Pose(yaw=0.0, pitch=-random.uniform(20, 30), roll=0.0), Expression()),
        ("laughing", nearly_frontal(), Expression(smile=1.0, mouth_open=0.5)),
        ("smiling", nearly_frontal(), Expression(smile=random.uniform(0.7, 1))),
        ("talking", nearly_frontal(), Expression(mouth_open=random.uniform(0.4, 0.8))),
        ("eyes closed", nearly_frontal(), Expression(eyes_open=random.uniform(0, 0.1))),
    ]
    # Eyes of the renderer move by 15 degrees only: away from the camera as far as they go, and nothing else differs.
    ahead = shots[0][1]
    shots.append(("eyes aside", ahead, Expression(gaze_x=float(np.copysign(1.0, ahead.yaw)))))
    base = sample_scene(person)
    scenes = [replace(base, pose=pose, expression=expression) for _, pose, expression in shots]
    rendered = render([sample_traits(person)] * len(shots), scenes, SIDE, SIDE)
    frames = list((rendered.image_BHW3 * 255).round().byte())
    faces = [face_from_landmarks(points.numpy(), 1.0) for points in rendered.landmarks_B682]
    kinds = [kind for kind, *_ in shots]

    x0, y0, x1, y1 = (round(side) for side in faces[0].box_xyxy)
    middle_x, middle_y = (x0 + x1) // 2, (y0 + y1) // 2
    spoilt = [
        ("blurred", _blurred(frames[0], random.uniform(1.5, 2.5))),
        ("blurred", _blurred(frames[0], random.uniform(2.5, 5))),
        ("dark", (frames[0] * random.uniform(0.1, 0.3)).byte()),
        ("covered", _covered(frames[0], slice(middle_y, y1), slice(x0, x1), random)),
        ("covered", _covered(frames[0], slice(y0, y1), slice(x0, middle_x), random)),
        ("covered", _covered(frames[0], slice(max(0, y0 - 10), middle_y), slice(x0, x1), random)),
    ]
    for kind, frame_HWC in spoilt:
        kinds.append(kind)
        frames.append(frame_HWC)
        faces.append(faces[0])
    return [Picture(*parts, embed(*parts[1:])) for parts in zip(kinds, frames, faces, strict=True)]


def _blurred(frame_HWC: Tensor, sigma: float) -> Tensor:
    away = torch.arange(-16, 17)
    weights = torch.exp(-0.5 * (away / sigma) ** 2)
    kernel = (weights / weights.sum()).expand(3, 1, 1, -1)
    picture = F.pad(frame_HWC.float().permute(2, 0, 1)[None], (16, 16, 16, 16), mode="replicate")
    picture = F.conv2d(F.conv2d(picture, kernel, groups=3), kernel.transpose(2, 3), groups=3)
    return picture[0].permute(1, 2, 0).round().byte()


def _covered(frame_HWC: Tensor, rows: slice, columns: slice, random) -> Tensor:
    covered_HWC = frame_HWC.clone()
    covered_HWC[rows, columns] = torch.from_numpy(random.randint(40, 220, 3).astype(np.uint8))
    return covered_HWC


def _wins(people: range, landmarks: str) -> tuple[int, dict[str, int]]:
    """Trials in which the good frame of a shuffled clip came first, and what came first in the others.

    Landmarks are those that were drawn, or dlib's own; then frames in which dlib finds no face are not in the clip.
    """
    pytest.importorskip("dlib", reason="tells covered faces by embeddings of dlib")
    from slotid_core.reference.faces.dlib_faces import DlibFaces

    backend = DlibFaces()
    pool = [_pictures_of(person, lambda frame, face: backend.embed(frame.numpy(), face)) for person in people]
    if landmarks == "dlib":
        # 15 degrees of gaze are less than what dlib misreads of lips and pitch: with them 189 of 200 over many people.
        pool = [[p for p in pictures if p.kind != "eyes aside"] for pictures in pool]
        pool = [[seen for picture in pictures for seen in _as_seen(picture, backend)] for pictures in pool]
        assert all(pictures[0].kind == "good" for pictures in pool)
    random = np.random.RandomState(0)
    wins, losses = 0, {}
    for _ in range(TRIALS):
        pictures = pool[random.randint(len(pool))]
        bad = random.choice(np.arange(1, len(pictures)), min(BAD_FRAMES, len(pictures) - 1), replace=False)
        clip = [pictures[i] for i in random.permutation([0, *bad])]
        faces = [p.face for p in clip]
        # Compression noise, and light that changes a little from frame to frame.
        frames = [
            (p.frame_HWC * random.uniform(0.92, 1.08) + torch.from_numpy(random.normal(0, 1.5, (SIDE, SIDE, 3))))
            .clamp(0, 255)
            .byte()
            for p in clip
        ]
        measures = [measure_face(frame_HWC, face) for frame_HWC, face in zip(frames, faces, strict=True)]
        mean_D = np.mean([p.embedding_D for p in clip[:7]], axis=0)
        likeness = {i: float(p.embedding_D @ mean_D / np.linalg.norm(mean_D)) for i, p in enumerate(clip)}
        scores = score_portraits(faces, measures, likeness, backend.same_person)
        first = clip[int(np.argmax([s.total for s in scores]))].kind
        wins += first == "good"
        if first != "good":
            losses[first] = losses.get(first, 0) + 1
    return wins, losses


def _as_seen(picture: Picture, backend) -> list[Picture]:
    return [replace(picture, face=face) for face in backend.detect(picture.frame_HWC.numpy(), 0)[:1]]


def test_the_sharp_frontal_neutral_frame_comes_first():
    # dlib's landmarks are left to the many: among two people, one of whom it misreads costs half of the trials.
    wins, losses = _wins(range(300, 302), "drawn")
    assert wins >= NEEDED * TRIALS, losses


@pytest.mark.full
@pytest.mark.parametrize("landmarks", ["drawn", "dlib"])
def test_the_good_frame_comes_first_over_many_people(landmarks):
    wins, losses = _wins(range(400, 424), landmarks)
    print(f"{wins} of {TRIALS} with the landmarks {landmarks}; first in the others: {losses}")
    assert wins >= NEEDED * TRIALS, losses


GOOD = FaceMeasures(size_px=200, sharpness=0.05, brightness=0.5, clipped=0.0, inside=1.0)


def _face(yaw: float = 0.0, pitch: float = 0.0, mouth_open: float = 0.0, eyes_open: float = 0.7) -> Face:
    return Face(
        box_xyxy=(0, 0, 200, 200),
        score=1.0,
        pose=Pose(yaw=yaw, pitch=pitch, roll=0.0),
        expression=SeenExpression(eyes_open=eyes_open, mouth_open=mouth_open, smile=0.0),
    )


@pytest.mark.parametrize(
    "face, measures",
    [
        (_face(yaw=15), GOOD),
        (_face(pitch=-15), GOOD),
        (_face(mouth_open=0.3), GOOD),
        (_face(eyes_open=0.2), GOOD),
        (_face(), replace(GOOD, sharpness=0.03)),
        (_face(), replace(GOOD, brightness=0.1)),
        (_face(), replace(GOOD, brightness=0.95)),
        (_face(), replace(GOOD, clipped=0.3)),
        (_face(), replace(GOOD, inside=0.7)),
        (_face(), replace(GOOD, size_px=80)),
    ],
    ids="turned nodding mouth eyes blurred dark bright clipped cut-off small".split(),
)
def test_each_flaw_alone_costs_score(face, measures):
    good, bad = score_portraits([_face(), face], [GOOD, measures], likeness={})
    assert bad.total < 0.97 * good.total


def test_an_unlike_face_and_one_not_compared_rank_below_a_like_one():
    like, unlike, unknown = score_portraits([_face()] * 3, [GOOD] * 3, likeness={0: 0.99, 1: 0.95})
    assert like.total > unlike.total
    assert like.total > unknown.total


def test_a_small_drop_of_likeness_says_more_where_people_are_alike():
    """dlib tells people apart by 0.06 of a cosine, and a covered mouth costs 0.02 of it."""
    open_to_all, hidden = score_portraits([_face()] * 2, [GOOD] * 2, {0: 0.99, 1: 0.97}, same_person=0.945)
    assert hidden.unhidden < 0.7 and open_to_all.unhidden == 1
    assert score_portraits([_face()] * 2, [GOOD] * 2, {0: 0.99, 1: 0.97}, same_person=0.4)[1].unhidden > 0.75


def test_faces_without_pose_and_expression_are_ranked_by_the_picture():
    plain = Face(box_xyxy=(0, 0, 200, 200), score=1.0)
    blurred, sharp = score_portraits([plain] * 2, [replace(GOOD, sharpness=0.02), GOOD], likeness={})
    assert sharp.total > blurred.total


def _boxed(*box_xyxy: float) -> Face:
    return Face(box_xyxy=box_xyxy, score=1.0)


@pytest.mark.parametrize(
    "flaw", [{"eyes": 0.3}, {"mouth": 0.1}, {"mouth_width": 0.66}], ids=lambda flaw: next(iter(flaw))
)
def test_what_the_pixels_show_counts_where_the_landmarks_see_nothing(flaw):
    at_rest = Features(eyes=0.9, mouth=0.02, mouth_width=0.52)
    measures = [replace(GOOD, features=replace(at_rest, **flaw)), *[replace(GOOD, features=at_rest)] * 4]
    bad, good, *_ = score_portraits([_face()] * 5, measures, likeness={})
    assert bad.neutral < 0.9 * good.neutral and good.neutral == pytest.approx(1)


def test_what_all_frames_show_is_how_the_person_looks_at_rest():
    """A beard that is taken for an open mouth, narrow eyes, a wide mouth: in every frame, so no frame is worse."""
    bearded = [_face(mouth_open=0.4)] * 5
    measures = [replace(GOOD, features=Features(eyes=0.2, mouth=0.15, mouth_width=0.7))] * 5
    assert all(s.neutral == pytest.approx(1) for s in score_portraits(bearded, measures, likeness={}))


def test_sharpness_ignores_size_and_mouth():
    generator = torch.Generator().manual_seed(0)
    coarse_HWC = torch.randint(0, 255, (1, 3, 48, 48), generator=generator).float()
    large, small = (
        F.interpolate(coarse_HWC, (side, side), mode="bicubic").clamp(0, 255)[0].permute(1, 2, 0).byte()
        for side in (384, 192)
    )
    of_large = measure_face(large, _boxed(0, 0, 384, 384))
    of_small = measure_face(small, _boxed(0, 0, 192, 192))
    assert of_small.sharpness == pytest.approx(of_large.sharpness, rel=0.1)
    toothy = large.clone()
    toothy[300:340:4] = 255
    assert measure_face(toothy, _boxed(0, 0, 384, 384)).sharpness == pytest.approx(of_large.sharpness, rel=1e-3)


def test_a_box_that_leaves_the_frame_is_partly_inside():
    frame_HWC = torch.full((100, 100, 3), 128, dtype=torch.uint8)
    assert measure_face(frame_HWC, _boxed(-50, 0, 50, 100)).inside == pytest.approx(0.5)
    assert measure_face(frame_HWC, _boxed(10.4, 10.4, 49.6, 49.6)).inside <= 1
    for box in ((99.7, 20, 150, 70), (20, 99.7, 70, 150)):
        assert 0 < measure_face(frame_HWC, _boxed(*box)).inside < 0.05, "less than half a pixel is a pixel"


def test_diverse_portraits_begin_with_the_best_and_look_elsewhere():
    yaws = [0, 1, -2, 3, 28, 30, -27, -29, 2]
    faces = [_face(yaw=yaw) for yaw in yaws]
    measures = [GOOD] * len(faces)
    scores = score_portraits(faces, measures, likeness={})
    chosen = pick_diverse(scores, faces, 3)
    assert chosen[0] == int(np.argmax([s.total for s in scores]))
    seen = sorted(yaws[i] for i in chosen)
    assert seen[0] < -20 and abs(seen[1]) < 5 and seen[2] > 20


def test_diverse_portraits_show_other_expressions():
    looks = [
        {},
        {"mouth_open": 0.03},
        {"smile": 0.7},
        {"mouth_open": 0.6},
        {"smile": 0.7, "eyes_open": 0.02},  # a blink in the smile
    ]
    faces = [_face(yaw=0.1 * i) for i in range(len(looks))]
    faces = [replace(f, expression=replace(f.expression, **look)) for f, look in zip(faces, looks, strict=True)]
    scores = score_portraits(faces, [GOOD] * len(faces), likeness={})
    assert pick_diverse(scores, faces, 3)[0] in (0, 1)
    assert set(pick_diverse(scores, faces, 3)[1:]) == {2, 3}
    assert 4 not in pick_diverse(scores, faces, 4)


def test_a_blurred_side_view_does_not_count_as_diverse():
    faces = [_face(), _face(yaw=30), _face(yaw=28)]
    scores = score_portraits(faces, [GOOD, replace(GOOD, sharpness=0.005), GOOD], likeness={})
    assert pick_diverse(scores, faces, 2) == [0, 2]


def test_as_many_as_there_are():
    faces = [_face(yaw=yaw) for yaw in (0, 10, 20)]
    scores = score_portraits(faces, [GOOD] * 3, likeness={})
    assert sorted(pick_diverse(scores, faces, 9)) == [0, 1, 2]
