"""What an identity does to a backbone at one noise level, against the formulas of the paper's 3.3.

Shape letters: B rows, P prefix tokens, D backbone width.
"""

import pytest
import torch

from slotid_core.config import GateConfig
from slotid_core.errors import SlotIDError
from slotid_core.injection import Injection, condition
from slotid_core.prefix import place_prefix

SIGMAS = torch.tensor([1.0, 0.8, 0.3, 0.0])
EVERY_ROW = torch.ones(4, dtype=torch.bool)


@pytest.fixture
def model(make_model):
    return make_model().requires_grad_(False)


def weight(sigma: float, start: float = 0.9, end: float = 0.1, k: float = 5.0) -> float:
    """The gate, written again."""
    return end + (start - end) * sigma / (k - (k - 1) * sigma)


def expected_rows(model, embedding, strengths, film_strengths, w):
    """Prefix and FiLM row by row, for one identity."""
    prefix, film = [], {2: [], 3: []}
    for row, (strength, film_strength, w_row) in enumerate(zip(strengths, film_strengths, w, strict=True)):
        at = row if embedding.batch > 1 else 0
        image, video = embedding.portrait_tokens_BKE[at], embedding.clip_tokens_BSE[at]
        prefix.append(torch.cat([strength * w_row * image, strength * (1 - w_row) * video]))
        blend = (1 - w_row) * embedding.clip_global_BG[at] + w_row * embedding.portrait_global_BG[at]
        gamma_N1D, beta_N1D = model.film(blend[None])
        for n, block in enumerate(film):
            film[block].append(strength * film_strength * torch.cat([gamma_N1D[n], beta_N1D[n]], -1)[0])
    return torch.stack(prefix), {block: torch.stack(rows) for block, rows in film.items()}


def assert_conditioning(got, prefix_BPE, film):
    torch.testing.assert_close(got.prefix_BPE, prefix_BPE)
    assert got.film.keys() == film.keys()
    for block, both_BD in film.items():
        torch.testing.assert_close(torch.cat([got.film[block].gamma_BD, got.film[block].beta_BD], -1), both_BD)


@pytest.mark.parametrize("batch", [1, 4])
def test_portrait_then_clip_gated_scaled_and_blended(model, make_embedding, batch):
    embedding = make_embedding(batch)
    injection = Injection(model, embedding, strength=0.7, film_strength=1.5)
    got = condition([(injection, EVERY_ROW)], SIGMAS)
    w = [weight(float(s)) for s in SIGMAS]
    assert w[0] == pytest.approx(0.9) and w[-1] == pytest.approx(0.1)
    assert_conditioning(got, *expected_rows(model, embedding, [0.7] * 4, [1.5] * 4, w))


def test_masked_rows_get_the_null_identity(model, make_embedding):
    rows_B = torch.tensor([True, False, True, False])
    got = condition([(Injection(model, make_embedding()), rows_B)], SIGMAS)
    assert got.prefix_BPE[rows_B].flatten(1).any(1).all() and not got.prefix_BPE[~rows_B].any()
    for film in got.film.values():
        assert film.gamma_BD[rows_B].any(1).all() and film.beta_BD[rows_B].any(1).all()
        assert not film.gamma_BD[~rows_B].any() and not film.beta_BD[~rows_B].any()


def test_the_noise_window_holds_both_of_its_ends(model, make_embedding):
    start, end = (float(s) for s in torch.tensor([0.8, 0.3]))
    sigma_B = torch.tensor([0.8001, 0.8, 0.5, 0.3, 0.2999])
    injection = Injection(model, make_embedding(), sigma_start=start, sigma_end=end)
    assert injection.is_active(sigma_B).tolist() == [False, True, True, True, False]
    got = condition([(injection, torch.ones(5, dtype=torch.bool))], sigma_B)
    assert got.prefix_BPE.flatten(1).any(1).tolist() == [False, True, True, True, False]
    assert got.film[3].gamma_BD.any(1).tolist() == [False, True, True, True, False]


