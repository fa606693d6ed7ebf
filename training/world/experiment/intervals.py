"""Figures over people with 95 % intervals: a bootstrap that draws the same people for everything it is asked.

Letters: D draws, N people, I traits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.world.identity import TRAITS

Draws = tuple[float, Sequence[float]]
"""A figure, and what it is on each of the resampled populations, which are the same for every figure."""
_DRAWS = 1000


def r2(read_NI: np.ndarray, true_NI: np.ndarray, names: Sequence[str]) -> float:
    """Mean over these traits of the share of their spread that is read."""
    return float(_r2(*_columns(read_NI, true_NI, names)))


def r2_draws(read_NI: np.ndarray, true_NI: np.ndarray, names: Sequence[str]) -> Draws:
    read, true = _columns(read_NI, true_NI, names)
    rows_DN = _resamples(len(true_NI))
    return float(_r2(read, true)), _r2(read[rows_DN], true[rows_DN]).tolist()


def _columns(read_NI: np.ndarray, true_NI: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    columns = [TRAITS.index(name) for name in names]
    return read_NI[:, columns], true_NI[:, columns]


def _r2(read: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Of ``[..., N, I]``."""
    return (1 - ((read - true) ** 2).mean(-2) / true.var(-2)).mean(-1)


def ahead_draws(ours_NI: np.ndarray, theirs_NI: np.ndarray, true_NI: np.ndarray, names: Sequence[str]) -> Draws:
    """What the first videos say more of these traits than the second, on the same people."""

    (ours, ours_D), (theirs, theirs_D) = (r2_draws(read_NI, true_NI, names) for read_NI in (ours_NI, theirs_NI))
    return ours - theirs, np.subtract(ours_D, theirs_D).tolist()


def mean_draws(values_N: np.ndarray) -> Draws:
    return float(values_N.mean()), values_N[_resamples(len(values_N))].mean(-1).tolist()


def over_seeds(of_seeds: Sequence[Draws]) -> Draws:
    """The mean of one figure over trainings of several seeds, on the same people."""
    return float(np.mean([value for value, _ in of_seeds])), np.mean([draws for _, draws in of_seeds], 0).tolist()


def bounds_of(value: float, draws: Sequence[float]) -> tuple[float, float, float]:
    """The figure, and where 95 % of the draws lie."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return value, float(low), float(high)


def _resamples(count: int) -> np.ndarray:
    """``[D, N]`` people, the same ones in every call."""
    return np.random.RandomState(0).randint(count, size=(_DRAWS, count))
