"""Chance, by seed, update and clip alone."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from training.settings import NoiseSettings
from training.trainer.draws import draw, noise_level

SHAPE = (16, 2, 4, 4)


def drawn(settings, step=3, position=1, clip_id="a", **changes):
    sizes = {"prefix_tokens": 8, "references": 3, "variants": 4, **changes}
    return draw(settings, step, position, clip_id, SHAPE, **sizes)


def same(one, other) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


def test_the_same_clip_in_the_same_update_gets_the_same_numbers_whatever_was_drawn_before(make_settings):
    settings = make_settings()
    first = drawn(settings)
    torch.manual_seed(99), np.random.seed(99), drawn(settings, step=4)
    assert same(first, drawn(settings))


@pytest.mark.parametrize("change", [{"step": 4}, {"position": 2}, {"clip_id": "b"}])
def test_another_update_place_or_clip_gets_others(make_settings, change):
    settings = make_settings()
    one, other = drawn(settings), drawn(settings, **change)
    assert one.sigma != other.sigma and not torch.equal(one.noise_CTHW, other.noise_CTHW)
    assert one.token_seed != other.token_seed


def test_another_seed_gets_others(make_settings):
    assert drawn(make_settings()).sigma != drawn(make_settings("run.seed=1")).sigma


def test_torchs_global_random_state_is_left_alone(make_settings):
    before = torch.get_rng_state()
    drawn(make_settings())
    assert torch.equal(before, torch.get_rng_state())


def test_shares_of_what_is_dropped(make_settings):
    settings = make_settings("drop.identity=0.3", "drop.text=0.1", "drop.prefix_token=0.2")
    draws = [drawn(settings, step=step) for step in range(2000)]
    # Standard deviations of the shares: 0.010, 0.007, 0.003.
    assert np.mean([not d.keep_identity for d in draws]) == pytest.approx(0.3, abs=0.04)
    assert np.mean([not d.keep_text for d in draws]) == pytest.approx(0.1, abs=0.03)
    assert np.mean([1 - d.keep_prefix_P.float().mean().item() for d in draws]) == pytest.approx(0.2, abs=0.015)
    assert {d.reference for d in draws} == {0, 1, 2} and {d.variant for d in draws} == {0, 1, 2, 3}
    noise = torch.stack([d.noise_CTHW for d in draws[:200]])
    assert abs(float(noise.mean())) < 0.01 and float(noise.std()) == pytest.approx(1, abs=0.01)


def levels(**settings) -> np.ndarray:
    random = np.random.RandomState(0)
    return np.array([noise_level(NoiseSettings(**settings), random) for _ in range(4000)])


def test_noise_levels_follow_their_distribution():
    # 4,000 draws: a quantile in the middle is within 0.03.
    assert np.quantile(levels(), [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    shifted = levels(sampling="shift", shift=5.0)
    expected = [5 * u / (1 + 4 * u) for u in (0.1, 0.5, 0.9)]
    assert np.quantile(shifted, [0.1, 0.5, 0.9]) == pytest.approx(expected, abs=0.04)
    normal = levels(sampling="logit_normal", mean=0.5, std=2.0)
    logits = np.log(normal / (1 - normal))
    assert logits.mean() == pytest.approx(0.5, abs=0.12) and logits.std() == pytest.approx(2.0, abs=0.1)
    for every in (levels(), shifted, normal):
        assert every.min() > 0 and every.max() <= 1


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"shift": 3.0}, "shift is 3.0 and nothing looks at it, since sampling is uniform; expected sampling shift"),
        ({"sampling": "logit_normal", "shift": 3.0}, "shift is 3.0.*sampling is logit_normal"),
        ({"mean": 0.5}, "mean is 0.5.*expected sampling logit_normal, or no mean"),
        ({"sampling": "shift", "std": 2.0}, "std is 2.0.*sampling is shift"),
    ],
)
def test_a_number_that_no_noise_level_depends_on_is_refused(asked, expected):
    with pytest.raises(ValidationError, match=expected):
        NoiseSettings(**asked)


@pytest.mark.parametrize("sampling", ["uniform", "shift", "logit_normal"])
def test_stored_noise_settings_hold_every_field_and_are_read_back(sampling):
    asked = {"shift": {"shift": 3.0}, "logit_normal": {"mean": 0.5}}.get(sampling, {})
    settings = NoiseSettings(sampling=sampling, **asked)
    assert NoiseSettings(**settings.model_dump()) == settings
