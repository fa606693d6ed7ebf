"""The memory plans: what is given up so that a large frozen backbone fits (see ``MemorySettings.plan``).

Shape letters: O output width, I input width, B L D hidden state of a block.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from training.wan_injection import InjectedWan

PLANS = ("plain", "checkpointed", "offloaded", "fp8", "streamed")
_FP8 = torch.float8_e4m3fn
_FP8_MAX = torch.finfo(_FP8).max


def base_format(plan: str, precision: str) -> str:
    """What the frozen base is held in: the only thing about a memory plan that shapes what is learned."""
    return "fp8" if PLANS.index(plan) >= PLANS.index("fp8") else precision


class FrozenLinear(nn.Module):
    """A linear layer that is never trained, whose weight lies in float8 (e4m3), with one scale for each output.

    The weight is brought to the input's device and to its dtype whenever it is used. Autograd keeps that copy only as
    long as the backward of one recomputed block needs it.

    Args:
        linear: what it stands for.
        on_host: hold the weight in (pinned, where there is a GPU) host memory.
    """

    def __init__(self, linear: nn.Linear, *, on_host: bool):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight_OI = linear.weight.detach().float()
        scale_O1 = weight_OI.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / _FP8_MAX
        weight_OI = (weight_OI / scale_O1).to(_FP8)
        self.register_buffer("scale_O1", scale_O1)
        if on_host:
            weight_OI = weight_OI.cpu()
            # Not a buffer: moving the module to a device must leave it where it is.
            self.weight = weight_OI.pin_memory() if torch.cuda.is_available() else weight_OI
        else:
            self.register_buffer("weight", weight_OI)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        weight_OI = self.weight.to(x.device, non_blocking=True).to(self.scale_O1.dtype).mul_(self.scale_O1)
        return functional.linear(x, weight_OI.to(x.dtype), self.bias if self.bias is None else self.bias.to(x.dtype))


def apply_plan(injected: InjectedWan, plan: str, device: torch.device) -> None:
    """Arrange the frozen transformer as the plan says and bring it to the device. LoRA layers may be on it already."""
    transformer, level = injected.transformer, PLANS.index(plan)
    if level >= PLANS.index("fp8"):
        for block in transformer.blocks:
            _freeze_linears(block, on_host=plan == "streamed")
    transformer.to(device)
    if level < PLANS.index("checkpointed"):
        return

    def run(block: nn.Module, hidden_BLD: Tensor, *args: Any) -> Tensor:
        again = partial(checkpoint, use_reentrant=False, context_fn=lambda: (nullcontext(), injected.film_as_now()))
        if level < PLANS.index("offloaded"):
            return again(block.__call__, hidden_BLD, *args)
        # What the recomputation starts from waits in host memory: it is what is kept of a block.
        kept_BLD, home = _ToHost.apply(hidden_BLD), hidden_BLD.device
        return again(lambda x, *rest: block(x.to(home, non_blocking=True), *rest), kept_BLD, *args)

    transformer.enable_gradient_checkpointing(run)


def _freeze_linears(module: nn.Module, on_host: bool) -> None:
    for name, child in module.named_children():
        if name.startswith("lora_"):
            continue
        if isinstance(child, nn.Linear):
            setattr(module, name, FrozenLinear(child, on_host=on_host))
        else:
            _freeze_linears(child, on_host)


class _ToHost(torch.autograd.Function):
    """Copy to pinned host memory; the gradient comes back to the device."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.device = x.device
        if x.device.type == "cpu":
            return x.clone()
        kept = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        return kept.copy_(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.to(ctx.device, non_blocking=True)
