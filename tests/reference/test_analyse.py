"""The pipeline on clips whose people are known.

Replaced here: the face backend. A planted one says where which person is, so that tracking, cuts, people, reasons and
scores are tested by themselves; ``test_analyse_real.py`` runs dlib on pictures of heads.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.reference import Analysis, SeveralPeopleError, analyse
from slotid_core.reference.faces import Expression, Face, Pose

FPS, WIDTH, HEIGHT = 16.0, 320, 240
FRONTAL = Pose(yaw=0.0, pitch=0.0, roll=0.0)
NEUTRAL = Expression(eyes_open=0.9, mouth_open=0.0, smile=0.0)


@dataclass
class PlantedFaces:
    """A backend that knows: ``places[name](frame)`` is ``(x, y, size)`` of a person's face, or None."""

    places: dict
    same_person: float | None = 0.8
    pose_of: dict = field(default_factory=dict)
    expression_of: dict = field(default_factory=dict)
    likest: float | None = None
    embedded: int = 0
    searched: list = field(default_factory=list)
    name = "planted"
    licence = "none"

    def detect(self, frame_HWC, index, smallest_px=0.0):
        assert frame_HWC.dtype == np.uint8
        self.searched.append((index, smallest_px))
        found = []
        for name, place in self.places.items():
            if (at := place(index)) is not None and at[2] >= smallest_px:
                x, y, size = at
                face = Face(
                    box_xyxy=(x - size / 2, y - size / 2, x + size / 2, y + size / 2),
                    score=1.0,
                    landmarks_68x2=np.full((68, 2), float(index)),
                    pose=self.pose_of.get(index, FRONTAL),
                    expression=self.expression_of.get(index, NEUTRAL),
                )
                object.__setattr__(face, "who", name)
                found.append(face)
        return found

    def best_score(self, frame_HWC):
        return self.likest

    def limits(self, height, width):
        return f"planted faces are found in frames of {width}x{height}"

    def embed(self, frame_HWC, face):
        self.embedded += 1
        rng = np.random.default_rng(int(face.landmarks_68x2[0, 0]))
        direction = np.eye(16)[sorted(self.places).index(face.who)] + rng.normal(0, 0.05, 16)
        return direction / np.linalg.norm(direction)


def still(x=160.0, y=120.0, size=80.0, frames=None):
    """A face that stays in its place, in all frames or in those of a range (or several)."""
    return lambda i: (x, y, size) if frames is None or i in frames else None


def spoilt(embed, odd, alike=False):
    """``embed`` with other vectors for the faces of the frames in ``odd``."""

    def function(frame, face):
        index = int(face.landmarks_68x2[0, 0])
        if index not in odd:
            return embed(frame, face)
        vector = np.eye(16)[15] if alike else np.random.default_rng(1000 + index).normal(0, 1, 16)
        return vector / np.linalg.norm(vector)

    return function


