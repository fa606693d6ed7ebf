"""What a cache is made from besides videos: settings and models, and how to tell that they are others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from slotid_core.errors import SlotIDError
from training.data.hashes import FileHashes
from training.settings import Settings
from training.text import TEXT_ENCODER_PARTS, most_text_tokens

TEXT_TOKENS = "text tokens"
"""How many a caption may have. Where none was longer, the cache is the same with any limit that leaves them whole."""


def shaping_settings(settings: Settings) -> dict[str, Any]:
    """The settings that shape the shards, by their full names, as plain data. Models are compared by their hashes."""
    data = settings.data.model_dump(mode="json")
    names = ["sizes", "lengths", "fps", "reference_frames", "reference_side", "portrait_side", "faces"]
    names += ["clips_per_shard", "augment"]
    names += ["generated"] if settings.data.layout == "generated" else []
    shaping = {f"data.{name}": data[name] for name in names}
    if settings.data.layout == "world":
        shaping["memory.precision"] = settings.memory.precision
    config = settings.model.slotid_config()
    # Until every clip was shuffled by itself, all were shuffled alike.
    order = {"temporal": "temporal", "shuffled": "shuffled, each clip by itself"}[config.clip_order]
    return {
        **shaping,
        "model.slotid.clip_order": order,
        "model.slotid.backbone.text_dim": config.backbone.text_dim,
        TEXT_TOKENS: most_text_tokens(settings),
        "data.seed": settings.data.seed,
    }


def split_settings(settings: Settings) -> dict[str, Any]:
    """The settings that shape the manifest alone: who is held out."""
    return {
        "data.layout": settings.data.layout,
        "data.person": settings.data.person,
        "data.held_out": settings.data.held_out,
    }


def check_settings(
    folder: Path,
    stored: dict[str, Any],
    wanted: dict[str, Any],
    fix: str = "Set them back, give another data.cache, or delete the folder to make it anew.",
) -> None:
    """Raises a SlotIDError that names every setting in which a cache differs from what is wanted."""
    names = sorted(stored.keys() | wanted.keys())
    differ = [name for name in names if stored.get(name) != wanted.get(name)]
    if differ:
        said = "; ".join(f"{name} was {stored.get(name)}, now {wanted.get(name)}" for name in differ)
        raise SlotIDError(f"The cache {folder} was made with other settings: {said}. {fix}")


def model_hashes(settings: Settings, hashes: FileHashes, *, must_be_there: bool = True) -> dict[str, str | None]:
    """What tells the VAE and the text encoder from others; ``None`` for one that need not be there and is not.

    Raises:
        SlotIDError: one is not there.
    """
    model = settings.model
    named = {
        "model.vae": (model.vae, "tiny", ("",)),
        "model.text_encoder": (model.text_encoder, "hashed", TEXT_ENCODER_PARTS),
    }
    found: dict[str, str | None] = {}
    for name, (path, word, parts) in named.items():
        if path == word:
            found[name] = word
        elif not (missing := [path / part for part in parts if not (path / part).exists()]):
            found[name] = hashes.of_weights(path, parts)
        elif must_be_there:
            raise SlotIDError(
                f"There is no file or folder {missing[0]}. Set {name} to where it is; docs/training.md says where to "
                f"get it. ({word} is for the tiny Wan of tiny.yaml.)"
            )
        else:
            found[name] = None
    return found


def check_models(folder: Path, stored: dict[str, str], wanted: dict[str, str | None]) -> None:
    """Raises a SlotIDError where a model is another than the cache was made with."""
    for name, digest in wanted.items():
        if digest is not None and digest != (before := stored.get(name)):
            raise SlotIDError(
                f"The cache {folder} was made with another {name} (SHA-256 {before!s:.12}, now {digest:.12}). Set it "
                "back, or give another data.cache."
            )


def dataset_folder(settings: Settings) -> Path:
    """What ``Entry.video`` is relative to; absolute."""
    return Path(os.path.abspath(settings.data.cache if settings.data.source is None else settings.data.source))
