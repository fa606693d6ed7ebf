"""Muon, all matrices of one shape in one go.

torch's own takes one matrix after the other: some twenty small kernels each, and hundreds of matrices wait for kernels
to be launched, not for arithmetic.

Letters: N matrices of R rows and C columns, of which S is the shorter side and L the longer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim._muon import _adjust_lr


class Muon(torch.optim.Muon):
    """torch's Muon: what it is built from, keeps and writes to a checkpoint is the same, and so is every step but for
    the rounding of bfloat16 products, which a batch may sum in another order.

    The arithmetic is that of ``torch/optim/_muon.py`` (torch 2.14), line by line, on stacks of matrices.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step of every matrix that has a gradient; returns what the closure does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters: list[Tensor] = []
            gradients: list[Tensor] = []
            momenta: list[Tensor] = []
            self._init_group(group, parameters, gradients, momenta)
            if parameters:
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                torch._foreach_mul_(parameters, 1 - float(group["lr"]) * group["weight_decay"])
            alike = defaultdict(list)
            for row in zip(parameters, gradients, momenta, strict=True):
                alike[row[0].shape, row[0].dtype, row[1].dtype, row[0].device].append(row)
            for rows in alike.values():
                _move(group, *map(list, zip(*rows, strict=True)))
        return loss


def _move(group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], momenta: list[Tensor]) -> None:
    """Matrices of one shape, kind and device, along their orthogonal moves."""
    ahead = torch._foreach_lerp(gradients, momenta, group["momentum"]) if group["nesterov"] else momenta
    moves_NRC = _orthogonal(torch.stack(ahead), group)
    # Of the parameters' kind and layout: only then does torch add all of a list in one kernel.
    moves_NRC = moves_NRC.to(parameters[0].dtype, memory_format=torch.contiguous_format)
    rate = _adjust_lr(float(group["lr"]), group["adjust_lr_fn"], parameters[0].shape)
    torch._foreach_add_(parameters, moves_NRC.unbind(), alpha=-rate)


def _orthogonal(matrices_NRC: Tensor, group: dict[str, Any]) -> Tensor:
    """Newton-Schulz in bfloat16, ``[N, R, C]`` to the same: brings all singular values of a matrix near 1."""
    a, b, c = group["ns_coefficients"]
    tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x_NSL = matrices_NRC.bfloat16()
    x_NSL = x_NSL.mT if tall else x_NSL
    x_NSL = x_NSL / torch.linalg.vector_norm(x_NSL, dim=(1, 2), keepdim=True).clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram_NSS = x_NSL @ x_NSL.mT
        gram_NSS = torch.baddbmm(gram_NSS, gram_NSS, gram_NSS, beta=b, alpha=c)
        x_NSL = torch.baddbmm(x_NSL, gram_NSS, x_NSL, beta=a)
    return x_NSL.mT if tall else x_NSL
