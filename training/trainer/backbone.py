"""The frozen Wan that Slot-ID is trained on, and how to tell that it is another."""

from __future__ import annotations

from pathlib import Path

import torch

from training.data.hashes import FileHashes
from training.settings import Settings
from training.wan_diffusers import WanTransformer3DModel, load_transformer, tiny_transformer


def precision(settings: Settings) -> torch.dtype:
    """Of the backbone's numbers, and of what is computed with them."""
    return torch.bfloat16 if settings.memory.precision == "bf16" else torch.float32


def load_backbone(settings: Settings) -> WanTransformer3DModel:
    """On the CPU, in the run's :func:`precision`.

    Raises:
        SlotIDError: as :func:`training.wan_diffusers.load_transformer`.
    """
    source, dtype = settings.model.transformer, precision(settings)
    return tiny_transformer(dtype=dtype) if source == "tiny" else load_transformer(Path(source), dtype)


def backbone_id(settings: Settings) -> str:
    """SHA-256 of its files, or ``tiny``. Remembered beside the cache: 28 GB are read once, and not at every start.

    Raises:
        SlotIDError: there is none.
    """
    source = settings.model.transformer
    if source == "tiny":
        return "tiny"
    hashes = FileHashes(settings.data.cache)
    found = hashes.of_weights(Path(source))
    hashes.save()
    return found
