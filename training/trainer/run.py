"""One training run from its settings to its weights."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from slotid_core.errors import SlotIDError
from training.data.cache import Cache, open_cache
from training.lock import alone_in
from training.settings import Settings
from training.text import context_length
from training.trainer import state as checkpointing
from training.trainer.adapter import Adapter
from training.trainer.backbone import backbone_id, load_backbone, precision
from training.trainer.batches import BatchOrder, TrainingClips, micro_batches
from training.trainer.checks import Reached, check_start
from training.trainer.log import Log, making_room
from training.trainer.memory import apply_plan, base_format
from training.trainer.optim import AveragedWeights, make_optimizer
from training.trainer.processes import Processes, shard_backbone
from training.trainer.state import State
from training.trainer.update import update
from training.trainer.validate import WHO, HeldOut, validate
from training.trainer.weights import averaged_weights, write_weights

# What a run may change when it goes on. Everything else shapes what is learned; of the memory, what format the base is
# held in does too, which is looked at by itself.
_MAY_CHANGE = ("log", "memory", "checkpoint", "validation")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    step: int
    finished: bool
    """Whether all updates were made; else it was interrupted and can go on."""
    written: tuple[Path, ...]
    """The weights, where it finished."""


class Run:
    """Everything of a run, ready for its next update."""

    def __init__(self, settings: Settings, processes: Processes, plan: str, say: Callable[[str], None]):
        self.settings, self.processes, self.plan, self.say = settings, processes, plan, say
        self.folder = settings.run.folder
        self.cache: Cache = open_cache(settings)
        self.clips = TrainingClips(self.cache, settings)
        self.order = BatchOrder(self.clips.entries, settings.optim.batch, settings.run.seed)
        self.held_out = HeldOut(self.cache, settings)
        self.adapter = _adapter(settings, processes, plan)
        self.backbone = processes.of_first(lambda: backbone_id(settings))
        trainable = self.adapter.trainable()
        self.state = State(
            trainable, AveragedWeights(settings.optim.ema, trainable), make_optimizer(settings.optim, trainable)
        )
        self.resumed = self._resume()
        self.reached = Reached([] if self.resumed else list(trainable))

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def facts(self) -> dict[str, Any]:
        """What checkpoints and weights say of the run: nothing of this machine, so that equal runs are equal."""
        return {
            "settings": shared_settings(self.settings),
            "cache": self.cache.key,
            "backbone": self.backbone,
            "base": base_format(self.plan, self.settings.memory.precision),
        }

    def _resume(self) -> bool:
        found = checkpointing.checkpoints(self.checkpoints)
        if not found:
            return False
        then = checkpointing.read_facts(found[-1])
        _check_same(then.get("settings"), self.facts()["settings"], found[-1])
        if then.get("cache") != self.cache.key:
            raise SlotIDError(
                f"The run in {self.folder} was trained on another cache. Start another run.folder, or prepare the "
                "dataset as it was."
            )
        if then.get("backbone") != self.backbone:
            raise SlotIDError(
                f"The run in {self.folder} was trained on another backbone (SHA-256 {then.get('backbone')!s:.12}, now "
                f"{self.backbone:.12}). Start another run.folder, or set model.transformer to the one that it had."
            )
        self._check_base(then.get("base"), found[-1])
        checkpointing.restore(found[-1], self.state)
        self.adapter.set_step(self.state.step)
        self.say(f"Going on from {found[-1].name}.")
        return True

    def _check_base(self, was: str | None, checkpoint: Path) -> None:
        """Who asks for another memory plan gets it; one that is taken for want of memory must not change the base."""
        now = self.facts()["base"]
        if was != now and "fp8" in (was, now) and self.settings.memory.plan == "auto":
            raise SlotIDError(
                f"The run in {self.folder} was trained on a base in {was}, and with the memory that is free now "
                f"memory.plan=auto takes {self.plan!r}, which holds it in {now} and would change what is learned. End "
                f"what else is on the card, or go on so all the same with memory.plan={self.plan}."
            )
        if was != now:
            self.say(f"From here on the base is held in {now}; until {checkpoint.name} it was in {was}.")

    def validate(self, log: Log | None) -> dict[str, float]:
        """Losses and samples of held-out people, with the averaged weights."""
        state, processes = self.state, self.processes
        state.averaged.swap(state.trainable)
        try:
            found = validate(
                self.adapter, self.held_out, rank=processes.rank, processes=processes.count, gather=processes.gather
            )
            self._sample()
        finally:
            state.averaged.swap(state.trainable)
        figures = found.figures()
        if log is not None:
            log.write(state.step, "validation", figures)
        self.say(_validated(state.step, figures))
        return figures

    def _sample(self) -> None:
        if not self.settings.validation.samples or not (self.processes.is_first or self.settings.memory.shard):
            return
        from training.trainer.samples import sample
        from training.wan_diffusers import load_vae, tiny_vae

        source = self.settings.model.vae
        vae = (tiny_vae() if source == "tiny" else load_vae(Path(source))).to(self.adapter.device)
        sample(
            self.adapter, vae, self.held_out, self.folder / "samples", step=self.state.step,
            write=self.processes.is_first,
        )  # fmt: skip

    def save(self) -> None:
        if self.processes.is_first:
            checkpointing.save(self.checkpoints, self.state, self.facts(), self.settings.checkpoint.keep)
        self.processes.wait()

    def finish(self, figures: dict[str, float]) -> list[Path]:
        """Write the weights."""
        facts = {**self.facts(), "validation": figures}
        weights = averaged_weights(self.adapter, self.state, facts)
        written = write_weights(self.folder / "weights", weights) if self.processes.is_first else []
        self.processes.wait()
        return written


def train(
    settings: Settings,
    processes: Processes,
    plan: str,
    *,
    ideal_seconds: Mapping[int, float] | None = None,
    show_progress: bool = True,
) -> Outcome:
    """Train until the last update, or until it is told to stop (Ctrl+C, SIGTERM): then it writes a checkpoint first.

    A folder with checkpoints is gone on with.

    Args:
        plan: a memory plan of :mod:`training.trainer.memory`.
        ideal_seconds: an update's arithmetic at the devices' peak by the latent cells of its clips; MFU is this over
            what an update took. None where the peak is not known.

    Raises:
        SlotIDError: whatever can't be used, every check that fails, and another training that is running there.
    """
    from tqdm import tqdm

    if not processes.is_first:
        return _train(settings, processes, plan, ideal_seconds, False, lambda message: None)
    fix = "Wait for it or stop it (Ctrl+C), or give this one another run.folder."
    with alone_in(settings.run.folder, "training", fix, tqdm.write):
        return _train(settings, processes, plan, ideal_seconds, show_progress, tqdm.write)


def _train(
    settings: Settings,
    processes: Processes,
    plan: str,
    ideal_seconds: Mapping[int, float] | None,
    show_progress: bool,
    say: Callable[[str], None],
) -> Outcome:
    from tqdm import tqdm

    run = Run(settings, processes, plan, say)
    state, optim = run.state, settings.optim
    log = None
    if processes.is_first:
        _write_settings(run.folder, settings)
        log = Log(run.folder, settings, state.step, validated_again=_is_validated(settings, state.step))
    batches = micro_batches(
        run.clips, run.order, settings, first_step=state.step, rank=processes.rank, processes=processes.count
    )
    figures: dict[str, float] = {}
    with (
        _stopping() as stop,
        tqdm(total=optim.steps, initial=state.step, unit="step", disable=not show_progress) as bar,
    ):
        if state.step == 0:
            first = next(micro_batches(
                run.clips, run.order, settings, first_step=0, rank=processes.rank, processes=processes.count
            ))  # fmt: skip
            check_start(run.adapter, first)
            say("Checked on the first clips: the untrained adapter changes nothing, and gradient finds its way in.")

        def stopped() -> bool:
            if processes.count == 1:
                return stop.asked
            return bool(processes.sum(torch.tensor(float(stop.asked), device=processes.device)) > 0)

        stopping = False
        while True:
            if _is_validated(settings, state.step) and not stopping:
                figures = run.validate(log)
                # Asked for meanwhile: another update could take longer than whoever asked waits.
                stopping = stopped()
                if stopping and state.step:
                    run.save()
            if state.step == optim.steps:
                break
            if stopping:
                say(f"Stopped after update {state.step}; the same command goes on from here.")
                return Outcome(step=state.step, finished=False, written=())
            started = time.monotonic()
            told = update(run.adapter, state, batches, settings, processes, run.reached)
            told["seconds"] = time.monotonic() - started
            if ideal_seconds is not None:
                shape = run.clips.entries[run.order.at(state.step - 1)[0]].target_shape  # all of an update are alike
                told["mfu"] = ideal_seconds[math.prod(shape)] / told["seconds"]
            if log is not None:
                log.write(state.step, "train", told)
            bar.set_postfix_str(_postfix(told, figures))
            bar.update()
            last = state.step == optim.steps
            stopping = stopped() and not last
            # Before the validation, which may take longer than many updates, or fail.
            if last or stopping or state.step % settings.checkpoint.every == 0:
                run.save()
        written = run.finish(figures)
    if log is not None:
        log.close()
    return Outcome(step=state.step, finished=True, written=tuple(written))


def _is_validated(settings: Settings, step: int) -> bool:
    return step % settings.validation.every == 0 or step == settings.optim.steps


def _postfix(told: dict[str, float], validated: dict[str, float]) -> str:
    parts = [f"loss {told['loss']:.4f}"]
    parts += [f"MFU {told['mfu']:.0%}"] if "mfu" in told else []
    parts += [f"gap {validated['gap']:.1f} %"] if validated else []
    return ", ".join(parts)


def _validated(step: int, figures: dict[str, float]) -> str:
    right, none, other = (figures[f"loss/{who}"] for who in WHO)
    return (
        f"Update {step}, held-out people: loss {right:.4f} with their identity, {none:.4f} with none, {other:.4f} with "
        f"another's; gap {figures['gap']:.2f} % (95 %: {figures['gap_low']:.2f} to {figures['gap_high']:.2f})"
    )


def shared_settings(settings: Settings) -> dict[str, Any]:
    """The settings without what is this machine's own: its workers and its places. Of paths the last part is left."""
    data = settings.to_dict()
    del data["run"]["folder"], data["data"]["cache"], data["data"]["workers"]
    for part, name in (("data", "source"), ("model", "transformer"), ("model", "vae"), ("model", "text_encoder")):
        if data[part][name] is not None:
            data[part][name] = Path(data[part][name]).name
    return data


