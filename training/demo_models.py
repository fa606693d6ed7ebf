"""The demo's models: a tiny Wan, its VAE and Slot-ID weights, all made from a seed, and as files for ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from slotid_core.checkpoint import save_weights
from slotid_core.errors import SlotIDError
from training.demo_clip import FPS, demo_clip
from training.media import atomic, write_mp4
from training.random_weights import random_slotid
from training.wan_keys import transformer_to_original, vae_to_original

SEED = 0
WAN_FILE = "slotid_demo_wan.safetensors"
VAE_FILE = "slotid_demo_vae.safetensors"
SLOTID_FILE = "slotid_demo.safetensors"
CLIP_FILE = "slotid_demo_clip.mp4"


def write_demo_clip(path: Path) -> None:
    """The drawn reference clip as a video file."""
    write_mp4(path, demo_clip(SEED), FPS)


def write_demo_models(comfy_root: Path) -> list[Path]:
    """Put what the demo workflow needs into a ComfyUI folder.

    ``models/diffusion_models``, ``models/vae`` and ``models/slotid`` get a file each, ``input`` the reference clip;
    files of the same names are replaced. They take about 30 MB.

    Returns:
        The files written.

    Raises:
        SlotIDError: the folder is no ComfyUI, or can't be written.
    """
    models = comfy_root / "models"
    if not models.is_dir():
        raise SlotIDError(
            f"{comfy_root} is not a ComfyUI folder: it has no folder 'models'. Give the folder that ComfyUI is started "
            "from, or its --base-directory."
        )
    from training.wan_diffusers import tiny_transformer, tiny_vae

    wan, vae = models / "diffusion_models" / WAN_FILE, models / "vae" / VAE_FILE
    slotid, clip = models / "slotid" / SLOTID_FILE, comfy_root / "input" / CLIP_FILE
    wan_tensors, vae_tensors = tiny_transformer(SEED).state_dict(), tiny_vae(SEED).state_dict()
    _write(wan, {transformer_to_original(name): tensor for name, tensor in wan_tensors.items()})
    _write(vae, {vae_to_original(name): tensor for name, tensor in vae_tensors.items()})
    save_weights(slotid, random_slotid("tiny", SEED))
    write_demo_clip(clip)
    return [wan, vae, slotid, clip]


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"})
    with atomic(path) as temporary:
        temporary.write_bytes(content)
