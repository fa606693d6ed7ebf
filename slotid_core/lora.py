"""LoRA on the backbone's cross-attention as plain tensors, under the names of Wan's own checkpoints.

Shape letters: R rank, I input width, O output width.

ComfyUI and diffusers name the same layer differently; here it is ``blocks.3.cross_attn.k``. In a file of its own a LoRA
has the keys that both hosts load: ``diffusion_model.<module>.lora_A.weight``, ``.lora_B.weight`` and ``.alpha``
(without ``.alpha`` the strength would double at rank 32, alpha 16).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import BackboneConfig, LoraConfig

_PREFIX = "diffusion_model."


@dataclass(frozen=True)
class LoraPair:
    """One module's update: ``weight += alpha / R * up @ down``."""

    down_RI: Tensor
    up_OR: Tensor
    alpha: float


@dataclass(frozen=True)
class LoraWeights:
    """Updates by module name."""

    pairs: Mapping[str, LoraPair]

    def is_zero(self) -> bool:
        """Whether the update changes no weight at all."""
        return not any(bool(pair.up_OR.any()) and bool(pair.down_RI.any()) for pair in self.pairs.values())


def module_names(lora: LoraConfig, backbone: BackboneConfig) -> list[str]:
    """``blocks.{i}.cross_attn.{q|k|v|o}`` of every module that the config updates; none at rank 0."""
    if lora.rank == 0:
        return []
    return [f"blocks.{i}.cross_attn.{target}" for i in range(backbone.blocks) for target in lora.targets]


def untrained_lora(lora: LoraConfig, backbone: BackboneConfig, generator: torch.Generator | None) -> LoraWeights:
    """The state that training starts from: a random ``down``, a zero ``up``."""
    width = backbone.dim
    return LoraWeights(
        {
            name: LoraPair(
                down_RI=torch.randn(lora.rank, width, generator=generator) / width**0.5,
                up_OR=torch.zeros(width, lora.rank),
                alpha=lora.alpha,
            )
            for name in module_names(lora, backbone)
        }
    )


def to_tensors(lora: LoraWeights) -> dict[str, Tensor]:
    """The flat key style that ComfyUI's and diffusers' LoRA loaders both read."""
    tensors = {}
    for name, pair in lora.pairs.items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = pair.down_RI
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = pair.up_OR
        tensors[f"{_PREFIX}{name}.alpha"] = torch.tensor(pair.alpha, dtype=torch.float32)
    return tensors


def from_tensors(tensors: Mapping[str, Tensor]) -> LoraWeights:
    """Inverse of :func:`to_tensors`. Names, shapes and numbers have been checked by whoever read the file."""
    names = [key.removeprefix(_PREFIX).removesuffix(".alpha") for key in tensors if key.endswith(".alpha")]

    def of(name: str, part: str) -> Tensor:
        return tensors[f"{_PREFIX}{name}.{part}"]

    return LoraWeights(
        {
            name: LoraPair(of(name, "lora_A.weight"), of(name, "lora_B.weight"), float(of(name, "alpha")))
            for name in names
        }
    )
