"""Bytes on the card and in host memory under each memory plan, by component. Predicted, not measured."""

from __future__ import annotations

from dataclasses import dataclass

from slotid_core.config import SlotIDConfig
from training.planner.machine import CUDA_CONTEXT, GIB
from training.planner.parts import BaseParts
from training.planner.shapes import CONTEXT, WanShape
from training.planner.trace import BlockTrace, EncoderTrace
from training.settings import Settings
from training.trainer.memory import PLANS

# Assumptions, listed in docs/cost.md.
SLACK = 0.1
"""Share of what comes and goes that the allocator can't hand out again (fragments)."""
DECODER_WORKSPACE = 1 * GIB
"""Of cuDNN's 3D convolutions."""
PROCESS_RAM, PROCESS_RAM_CPU = 4 * GIB, GIB
"""A process with torch, with and without CUDA's libraries."""
WORKER_RAM = GIB // 2
"""A worker of the data loader, without its clips."""
READING = "while the base is read"
STATE_BYTES = {"adamw": 8.0, "adamw8bit": 2.04, "muon": 4.3}
"""Of the moments per parameter: two; two in 8 bits with one float32 scale for 256 of each; one, and two of the few
tensors that are no matrices."""


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What the memory follows from; made once for all plans."""

    settings: Settings
    config: SlotIDConfig
    shape: WanShape
    base: BaseParts
    trained: int
    """Parameters."""
    block: BlockTrace
    encoder: EncoderTrace
    decoder: tuple[int, int]
    """Bytes of the VAE's weights and of decoding."""
    clip_bytes: int
    """Of one prepared clip."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a plan takes at its peak, by component."""

    card: dict[str, int]
    """Of one card; on a CPU, of all processes, and host memory too."""
    host: dict[str, int]
    """Of all processes."""
    loading: int
    """Host memory while the base is read, before it is brought to its place."""

    @property
    def card_total(self) -> int:
        return sum(self.card.values())

    @property
    def host_total(self) -> int:
        """The peak where there is a card."""
        return max(sum(self.host.values()), self.loading)

    @property
    def together(self) -> int:
        """The peak where the CPU does everything."""
        return max(self.card_total + sum(self.host.values()), self.loading)


def need(of: Ingredients, plan: str, processes: int, on_cpu: bool) -> Need:
    """What a plan needs. On a CPU ``card`` is host memory too."""
    level = PLANS.index(plan)
    fp8, streamed = level >= PLANS.index("fp8"), plan == "streamed"
    block, settings = of.block, of.settings
    blocks, clips = of.shape.blocks, settings.optim.micro_batch
    state = STATE_BYTES[settings.optim.optimizer]

    boundaries = 0
    if plan == "plain":
        activations = (blocks - 1) * block.saved
    else:
        activations, boundaries = 0, blocks * block.boundary
    offloaded = boundaries if level >= PLANS.index("offloaded") else 0
    training = {
        "activations of all blocks but one": activations,
        "block boundaries": 2 * block.boundary if offloaded else boundaries,
        "inside one block": block.peak,
        "one block's weights, gathered or unpacked": _block_weights(of, fp8, settings.memory.shard),
        "encoder activations": of.encoder.saved,
        "text": _text_bytes(of, clips),
    }
    vae, decoding = of.decoder
    # One video, row by row.
    generating = block.peak_without_gradients // clips + (_unpacked(of) if fp8 else 0)
    sampling = vae + max(generating, decoding + (0 if on_cpu else DECODER_WORKSPACE))
    sampling = sampling if settings.validation.samples else 0

    coming_and_going = max(sum(training.values()), sampling)
    processes_on_it = processes if on_cpu else 1
    card = {
        "base weights": _base_on_card(of, fp8, streamed, processes),
        "trained weights (encoder, FiLM, LoRA)": 4 * of.trained,
        "gradients": 4 * of.trained,
        "optimizer states": int(state * of.trained),
        "averaged weights (EMA)": 4 * of.trained if settings.optim.ema else 0,
        **training,
        "sampling and decoding, above training's peak": max(0, sampling - sum(training.values())),
        "allocator's slack": int(SLACK * coming_and_going),
        "CUDA context": 0 if on_cpu else CUDA_CONTEXT,
    }
    process_ram = PROCESS_RAM_CPU if on_cpu else PROCESS_RAM
    loader = settings.data.workers * (WORKER_RAM + 3 * clips * of.clip_bytes)
    host = {
        "processes": processes * process_ram,
        "data loader": processes * loader,
        "pinned base": processes * _pinned_base(of, on_cpu) if streamed else 0,
        "block boundaries": processes * blocks * _pinned(block.boundary, on_cpu) if offloaded else 0,
    }
    # Every process reads the whole base as it is stored in memory.precision and converts it Linear by Linear.
    loading = processes * (process_ram + of.base.bytes)
    return Need(card={name: processes_on_it * size for name, size in card.items()}, host=host, loading=loading)


def _base_on_card(of: Ingredients, fp8: bool, streamed: bool, processes: int) -> int:
    base, blocks = of.base, of.shape.blocks
    if streamed:
        return base.outside_bytes + blocks * (base.rest_bytes + sum(4 * rows for rows, _ in base.linears))
    if fp8:
        return base.outside_bytes + blocks * (base.rest_bytes + sum(base.float8_bytes()))
    if of.settings.memory.shard:
        return base.outside_bytes + (base.bytes - base.outside_bytes) // processes
    return base.bytes


def _block_weights(of: Ingredients, fp8: bool, shard: bool) -> int:
    """Weights that are alive while a block's backward runs, besides those that are always there."""
    weights = _width(of) * sum(rows * columns for rows, columns in of.base.linears)
    if fp8:
        return weights + _unpacked(of)
    return 2 * weights if shard else 0  # the one at work and the one that is fetched ahead


def _unpacked(of: Ingredients) -> int:
    """While the largest Linear is unpacked: float8 and float32 copies and the finished one."""
    return (1 + 4 + _width(of)) * max(rows * columns for rows, columns in of.base.linears)


def _width(of: Ingredients) -> int:
    return 2 if of.settings.memory.precision == "bf16" else 4


def _text_bytes(of: Ingredients, clips: int) -> int:
    """The context, and after the text embedding its activations and the gradient that all blocks add to."""
    return clips * CONTEXT * (of.shape.text_dim + 5 * of.shape.dim) * _width(of)


def _pinned_base(of: Ingredients, on_cpu: bool) -> int:
    return of.shape.blocks * sum(_pinned(rows * columns, on_cpu) for rows, columns in of.base.linears)


def _pinned(size: int, on_cpu: bool) -> int:
    """torch's allocator of pinned memory rounds every piece up to a power of two."""
    return size if on_cpu else 1 << (size - 1).bit_length()
