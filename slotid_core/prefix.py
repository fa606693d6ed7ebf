"""Where the identity tokens go: into the last pad slots of the text context, before the text embedding MLP.

Shape letters: B batch, L context tokens (512 for Wan), P prefix tokens, E text-token width (4096).

Wan pads prompts with *zero* tokens. A zero prefix token is therefore exactly a pad token: gating towards zero ends in
something that the backbone has seen hundreds of times. Cross-attention has neither positions nor mask, so where the
tokens stand does not matter to what is computed; the text is never moved, because that would change the order of
floating-point sums and with it the bits of the result.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def trailing_pads(context_BLE: Tensor) -> Tensor:
    """Number of all-zero tokens at the end of each row. Shape ``[B]``, int64."""
    is_pad_BL = ~context_BLE.any(dim=-1)
    return is_pad_BL.flip(1).long().cumprod(dim=1).sum(dim=1)


def missing_slots(context_BLE: Tensor, prefix_BPE: Tensor) -> Tensor:
    """How many tokens each row's context must grow by to take the prefix. Shape ``[B]``.

    0 for a row whose prefix is all zero: it needs no slot, and an appended zero token would be one more key, since the
    text embedding of zero is not zero.
    """
    return _missing_and_left(context_BLE, prefix_BPE)[0]


def _missing_and_left(context_BLE: Tensor, prefix_BPE: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`missing_slots`, and the rows that stay as they are: their prefix is all zero and finds too few pads."""
    is_silent_B = ~prefix_BPE.flatten(1).any(dim=1)
    # Only the last P tokens are looked at: a context is 4 million numbers, and this is asked in every backbone call.
    P = prefix_BPE.shape[1]
    missing_B = P - trailing_pads(context_BLE[:, -P:])
    return missing_B.masked_fill(is_silent_B, 0), is_silent_B & (missing_B > 0)


def place_prefix(
    context_BLE: Tensor, prefix_BPE: Tensor, empty_like: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """The context with the prefix in its last P slots, in the context's dtype.

    Rows must agree in :func:`missing_slots`: rows that do not have to be run apart, for they need contexts of
    different length.

    Args:
        empty_like: makes the tensor that is returned, where no gradient is wanted.
    """
    P = prefix_BPE.shape[1]
    # A zero token written over a pad changes nothing, but it lets training's first gradient through.
    missing_B, is_left_B = _missing_and_left(context_BLE, prefix_BPE)
    if is_left_B.all():
        return context_BLE
    grow = int(missing_B[0])
    assert bool((missing_B == grow).all()), f"rows of one batch need different context lengths: {missing_B.tolist()}"
    if grow:  # padding by nothing would copy
        context_BLE = F.pad(context_BLE, (0, 0, 0, grow))
    tail_BPE = torch.where(is_left_B[:, None, None], context_BLE[:, -P:], prefix_BPE.to(context_BLE.dtype))
    out_BLE = None if empty_like is None else empty_like(context_BLE)
    return torch.cat([context_BLE[:, :-P], tail_BPE], dim=1, out=out_BLE)
