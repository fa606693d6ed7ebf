"""Multi-head attention kernels: ``flash_attn`` where it is installed and fits, else torch's own SDPA.

Shape letters: B batch, H heads, L tokens, d head width.
"""

import functools
import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor


@functools.cache
def _flash_attn_installed() -> bool:
    return importlib.util.find_spec("flash_attn") is not None


def flash_attn_fits(q_BHLd: Tensor) -> bool:
    """Whether the ``flash_attn`` package takes these inputs: a CUDA tensor in half precision, head width <= 256."""
    return (
        q_BHLd.is_cuda
        and q_BHLd.dtype in (torch.float16, torch.bfloat16)
        and q_BHLd.shape[-1] <= 256
        and q_BHLd.shape[-1] % 8 == 0
    )


def attention(q_BHLd: Tensor, k_BHLd: Tensor, v_BHLd: Tensor) -> Tensor:
    """Full (unmasked) softmax attention, scaled by ``1 / sqrt(d)``. Returns ``[B, H, L, d]``."""
    if _flash_attn_installed() and flash_attn_fits(q_BHLd):
        from flash_attn import flash_attn_func  # [B, L, H, d] in and out

        out_BLHd = flash_attn_func(*(x.transpose(1, 2) for x in (q_BHLd, k_BHLd, v_BHLd)))
        return out_BLHd.transpose(1, 2)
    return F.scaled_dot_product_attention(q_BHLd, k_BHLd, v_BHLd)
