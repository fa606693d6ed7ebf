"""What a VAE keeps of a trait: the arithmetic, on clips whose answer is known, and the people it is asked of."""

import pytest
import torch

from training.world.experiment.kept import by_trait, kept
from training.world.identity import DYNAMICS, FRONT, SIDE, sample_identity
from training.world.models.vae import new_vae


@pytest.fixture
def drawn():
    """Two grey clips of two people; of each the second has a square that is 40 steps brighter, of 5x5 pixels."""
    clips = torch.full((2, 2, 3, 20, 20, 3), 100, dtype=torch.uint8)
    clips[1, :, :, 5:10, 5:10] += 40
    return clips


def test_a_vae_that_keeps_all_keeps_all(drawn):
    assert kept(drawn, drawn) == {"pixels": 25.0, "change": 40.0, "kept": 1.0, "clear": 1.0}


def test_a_change_that_comes_back_fainter_is_kept_in_part_and_clear(drawn):
    seen = drawn.clone()
    seen[1, :, :, 5:10, 5:10] -= 30
    assert kept(drawn, seen) == {"pixels": 25.0, "change": 40.0, "kept": 0.25, "clear": 1.0}


def test_what_changes_elsewhere_is_not_kept(drawn):
    seen = drawn.clone()
    seen[1] = 100
    seen[1, :, :, 12:17, 12:17] += 40
    assert kept(drawn, seen)["kept"] == kept(drawn, seen)["clear"] == 0.0
    seen[1, :, :, 5:10, 5:10] += 40  # and where it belongs as well
    figures = kept(drawn, seen)
    assert (figures["kept"], figures["clear"]) == (1.0, pytest.approx(0.5**0.5, abs=1e-3))


def test_a_change_that_nobody_sees_is_no_pixel(drawn):
    drawn[1, :, :, 5:10, 5:10] -= 37
    assert kept(drawn, drawn) == {"pixels": 0.0, "change": 0.0, "kept": 1.0, "clear": 1.0}


def test_people_differ_in_the_one_trait_alone():
    one, name = sample_identity(3), "chin_projection"
    other = one.with_trait(name, 0.25)
    assert other.trait(name) == 0.25 != one.trait(name) and other.with_trait(name, one.trait(name)) == one


@pytest.mark.full
def test_every_trait_is_told():
    found = by_trait(new_vae(0), 1)
    assert tuple(found) == FRONT + SIDE + DYNAMICS
    assert all(figures["pixels"] > 0 for figures in found.values())
