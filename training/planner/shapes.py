"""The Wan that is trained on, by its shapes alone: no weight is read.

Shape letters: T h w latent frames, height, width.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from slotid_core.errors import SlotIDError
from training.settings import Settings
from training.wan_diffusers import HEAD_WIDTH, config_of, tiny_transformer
from training.wan_keys import diffusers_names

CONTEXT = 512
"""Text tokens that Wan's cross-attention sees, the identity's among them."""


@dataclass(frozen=True, kw_only=True)
class WanShape:
    """What sets the cost of a Wan transformer."""

    heads: int
    ffn: int
    blocks: int
    head_width: int = HEAD_WIDTH
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    patch: tuple[int, int, int] = (1, 2, 2)
    found: str
    """Where these shapes are from, for people."""

    @property
    def dim(self) -> int:
        return self.heads * self.head_width

    def config(self, blocks: int | None = None) -> dict[str, Any]:
        """Arguments of a ``WanTransformer3DModel`` of these shapes, with another number of blocks if given."""
        return {
            "patch_size": self.patch,
            "num_attention_heads": self.heads,
            "attention_head_dim": self.head_width,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "text_dim": self.text_dim,
            "freq_dim": self.freq_dim,
            "ffn_dim": self.ffn,
            "num_layers": self.blocks if blocks is None else blocks,
        }

    def tokens(self, grid_Thw: tuple[int, int, int]) -> int:
        """Video tokens of latents of that size."""
        return math.prod(size // patch for size, patch in zip(grid_Thw, self.patch, strict=True))


KNOWN = {
    "wan-14b": WanShape(
        heads=40, ffn=13824, blocks=40, found="known shapes of Wan 2.1 T2V-14B; its files are not here"
    ),
    "wan-1.3b": WanShape(
        heads=12, ffn=8960, blocks=30, found="known shapes of Wan 2.1 T2V-1.3B; its files are not here"
    ),
}


def latent_grid(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Pixels to latent cells: ``(T, h, w)``."""
    return ((frames - 1) // 4 + 1, height // 8, width // 8)


def read_shape(settings: Settings) -> WanShape:
    """Shapes from the model's own files; where those are not on this machine yet, the preset's known ones.

    Raises:
        SlotIDError: files that are no Wan transformer, or one that the Slot-ID config is not for.
    """
    model = settings.model
    if model.transformer == "tiny":
        shape = _from_config(dict(tiny_transformer().config), "the built-in tiny Wan")
    elif model.transformer.is_dir():
        shape = _from_config(_folder_config(model.transformer), f"{model.transformer.name}/config.json")
    elif model.transformer.is_file():
        shape = _from_config(config_of(_header(model.transformer)), f"the header of {model.transformer.name}")
    elif model.preset in KNOWN:
        shape = KNOWN[model.preset]
    else:
        raise SlotIDError(
            f"There is no {model.transformer}, and the preset {model.preset!r} has no known Wan. "
            f"Give the transformer's file or folder, or one of the presets {', '.join(KNOWN)}."
        )
    wanted = model.slotid_config().backbone
    got = (shape.dim, shape.blocks, shape.out_channels, shape.text_dim)
    if got != (wanted.dim, wanted.blocks, wanted.latent_channels, wanted.text_dim):
        raise SlotIDError(
            f"model.transformer ({shape.found}) is a Wan with width {got[0]}, {got[1]} blocks, {got[2]} latent "
            f"channels; the Slot-ID config is for {wanted}. Choose the preset that belongs to it."
        )
    return shape


def _from_config(config: dict[str, Any], found: str) -> WanShape:
    return WanShape(
        heads=config["num_attention_heads"],
        head_width=config["attention_head_dim"],
        ffn=config["ffn_dim"],
        blocks=config["num_layers"],
        in_channels=config["in_channels"],
        out_channels=config["out_channels"] or config["in_channels"],
        text_dim=config["text_dim"],
        freq_dim=config["freq_dim"],
        patch=tuple(config["patch_size"]),
        found=found,
    )


def _folder_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SlotIDError(
            f"{folder} has no readable config.json ({error}). Give the folder of the transformer itself, in a "
            "diffusers pipeline its 'transformer' subfolder."
        ) from error
    if not isinstance(config, dict) or config.get("_class_name") != "WanTransformer3DModel":
        raise SlotIDError(f"{folder}/config.json is not that of a WanTransformer3DModel. Give a Wan 2.1 transformer.")
    missing = [name for name in KNOWN["wan-14b"].config() if name not in config]
    if missing:
        raise SlotIDError(f"{folder}/config.json lacks {', '.join(missing)}. Fetch it again.")
    return config


def _header(path: Path) -> dict[str, list[int]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = diffusers_names(file.keys(), "transformer")
            return {ours: file.get_slice(theirs).get_shape() for theirs, ours in names.items()}
    except SafetensorError as error:
        raise SlotIDError(f"{path.name} is not a whole .safetensors file ({error}). Fetch it again.") from error
    except SlotIDError as error:
        raise SlotIDError(f"{path.name}: {error}") from error
