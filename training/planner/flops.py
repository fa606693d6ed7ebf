"""Floating-point operations of one clip's forward, recompute and backward through a frozen Wan with Slot-ID on it.

A multiply-add counts as two. Letters in the formulas: L video tokens, M context tokens, d width, f width of the
feed-forward network, r LoRA rank. Norms, rotations and other element-wise work are left out: they take time but are
no matrix products, and the assumed utilisation covers them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from slotid_core.config import SlotIDConfig
from training.planner.shapes import CONTEXT, WanShape
from training.planner.trace import EncoderTrace

KINDS = ("linear", "self-attention", "cross-attention", "encoder")
# A fused kernel's backward is five matrix products of the size of the forward's two: the scores again, and the
# gradients of values, weights, queries and keys.
_ATTENTION_BACKWARD = 2.5


@dataclass(frozen=True, kw_only=True)
class Work:
    """FLOPs of one kind."""

    forward: float
    recompute: float
    backward: float

    @property
    def total(self) -> float:
        return self.forward + self.recompute + self.backward


def step_flops(
    shape: WanShape, config: SlotIDConfig, tokens: int, clips: int, encoder: EncoderTrace, recompute: bool
) -> dict[str, Work]:
    """Of one clip by kind (:data:`KINDS`). Frozen weights have no gradient of their own, only their inputs do.

    Args:
        tokens: video tokens of the target.
        encoder: a trace of ``clips`` clips.
        recompute: whether blocks are checkpointed.
    """
    L, M, d, blocks = tokens, CONTEXT, shape.dim, shape.blocks
    self_attention, cross_attention = 4 * L * L * d, 4 * L * M * d
    per_block, lora, outside = _block(shape, L), _lora(config, L, d), _outside(shape, L)
    # The first block's input needs no gradient: there it begins with the context, in cross-attention.
    first_block = 5 * 2 * L * d * d
    return {
        "linear": Work(
            forward=blocks * (per_block + lora) + sum(outside.values()),
            recompute=blocks * (per_block + lora) if recompute else 0,
            backward=blocks * (per_block + 2 * lora) - first_block + outside["text"] + outside["head"],
        ),
        "self-attention": Work(
            forward=blocks * self_attention,
            recompute=blocks * self_attention if recompute else 0,
            backward=(blocks - 1) * _ATTENTION_BACKWARD * self_attention,
        ),
        "cross-attention": Work(
            forward=blocks * cross_attention,
            recompute=blocks * cross_attention if recompute else 0,
            backward=blocks * _ATTENTION_BACKWARD * cross_attention,
        ),
        "encoder": Work(
            forward=(encoder.linear_forward + encoder.attention_forward) / clips,
            recompute=0,
            backward=(encoder.linear_backward + encoder.attention_backward) / clips,
        ),
    }


def forward_flops(work: dict[str, Work]) -> float:
    """Of one call of the backbone, without the encoder: what a sampling step costs."""
    return sum(part.forward for kind, part in work.items() if kind != "encoder")


def _block(shape: WanShape, L: int) -> float:
    """Frozen Linears of one block: self q, k, v, o and cross q, o on L tokens, cross k, v on M, the network on L."""
    d = shape.dim
    return 6 * 2 * L * d * d + 2 * 2 * CONTEXT * d * d + 2 * 2 * L * d * shape.ffn


def _lora(config: SlotIDConfig, L: int, d: int) -> float:
    """Two thin matrices per target; k and v see the context, q and o the video."""
    if not config.lora.rank:
        return 0
    rows = sum(CONTEXT if target in "kv" else L for target in config.lora.targets)
    return 2 * 2 * rows * config.lora.rank * d


def _outside(shape: WanShape, L: int) -> dict[str, float]:
    d, patch = shape.dim, math.prod(shape.patch)
    return {
        "patch": 2 * L * shape.in_channels * patch * d,
        "time": 2 * (shape.freq_dim * d + d * d + 6 * d * d),
        "text": 2 * CONTEXT * (shape.text_dim * d + d * d),
        "head": 2 * L * d * shape.out_channels * patch,
    }
