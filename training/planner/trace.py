"""What a step keeps and takes at most, found by running the real modules on fake tensors: no formula of ours.

Shape letters: B clips at once, L video tokens, D backbone width, C latent channels, T h w latent frames, height, width,
E text-token width, R LoRA rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from slotid_core.config import SlotIDConfig
from slotid_core.film import apply_film
from slotid_core.model import SlotID
from training.planner.live_bytes import GpuKernels, LiveBytes
from training.planner.shapes import CONTEXT, WanShape
from training.wan_diffusers import AutoencoderKLWan, WanTransformer3DModel

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class BlockTrace:
    """One transformer block, in bytes; its input, its weights and what all blocks share are not in it."""

    boundary: int
    """Its input (or output): what checkpointing keeps."""
    saved: int
    """Kept from forward to backward without checkpointing."""
    peak: int
    """The most at any moment of recompute and backward."""
    peak_without_gradients: int
    """The most in a forward that keeps nothing: sampling, and the first pass of checkpointing."""


@dataclass(frozen=True, kw_only=True)
class EncoderTrace:
    """The trained encoder on one micro-batch, in bytes and FLOPs."""

    saved: int
    linear_forward: int
    linear_backward: int
    attention_forward: int
    attention_backward: int


def trace_block(shape: WanShape, config: SlotIDConfig, grid_Thw: tuple[int, int, int], clips: int, precision: str):
    """A block with LoRA and FiLM on it, as :class:`BlockTrace`."""
    tokens, dim, dtype = shape.tokens(grid_Thw), shape.dim, DTYPES[precision]
    with _fake(precision):
        model = WanTransformer3DModel(**shape.config(blocks=1)).requires_grad_(False)
        _cast(model, dtype)
        rotary = model.rope(torch.empty(1, shape.in_channels, *grid_Thw))
        block = model.blocks[0]
        trained = _add_lora(block, config, dim) if config.lora.rank else []
        film = [torch.empty(clips, dim, requires_grad=True) for _ in range(2)]
        hidden_BLD = torch.empty(clips, tokens, dim, dtype=dtype, requires_grad=True)
        context_BLD = torch.empty(clips, CONTEXT, dim, dtype=dtype, requires_grad=True)
        time_B6D = torch.empty(clips, 6, dim, dtype=dtype)
        grad_BLD = torch.empty_like(hidden_BLD)
        known = [*model.parameters(), *model.buffers(), *trained, *film, *rotary, hidden_BLD, context_BLD, time_B6D]

        def run(x_BLD: Tensor) -> Tensor:
            out_BLD = block(x_BLD, context_BLD, time_B6D, rotary)
            return apply_film(out_BLD, *film) if config.film.fraction else out_BLD

        boundary = hidden_BLD.untyped_storage().nbytes()
        with LiveBytes(known) as live, GpuKernels(), torch.no_grad():
            run(hidden_BLD)
        without_gradients = live.peak
        with LiveBytes(known) as live, GpuKernels():
            # An input that nobody but the graph holds on to: it counts where backward needs it.
            out_BLD = run(hidden_BLD * 1)
            saved = live.now - boundary
        del out_BLD
        with LiveBytes(known) as live, GpuKernels():
            run(hidden_BLD).backward(grad_BLD)
        # The gradient of the output, which came from the block behind, is alive all the while.
        return BlockTrace(
            boundary=boundary, saved=saved, peak=live.peak + boundary, peak_without_gradients=without_gradients
        )


def trace_encoder(
    config: SlotIDConfig, clip_Thw: tuple[int, int, int], portrait_hw: tuple[int, int], clips: int, precision: str
) -> EncoderTrace:
    """Slot-ID's own forward and backward on one micro-batch."""
    channels = config.backbone.latent_channels
    with _fake(precision):
        model = SlotID(config).train()
        if config.encoder.kind == "stsa":
            # The temperature is read as a number, which a fake tensor has none of.
            del model.reader.step
            model.reader.step = 0
        clip_BCThw = torch.empty(clips, channels, *clip_Thw)
        portrait_BCThw = torch.empty(clips, channels, 1, *portrait_hw)
        known = [*model.parameters(), clip_BCThw, portrait_BCThw]
        counter = FlopCounterMode(display=False)
        with counter, LiveBytes(known) as live, GpuKernels() as kernels:
            embedding = model.encode(clip_BCThw, portrait_BCThw).embedding
            films = model.film(embedding.clip_global_BG + embedding.portrait_global_BG)
            outputs = [embedding.clip_tokens_BSE, embedding.portrait_tokens_BKE, *films]
            saved, forward = live.now, counter.get_total_flops()
            torch.autograd.backward(outputs, [torch.empty_like(x) for x in outputs])
    return EncoderTrace(
        saved=saved,
        linear_forward=forward,
        linear_backward=counter.get_total_flops() - forward,
        attention_forward=kernels.attention_forward,
        attention_backward=kernels.attention_backward,
    )


def trace_decoder(shape: WanShape, grid_Thw: tuple[int, int, int], precision: str, base_dim: int) -> tuple[int, int]:
    """Bytes of the VAE and, besides, the most that decoding one video takes.

    It decodes one latent frame after the other; from the third on each costs the same, and only the video grows.
    """
    frames = min(grid_Thw[0], 3)
    with _fake(precision):
        vae = AutoencoderKLWan(base_dim=base_dim, z_dim=shape.out_channels).requires_grad_(False)
        _cast(vae, DTYPES[precision])
        latents_BCThw = torch.empty(1, shape.out_channels, frames, *grid_Thw[1:], dtype=DTYPES[precision])
        with LiveBytes(vae.parameters()) as live, GpuKernels(), torch.no_grad():
            video_BCFHW = vae.decode(latents_BCThw).sample
        a_frame = video_BCFHW[:, :, :1].numel() * video_BCFHW.element_size()
        rest = 4 * (grid_Thw[0] - frames) * a_frame
        return sum(p.untyped_storage().nbytes() for p in vae.parameters()), live.peak + rest


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    in_float32 = set(model._keep_in_fp32_modules or ())
    for name, parameter in model.named_parameters():
        if not in_float32.intersection(name.split(".")):
            parameter.data = parameter.data.to(dtype)


def _add_lora(block: nn.Module, config: SlotIDConfig, dim: int) -> list[Tensor]:
    lora, trained = config.lora, []
    for target in lora.targets:
        layer = block.attn2.to_out[0] if target == "o" else getattr(block.attn2, f"to_{target}")
        down_RD = torch.empty(lora.rank, dim, requires_grad=True)
        up_DR = torch.empty(dim, lora.rank, requires_grad=True)
        trained += [down_RD, up_DR]

        def hook(module, args, out_BLD, down_RD=down_RD, up_DR=up_DR):
            low_BLR = nn.functional.linear(args[0], down_RD)
            return out_BLD + nn.functional.linear(low_BLR, up_DR) * (lora.alpha / lora.rank)

        layer.register_forward_hook(hook)
    return trained


@contextmanager
def _fake(precision: str) -> Iterator[None]:
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        with FakeTensorMode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
