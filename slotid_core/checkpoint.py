"""Slot-ID weights <-> one ``.safetensors`` file: encoder, FiLM and LoRA, with config and training facts.

Keys: ``model.<parameter>`` for :class:`SlotID`, ``lora.diffusion_model.<module>....`` for the LoRA.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import lora as lora_format
from .config import SlotIDConfig
from .errors import SlotIDError
from .lora import LoraWeights
from .model import SlotID
from .safe_file import SafeFile, check_finite, content_hash, write

KIND = "weights"
FORMAT_VERSION = 1
NO_IDENTITY = "These Slot-ID weights are untrained: NO IDENTITY WILL APPEAR. They are for wiring a graph."


@dataclass(frozen=True)
class SlotIDWeights:
    """A Slot-ID model with the LoRA that was trained with it."""

    model: SlotID
    lora: LoraWeights
    facts: Mapping[str, Any]
    """What the training run says of itself (steps, data, figures); shown, never interpreted."""
    sha256: str
    """Hash of config and tensors; an identity names the weights that encoded it by this."""

    @property
    def untrained(self) -> bool:
        """Whether no identity can reach the backbone, because every output layer is zero."""
        return self.lora.is_zero() and not any(bool(p.any()) for p in self.model.output_layers)


def bundle(model: SlotID, lora: LoraWeights, facts: Mapping[str, Any]) -> SlotIDWeights:
    """Put parts together and name them by their hash."""
    return SlotIDWeights(model, lora, facts, content_hash(_to_tensors(model, lora), model.config.to_dict()))


def untrained_weights(preset: str, seed: int = 0) -> SlotIDWeights:
    """:func:`untrained_weights_of` a preset.

    Raises:
        SlotIDError: no preset has that name.
    """
    return untrained_weights_of(SlotIDConfig.preset(preset), seed, {"preset": preset})


def untrained_weights_of(config: SlotIDConfig, seed: int, facts: Mapping[str, Any] | None = None) -> SlotIDWeights:
    """Random inner layers and zero outputs: an exact no-op, the state that training starts from.

    The same seed gives the same weights, and the global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed the host's GPUs
        model = SlotID(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    lora = lora_format.untrained_lora(config.lora, config.backbone, generator)
    return bundle(model, lora, {**(facts or {}), "trained_steps": 0})


def save_weights(path: Path, weights: SlotIDWeights, dtype: torch.dtype = torch.float32) -> None:
    """Write atomically.

    Args:
        dtype: of the stored matrices and vectors. In float16 a file takes half the room and holds other weights, with
            a hash of their own: an identity that the whole ones encoded is not theirs.

    Raises:
        SlotIDError: the name does not end in ``.safetensors``, the folder can't be written, or a number is NaN,
            infinite, or too large for the dtype.
    """
    info = {"config": weights.model.config.to_dict(), "facts": dict(weights.facts)}
    tensors = _to_tensors(weights.model, weights.lora)
    check_finite(path, tensors)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.ndim:
            tensors[name] = tensor.to(dtype)
            if not bool(tensors[name].isfinite().all()):
                raise SlotIDError(
                    f"{name} holds {tensor.abs().max().item():.3g}, which is more than {dtype} can hold, so "
                    f"{path.name} was not written. Store these weights in float32."
                )
    write(path, KIND, FORMAT_VERSION, tensors, info)


def load_weights(path: Path) -> SlotIDWeights:
    """Read and validate a file. The model is float32, on the CPU, in eval mode and without gradients.

    Raises:
        SlotIDError: not there, not safetensors, damaged, hostile, of a newer format, or not what its config says.
    """
    with SafeFile(path, KIND, FORMAT_VERSION) as file:
        try:
            config = SlotIDConfig.from_dict(file.info.get("config"))
        except SlotIDError as error:
            raise file.error(f"its config is not valid: {error}") from error
        facts = file.info.get("facts")
        if not isinstance(facts, dict):
            raise file.error(f"its training facts are {type(facts).__name__}, expected a mapping")
        with torch.device("meta"):  # shapes first, memory only after they were found right
            model = SlotID(config).eval().requires_grad_(False)
            skeleton = _to_tensors(model, lora_format.untrained_lora(config.lora, config.backbone, None))
        tensors = file.read({name: (tuple(t.shape), t.dtype) for name, t in skeleton.items()})
        model.load_state_dict(_part(tensors, "model."), assign=True)
        lora = lora_format.from_tensors(_part(tensors, "lora."))
    return bundle(model, lora, facts)


def _to_tensors(model: SlotID, lora: LoraWeights) -> dict[str, Tensor]:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors.update({f"lora.{name}": tensor for name, tensor in lora_format.to_tensors(lora).items()})
    return tensors


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
