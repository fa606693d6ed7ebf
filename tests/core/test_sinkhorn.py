"""Sinkhorn against POT, its marginals, and numbers at the edge of what floats hold.

Shape letters: B batch, S rows, L columns.
"""

import functools
import math

import numpy as np
import ot
import pytest
import torch

from slotid_core.sinkhorn import aggregation_weights, log_sinkhorn, renormalise, temperature

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}


def pot_sinkhorn(logits_SL: torch.Tensor, iterations: int, a_S: np.ndarray | None = None) -> torch.Tensor:
    """POT scales its columns first and ours scale the rows first, so POT is given the transposed problem.

    ``stopThr=0`` makes it do every iteration; the regularisation is 1 because the logits hold the temperature.
    """
    S, L = logits_SL.shape
    a_S = np.full(S, 1 / S) if a_S is None else a_S
    coupling_LS = ot.sinkhorn(
        np.full(L, 1 / L),
        a_S,
        -logits_SL.double().numpy().T,
        reg=1.0,
        method="sinkhorn_log",
        numItermax=iterations,
        stopThr=0,
        warn=False,
    )
    return torch.from_numpy(coupling_LS.T)


def problems(count: int, seed: int = 3):
    """Corners of the ranges first, then draws from them: S in 1..16, L in 1..5000, temperature in 0.01..10."""
    rng = np.random.default_rng(seed)
    corners = [(S, L, tau) for S in (1, 16) for L in (1, 5000) for tau in (0.01, 10.0)]
    draws = [
        (int(rng.integers(1, 17)), int(5000 ** rng.random()), float(10 ** rng.uniform(-2, 1)))
        for _ in range(count - len(corners))
    ]
    for i, (S, L, tau) in enumerate(corners + draws):
        scores_SL = torch.from_numpy(rng.standard_normal((S, L)))
        yield scores_SL / tau, int(rng.integers(1, 25)), f"problem {i}: S={S} L={L} tau={tau:.3g}"


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_equals_pot(dtype):
    for logits_SL, iterations, what in problems(60):
        coupling_SL = log_sinkhorn(logits_SL.to(dtype), iterations)
        assert coupling_SL.dtype == dtype
        error = (coupling_SL.double() - pot_sinkhorn(logits_SL, iterations)).abs().sum()
        assert error <= TOLERANCE[dtype], f"{what}, {iterations} iterations: L1 distance {error:.3g}"


def test_equals_pot_with_a_row_marginal_that_is_not_uniform():
    rng = np.random.default_rng(5)
    for logits_SL, iterations, what in problems(30, seed=11):
        S = logits_SL.shape[0]
        a_S = rng.dirichlet(np.ones(S)) * 0.9 + 0.1 / S
        coupling_SL = log_sinkhorn(logits_SL, iterations, torch.from_numpy(a_S).log())
        error = (coupling_SL - pot_sinkhorn(logits_SL, iterations, a_S)).abs().sum()
        assert error <= 1e-6, f"{what}, {iterations} iterations: L1 distance {error:.3g}"


def test_iteration_count_and_order_are_exactly_pots():
    """Unconverged on purpose: one iteration more or less, or columns before rows, is seen."""
    logits_SL = torch.randn(5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 6
    for iterations in (1, 2, 3, 8):
        coupling_SL = log_sinkhorn(logits_SL, iterations)

        def distance(reference_SL, coupling_SL=coupling_SL):
            return float((coupling_SL - reference_SL).abs().sum())

        columns_first_SL = pot_sinkhorn(logits_SL.T, iterations).T
        assert distance(pot_sinkhorn(logits_SL, iterations)) < 1e-12
        assert distance(pot_sinkhorn(logits_SL, iterations + 1)) > 1e-3
        assert distance(columns_first_SL) > 1e-3


def test_batch_is_a_loop_over_problems():
    generator = torch.Generator().manual_seed(1)
    logits_BSL = torch.randn(2, 3, 4, 30, dtype=torch.float64, generator=generator)
    log_a_BS = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator).log_softmax(-1)
    for log_a in (None, log_a_BS):
        batched = log_sinkhorn(logits_BSL, 5, log_a)
        for i, j in np.ndindex(2, 3):
            alone_SL = log_sinkhorn(logits_BSL[i, j], 5, None if log_a is None else log_a[i, j])
            torch.testing.assert_close(batched[i, j], alone_SL, rtol=1e-13, atol=0)


