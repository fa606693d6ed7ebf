"""The frozen Wan that Slot-ID is trained on, and how to tell that it is another."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from training.data.hashes import FileHashes
from training.settings import Settings
from training.wan_diffusers import WanTransformer3DModel, load_transformer, tiny_transformer


def load_backbone(settings: Settings) -> WanTransformer3DModel:
    """On the CPU, in the run's precision.

    Raises:
        SlotIDError: as :func:`training.wan_diffusers.load_transformer`.
    """
    precision = torch.bfloat16 if settings.memory.precision == "bf16" else torch.float32
    source = settings.model.transformer
    return tiny_transformer(dtype=precision) if source == "tiny" else load_transformer(Path(source), precision)


def backbone_id(settings: Settings) -> str:
    """SHA-256 of its files, or ``tiny``. Remembered beside the cache: 28 GB are read once, and not at every start.

    Raises:
        SlotIDError: there is none.
    """
    source, folder = settings.model.transformer, settings.data.cache
    if source == "tiny":
        return "tiny"
    hashes = FileHashes(folder)
    found = hashes.of_weights(Path(source))
    if os.access(folder, os.W_OK):
        hashes.save()
    return found
