"""The pre-flight: what a config needs and takes on a machine, which memory plan that allows, or why none.

Every figure is predicted. ``docs/cost.md`` says what is counted, traced and assumed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from slotid_core.errors import SlotIDError
from training.planner.flops import Work, forward_flops, step_flops
from training.planner.machine import GIB, Machine, this_machine
from training.planner.memory import READING, STATE_BYTES, Ingredients, Need, need
from training.planner.parts import BaseParts, base_parts, trainable_parts
from training.planner.shapes import CONTEXT, latent_grid, read_shape
from training.planner.trace import trace_block, trace_decoder, trace_encoder
from training.settings import Settings
from training.trainer.memory import PLANS
from training.trainer.state import checkpoints
from training.trainer.validate import WHO

# Assumptions, listed in docs/cost.md.
UTILISATION = 0.45
"""Share of a card's dense bfloat16 peak that a step reaches, recomputation counted."""
BUS = 20e9
"""Bytes a second between pinned host memory and the card (PCIe 4, 16 lanes)."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a memory plan does not fit."""

    brief: str
    text: str
    """The same with its largest component and what to change."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One memory plan on the machine."""

    plan: str
    need: Need
    problems: tuple[Problem, ...]
    """Empty where it fits."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The prediction for one config on one machine."""

    machine: Machine
    processes: int
    clip: str
    """The largest clip, which the figures are for."""
    tokens: int
    shapes: str
    base: BaseParts
    trained: dict[str, int]
    memory_plan: str
    """What to train with. Where nothing fits, the leanest of those that were asked for."""
    choices: tuple[Choice, ...]
    """What was looked at, in order, up to the first that fits."""
    work: dict[str, Work]
    """FLOPs of one clip by kind."""
    seconds_a_step: float | None
    """Of one update; None where the device's peak is not known."""
    ideal_seconds: dict[int, float] | None
    """Of one update's arithmetic at that peak, recomputation left out: what MFU is measured against, by the latent
    cells of its clips. None as above."""
    hours: float | None
    """Of the whole run with its validations."""
    disk: dict[str, int]
    """Bytes that the run will write, by component."""
    notes: tuple[str, ...]

    @property
    def choice(self) -> Choice:
        return self.choices[-1]

    @property
    def fits(self) -> bool:
        return not self.choice.problems

    def refuse_if_too_large(self) -> None:
        """Stop before anything is loaded.

        Raises:
            SlotIDError: no memory plan that was asked for fits, with the largest component and what to change.
        """
        if self.fits:
            return
        choice = self.choice
        looked = "" if len(self.choices) == 1 else f", and neither does any plan before it ({', '.join(PLANS[:-1])})"
        raise SlotIDError(
            f"Too large for {self.machine.name} ({self.machine.device}): the memory plan {choice.plan!r} does not fit"
            f"{looked}. {' '.join(problem.text for problem in choice.problems)} All of this is predicted; "
            "`python training/plan.py CONFIG` shows the whole table."
        )

    def describe(self) -> str:
        """Plain text for a terminal."""
        from training.planner.report import describe

        return describe(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON. Sizes in bytes."""
        data = asdict(self)
        for choice, plain in zip(self.choices, data["choices"], strict=True):
            plain["need"] |= {"card_total": choice.need.card_total, "host_total": choice.need.host_total}
        return {"figures": "PREDICTED, not measured", "fits": self.fits, **data}


def plan(settings: Settings, machine: Machine | None = None, processes: int = 1) -> Plan:
    """Predict a run.

    Args:
        machine: the one that this runs on, if not given.
        processes: how many train together, a card each, all on that machine.

    Raises:
        SlotIDError: a transformer that can't be read or is another one than the Slot-ID config is for.
    """
    return predict(ingredients(settings), machine or this_machine(settings.run.folder), processes)


def ingredients(settings: Settings) -> Ingredients:
    """What the figures of every machine follow from: counted and traced once.

    Raises:
        SlotIDError: as :func:`plan`.
    """
    shape, config = read_shape(settings), settings.model.slotid_config()
    data, precision, clips = settings.data, settings.memory.precision, settings.optim.micro_batch
    grid_Thw = largest_grid(settings)
    reference_Thw = latent_grid(data.reference_frames, data.reference_side, data.reference_side)
    portrait_hw = (data.portrait_side // 8,) * 2
    return Ingredients(
        settings=settings,
        config=config,
        shape=shape,
        base=base_parts(shape, precision),
        trained=sum(trainable_parts(config).values()),
        block=trace_block(shape, config, grid_Thw, clips, precision),
        encoder=trace_encoder(config, reference_Thw, portrait_hw, clips, precision),
        # The trainer decodes in float32. The published VAEs all have the width 96.
        decoder=trace_decoder(shape, grid_Thw, "fp32", base_dim=4 if settings.model.vae == "tiny" else 96),
        clip_bytes=_clip_bytes(settings, grid_Thw, reference_Thw, portrait_hw),
    )


def predict(of: Ingredients, machine: Machine, processes: int = 1) -> Plan:
    """The figures for one machine."""
    settings = of.settings
    asked = PLANS if settings.memory.plan == "auto" else (settings.memory.plan,)
    choices: list[Choice] = []
    for name in asked:
        choices.append(_look(of, name, machine, processes))
        if not choices[-1].problems:
            break
    chosen, largest = choices[-1].plan, largest_grid(settings)
    grids = [latent_grid(frames, *size) for frames in settings.data.lengths for size in settings.data.sizes]
    work_of = {grid: _work(of, grid, chosen) for grid in grids}
    work = work_of[largest]
    seconds = _seconds_a_step(of, work, chosen, machine, processes)
    ideal_seconds = None
    if seconds is not None:
        ideal_seconds = {math.prod(grid): _ideal_seconds(of, work_of[grid], machine, processes) for grid in grids}
    frames, (height, width) = max(settings.data.lengths), max(settings.data.sizes, key=math.prod)
    return Plan(
        machine=machine,
        processes=processes,
        clip=f"{frames} frames of {height} x {width}, {settings.optim.micro_batch} at once",
        tokens=of.shape.tokens(largest),
        shapes=of.shape.found,
        base=of.base,
        trained=trainable_parts(of.config),
        memory_plan=chosen,
        choices=tuple(choices),
        work=work,
        seconds_a_step=seconds,
        ideal_seconds=ideal_seconds,
        hours=None if seconds is None else _hours(of, work, seconds, machine, processes),
        disk=_disk(of),
        notes=tuple(_notes(of, machine, processes)),
    )


def largest_grid(settings: Settings) -> tuple[int, int, int]:
    """Latent cells of the longest clip in the largest size."""
    return latent_grid(max(settings.data.lengths), *max(settings.data.sizes, key=math.prod))


def _look(of: Ingredients, name: str, machine: Machine, processes: int) -> Choice:
    on_cpu = machine.vram is None
    needed = need(of, name, processes, on_cpu)
    problems: list[Problem] = []

    def check(what: str, total: int, there: int | None, parts: dict[str, int]) -> None:
        if there is not None and total > there:
            brief = f"It needs {total / GIB:.1f} GiB of {what} and {there / GIB:.1f} GiB are there."
            largest = max(parts, key=parts.__getitem__)
            advice = _advice(largest, name, on_cpu)
            text = f"{brief} The largest component is {largest!r} with {parts[largest] / GIB:.1f} GiB. {advice}"
            problems.append(Problem(brief=brief, text=text))

    for wrong in _misfits(of, name, processes):
        problems.append(Problem(brief=wrong, text=wrong))
    loading = {READING: needed.loading}
    if on_cpu:
        parts = {**needed.card, **needed.host}
        check("host memory", needed.together, machine.ram, parts if sum(parts.values()) > needed.loading else loading)
    else:
        check("the card's memory", needed.card_total, machine.vram, needed.card)
        parts = needed.host if sum(needed.host.values()) > needed.loading else loading
        check("host memory", needed.host_total, machine.ram, parts)
    disk = _disk(of)
    check("disk", sum(disk.values()), machine.disk, disk)
    return Choice(plan=name, need=needed, problems=tuple(problems))


def _misfits(of: Ingredients, name: str, processes: int) -> list[str]:
    """Settings that exclude each other."""
    if not of.settings.memory.shard:
        return []
    if processes < 2:
        return ["memory.shard needs more than one process: start it with accelerate, or set it to false."]
    if name in ("fp8", "streamed"):
        return [f"memory.shard shares out a bfloat16 base, and {name!r} holds it in float8."]
    return []


def _advice(component: str, plan: str, on_cpu: bool) -> str:
    if component in ("checkpoints", "cache", "trained weights"):
        return "Make room, choose another run.folder or data.cache, or lower checkpoint.keep."
    if component in (READING, "base weights", "pinned base", "processes", "data loader"):
        leaner = "memory.plan=streamed, memory.shard=true on several cards, " if component == "base weights" else ""
        workers = "fewer data.workers, " if component == "data loader" else ""
        return f"Use {'' if on_cpu else leaner}{workers}a machine with more memory, or a smaller Wan."
    leaner = "" if plan == "streamed" or on_cpu else "memory.plan=streamed, "
    return (
        "Use fewer frames (data.lengths), a smaller size (data.sizes), a smaller optim.micro_batch, "
        f"{leaner}or a machine with more memory."
    )


def _seconds_a_step(
    of: Ingredients, work: dict[str, Work], chosen: str, machine: Machine, processes: int
) -> float | None:
    if machine.peak_flops is None or of.settings.memory.precision != "bf16":
        return None
    clips = math.ceil(of.settings.optim.batch / processes)
    computing = sum(part.total for part in work.values()) * clips / (machine.peak_flops * UTILISATION)
    moved = 0
    if PLANS.index(chosen) >= PLANS.index("offloaded"):
        moved += 4 * of.shape.blocks * of.block.boundary  # out and back, and the gradient the same way
    if chosen == "streamed":
        moved += 2 * of.shape.blocks * sum(rows * columns for rows, columns in of.base.linears)
    # Copies wait in the same queue as the computation, so they add to it.
    return computing + math.ceil(clips / of.settings.optim.micro_batch) * moved / BUS


def _work(of: Ingredients, grid_Thw: tuple[int, int, int], chosen: str) -> dict[str, Work]:
    clips, tokens = of.settings.optim.micro_batch, of.shape.tokens(grid_Thw)
    return step_flops(of.shape, of.config, tokens, clips, of.encoder, recompute=chosen != "plain")


def _ideal_seconds(of: Ingredients, work: dict[str, Work], machine: Machine, processes: int) -> float:
    """Without recomputation, which is no work of the model's: what MFU is measured against."""
    clips = math.ceil(of.settings.optim.batch / processes)
    return clips * sum(part.forward + part.backward for part in work.values()) / machine.peak_flops


def _hours(of: Ingredients, work: dict[str, Work], seconds: float, machine: Machine, processes: int) -> float:
    optim, validation = of.settings.optim, of.settings.validation
    forward = forward_flops(work)
    losses = validation.clips * len(validation.sigmas) * len(WHO) * forward / processes
    rows = 2 if validation.guidance != 1.0 else 1
    sampling = validation.samples * 2 * rows * validation.sample_steps * forward  # with the identity and without
    validations = 1 + math.ceil(optim.steps / validation.every)
    assert machine.peak_flops is not None, "there are seconds only where the peak is known"
    return (optim.steps * seconds + validations * (losses + sampling) / (machine.peak_flops * UTILISATION)) / 3600


def _clip_bytes(settings: Settings, target: tuple, reference: tuple, portrait: tuple) -> int:
    config = settings.model.slotid_config()
    cells = config.backbone.latent_channels
    words = CONTEXT - config.portrait.tokens - config.reader.slots
    return cells * (
        2 * math.prod(target) + 4 * settings.data.augment.variants * math.prod(reference) + 4 * math.prod(portrait)
    ) + 2 * words * config.backbone.text_dim  # fmt: skip


def _disk(of: Ingredients) -> dict[str, int]:
    """The cache is told for clips that are known, and counts nothing once it is there, nor do checkpoints: a run
    that fits goes on fitting."""
    settings, data = of.settings, of.settings.data
    known = data.generated.people * data.generated.clips if data.layout == "generated" else 0
    weights = 4 * of.trained
    # One more than are kept: the oldest goes when the newest is written.
    missing = max(1, settings.checkpoint.keep + 1 - len(checkpoints(settings.run.folder / "checkpoints")))
    held = weights * (2 if settings.optim.ema else 1) + STATE_BYTES[settings.optim.optimizer] * of.trained
    return {
        "cache": 0 if data.cache.exists() else known * of.clip_bytes,
        "checkpoints": missing * held,
        "trained weights": 2 * weights,
    }


def _notes(of: Ingredients, machine: Machine, processes: int) -> list[str]:
    settings, notes = of.settings, []
    at_once = settings.optim.micro_batch * processes
    if settings.optim.batch % at_once:
        notes.append(f"optim.batch {settings.optim.batch} can't be shared evenly: use a multiple of {at_once}.")
    warmup, steps = settings.optim.warmup, settings.optim.steps
    if warmup > steps:
        notes.append(f"optim.lr is never reached: optim.warmup is {warmup} and optim.steps {steps}.")
    if settings.data.layout != "generated":
        size = f"{of.clip_bytes / 1e6:.1f}"
        notes.append(f"Disk for the cache: at most {size} MB a clip, {size} GB per 1,000; prepare.py fills it.")
    if machine.vram is not None and machine.peak_flops is None:
        notes.append(f"No seconds: the bfloat16 peak of {machine.device} is not among those known here.")
    elif machine.vram is None:
        notes.append("No seconds: a CPU's speed is not predicted.")
    elif settings.memory.precision != "bf16":
        notes.append("No seconds: the peaks known here are those of bfloat16.")
    if settings.memory.compile:
        notes.append("memory.compile is not predicted: it takes less memory inside a block and less time.")
    return notes
