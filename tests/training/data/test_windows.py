"""Which stretches and which part of the picture are taken."""

import pytest

from training.data.windows import (
    DISJOINT,
    OVERLAPPING,
    SAME,
    candidate_windows,
    longest_length,
    nearest_size,
    target_box,
)


@pytest.mark.parametrize(
    "stretch, kind, reference, target",
    [
        (range(0, 26), DISJOINT, range(0, 13), range(13, 26)),
        (range(40, 140), DISJOINT, range(40, 53), range(127, 140)),
        (range(0, 21), OVERLAPPING, range(0, 13), range(8, 21)),
        (range(0, 13), SAME, range(0, 13), range(0, 13)),
    ],
)
def test_windows_lie_as_far_apart_as_they_fit(stretch, kind, reference, target):
    best = candidate_windows(stretch, range(stretch.start, stretch.stop, 4), reference=13, target=13)[0]
    assert (best.kind, best.reference, best.target) == (kind, reference, target)


def test_a_reference_begins_and_ends_where_the_face_was_found():
    windows = candidate_windows(range(0, 40), [4, 8, 16, 20], reference=13, target=13)
    assert {w.reference for w in windows} == {range(4, 17), range(8, 21)}
    assert windows[0].reference == range(4, 17) and windows[0].target == range(27, 40)
    assert candidate_windows(range(0, 40), [4, 10], reference=13, target=13) == []


def test_the_longest_length_that_fits():
    assert longest_length(range(10, 70), [65, 49, 33]) == 49
    assert longest_length(range(10), [65, 49]) is None


def test_the_size_of_the_nearest_aspect():
    sizes = [(480, 720), (720, 480), (480, 480)]
    assert nearest_size(1080, 1920, sizes) == (480, 720)
    assert nearest_size(1920, 1080, sizes) == (720, 480)
    assert nearest_size(500, 520, sizes) == (480, 480)


def test_the_target_covers_what_it_can_and_keeps_the_face():
    box = target_box(200, 400, (96, 96), [(300.0, 40.0, 360.0, 110.0), (310.0, 50.0, 372.0, 120.0)])
    assert (box.width, box.height, box.y) == (200, 200, 0)
    assert box.x <= 300 and box.x + box.width >= 372
    middle = target_box(200, 400, (96, 96), [(190.0, 40.0, 230.0, 110.0)])
    assert middle.x == 100
    edge = target_box(200, 400, (96, 96), [(-12.0, 40.0, 30.0, 110.0)])
    assert edge.x == 0


def test_small_pictures_and_faces_that_leave_the_crop_are_refused():
    assert target_box(63, 63, (96, 96), [(10.0, 10.0, 20.0, 20.0)]) == "too small"
    assert not isinstance(target_box(64, 64, (96, 96), [(10.0, 10.0, 20.0, 20.0)]), str)
    assert (
        target_box(100, 400, (96, 96), [(0.0, 10.0, 50.0, 60.0), (350.0, 10.0, 400.0, 60.0)]) == "face leaves the crop"
    )
