"""Weights made from a seed: for the tiny Wan and VAE, and for tests that need an adapter that does something.

Every draw is uniform, from a generator of its own: the values are the same on every platform, and the global random
state is not touched.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from slotid_core.checkpoint import SlotIDWeights, bundle, untrained_weights
from slotid_core.lora import LoraWeights
from slotid_core.model import SlotID

# Spread of biases and of norm weights around 1: large enough that an ignored one shows in a comparison of two hosts.
_BIAS_STD = 0.1
# A tiny LoRA of this spread moves a K or V projection by about a third of its size.
_LORA_STD = 0.2
# ... and FiLM of this one gives gamma and beta of about 0.1.
_FILM_STD = 0.5


def _uniform(shape: torch.Size, std: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator) * 2.0 - 1.0) * (std * 3.0**0.5)


@torch.no_grad()
def fill(module: nn.Module, seed: int) -> None:
    """Give every parameter of a freshly built network a value that keeps activations near unit size, in place.

    Matrices and kernels get a spread of ``1 / sqrt(fan_in)``, norm weights are near 1, biases near 0, modulation
    tables as small as Wan starts them.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        shape, leaf = parameter.shape, name.rsplit(".", 1)[-1]
        is_norm = leaf == "gamma" or (leaf == "weight" and len(shape) == 1)
        if leaf == "scale_shift_table":
            value = _uniform(shape, shape[-1] ** -0.5, generator)
        elif is_norm or leaf == "bias":
            value = float(is_norm) + _uniform(shape, _BIAS_STD, generator)
        else:
            value = _uniform(shape, shape[1:].numel() ** -0.5, generator)
        parameter.copy_(value)


@torch.no_grad()
def randomise_outputs(model: SlotID, seed: int, scale: float = 1.0) -> None:
    """Replace the zero output layers of an untrained Slot-ID model by random ones, in place.

    At ``scale`` 1 an identity token is about as large as a word of the demo prompt (root mean square 1), and FiLM
    changes a block's output by about a tenth.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.output_layers:
        if parameter.ndim == 2:
            std = parameter.shape[1] ** -0.5
        elif parameter.ndim == 1:
            std = _BIAS_STD
        else:
            std = _FILM_STD * parameter.shape[-1] ** -0.5
        parameter.copy_(_uniform(parameter.shape, scale * std, generator))


def randomise_lora(lora: LoraWeights, seed: int, scale: float = 1.0) -> LoraWeights:
    """A copy of an untrained LoRA whose zero factors are random."""
    generator = torch.Generator().manual_seed(seed)
    return LoraWeights(
        {
            name: dataclasses.replace(pair, up_OR=_uniform(pair.up_OR.shape, scale * _LORA_STD, generator))
            for name, pair in lora.pairs.items()
        }
    )


def random_slotid(preset: str = "tiny", seed: int = 0, scale: float = 1.0) -> SlotIDWeights:
    """Slot-ID weights that nobody trained but through which an identity does reach the backbone.

    What the backbone then shows is no likeness: different people give different pictures, and that is all.

    Raises:
        SlotIDError: no preset has that name.
    """
    start = untrained_weights(preset, seed)
    randomise_outputs(start.model, seed, scale)
    facts = {**start.facts, "outputs": f"random, seed {seed}, scale {scale:g}"}
    return bundle(start.model, randomise_lora(start.lora, seed + 1, scale), facts)
