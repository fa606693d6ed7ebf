"""Optimal-transport routing in the log domain (paper, 3.2). Pure functions.

Shape letters: ``...`` any batch, S rows (slots, and the dustbin where there is one), L columns (video tokens).
"""

import torch
from torch import Tensor

# Far below 1 / (S L), the size of an entry of the coupling, so that it guards an empty row and biases none.
RENORMALISE_EPS = 1e-12


def temperature(step: int, start: float, end: float, decay_steps: int) -> float:
    """``tau(s) = start + min(1, s / decay_steps) (end - start)`` (paper, 3.2); ``step`` is the global training step."""
    return start + min(1.0, step / decay_steps) * (end - start)


def log_sinkhorn(logits_SL: Tensor, iterations: int, log_a_S: Tensor | None = None) -> Tensor:
    """Couple rows and columns under fixed marginals.

    Starts from ``log u = log v = 0``; each iteration scales the rows to ``a`` and then the columns to ``b``, so
    after the last one the columns are exact and the rows approach theirs.

    Args:
        logits_SL: ``[..., S, L]`` scores divided by the temperature.
        iterations: row and column scalings, at least 1.
        log_a_S: ``[..., S]`` log of the row marginal, summing to 1; ``None`` is uniform. Columns are uniform.

    Returns:
        The coupling ``P [..., S, L]``, entries summing to 1. float32, or float64 for float64 input: in half
        precision the marginals are lost, so autocast is switched off.
    """
    S, L = logits_SL.shape[-2:]
    with torch.autocast(logits_SL.device.type, enabled=False):
        logK_SL = logits_SL.to(torch.promote_types(logits_SL.dtype, torch.float32))
        if log_a_S is None:
            log_a_S = logK_SL.new_full((S,), 1.0).div(S).log()
        log_b = logK_SL.new_full((), 1.0 / L).log()
        log_v_L = torch.zeros_like(logK_SL[..., 0, :])
        for _ in range(iterations):
            log_u_S = log_a_S - torch.logsumexp(logK_SL + log_v_L.unsqueeze(-2), dim=-1)
            log_v_L = log_b - torch.logsumexp(logK_SL + log_u_S.unsqueeze(-1), dim=-2)
        return (logK_SL + log_u_S.unsqueeze(-1) + log_v_L.unsqueeze(-2)).exp()


def renormalise(coupling_SL: Tensor, log_a_S: Tensor | None = None, eps: float = RENORMALISE_EPS) -> Tensor:
    """One row normalisation and then one column normalisation (paper, 3.2). Columns sum to 1 afterwards.

    Rows are brought to their marginal ``log_a_S`` (``None`` is uniform): brought to 1, a dustbin would lose its mass.
    A row then sums to about ``L / S``: use :func:`aggregation_weights` before reading tokens with it.
    """
    coupling_SL = coupling_SL / (coupling_SL.sum(-1, keepdim=True) + eps)
    if log_a_S is not None:
        coupling_SL = coupling_SL * log_a_S.exp().unsqueeze(-1)
    return coupling_SL / (coupling_SL.sum(-2, keepdim=True) + eps)


def aggregation_weights(routing_SL: Tensor) -> Tensor:
    """Rows brought back to sum 1, so that ``weights @ tokens`` is the convex combination that the paper names.

    Without it ``P @ X`` is hundreds of times too large and saturates the GRU. Shape ``[..., S, L]``.
    """
    return routing_SL / (routing_SL.sum(-1, keepdim=True) + RENORMALISE_EPS)
