"""Parameters and bytes, counted from the real modules on the meta device, where a tensor has a shape and no memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slotid_core.config import SlotIDConfig
from slotid_core.lora import untrained_lora
from slotid_core.model import SlotID
from training.planner.shapes import WanShape
from training.trainer.adapter import unused_parts
from training.wan_diffusers import WanTransformer3DModel

# The children of SlotID that are not parts of their own: token projections and the heads of the global vectors.
_PARTS = {"encoder": "encoder", "conv_pool": "encoder", "reader": "reader", "portrait": "portrait", "film": "FiLM"}


@dataclass(frozen=True, kw_only=True)
class BaseParts:
    """The frozen transformer. Bytes are those of ``memory.precision``, with the parts that Wan keeps in float32."""

    parameters: int
    block_parameters: int
    bytes: int
    outside_bytes: int
    """Everything that is not in a block: embeddings and head."""
    linears: tuple[tuple[int, int], ...]
    """``(rows, columns)`` of every Linear in one block, which are what float8 and streaming apply to."""
    rest_bytes: int
    """Of one block: biases, norms and tables."""

    def float8_bytes(self) -> tuple[int, ...]:
        """Of each Linear's weight as float8 with one float32 scale a row."""
        return tuple(rows * columns + 4 * rows for rows, columns in self.linears)


def trainable_parts(config: SlotIDConfig) -> dict[str, int]:
    """Trained parameters by part; a part that the config has no use for is not trained."""
    with torch.device("meta"):
        model = SlotID(config)
        lora = untrained_lora(config.lora, config.backbone, generator=None)
    for module in unused_parts(model):
        module.requires_grad_(False)
    counts = dict.fromkeys(("encoder", "reader", "portrait", "projections", "FiLM", "LoRA"), 0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[_PARTS.get(name.split(".")[0], "projections")] += parameter.numel()
    counts["LoRA"] = _count(tensor for pair in lora.pairs.values() for tensor in (pair.down_RI, pair.up_OR))
    return counts


def base_parts(shape: WanShape, precision: str) -> BaseParts:
    """The transformer's own modules, counted."""
    with torch.device("meta"):
        model = WanTransformer3DModel(**shape.config())
    in_float32 = set(model._keep_in_fp32_modules)
    width = {"bf16": 2, "fp32": 4}[precision]
    sizes = {
        name: parameter.numel() * (4 if in_float32.intersection(name.split(".")) else width)
        for name, parameter in model.named_parameters()
    }
    block = model.blocks[0]
    linears = tuple(tuple(module.weight.shape) for module in block.modules() if isinstance(module, nn.Linear))
    block_bytes = sum(size for name, size in sizes.items() if name.startswith("blocks.0."))
    return BaseParts(
        parameters=_count(model.parameters()),
        block_parameters=_count(block.parameters()),
        bytes=sum(sizes.values()),
        outside_bytes=sum(size for name, size in sizes.items() if not name.startswith("blocks.")),
        linears=linears,
        rest_bytes=block_bytes - sum(rows * columns * width for rows, columns in linears),
    )


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)