def scenery(seed, frames):
    """``[frames, H, W, 3]`` of one shot: coarse colours with some noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (6, 8, 3)).repeat(HEIGHT // 6, 0).repeat(WIDTH // 8, 1)
    noise = rng.integers(-6, 7, (frames, HEIGHT, WIDTH, 1))
    return torch.from_numpy((coarse + noise).astype(np.uint8))


def run(backend, frames=33, clip=None, **how) -> Analysis:
    clip = scenery(0, frames) if clip is None else clip
    analysis = analyse(clip, backend, fps=FPS, **how)
    check_consistent(analysis, len(clip))
    return analysis


def check_consistent(analysis, count):
    """What holds for every result: 4n+1, one report a frame, a reason for each frame that is dropped and no other."""
    assert len(analysis.frames) == count and [f.index for f in analysis.frames] == list(range(count))
    assert len(analysis.kept) % 4 == 1 and len(analysis.kept) >= 5
    for report in analysis.frames:
        assert (report.dropped is None) == (report.index in analysis.kept)
        assert (report.score is None) == (report.face is None or report.index not in analysis.kept)
        assert report.dropped is None or report.dropped
    assert len(analysis.path.side_F) == len(analysis.kept)
    for i in analysis.kept:
        face, n = analysis.frames[i].face, i - analysis.kept.start
        if face is not None:
            (x, y), half = analysis.path.centre_F2[n], analysis.path.side_F[n] / 2
            x0, y0, x1, y1 = np.clip(face.box_xyxy, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
            assert x - half <= x0 + 1 and x + half >= x1 - 1 and y - half <= y0 + 1 and y + half >= y1 - 1


def who(analysis, number=None):
    person = analysis.people.persons[(number or analysis.person) - 1]
    return {face.who for face in person.faces.values()}


def test_one_person():
    backend = PlantedFaces({"a": still()})
    analysis = run(backend)
    assert analysis.kept == range(33) and analysis.person == 1 and analysis.cuts == ()
    assert analysis.people.looked_at == tuple(range(0, 33, 4))
    assert analysis.coverage.faces == 9
    assert all(report.dropped is None for report in analysis.frames)
    assert "found in 9 of 9 frames" in analysis.describe()
    assert analysis.people.persons[0].dominance == pytest.approx(80 / 320, abs=0.01)
    assert backend.embedded <= 7 + 4, "embeddings are what costs"


def test_small_faces_are_searched_where_they_may_be():
    """In all of a frame every two seconds, at the beginning of a shot, and where a known face is not found again."""
    backend = PlantedFaces({"a": still(frames=[*range(20), *range(24, 97)])})
    run(backend, frames=97)
    everywhere = [index for index, smallest_px in backend.searched if smallest_px == 0]
    assert everywhere == [0, 20, 24, 56, 88]
    assert {smallest_px for _, smallest_px in backend.searched} == {0, 60}


def test_a_smaller_face_that_comes_later_is_found():
    backend = PlantedFaces({"a": still(80, size=100), "b": still(250, size=50, frames=range(10, 97))})
    persons = run(backend, frames=97, person_index=1).people.persons
    assert [len(person.faces) for person in persons] == [25, 17], "found at frame 32 and then in every searched frame"


def test_rounding_is_a_reason():
    analysis = run(PlantedFaces({"a": still()}), frames=36)
    assert analysis.kept == range(33)
    assert [report.dropped for report in analysis.frames[33:]] == ["rounded to 4n+1"] * 3


def test_a_moving_face_is_one_person():
    analysis = run(PlantedFaces({"a": lambda i: (60 + 6.0 * i, 120, 80)}))
    assert len(analysis.people.persons) == 1
    assert np.abs(analysis.path.centre_F2[:, 0] - np.clip(60 + 6.0 * np.arange(33), 72, 248)).max() < 2


def test_people_side_by_side_are_numbered_and_asked_for():
    backend = PlantedFaces({"a": still(90, size=70), "b": still(230, size=90)})
    with pytest.raises(SeveralPeopleError, match=r"2 people could be meant \(numbers 1, 2\).*person_index") as caught:
        run(backend)
    assert [set(p.faces) for p in caught.value.people.persons] == [set(range(0, 33, 4))] * 2
    first, second = run(backend, person_index=1), run(backend, person_index=2)
    assert who(first) == {"b"} and who(second) == {"a"}
    assert np.allclose(first.path.centre_F2[:, 0], 230, atol=10) and np.allclose(second.path.centre_F2[:, 0], 90)
    for number in (3, -1):
        with pytest.raises(SlotIDError, match=f"Person {number} was asked for.*numbers 1 to 2"):
            run(backend, person_index=number)


def test_people_who_cross_stay_themselves():
    backend = PlantedFaces(
        {"a": lambda i: (60 + 6.5 * i, 80, 70), "b": lambda i: (268 - 6.5 * i, 160, 70)},
    )
    for number in (1, 2):
        assert len(who(run(backend, person_index=number))) == 1


def test_somebody_in_the_background_is_no_reason_to_ask():
    analysis = run(PlantedFaces({"a": still(size=120), "passer-by": still(300, 20, 20)}))
    assert who(analysis) == {"a"} and len(analysis.people.persons) == 2


def test_a_cut_between_two_people():
    clip = torch.cat([scenery(1, 24), scenery(2, 30)])
    backend = PlantedFaces({"a": still(frames=range(24)), "b": still(170, frames=range(24, 54))})
    with pytest.raises(SeveralPeopleError, match="Hard cut at frame 24"):
        run(backend, clip=clip)
    for number, name, kept in ((1, "b", range(24, 53)), (2, "a", range(0, 21))):
        with pytest.raises(SlotIDError, match=r"Hard cut at frame 24\..*longest part has \d+ frames from frame"):
            run(backend, clip=clip, person_index=number)
        analysis = run(backend, clip=clip, person_index=number, on_break="longest part")
        assert who(analysis) == {name} and analysis.kept == kept and analysis.cuts == (24,)
        others = [f.dropped for f in analysis.frames if f.index not in range(24 if name == "a" else 30) or name == "b"]
        assert set(others) <= {"another person", "rounded to 4n+1", None}
        dropped = (
            [f.dropped for f in analysis.frames[24:]] if name == "a" else [f.dropped for f in analysis.frames[:24]]
        )
        assert set(dropped) == {"another person"}


def test_a_cut_within_one_person_is_one_person():
    clip = torch.cat([scenery(1, 17), scenery(2, 25)])
    backend = PlantedFaces({"a": lambda i: (100, 120, 80) if i < 17 else (200, 100, 110)})
    with pytest.raises(SlotIDError, match=r"of 42 frames .*17 x other shot.*Hard cut at frame 17"):
        run(backend, clip=clip)
    analysis = run(backend, clip=clip, on_break="longest part")
    assert len(analysis.people.persons) == 1 and analysis.kept == range(17, 42)


@pytest.mark.parametrize("switch", [21, 30, 38])
def test_another_person_in_the_same_place_without_a_cut(switch):
    backend = PlantedFaces({"a": still(frames=range(switch)), "b": still(162, frames=range(switch, 49))})
    for number in (1, 2):
        analysis = run(backend, frames=49, person_index=number, on_break="longest part")
        assert analysis.cuts == () and len(who(analysis)) == 1
        assert (analysis.kept.stop <= switch) if who(analysis) == {"a"} else (analysis.kept.start >= switch)
        assert "another person" in {report.dropped for report in analysis.frames}


@pytest.mark.parametrize("frames", [17, 25, 65])
def test_another_person_from_any_frame_on_is_noticed(frames):
    """Every fourth frame is searched. Of somebody who is seen once, at the very begin or end, nothing can be told."""
    for switch in range(5, frames - 4):
        faces = {"a": still(frames=range(switch)), "b": still(162, frames=range(switch, frames))}
        analysis = run(PlantedFaces(faces), frames=frames, person_index=1, on_break="longest part")
        assert len(analysis.people.persons) == 2 and len(who(analysis)) == 1, switch


@pytest.mark.parametrize("frames", [17, 33, 65])
def test_one_odd_embedding_is_no_other_person(frames):
    for odd in sorted({*range(0, frames, 4), frames - 1}):
        backend = PlantedFaces({"a": still()})
        backend.embed = spoilt(backend.embed, [odd])
        assert len(run(backend, frames=frames).people.persons) == 1, odd


@pytest.mark.parametrize("frames", [17, 33, 65])
@pytest.mark.parametrize("what", ["turned away", "blurred"])
def test_a_face_that_is_hard_to_tell_at_the_end_or_beginning_is_no_other_person(frames, what):
    """Two in a row: turned away they are like each other, and blurred like nobody."""
    for odd in ([0, 4], [frames - 5, frames - 1]):
        poses = {i: Pose(yaw=60.0, pitch=0.0, roll=0.0) for i in odd} if what == "turned away" else {}
        backend = PlantedFaces({"a": still()}, pose_of=poses)
        backend.embed = spoilt(backend.embed, odd, alike=what == "turned away")
        assert len(run(backend, frames=frames).people.persons) == 1, odd


def test_faces_missing_in_every_third_frame_are_bridged():
    analysis = run(PlantedFaces({"a": lambda i: None if i % 3 == 1 else (100 + i, 120, 80)}), frames=49, every=1)
    assert analysis.kept == range(49)
    assert [report.face is None for report in analysis.frames] == [i % 3 == 1 for i in range(49)]
    assert np.abs(np.diff(analysis.path.centre_F2[:, 0]) - 1).max() < 0.1
    assert "found in 33 of 49 frames" in analysis.describe()


def test_a_third_of_the_frames_without_the_face():
    backend = PlantedFaces({"a": still(frames=[*range(20), *range(45, 75)])})
    with pytest.raises(SlotIDError, match=r"of 75 frames .*x no face.*longest part has 25 frames from frame 48"):
        run(backend, frames=75)
    analysis = run(backend, frames=75, on_break="longest part", every=1)
    assert analysis.kept == range(45, 74)
    reasons = [report.dropped for report in analysis.frames]
    assert reasons[:20] == ["other part"] * 20 and reasons[20:45] == ["no face"] * 25


@pytest.mark.parametrize("same_person", [None, 0.8])
def test_a_long_gap_in_one_place_is_one_person_with_and_without_embeddings(same_person):
    backend = PlantedFaces({"a": still(frames=[*range(30), *range(60, 97)])}, same_person=same_person)
    analysis = run(backend, frames=97, on_break="longest part")
    assert len(analysis.people.persons) == 1 and analysis.kept.start == 60


def test_without_embeddings_people_in_two_places_are_two():
    backend = PlantedFaces({"a": still(80, frames=range(20)), "b": still(240, frames=range(30, 49))}, same_person=None)
    with pytest.raises(SeveralPeopleError):
        run(backend, frames=49)
    assert backend.embedded == 0


@pytest.mark.parametrize(
    ("likest", "level", "said"),
    [(-0.42, 1.0, "the likeliest place scored -0.42"), (None, 1.0, "no place looked like one"), (None, 0.05, "dark")],
)
def test_no_face_says_what_was_searched_and_what_to_try(likest, level, said):
    with pytest.raises(SlotIDError, match="No face was found in 9 frames") as caught:
        run(PlantedFaces({}, likest=likest), clip=(scenery(0, 33).float() * level).to(torch.uint8))
    message = str(caught.value)
    assert (
        said in message and "planted faces are found in frames of 320x240" in message and "a box of your own" in message
    )
    assert ("dark" in message) == (level < 1)


def test_a_face_of_24_px_is_refused_with_its_size():
    with pytest.raises(SlotIDError, match="face is 24 pixels large, at least 48 are needed.*closer"):
        run(PlantedFaces({"a": still(size=24.0)}))


def test_a_face_at_the_border_is_kept_in_the_crop():
    analysis = run(PlantedFaces({"a": still(20, 30, 80)}))
    assert analysis.path.centre_F2[0] == pytest.approx([72, 72]), "moved into the frame"
    assert all(report.measures.inside < 0.8 for report in analysis.candidates)


def test_a_part_that_is_too_short():
    backend = PlantedFaces({"a": still(frames=range(14, 17))})
    with pytest.raises(SlotIDError, match="has [13] frames, at least 5 are needed"):
        run(backend, every=1, on_break="longest part")


def test_the_best_portrait_is_the_frontal_neutral_one():
    turned = {i: Pose(yaw=35.0, pitch=0.0, roll=0.0) for i in range(0, 33, 4) if i not in (12, 20)}
    laughing = {20: Expression(eyes_open=0.9, mouth_open=0.8, smile=1.0)}
    analysis = run(PlantedFaces({"a": still()}, pose_of=turned, expression_of=laughing))
    assert analysis.candidates[0].index == 12


def test_hidden_faces_are_no_portrait_however_many_there_are():
    """More of them than are compared at first; the others only look aside."""
    hidden = range(60, 94)
    turned = {i: Pose(yaw=25.0, pitch=0.0, roll=0.0) for i in range(161) if i not in hidden}
    backend = PlantedFaces({"a": still()}, pose_of=turned)
    embed = backend.embed

    def covered(frame_HWC, face):
        direction = embed(frame_HWC, face)
        if int(face.landmarks_68x2[0, 0]) in hidden:
            direction = direction + 0.6 * np.eye(16)[7]
        return direction / np.linalg.norm(direction)

    backend.embed = covered
    analysis = run(backend, frames=161)
    assert len(analysis.people.persons) == 1
    assert analysis.candidates[0].index not in hidden


def test_profiles_only_are_said_to_be():
    backend = PlantedFaces({"a": still()}, pose_of={i: Pose(yaw=70.0, pitch=0.0, roll=0.0) for i in range(33)})
    missing = "\n".join(run(backend).coverage.missing)
    assert "no view within 15 degrees of frontal" in missing
    assert "to the left" in missing and "to the right" not in missing


def test_progress_runs_from_none_to_all():
    steps = []
    run(PlantedFaces({"a": still()}), progress=lambda done, total: steps.append(done / total))
    assert steps[0] == 0 and steps[-1] == 1 and len(steps) > 12
    assert all(a <= b for a, b in zip(steps, steps[1:], strict=False))


@pytest.mark.parametrize("at", [0, 5, 11])
def test_interruption_passes_through(at):
    class Interrupted(Exception):
        pass

    calls = []

    def progress(done, total):
        calls.append(done)
        if len(calls) > at:
            raise Interrupted

    with pytest.raises(Interrupted):
        analyse(scenery(0, 33), PlantedFaces({"a": still()}), fps=FPS, progress=progress)