@pytest.mark.parametrize(
    ("fields", "rows_B"),
    [
        ({"strength": 0.0}, EVERY_ROW),
        ({}, ~EVERY_ROW),
        ({"sigma_start": 0.95, "sigma_end": 0.85}, EVERY_ROW),
    ],
    ids=["strength 0", "no row", "outside the window"],
)
def test_an_inactive_identity_is_zero_and_modulates_no_block(model, make_embedding, fields, rows_B):
    got = condition([(Injection(model, make_embedding(), **fields), rows_B)], SIGMAS)
    assert got.prefix_BPE.shape == (4, 8, 24) and not got.prefix_BPE.any()
    assert got.film == {}


def test_film_strength_scales_film_alone(model, make_embedding):
    embedding = make_embedding()
    plain, half, off = (
        condition([(Injection(model, embedding, film_strength=f), EVERY_ROW)], SIGMAS) for f in (1.0, 0.5, 0.0)
    )
    assert torch.equal(plain.prefix_BPE, half.prefix_BPE) and torch.equal(plain.prefix_BPE, off.prefix_BPE)
    torch.testing.assert_close(half.film[2].gamma_BD, 0.5 * plain.film[2].gamma_BD)
    torch.testing.assert_close(half.film[3].beta_BD, 0.5 * plain.film[3].beta_BD)
    assert off.film == {}


def test_prefix_strength_scales_the_prefix_alone(model, make_embedding):
    embedding = make_embedding()
    plain, half, off = (
        condition([(Injection(model, embedding, prefix_strength=p), EVERY_ROW)], SIGMAS) for p in (1.0, 0.5, 0.0)
    )
    torch.testing.assert_close(half.prefix_BPE, 0.5 * plain.prefix_BPE)
    assert plain.prefix_BPE.any() and not off.prefix_BPE.any()
    for block, film in plain.film.items():
        for got in (half, off):
            assert torch.equal(got.film[block].gamma_BD, film.gamma_BD)
            assert torch.equal(got.film[block].beta_BD, film.beta_BD)


@pytest.mark.parametrize(
    ("level", "silent", "speaks"), [(1.0, slice(2, 8), slice(0, 2)), (0.0, slice(0, 2), slice(2, 8))]
)
def test_a_constant_gate_is_portrait_only_or_clip_only(model, make_embedding, level, silent, speaks):
    embedding = make_embedding()
    gate = GateConfig(start=level, end=level)
    got = condition([(Injection(model, embedding, gate=gate), EVERY_ROW)], SIGMAS)
    assert not got.prefix_BPE[:, silent].any()
    whole = embedding.portrait_tokens_BKE if level else embedding.clip_tokens_BSE
    assert torch.equal(got.prefix_BPE[:, speaks], whole.expand(4, -1, -1))
    assert_conditioning(got, *expected_rows(model, embedding, [1.0] * 4, [1.0] * 4, [level] * 4))


def test_without_its_clip_an_identity_keeps_the_portrait_as_strong_as_before(model, make_embedding):
    embedding = make_embedding()
    both = condition([(Injection(model, embedding), EVERY_ROW)], SIGMAS)
    alone = condition([(Injection(model, embedding.without_clip()), EVERY_ROW)], SIGMAS)
    anchors = embedding.portrait_tokens_BKE.shape[1]
    assert torch.equal(alone.prefix_BPE[:, :anchors], both.prefix_BPE[:, :anchors])
    assert not alone.prefix_BPE[:, anchors:].any() and both.prefix_BPE[:, anchors:].any()
    assert float(both.prefix_BPE[:, :anchors].abs().max()) > 0


