"""Figures over people with 95 % intervals: a bootstrap that draws the same people for everything it is asked.

Letters: N people, I traits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.world.models.probe import TRAITS

Draws = tuple[float, Sequence[float]]
"""A figure, and what it is on each of the resampled populations, which are the same for every figure."""
_DRAWS = 1000


def r2(read_NI: np.ndarray, true_NI: np.ndarray, names: Sequence[str]) -> float:
    """Mean over these traits of the share of their spread that is read."""
    columns = [TRAITS.index(name) for name in names]
    lost = ((read_NI - true_NI)[:, columns] ** 2).mean(0)
    return float((1 - lost / true_NI[:, columns].var(0)).mean())


def r2_draws(read_NI: np.ndarray, true_NI: np.ndarray, names: Sequence[str]) -> Draws:
    draws = [r2(read_NI[rows], true_NI[rows], names) for rows in _resamples(len(true_NI))]
    return r2(read_NI, true_NI, names), draws


def ahead_draws(ours_NI: np.ndarray, theirs_NI: np.ndarray, true_NI: np.ndarray, names: Sequence[str]) -> Draws:
    """What the first videos say more of these traits than the second, on the same people."""

    def ahead(rows: np.ndarray | slice) -> float:
        return r2(ours_NI[rows], true_NI[rows], names) - r2(theirs_NI[rows], true_NI[rows], names)

    return ahead(slice(None)), [ahead(rows) for rows in _resamples(len(true_NI))]


def mean_draws(values_N: np.ndarray) -> Draws:
    return float(values_N.mean()), [float(values_N[rows].mean()) for rows in _resamples(len(values_N))]


def over_seeds(of_seeds: Sequence[Draws]) -> Draws:
    """The mean of one figure over trainings of several seeds, on the same people."""
    return float(np.mean([value for value, _ in of_seeds])), np.mean([draws for _, draws in of_seeds], 0).tolist()


def bounds_of(value: float, draws: Sequence[float]) -> tuple[float, float, float]:
    """The figure, and where 95 % of the draws lie."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return value, float(low), float(high)


def _resamples(count: int) -> list[np.ndarray]:
    random = np.random.RandomState(0)
    return [random.randint(count, size=count) for _ in range(_DRAWS)]
