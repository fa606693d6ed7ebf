"""Rendered heads: the same for the same numbers, and what is said about a picture is true of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.reference.faces.face import Pose
from training.world.render import render
from training.world.scene import BACKGROUNDS, Background, Camera, Expression, Light, Scene, sample_scene
from training.world.traits import FrontTraits, HeadTraits, SideTraits, sample_traits

SIZE = 72
FRONT_LIGHT = Light(azimuth=0.0)
# iBUG's points seen in a mirror.
MIRRORED = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
]  # fmt: skip


def pose(yaw=0.0, pitch=0.0, roll=0.0):
    return Pose(yaw=yaw, pitch=pitch, roll=roll)


def draw(scene=None, traits=None, size=SIZE, **options):
    return render(traits or HeadTraits(), scene or Scene(), size, size, **options)


def test_traits_are_a_function_of_the_seed_and_in_their_ranges():
    # A value written down: the population must not change from one machine or version to another.
    assert sample_traits(7) == sample_traits(7)
    assert sample_traits(7).front.face_width == pytest.approx(-0.8473834, abs=1e-6)
    people = [sample_traits(seed) for seed in range(100)]
    assert len(set(people)) == 100
    with_beard = sum(person.front.beard > 0 for person in people)
    assert 10 < with_beard < 50


@pytest.mark.parametrize("kind, values", [(FrontTraits, {"beard": 1.2}), (SideTraits, {"nape": float("nan")})])
def test_values_outside_of_their_range_are_refused(kind, values):
    with pytest.raises(SlotIDError, match=next(iter(values))):
        kind(**values)


def test_unknown_background_and_mismatched_counts_are_refused():
    with pytest.raises(SlotIDError, match="marble.*plain"):
        Background(kind="marble")
    with pytest.raises(SlotIDError, match="2 heads and 3 scenes"):
        render([HeadTraits()] * 2, [Scene()] * 3, 32, 32)
    with pytest.raises(SlotIDError, match="8x32"):
        render(HeadTraits(), Scene(), 8, 32)
    with pytest.raises(SlotIDError, match="in front of"):
        render(HeadTraits(), Scene(), 32, 32, behind_BHW3=torch.zeros(1, 16, 16, 3))


def test_a_picture_is_the_same_to_the_last_bit_alone_and_among_others():
    people = [sample_traits(seed) for seed in (3, 4, 106)]
    scenes = [sample_scene(seed, pose=pose(yaw=12.0 * seed - 40)) for seed in range(3)]
    alone = [render(person, scene, SIZE, SIZE) for person, scene in zip(people, scenes, strict=True)]
    batch = render(people, scenes, SIZE, SIZE)
    turned = render(people[::-1], scenes[::-1], SIZE, SIZE)
    for name, value in vars(batch).items():
        assert torch.equal(value, torch.cat([getattr(picture, name) for picture in alone])), name
        assert torch.equal(value, getattr(turned, name).flip(0)), name
    assert (alone[0].image_BHW3 - alone[1].image_BHW3).abs().mean() > 0.05
    # Drawn in one go, as on a GPU, they are the same but for rounding.
    at_once = render(people, scenes, SIZE, SIZE, together=3)
    assert torch.allclose(at_once.landmarks_B682, batch.landmarks_B682, atol=1e-3)
    for name in ("image_BHW3", "mask_BHW"):
        assert (getattr(at_once, name) - getattr(batch, name)).abs().mean() < 1e-4


def test_another_background_shows_exactly_where_the_mask_says():
    dark, bright = torch.full((1, SIZE, SIZE, 3), 0.2), torch.full((1, SIZE, SIZE, 3), 0.8)
    scene = sample_scene(1, pose=pose(yaw=20))
    before, after = draw(scene, behind_BHW3=dark), draw(scene, behind_BHW3=bright)
    assert torch.equal(before.mask_BHW, after.mask_BHW)
    shown = 1 - before.mask_BHW[..., None]
    assert torch.allclose(after.image_BHW3 - before.image_BHW3, 0.6 * shown.expand_as(dark), atol=1e-5)
    # All of it: a middle without background, corners without person, and soft edges between.
    assert before.mask_BHW[0, SIZE // 2, SIZE // 2] == 1
    assert before.mask_BHW[0, 0, 0] == 0
    assert 0.01 < ((before.mask_BHW > 0) & (before.mask_BHW < 1)).float().mean() < 0.1


def test_every_background_is_drawn_in_its_colours_and_differs_by_seed():
    from training.world.background import draw_background

    for kind in BACKGROUNDS:
        first = Background(kind=kind, colour=(0.2, 0.3, 0.4), second=(0.6, 0.5, 0.4), seed=1)
        picture = draw_background(first, 40, 60, torch.device("cpu"))
        assert picture.shape == (40, 60, 3)
        for channel, (low, high) in enumerate(((0.2, 0.6), (0.3, 0.5), (0.4, 0.4))):
            assert low - 1e-6 <= picture[..., channel].min() and picture[..., channel].max() <= high + 1e-6
        other = draw_background(replace(first, seed=2), 40, 60, torch.device("cpu"))
        assert torch.equal(picture, other) == (kind in ("plain", "gradient")), kind


def test_a_symmetric_head_turned_the_other_way_is_its_mirror_image():
    left = draw(Scene(pose=pose(yaw=-25, pitch=6), light=FRONT_LIGHT))
    right = draw(Scene(pose=pose(yaw=25, pitch=6), light=FRONT_LIGHT))
    mirrored = left.landmarks_B682[0, MIRRORED].clone()
    mirrored[:, 0] = SIZE - mirrored[:, 0]
    assert torch.allclose(mirrored, right.landmarks_B682[0], atol=0.02)
    # Locks of hair are not symmetric; the face is.
    assert (left.mask_BHW.flip(2) - right.mask_BHW).abs().mean() < 0.01
    x0, y0, x1, y1 = right.face_box_B4[0].round().int().tolist()
    face = (slice(0, 1), slice(y0 + 3, y1 - 3), slice(x0 + 8, x1 - 8))
    assert (left.image_BHW3.flip(2)[face] - right.image_BHW3[face]).abs().mean() < 0.02


def test_signs_of_the_pose():
    nose, eyes = 30, [36, 45]

    def nose_against_eyes(**angles):
        points = draw(Scene(pose=pose(**angles)), size=48, supersample=1).landmarks_B682[0]
        return (points[nose] - points[eyes].mean(0)).tolist(), points

    straight, _ = nose_against_eyes()
    assert abs(straight[0]) < 0.01
    right, _ = nose_against_eyes(yaw=20.0)
    assert right[0] > 1.0
    up, _ = nose_against_eyes(pitch=15.0)
    assert up[1] < straight[1] - 0.5
    _, tilted = nose_against_eyes(roll=15.0)
    across = tilted[45] - tilted[36]
    # Clockwise: the eye on the right of the picture goes down, by the angle itself.
    assert torch.rad2deg(torch.atan2(across[1], across[0])).item() == pytest.approx(15.0, abs=0.2)


def test_points_are_in_the_order_of_ibug():
    points = draw(Scene(pose=pose(yaw=5)), sample_traits(11), size=48, supersample=1).landmarks_B682[0]
    x, y = points.unbind(-1)
    for rising in (range(17), range(17, 27), range(31, 36), range(36, 40), range(42, 46), range(48, 55), range(60, 65)):
        assert (x[list(rising)].diff() > 0).all(), rising
    for falling in (range(39, 42), range(45, 48), range(54, 60), range(64, 68)):
        assert (x[list(falling)].diff() < 0).all(), falling
    assert (y[:9].diff() > 0).all() and (y[8:17].diff() < 0).all() and (y[27:31].diff() > 0).all()
    # From above to below: brows, upper and lower lids, nose, lips from outside to inside and out again, chin.
    column = [19, 37, 41, 33, 51, 62, 66, 57, 8]
    assert all(y[below] >= y[above] for above, below in zip(column, column[1:], strict=False))


def test_points_on_the_far_side_are_hidden_and_the_box_holds_the_points():
    frontal, turned = draw(), draw(Scene(pose=pose(yaw=65)))
    assert frontal.visible_B68[0, 17:].all()
    # The nose points to the right, so the right of a frontal picture is the far side.
    assert not turned.visible_B68[0, 11:15].any()
    assert turned.visible_B68[0, 2:6].all()
    assert not turned.visible_B68[0, 45]
    for picture in (frontal, turned):
        x0, y0, x1, y1 = picture.face_box_B4[0].tolist()
        points = picture.landmarks_B682[0]
        assert points[:, 0].min() == x0 and points[:, 0].max() == x1
        assert points[:, 1].min() == y0 and points[:, 1].max() == y1


def test_the_camera_moves_and_enlarges_by_what_it_is_told():
    plain = draw().landmarks_B682
    moved = draw(Scene(camera=Camera(offset_x=0.1, offset_y=-0.05))).landmarks_B682
    assert torch.allclose(moved - plain, torch.tensor([0.1, -0.05]) * SIZE, atol=1e-3)
    near = draw(Scene(camera=Camera(zoom=1.5))).landmarks_B682
    assert torch.allclose((near - SIZE / 2), 1.5 * (plain - SIZE / 2), atol=1e-3)
    wide = render(HeadTraits(), Scene(), SIZE, 2 * SIZE).landmarks_B682
    assert torch.allclose(wide - plain, torch.tensor([SIZE / 2, 0.0]), atol=1e-3)


def _changed(first, second, inside):
    """Mean change of the picture inside and outside of a box of columns and rows."""
    change = (first.image_BHW3 - second.image_BHW3).abs().mean(-1)[0].numpy()
    x0, y0, x1, y1 = (int(round(float(value))) for value in inside)
    box = np.zeros_like(change, dtype=bool)
    box[max(y0, 0) : y1, max(x0, 0) : x1] = True
    return change[box].mean(), change[~box].max()


def test_closing_the_eyes_changes_the_eyes_only():
    opened, closed = draw(), draw(Scene(expression=Expression(eyes_open=0.0)))
    points = opened.landmarks_B682[0]
    eyes = points[36:48]
    inside, outside = _changed(opened, closed, (*(eyes.amin(0) - 4).tolist(), *(eyes.amax(0) + 4).tolist()))
    assert inside > 0.01 and outside < 0.02

    def gap(picture):
        at = picture.landmarks_B682[0]
        return (at[[41, 40, 47, 46], 1] - at[[37, 38, 43, 44], 1]).mean().item()

    gaps = [gap(draw(Scene(expression=Expression(eyes_open=share)), size=48)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert abs(gaps[0]) < 0.05
    assert all(later > earlier + 0.3 for earlier, later in zip(gaps, gaps[1:], strict=False))


def test_opening_the_mouth_changes_the_lower_face_only():
    closed, opened = draw(), draw(Scene(expression=Expression(mouth_open=0.8)))
    points = closed.landmarks_B682[0]
    below_nose = (0, points[33, 1].item(), SIZE, SIZE)
    inside, outside = _changed(closed, opened, below_nose)
    assert inside > 0.01 and outside < 0.03
    before, after = points, opened.landmarks_B682[0]
    assert after[66, 1] - after[62, 1] > 3 * max(before[66, 1] - before[62, 1], 1.0)
    assert after[8, 1] > before[8, 1] + 1
    assert torch.allclose(after[17:48], before[17:48], atol=0.6)
    # The cave of the mouth is dark where lips met.
    row, column = ((after[62] + after[66]) / 2).round().int().flip(0).tolist()
    assert opened.image_BHW3[0, row, column].mean() < 0.6 * closed.image_BHW3[0, row, column].mean()


def test_a_smile_widens_the_mouth_and_lifts_its_corners():
    neutral, smiling = (draw(Scene(expression=Expression(smile=share))).landmarks_B682[0] for share in (0.0, 1.0))
    assert smiling[54, 0] - smiling[48, 0] > 1.1 * (neutral[54, 0] - neutral[48, 0])
    assert smiling[[48, 54], 1].mean() < neutral[[48, 54], 1].mean() - 0.5


def test_each_cheek_reddens_with_its_half_of_a_smile_where_cheeks_do():
    figure = HeadTraits(flush=1.0)
    assert torch.equal(draw(traits=figure).image_BHW3, draw().image_BHW3)
    one_sided = Scene(expression=Expression(smile=0.5, smile_skew=0.5), light=FRONT_LIGHT)
    changed = draw(one_sided, figure).image_BHW3[0] - draw(one_sided).image_BHW3[0]
    greener = changed[..., 1]
    left, right = greener[:, : SIZE // 2], greener[:, SIZE // 2 :]
    assert right.min() < -0.1 and (right < -0.03).sum() > 40
    assert left.min() > -0.02
    # Redder, not darker, on dark skin too.
    dark = replace(figure, front=FrontTraits(skin_depth=1.0))
    glow = draw(one_sided, dark).image_BHW3[0] - draw(one_sided, replace(dark, flush=0.0)).image_BHW3[0]
    assert glow[..., 0].max() > 0.1 and glow[..., 0].min() > -0.02


def test_a_broad_smile_shows_teeth_in_any_light():
    for light in (Light(azimuth=-40.0), Light(azimuth=40.0, elevation=50.0)):
        picture = draw(Scene(expression=Expression(smile=1.0), light=light), size=144)
        points = picture.landmarks_B682[0]
        column, row = (0.7 * points[62] + 0.3 * points[66]).round().int().tolist()
        teeth = picture.image_BHW3[0, row - 1, column - 2 : column + 2].mean(0)
        # White: bright, and no more red than blue by far.
        assert teeth.mean() > 0.7 and teeth[0] - teeth[2] < 0.15


def test_the_head_casts_its_shadow_and_the_light_comes_from_its_side():
    def skin_at(picture, points, below=0.0):
        column, row = (points.mean(0) + torch.tensor([0.0, below * SIZE])).round().int().tolist()
        return picture.image_BHW3[0, row - 1 : row + 1, column - 1 : column + 1].mean()

    def neck_against_nose(elevation):
        picture = draw(Scene(light=Light(azimuth=0.0, elevation=elevation)))
        points = picture.landmarks_B682[0]
        return skin_at(picture, points[[8]], below=0.06) / skin_at(picture, points[[28]])

    assert neck_against_nose(50.0) < 0.7 * neck_against_nose(-10.0)
    picture = draw(Scene(light=Light(azimuth=-60.0)))
    points = picture.landmarks_B682[0]
    assert skin_at(picture, points[[3, 31]]) > 1.2 * skin_at(picture, points[[13, 35]])


def test_what_lies_at_the_side_is_not_told_by_the_front():
    plain = HeadTraits(front=FrontTraits(hair_length=0.1))
    marked = replace(plain, side=SideTraits(mark_right=0.8, skull_depth=0.8, nose_bridge=0.8))

    def change(yaw):
        scene = Scene(pose=pose(yaw=yaw), light=FRONT_LIGHT)
        return (draw(scene, plain).image_BHW3 - draw(scene, marked).image_BHW3).abs().mean().item()

    assert change(-70.0) > 4 * change(0.0)


def test_landmarks_lie_on_what_they_name():
    # Dark brows on fair skin, and dark pupils in white eyes.
    traits = HeadTraits(front=FrontTraits(hair_depth=1.0, skin_depth=0.0, brow_thickness=0.8, blush=0.0))
    size = 144
    picture = draw(Scene(light=FRONT_LIGHT), traits, size=size)
    grey = picture.image_BHW3[0].mean(-1)
    points = picture.landmarks_B682[0]

    def at(point):
        column, row = point.round().int().tolist()
        return grey[row - 1 : row + 1, column - 1 : column + 1].mean().item()

    skin = at((points[27] + points[30]) / 2)
    below_brow = torch.tensor([0.0, 1.0])
    for brow in (18, 19, 20, 23, 24, 25):
        assert at(points[brow] + below_brow) < 0.75 * skin
    for eye in (range(36, 42), range(42, 48)):
        assert at(points[list(eye)].mean(0)) < 0.5 * skin


def test_dlib_finds_the_heads():
    dlib = pytest.importorskip("dlib", reason="needs dlib (pip install dlib-bin)")
    detector = dlib.get_frontal_face_detector()
    seeds, found = range(300, 308), 0
    for seed in seeds:
        scene = sample_scene(seed, pose=pose(yaw=(-20.0, 0.0, 20.0, 0.0)[seed % 4]))
        picture = render(sample_traits(seed), scene, 224, 224)
        pixels = (picture.image_BHW3[0] * 255).round().byte().numpy()
        x0, y0, x1, y1 = picture.face_box_B4[0].tolist()
        found += any(x0 < box.center().x < x1 and y0 < box.center().y < y1 for box in detector(pixels, 0))
    assert found >= len(seeds) - 1