def test_the_gate_of_the_weights_is_the_default_and_a_given_one_wins(make_model, make_embedding):
    model = make_model(gate={"start": 0.6, "end": 0.3, "shift": 3.0}).requires_grad_(False)
    embedding = make_embedding()
    own = condition([(Injection(model, embedding), EVERY_ROW)], SIGMAS)
    w = [weight(float(s), 0.6, 0.3, 3.0) for s in SIGMAS]
    assert_conditioning(own, *expected_rows(model, embedding, [1.0] * 4, [1.0] * 4, w))
    given = condition([(Injection(model, embedding, gate=GateConfig()), EVERY_ROW)], SIGMAS)
    w = [weight(float(s)) for s in SIGMAS]
    assert_conditioning(given, *expected_rows(model, embedding, [1.0] * 4, [1.0] * 4, w))


def test_two_identities_stand_side_by_side_and_their_film_adds_up(make_model, make_embedding):
    models = [make_model(seed).requires_grad_(False) for seed in (0, 1)]
    embeddings = [make_embedding(seed=seed) for seed in (0, 1)]
    masks = [torch.tensor([True, True, False, False]), torch.tensor([False, True, True, False])]
    parts = [
        (Injection(m, e, strength=s), rows_B)
        for m, e, s, rows_B in zip(models, embeddings, (1.0, 0.5), masks, strict=True)
    ]
    together = condition(parts, SIGMAS)
    alone = [condition([part], SIGMAS) for part in parts]
    assert torch.equal(together.prefix_BPE, torch.cat([a.prefix_BPE for a in alone], dim=1))
    for block in (2, 3):
        for name in ("gamma_BD", "beta_BD"):
            added_BD = sum(getattr(a.film[block], name) for a in alone)
            torch.testing.assert_close(getattr(together.film[block], name), added_BD)
            assert getattr(together.film[block], name)[:3].any(1).all()
            assert not getattr(together.film[block], name)[3].any()


@pytest.mark.parametrize("silent_first", [False, True])
@pytest.mark.parametrize("fields", [{"strength": 0.0}, {"prefix_strength": 0.0}, {"sigma_start": 0.2}])
@pytest.mark.parametrize("words", [20, 56, 60])
def test_somebody_who_says_nothing_changes_nothing_of_the_context(model, make_embedding, words, fields, silent_first):
    """Not even of a prompt that leaves too few pads for two."""
    context_BLE = torch.zeros(1, 64, 24)
    context_BLE[:, :words] = torch.randn(1, words, 24)
    sigma_B, rows_B = torch.tensor([0.5]), torch.tensor([True])
    speaks = (Injection(model, make_embedding()), rows_B)
    silent = (Injection(model, make_embedding(seed=1), **fields), rows_B)
    parts = [silent, speaks] if silent_first else [speaks, silent]
    alone, together = (place_prefix(context_BLE, condition(p, sigma_B).prefix_BPE) for p in ([speaks], parts))
    assert torch.equal(together, alone)
    assert not condition([silent, silent], sigma_B).prefix_BPE.any()


def test_swapping_identities_is_seen_in_every_part(model, make_embedding):
    a, b = (condition([(Injection(model, make_embedding(seed=s)), EVERY_ROW)], SIGMAS) for s in (0, 1))

    def distance(x, y):
        return float((x - y).norm() / x.norm())

    assert distance(a.prefix_BPE[:, :2], b.prefix_BPE[:, :2]) > 0.1
    assert distance(a.prefix_BPE[:, 2:], b.prefix_BPE[:, 2:]) > 0.1
    for block in (2, 3):
        assert distance(a.film[block].gamma_BD, b.film[block].gamma_BD) > 0.1
        assert distance(a.film[block].beta_BD, b.film[block].beta_BD) > 0.1


@pytest.mark.parametrize("name", ["strength", "prefix_strength", "film_strength"])
@pytest.mark.parametrize("value", [-0.1, 10.1, float("nan"), float("inf")])
def test_strengths_out_of_range_are_refused(model, make_embedding, name, value):
    with pytest.raises(SlotIDError, match=f"^{name} is .* expected a value from 0.0 to 10.0"):
        Injection(model, make_embedding(), **{name: value})
