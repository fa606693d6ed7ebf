"""What is trained, in one module with the frozen backbone: encoder, FiLM heads and LoRA, and the loss of a micro-batch.

Shape letters: B clips, C latent channels, T H W latent frames, height, width, L text tokens, E text-token width,
P identity tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from slotid_core.checkpoint import untrained_weights_of
from slotid_core.config import SlotIDConfig
from slotid_core.injection import Injection
from slotid_core.lora import LoraWeights
from slotid_core.model import SlotID
from slotid_core.types import IdentityEmbedding
from training.trainer.batches import Item
from training.trainer.contrast import contrast
from training.trainer.draws import generator_of
from training.wan_injection import add_lora, inject, lora_parameters, read_lora

if TYPE_CHECKING:
    from training.wan_diffusers import WanTransformer3DModel


class Adapter(nn.Module):
    """Slot-ID on a frozen backbone.

    Args:
        config: of the Slot-ID model.
        transformer: frozen; gets hooks and LoRA layers and keeps them.
        context_length: tokens of a padded prompt.
        seed: of the initial weights.
        device: where the arithmetic is done.
        precision: of autocast; float32 turns it off.
    """

    def __init__(
        self, config: SlotIDConfig, transformer: WanTransformer3DModel, *, context_length: int, seed: int,
        device: torch.device, precision: torch.dtype,
    ):  # fmt: skip
        super().__init__()
        start = untrained_weights_of(config, seed)
        self.config, self.device, self.precision = config, device, precision
        self.context_length = context_length
        self.slotid: SlotID = start.model.to(device).train()
        self.transformer = transformer.requires_grad_(False).train()
        self.lora_config = config.lora
        self._patched = ExitStack()
        self.injected = self._patched.enter_context(inject(transformer, [], LoraWeights({})))
        if start.lora.pairs:
            add_lora(transformer, start.lora, 1.0)
        self.slotid.requires_grad_(True)
        for module in unused_parts(self.slotid):
            module.requires_grad_(False)
        for parameter in lora_parameters(transformer).values():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Every trained tensor by name: ``slotid.…`` and ``lora.…``; the same names and order in every process."""
        named = {f"slotid.{name}": p for name, p in self.slotid.named_parameters() if p.requires_grad and p.numel()}
        return named | {f"lora.{name}": p for name, p in lora_parameters(self.transformer).items()}

    def zero_initialised(self) -> set[str]:
        """Names of the trained tensors that start at zero: the only ones that the first backward can reach."""
        outputs = {id(p) for p in self.slotid.output_layers}
        return {name for name, p in self.trainable().items() if id(p) in outputs or ".lora_B." in name}

    def lora(self) -> LoraWeights:
        """The LoRA as plain tensors."""
        return read_lora(self.transformer, self.config.lora, self.config.backbone)

    def set_step(self, step: int) -> None:
        """The global training step, which sets the routing's temperature."""
        if self.config.encoder.kind == "stsa":
            self.slotid.reader.step.fill_(step)

    def losses(self, items: Sequence[Item]) -> Tensor:
        """Mean squared error of the velocity, ``[B]`` float32: flow matching with target ``eps - z`` (paper, 3.4)."""
        return self._flow(items, self.embed(items))

    def losses_and_contrast(self, items: Sequence[Item], temperature: float) -> tuple[Tensor, Tensor]:
        """:meth:`losses`, and how badly the slots tell these people apart, ``[B]`` float32, from one reading of all
        clips."""
        rows = [row for row, item in enumerate(items) if item.second_CTHW is not None]
        clips = [item.reference_CTHW for item in items] + [items[row].second_CTHW for row in rows]
        generators = self._generators(items) + [generator_of(items[row].draw.token_seed, "second") for row in rows]
        with self._autocast():
            slots_NSD, _ = self.slotid.read(self._stack(clips), generators)
            first_BSD, second_RSD = slots_NSD.split([len(items), len(rows)])
            embedding = self.slotid.embed(first_BSD, self._stack([item.portrait_CTHW for item in items]))
        flow_B = self._flow(items, self._dropped(items, embedding))
        if not rows:
            return flow_B, torch.zeros_like(flow_B)
        people = [item.entry.person for item in items]
        return flow_B, contrast(first_BSD, second_RSD, rows, people, temperature)

    def _flow(self, items: Sequence[Item], embedding: IdentityEmbedding) -> Tensor:
        clean_BCTHW = self._stack([item.target_CTHW for item in items])
        noise_BCTHW = self._stack([item.draw.noise_CTHW for item in items])
        sigma_B = torch.tensor([item.draw.sigma for item in items], device=self.device)
        mix_B1111 = sigma_B.view(-1, 1, 1, 1, 1)
        velocity_BCTHW = self.velocity(
            (1 - mix_B1111) * clean_BCTHW + mix_B1111 * noise_BCTHW,
            sigma_B,
            self.context(items),
            embedding,
            self._stack([torch.tensor(item.draw.keep_identity) for item in items]),
        )
        return (velocity_BCTHW.float() - (noise_BCTHW - clean_BCTHW)).square().flatten(1).mean(1)

    def velocity(
        self, latents_BCTHW: Tensor, sigma_B: Tensor, context_BLE: Tensor, embedding: IdentityEmbedding,
        identity_rows_B: Tensor,
    ) -> Tensor:  # fmt: skip
        """The backbone's output with the identities in the rows that get one."""
        self.injected.injections = [Injection(self.slotid, embedding)]
        with self._autocast():
            return self.injected(latents_BCTHW.to(self.transformer.dtype), sigma_B, context_BLE, identity_rows_B)

    def embed(self, items: Sequence[Item]) -> IdentityEmbedding:
        """The identities of the shown references, with what is dropped of them."""
        with self._autocast():
            encoding = self.slotid.encode(
                self._stack([item.reference_CTHW for item in items]),
                self._stack([item.portrait_CTHW for item in items]),
                self._generators(items),
            )
        return self._dropped(items, encoding.embedding)

    def _generators(self, items: Sequence[Item]) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(item.draw.token_seed) for item in items]

    def _dropped(self, items: Sequence[Item], embedding: IdentityEmbedding) -> IdentityEmbedding:
        keep_BP1 = self._stack([item.draw.keep_prefix_P for item in items]).unsqueeze(-1)
        portrait_tokens = self.config.portrait.tokens
        return replace(
            embedding,
            portrait_tokens_BKE=embedding.portrait_tokens_BKE * keep_BP1[:, :portrait_tokens],
            clip_tokens_BSE=embedding.clip_tokens_BSE * keep_BP1[:, portrait_tokens:],
        )

    def context(self, items: Sequence[Item]) -> Tensor:
        """Text tokens with zero tokens as pads, ``[B, context_length, E]``."""
        padded = [functional.pad(item.text_LE, (0, 0, 0, self.context_length - len(item.text_LE))) for item in items]
        return self._stack(padded).to(self.transformer.dtype)

    def _stack(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(tensors)).to(self.device, non_blocking=True)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision != torch.float32)


def unused_parts(model: SlotID) -> list[nn.Module]:
    """Parts that a config has no use for, so that nothing can reach them: they stay as they are."""
    gate, film = model.config.gate, model.config.film
    clip_stream = [model.conv_pool] if model.config.encoder.kind == "conv_pool" else [model.encoder, model.reader]
    parts: list[nn.Module] = []
    if gate.start == gate.end == 1.0:
        parts += [*clip_stream, model.clip_tokens, model.clip_global]
    if gate.start == gate.end == 0.0:
        parts += [model.portrait, model.portrait_tokens, model.portrait_global]
    if film.fraction * model.config.backbone.blocks < 0.5:
        parts += [model.film, model.clip_global, model.portrait_global]
    return parts