def test_columns_are_exact_and_rows_approach_their_marginal():
    logits_SL = torch.randn(6, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3
    log_a_S = torch.tensor([0.1, 0.05, 0.2, 0.15, 0.1, 0.4], dtype=torch.float64).log()
    for log_a, a_S in ((None, torch.full((6,), 1 / 6, dtype=torch.float64)), (log_a_S, log_a_S.exp())):
        errors = []
        for iterations in (1, 4, 16, 64, 256):
            coupling_SL = log_sinkhorn(logits_SL, iterations, log_a)
            torch.testing.assert_close(coupling_SL.sum(0), torch.full_like(coupling_SL[0], 1 / 300), rtol=1e-12, atol=0)
            errors.append(float((coupling_SL.sum(1) - a_S).abs().sum()))
        assert errors == sorted(errors, reverse=True), errors
        assert errors[0] > 1e-2 and errors[-1] < 1e-9, errors


@functools.cache
def extreme_logits() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def signs(*shape: int) -> torch.Tensor:
        return torch.randint(0, 2, shape, generator=generator) * 2.0 - 1.0

    low_row, high_row, low_column, low_but_one = noise(6, 500), noise(6, 500), noise(6, 500), noise(6, 500)
    low_row[2], high_row[2], low_column[:, 7], low_but_one[:, 1:] = -1e4, 1e4, -1e4, -1e4
    return {
        "signs": 1e4 * signs(6, 500),
        "normal": 1e4 * noise(6, 500),
        "a low row": low_row,
        "a high row": high_row,
        "a low column": low_column,
        "all but one column low": low_but_one,
        "all -1e4": torch.full((16, 50), -1e4),
        "huge L": 1e4 * noise(6, 200_000),
        "one row": 1e4 * noise(1, 50),
        "one column": 1e4 * noise(16, 1),
    }


@pytest.mark.parametrize("name", list(extreme_logits()))
def test_extreme_logits_give_finite_couplings_and_weights(name):
    logits_SL = extreme_logits()[name].clone().requires_grad_()
    coupling_SL = log_sinkhorn(logits_SL, 8)
    S, L = coupling_SL.shape
    assert coupling_SL.isfinite().all() and (coupling_SL >= 0).all()
    # At 1e4 neighbouring float32 numbers lie 1e-3 apart, and so do their exponentials, relatively.
    torch.testing.assert_close(coupling_SL.sum(0), torch.full((L,), 1 / L), rtol=5e-3, atol=0)

    weights_SL = aggregation_weights(renormalise(coupling_SL))
    torch.testing.assert_close(weights_SL.sum(1), torch.ones(S), rtol=0, atol=1e-5)
    (weights_SL * torch.linspace(-1, 1, L)).sum().backward()
    assert logits_SL.grad.isfinite().all()


def test_gradients_equal_finite_differences():
    generator = torch.Generator().manual_seed(6)
    logits_BSL = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    log_a_S = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: log_sinkhorn(x, 4), logits_BSL)
    assert torch.autograd.gradcheck(lambda x, a: log_sinkhorn(x, 4, a), (logits_BSL, log_a_S))

    def weights(x, a):
        return aggregation_weights(renormalise(log_sinkhorn(x, 4, a), a))

    assert torch.autograd.gradcheck(weights, (logits_BSL, log_a_S))


def test_autocast_does_not_lower_the_precision():
    logits_SL = torch.randn(6, 1000, generator=torch.Generator().manual_seed(7)) * 10
    plain_SL = log_sinkhorn(logits_SL, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside_SL = log_sinkhorn(logits_SL, 8)
    assert inside_SL.dtype == torch.float32 and torch.equal(inside_SL, plain_SL)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_input_is_computed_in_float32(dtype):
    logits_SL = torch.randn(6, 1000, generator=torch.Generator().manual_seed(8)).to(dtype)
    coupling_SL = log_sinkhorn(logits_SL, 8)
    assert coupling_SL.dtype == torch.float32
    assert torch.equal(coupling_SL, log_sinkhorn(logits_SL.float(), 8))


def test_renormalise_divides_rows_first_and_columns_last():
    coupling_SL = torch.rand(4, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    expected_SL = coupling_SL.numpy() / coupling_SL.numpy().sum(1, keepdims=True)
    expected_SL = expected_SL / expected_SL.sum(0, keepdims=True)
    torch.testing.assert_close(renormalise(coupling_SL), torch.from_numpy(expected_SL), rtol=1e-9, atol=0)


def test_renormalise_leaves_a_converged_coupling_as_it_is_but_for_the_scale():
    """Rows with a marginal of their own keep it: a dustbin that is given half the mass still has half of it."""
    logits_SL = torch.randn(7, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(10))
    log_a_S = torch.tensor([0.5 / 6] * 6 + [0.5], dtype=torch.float64).log()
    for log_a in (None, log_a_S):
        coupling_SL = log_sinkhorn(logits_SL, 500, log_a)
        torch.testing.assert_close(renormalise(coupling_SL, log_a), coupling_SL * 200, rtol=1e-6, atol=0)


def test_renormalise_keeps_the_smallest_uniform_coupling():
    """An eps that is not far below 1 / (S L) would show here."""
    S, L = 16, 17408
    routing_SL = renormalise(torch.full((S, L), 1 / (S * L)))
    torch.testing.assert_close(routing_SL, torch.full((S, L), 1 / S), rtol=1e-5, atol=0)


def test_temperature_falls_linearly_and_stays():
    expected = {0: 1.0, 750: 0.775, 1500: 0.55, 3000: 0.1, 3001: 0.1, 10**6: 0.1}
    for step, tau in expected.items():
        assert math.isclose(temperature(step, 1.0, 0.1, 3000), tau, rel_tol=1e-12), step