def _adapter(settings: Settings, processes: Processes, plan: str) -> Adapter:
    transformer = load_backbone(settings)
    adapter = Adapter(
        settings.model.slotid_config(), transformer, context_length=context_length(settings), seed=settings.run.seed,
        device=processes.device,
        precision=precision(settings),
    )  # fmt: skip
    if settings.memory.shard:
        shard_backbone(transformer, processes.count, processes.device)
    apply_plan(adapter.injected, plan, processes.device)
    if settings.memory.compile:
        for block in transformer.blocks:
            block.compile()
    return adapter


def _check_same(then: Any, now: dict[str, Any], checkpoint: Path) -> None:
    differ = [
        f"{part}.{name} was {then.get(part, {}).get(name)!r} and is {now[part][name]!r}"
        for part in now
        if part not in _MAY_CHANGE
        for name in now[part]
        if then.get(part, {}).get(name) != now[part][name]
    ]
    if differ:
        raise SlotIDError(
            f"{checkpoint.parent.parent} holds a run with other settings: {'; '.join(differ)}. Give this run another "
            "run.folder, or go back to those settings to go on with it."
        )


def _write_settings(folder: Path, settings: Settings) -> None:
    file, partial = folder / "settings.yaml", folder / ".settings.partial"
    with making_room(file):
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(yaml.safe_dump(settings.to_dict(), sort_keys=False), encoding="utf-8")
        os.replace(partial, file)


@dataclass
class _Stop:
    asked: bool = False


@contextmanager
def _stopping() -> Iterator[_Stop]:
    """Turns the first Ctrl+C or SIGTERM into a wish; the second one acts as ever."""
    stop, before = _Stop(), {}

    def ask(number: int, frame: Any) -> None:
        stop.asked = True
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
