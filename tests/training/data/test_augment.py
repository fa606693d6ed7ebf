"""Versions of a reference: other colours and another crop, the first one untouched."""

import numpy as np
import torch

from slotid_core.reference.stabilise import CropPath
from training.data.augment import Change, change_colours, change_path, draw_change
from training.settings import AugmentSettings

PATH = CropPath(centre_F2=np.array([[50.0, 40.0], [52.0, 41.0]]), side_F=np.array([60.0, 60.0]))


def test_the_first_version_changes_nothing():
    change = draw_change(AugmentSettings(), seed=3, clip="a", variant=0)
    frames = torch.rand(2, 8, 8, 3)
    assert change == Change()
    assert change_path(PATH, change, height=100, width=100) is PATH
    assert change_colours(frames, change) is frames


def test_versions_depend_on_seed_clip_and_number_alone():
    settings = AugmentSettings()
    drawn = [draw_change(settings, seed=s, clip=c, variant=v) for s in (0, 1) for c in "ab" for v in (1, 2)]
    assert len(set(drawn)) == 8
    assert draw_change(settings, seed=1, clip="b", variant=2) == drawn[-1]


def test_the_settings_are_limits_and_0_turns_each_off():
    settings = AugmentSettings(brightness=0.1, contrast=0.0, saturation=0.3, crop=0.0)
    drawn = [draw_change(settings, seed=0, clip=str(n), variant=1) for n in range(200)]
    brightness = [change.brightness for change in drawn]
    assert 0.9 <= min(brightness) < 0.92 and 1.08 < max(brightness) <= 1.1
    assert {(c.contrast, c.shift_x, c.shift_y, c.zoom) for c in drawn} == {(1.0, 0.0, 0.0, 1.0)}


def test_the_crop_moves_and_stays_inside():
    change = Change(shift_x=0.1, shift_y=-0.5, zoom=1.1)
    path = change_path(PATH, change, height=100, width=100)
    np.testing.assert_allclose(path.side_F, 66.0)
    np.testing.assert_allclose(path.centre_F2, [[56.0, 33.0], [58.0, 33.0]])
    assert change_path(PATH, Change(zoom=9.0), height=100, width=80).side_F.max() == 80


def test_colours_change_as_they_are_named():
    grey = torch.full((1, 4, 4, 3), 0.4)
    torch.testing.assert_close(change_colours(grey, Change(brightness=1.5)), torch.full((1, 4, 4, 3), 0.6))
    red = torch.tensor([0.6, 0.2, 0.2]).expand(1, 4, 4, 3)
    dull = change_colours(red, Change(saturation=0.5))
    torch.testing.assert_close(dull[..., 0] - dull[..., 1], torch.full((1, 4, 4), 0.2))
    halves = torch.cat([torch.full((1, 4, 2, 3), 0.4), torch.full((1, 4, 2, 3), 0.6)], 2)
    more = change_colours(halves, Change(contrast=2.0))
    torch.testing.assert_close(more[0, 0, :, 0], torch.tensor([0.3, 0.3, 0.7, 0.7]))
