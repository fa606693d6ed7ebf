"""The pictures of an analysis: right frames, right colours, nothing cut off. The face backend is a box."""

import importlib.util

import numpy as np
import pytest
import torch

from slotid_core.reference import Box, analyse, choose_backend, contact_sheet, coverage_plot, people_sheet

GREEN, RED, BLUE = (60, 150, 80), (200, 60, 50), (40, 90, 200)


def make_clip(frames):
    """Frames of one grey each, so that a cell of the sheet tells its frame."""
    rng = np.random.default_rng(0)
    noise = rng.integers(-8, 9, (120, 160, 3))
    return torch.from_numpy(np.stack([(60 + 3 * i + noise).astype(np.uint8) for i in range(frames)]))


def analysed(frames=36, mask=None):
    clip = make_clip(frames)
    backend = choose_backend("box", frames=frames, box=Box(40, 20, 80, 80), mask=mask)
    return clip, analyse(clip, backend, fps=16.0, on_break="longest part")


def cells(sheet, colour):
    """Centres of the cells that have a frame of this colour, row by row."""
    found = (sheet.numpy() == colour).all(-1)
    rows = np.flatnonzero(found.sum(1) >= 150)
    tops = [row for row in rows if row - 1 not in rows][::2]
    return [
        (top + 80, left + 80)
        for top in tops
        for left in np.flatnonzero(found[top] & ~np.roll(found[top], 1))
        if found[top, left : left + 160].all()
    ]


def test_contact_sheet_shows_each_searched_frame_in_its_colour():
    clip, analysis = analysed()
    sheet = contact_sheet(analysis, clip)
    assert sheet.dtype == torch.uint8 and sheet.ndim == 3 and sheet.shape[2] == 3
    kept, dropped, best = (cells(sheet, colour) for colour in (GREEN, RED, BLUE))
    assert len(best) == 1
    assert len(kept) + len(best) == sum(i in analysis.kept for i in analysis.people.looked_at)
    assert len(dropped) == sum(i not in analysis.kept for i in analysis.people.looked_at) > 0
    ((y, x),) = best
    shown = float(sheet[y - 20 : y + 20, x - 20 : x + 20].float().mean())
    assert shown == pytest.approx(60 + 3 * analysis.candidates[0].index, abs=1.5)


def test_dropped_frames_are_red_and_say_why():
    mask = torch.zeros(60, 120, 160)
    mask[:34, 30:90, 50:110] = 1
    clip, analysis = analysed(60, mask)
    sheet = contact_sheet(analysis, clip)
    dropped = [i for i in analysis.people.looked_at if i not in analysis.kept]
    assert len(cells(sheet, RED)) == len(dropped) > 3
    assert {analysis.frames[i].dropped for i in dropped} <= {"no face", "rounded to 4n+1"}


@pytest.mark.parametrize("frames", [5, 9, 100])
def test_words_stay_on_the_paper(frames):
    """Nothing is drawn over the right edge, however few cells make the sheet narrow."""
    clip, analysis = analysed(frames)
    sheet = contact_sheet(analysis, clip)
    assert (sheet[:, -6:] > 240).all() and (sheet[-6:] > 240).all()


def test_people_are_numbered_in_their_order():
    clip, analysis = analysed()
    assert len(cells(people_sheet(analysis.people, clip), BLUE)) == len(analysis.people.persons) == 1


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_coverage_plot_is_a_picture_also_without_poses():
    _, analysis = analysed()
    plot = coverage_plot(analysis, fps=16.0)
    assert plot.shape == (600, 900, 3) and plot.dtype == torch.uint8
    assert plot.float().std() > 10
    flat = torch.full((9, 120, 160, 3), 90, dtype=torch.uint8)
    analysis = analyse(flat, choose_backend("box", frames=9, box=Box(40, 20, 80, 80)), fps=16.0)
    assert {f.measures.sharpness for f in analysis.candidates} == {0.0}
    assert coverage_plot(analysis, fps=16.0).shape == plot.shape
