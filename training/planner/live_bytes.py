"""Counting the memory that operations take, without taking it: storages that are alive, and the most there were.

Works on real tensors and on fake ones (``FakeTensorMode``), which have shapes, kinds of number and lifetimes but no
memory behind them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """While active, knows the bytes of every storage that an operation made and somebody still holds.

    Args:
        known: tensors that are accounted for elsewhere; views of them count nothing.
    """

    def __init__(self, known: Iterable[Tensor] = ()):
        super().__init__()
        # The weak reference keeps the address from being given out again while it is a key here.
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._held = 0
        """Sum of ``_live``: at least what is alive."""
        for tensor in known:
            self._add(tensor, 0)
        self.peak = 0

    @property
    def now(self) -> int:
        """Bytes that are alive."""
        for key in [key for key, (reference, _) in self._live.items() if reference.expired()]:
            self._held -= self._live.pop(key)[1]
        return self._held

    def _add(self, tensor: Tensor, size: int | None = None) -> None:
        storage = tensor.untyped_storage()
        before = self._live.get(storage._cdata)
        if before is None or before[0].expired():
            size = storage.nbytes() if size is None else size
            self._held += size - (0 if before is None else before[1])
            self._live[storage._cdata] = (StorageWeakRef(storage), size)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        # Who is still alive takes long to ask; no answer matters that can't raise the peak.
        if self._held > self.peak:
            self.peak = max(self.peak, self.now)
        return out


class GpuKernels(TorchFunctionMode):
    """Makes what runs on (fake) CPU tensors keep and count what a GPU's kernels would.

    - Scaled-dot-product attention is a fused kernel: it keeps q, k, v, the output and one float32 a row, never an
      L x L matrix, and its backward takes a float32 accumulator of q's shape.
    - Under CUDA's autocast norms run in float32, under the CPU's they do not.

    ``attention_forward`` and ``attention_backward`` add up the kernel's FLOPs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention_forward = 0
        self.attention_backward = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        autocast = torch.is_autocast_enabled("cpu")
        if function is F.scaled_dot_product_attention:
            q, k, v = (kwargs[name] if name in kwargs else args[i] for i, name in enumerate(("query", "key", "value")))
            if autocast:
                q, k, v = (x.to(torch.get_autocast_dtype("cpu")) for x in (q, k, v))
            matmul = 2 * q.numel() * k.shape[-2]
            self.attention_forward += 2 * matmul
            if any(x.requires_grad for x in (q, k, v)):
                self.attention_backward += 5 * matmul
            return _FusedAttention.apply(q, k, v)
        if function in (F.layer_norm, F.rms_norm) and autocast:
            args = [x.float() if isinstance(x, Tensor) else x for x in args]
            kwargs = {name: x.float() if isinstance(x, Tensor) else x for name, x in kwargs.items()}
        return function(*args, **kwargs)


class _FusedAttention(torch.autograd.Function):
    """Memory of a fused attention kernel; the numbers are meaningless."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, _, _ = ctx.saved_tensors
        accumulator = torch.empty_like(q, dtype=torch.float32)
        del accumulator
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
