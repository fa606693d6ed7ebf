"""The sampling loop against flows whose solution is known."""

import pytest
import torch

from slotid_core.errors import SlotIDError
from training.generate import GenerateConfig, generate

TEXT, NO_TEXT = torch.ones(1, 4, 8), torch.zeros(1, 4, 8)


def config(**changes):
    return GenerateConfig(**({"width": 32, "height": 48, "frames": 5, "steps": 4} | changes))


def sample(velocity, **changes):
    return generate(velocity, config(**changes), positive_BLE=TEXT, negative_BLE=NO_TEXT)


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("shift", [1.0, 8.0])
def test_a_straight_flow_ends_at_its_target(steps, shift):
    """All paths to one point are straight, so Euler steps of any size are exact."""
    target = torch.randn(1, 16, 2, 6, 4)
    out = sample(lambda x, sigma, *_: (x - target) / sigma, steps=steps, shift=shift, guidance=1.0)
    assert torch.allclose(out, target, atol=1e-5)


def test_noise_levels():
    seen = []

    def velocity(x, sigma, *_):
        seen.append(float(sigma))
        return torch.zeros_like(x)

    sample(velocity, steps=5, shift=3.0, guidance=1.0)
    wanted = [3 * u / (1 + 2 * u) for u in (1.0, 0.8, 0.6, 0.4, 0.2)]
    assert seen == pytest.approx(wanted, abs=1e-6)


def test_latents_are_finished_from_their_level_of_noise():
    """Between the levels that a whole sampling passes through, too; the steps above are left out."""
    seen, clean = [], torch.randn(1, 16, 2, 6, 4)

    def velocity(x, sigma, *_):
        seen.append(float(sigma))
        return (x - clean) / sigma

    out = generate(
        velocity, config(steps=5, shift=3.0, guidance=1.0), positive_BLE=TEXT, negative_BLE=NO_TEXT, clean_BCThw=clean,
        level=0.8,
    )  # fmt: skip
    assert torch.allclose(out, clean, atol=1e-5)
    assert seen == pytest.approx([0.8, *(3 * u / (1 + 2 * u) for u in (0.4, 0.2))], abs=1e-6)


@pytest.mark.parametrize("level", [0.0, 1.5])
def test_a_level_of_noise_that_is_none(level):
    with pytest.raises(SlotIDError, match=f"Got a level of noise of {level}, expected one above 0 and up to 1"):
        generate(lambda x, *_: x, config(), positive_BLE=TEXT, negative_BLE=NO_TEXT, clean_BCThw=TEXT, level=level)


def test_guidance_amplifies_the_difference():
    """v = 2 with the prompt and 1 without it; at scale 3 that is 4, over a path of length 1."""

    def velocity(x, sigma, context, rows):
        return torch.full_like(x, 2.0 if context.any() else 1.0)

    def moved(guidance):
        flow = sample(velocity, guidance=guidance)
        return (sample(lambda x, *_: torch.zeros_like(x)) - flow).mean().item()

    assert moved(3.0) == pytest.approx(4.0, abs=1e-5)
    assert moved(1.0) == pytest.approx(2.0, abs=1e-5)
    assert moved(0.0) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("guidance", "identity_guidance", "moved", "calls"),
    [
        (3.0, 5.0, 1 + 3 * 2 + 5 * 4, 3),
        (3.0, 0.0, 1 + 3 * 2, 3),
        (1.0, 2.0, 3 + 2 * 4, 2),  # the negative counts for nothing
        (3.0, 3.0, 1 + 3 * 6, 2),  # ordinary guidance
        (3.0, None, 1 + 3 * 6, 2),
    ],
)
def test_text_and_identity_are_guided_by_apart(guidance, identity_guidance, moved, calls):
    """v = 1 for nothing, 3 with the prompt and 7 with the identity too, over a path of length 1."""
    seen = []

    def velocity(x, sigma, context, rows):
        seen.append(rows)
        return torch.full_like(x, (3.0 if context.any() else 1.0) + (4.0 if rows.all() else 0.0))

    flow = sample(velocity, guidance=guidance, identity_guidance=identity_guidance)
    still = sample(lambda x, *_: torch.zeros_like(x))
    assert (still - flow).mean().item() == pytest.approx(moved, abs=1e-4)
    assert len(seen) == calls * config().steps


@pytest.mark.parametrize(("same", "negative_rows"), [(False, False), (True, True)])
def test_which_rows_get_the_identity(same, negative_rows):
    calls = []

    def velocity(x, sigma, context, rows):
        calls.append((bool(context.any()), rows.tolist()))
        return torch.zeros_like(x)

    sample(velocity, steps=2, identity_in_negative=same)
    assert calls == [(True, [True]), (False, [negative_rows])] * 2
    calls.clear()
    sample(velocity, steps=2, guidance=1.0)
    assert calls == [(True, [True])] * 2


def test_the_seed_makes_the_noise():
    def noise(seed):
        return sample(lambda x, *_: torch.zeros_like(x), seed=seed)

    state = torch.get_rng_state()
    assert torch.equal(noise(1), noise(1)) and not torch.equal(noise(1), noise(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert noise(1).shape == (1, 16, 2, 6, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 40}, "40 x 48.*multiples of 16"),
        ({"height": 0}, "32 x 0"),
        ({"frames": 16}, "16 frames.*13 or 17"),
        ({"frames": 0}, "0 frames.*1 or 5"),
        ({"steps": 0}, "steps = 0"),
        ({"shift": 0.0}, "shift = 0"),
        ({"guidance": -1.0}, "guidance = -1"),
        ({"guidance": float("nan")}, "guidance = nan"),
        ({"identity_guidance": -1.0}, "identity_guidance = -1"),
        ({"identity_guidance": float("nan")}, "identity_guidance = nan"),
        ({"guidance": 0.5, "identity_guidance": 2.0}, "guidance = 0.5 beside identity_guidance = 2.0"),
        ({"identity_guidance": 2.0, "identity_in_negative": True}, "the negative has to be without"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(SlotIDError, match=message):
        config(**changes)
