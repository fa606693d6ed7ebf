"""Videos of held-out people while a run goes on, as a contact sheet and a file: the loss does not show a likeness.

Shape letters: F frames, H W height and width, C latent channels, T h w latent frames, height, width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from slotid_core.types import IdentityEmbedding
from training.generate import GenerateConfig, generate
from training.media import SheetRow, contact_sheet, to_bytes, write_mp4
from training.trainer.adapter import Adapter
from training.trainer.batches import Item
from training.trainer.validate import HeldOut
from training.wan_diffusers import AutoencoderKLWan, decode_latents

RANDOM = "RANDOM WEIGHTS: the tiny Wan or its VAE is untrained, so the pictures are noise-like; the run itself is real."


@torch.no_grad()
def sample(
    adapter: Adapter, vae: AutoencoderKLWan, held_out: HeldOut, folder: Path, *, step: int, write: bool
) -> list[Path]:
    """One video of each of the first held-out clips' people, with their captions; beside it the same noise without
    the identity.

    Args:
        write: only one process writes, though all that share a backbone have to sample.

    Returns:
        The contact sheets.
    """
    settings = held_out.settings
    was_training = adapter.slotid.training
    adapter.slotid.eval()
    sheets = []
    for index, entry in enumerate(held_out.clips[: settings.validation.samples]):
        own, _ = held_out.references(entry)
        item = held_out.item(entry, own, 1.0, identity=True)
        with_identity = _generate(adapter, held_out, item, identity=True)
        without = _generate(adapter, held_out, item, identity=False)
        if not write:
            continue
        rows = {
            f"Reference: {own.id}": item.reference_CTHW,
            f"Generated, step {step}": with_identity,
            "The same noise and caption without the identity": without,
            "The held-out clip that the caption is of": item.target_CTHW,
        }
        pictures = {label: to_bytes(decode_latents(vae, latents[None].float())) for label, latents in rows.items()}
        stem = folder / f"step_{step:06d}_{index}"
        contact_sheet(
            stem.with_suffix(".png"),
            title=f"{entry.id}, step {step}",
            rows=[SheetRow(label=label, frames_FHWC=frames) for label, frames in pictures.items()],
            captions=[f"Caption: {entry.caption}"],
            warning=RANDOM if "tiny" in (settings.model.transformer, settings.model.vae) else None,
        )
        write_mp4(stem.with_suffix(".mp4"), list(pictures.values())[1], settings.data.fps)
        sheets.append(stem.with_suffix(".png"))
    adapter.slotid.train(was_training)
    return sheets


def _generate(adapter: Adapter, held_out: HeldOut, item: Item, *, identity: bool) -> Tensor:
    """Latents ``[C, T, h, w]`` on the CPU."""
    validation = held_out.settings.validation
    frames, height, width = item.target_CTHW.shape[1:]
    config = GenerateConfig(
        width=8 * width,
        height=8 * height,
        frames=4 * (frames - 1) + 1,
        steps=validation.sample_steps,
        shift=validation.shift,
        guidance=validation.guidance,
        seed=item.draw.token_seed,
    )
    embedding: IdentityEmbedding = adapter.embed([item])
    rows_1 = torch.tensor([identity], device=adapter.device)

    def velocity(latents_1CThw: Tensor, sigma_1: Tensor, context_1LE: Tensor, wanted_1: Tensor) -> Tensor:
        sigma_1, wanted_1 = sigma_1.to(adapter.device), wanted_1.to(adapter.device) & rows_1
        return adapter.velocity(latents_1CThw, sigma_1, context_1LE, embedding, wanted_1).float()

    context_1LE = adapter.context([item])
    empty_1LE = torch.zeros_like(context_1LE)
    empty = held_out.cache.empty_text_LE.to(empty_1LE)
    empty_1LE[:, : len(empty)] = empty
    return generate(velocity, config, positive_BLE=context_1LE, negative_BLE=empty_1LE, channels=len(item.target_CTHW))[
        0
    ].cpu()
