"""Which clips make the batch of update s: a pure function of the seed, so there is no loader position to save.

Clips of one shape go together. An epoch shows every clip of a shape once; a last batch that is not full is filled up
from the beginning of the epoch's order.

Shape letters: C latent channels, T H W latent frames, height, width, L text tokens, E text-token width.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from slotid_core.errors import SlotIDError
from training.data.cache import Cache, Entry
from training.settings import Settings
from training.trainer.draws import Draw, draw, seed_of


@dataclass(frozen=True, kw_only=True)
class Item:
    """One clip of a micro-batch with all that chance decided for it."""

    entry: Entry
    target_CTHW: Tensor
    reference_CTHW: Tensor
    portrait_CTHW: Tensor
    text_LE: Tensor
    """Without pads."""
    draw: Draw
    second_CTHW: Tensor | None = None
    """Reference of another clip of the person than the one shown, where slots are contrasted and there is one."""


class BatchOrder:
    """The clips of every update."""

    def __init__(self, entries: Sequence[Entry], batch: int, seed: int):
        if not entries:
            raise SlotIDError(
                "There is no clip to train on: the cache holds held-out people alone. Prepare more clips."
            )
        by_shape: dict[tuple, list[int]] = defaultdict(list)
        for index, entry in enumerate(entries):
            by_shape[entry.target_shape, entry.reference_shape, entry.portrait_shape].append(index)
        self.shapes = [by_shape[shape] for shape in sorted(by_shape)]
        self.batch, self.seed = batch, seed

    @property
    def batches_per_epoch(self) -> int:
        return sum(-(-len(indices) // self.batch) for indices in self.shapes)

    def at(self, step: int) -> list[int]:
        """Indices of the clips of update ``step``, counted from 0."""
        epoch, place = divmod(step, self.batches_per_epoch)
        return self._epoch(epoch)[place]

    def _epoch(self, epoch: int) -> list[list[int]]:
        if getattr(self, "_cached", (None,))[0] != epoch:
            self._cached = (epoch, self._shuffled(epoch))
        return self._cached[1]

    def _shuffled(self, epoch: int) -> list[list[int]]:
        random = np.random.RandomState(seed_of(self.seed, "order", epoch) % 2**32)
        batches = []
        for indices in self.shapes:
            order = random.permutation(indices).tolist()
            count = -(-len(order) // self.batch)
            filled = [order[i % len(order)] for i in range(count * self.batch)]
            batches += [filled[i * self.batch : (i + 1) * self.batch] for i in range(count)]
        return [batches[i] for i in random.permutation(len(batches))]


class TrainingClips(Dataset):
    """Clips by (step, position in the batch, index)."""

    def __init__(self, cache: Cache, settings: Settings):
        self.cache, self.settings = cache, settings
        self.entries = [entry for entry in cache.entries if not entry.held_out]
        # Asked once: a config is checked whenever it is made, which is half of what an item takes.
        self.prefix_tokens, self._channels = prefix_tokens(settings), latent_channels(settings)
        self._of_person: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            self._of_person[entry.person].append(entry)
        if settings.contrast.weight and all(len(clips) < 2 for clips in self._of_person.values()):
            raise SlotIDError(
                f"contrast.weight compares two clips of a person, and all {len(self._of_person)} people of the cache "
                "have one alone. Set contrast.weight=0, or prepare more clips of each person."
            )

    def references(self, entry: Entry) -> list[Entry]:
        """Whose reference may be shown with this target."""
        return other_clips(entry, self._of_person[entry.person], self.settings)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, key: tuple[int, int, int]) -> Item:
        step, position, index = key
        entry = self.entries[index]
        references = self.references(entry)
        drawn = draw(
            self.settings, step, position, entry.id, (self._channels, *entry.target_shape),
            prefix_tokens=self.prefix_tokens, references=len(references), variants=entry.variants,
        )  # fmt: skip
        reference = references[drawn.reference]
        item = load_item(self.cache, entry, reference, drawn)
        if self.settings.contrast.weight and reference is not entry:
            second = self.cache.reference(entry, drawn.variant % entry.variants)
            item = replace(item, second_CTHW=second)
        return item


def other_clips(entry: Entry, of_person: Sequence[Entry], settings: Settings) -> list[Entry]:
    """The person's other clips of the same reference shape; the clip itself where there is none."""
    if settings.data.reference_from == "the same clip":
        return [entry]
    shape = (entry.reference_shape, entry.portrait_shape)
    others = [e for e in of_person if e.id != entry.id and (e.reference_shape, e.portrait_shape) == shape]
    return others or [entry]


def load_item(cache: Cache, entry: Entry, reference: Entry, drawn: Draw) -> Item:
    """Read a clip and the reference that is shown with it."""
    sample = cache.load(entry, reference=reference, variant=drawn.variant)
    return Item(
        entry=entry,
        target_CTHW=sample.target_CTHW.float(),
        reference_CTHW=sample.reference_CTHW,
        portrait_CTHW=sample.portrait_CTHW,
        text_LE=sample.text_LE if drawn.keep_text else cache.empty_text_LE,
        draw=drawn,
    )


def prefix_tokens(settings: Settings) -> int:
    """Identity tokens: anchors and slots."""
    config = settings.model.slotid_config()
    return config.portrait.tokens + config.reader.slots


def latent_channels(settings: Settings) -> int:
    """Of the backbone."""
    return settings.model.slotid_config().backbone.latent_channels


def micro_batches(
    clips: TrainingClips, order: BatchOrder, settings: Settings, *, first_step: int, rank: int, processes: int
) -> Iterator[list[Item]]:
    """This process's micro-batches from update ``first_step`` on, in order, without end.

    Raises:
        SlotIDError: the batch can't be shared out evenly, or a clip can't be read.
    """
    batch, micro = settings.optim.batch, settings.optim.micro_batch
    if batch % (micro * processes):
        raise SlotIDError(
            f"optim.batch is {batch}, which {processes} processes with optim.micro_batch {micro} can't share evenly. "
            f"Use a multiple of {micro * processes}."
        )

    def keys() -> Iterator[list[tuple[int, int, int]]]:
        for step in range(first_step, settings.optim.steps):
            indices = order.at(step)
            for start in range(rank * micro, batch, micro * processes):
                yield [(step, position, indices[position]) for position in range(start, start + micro)]

    loader = DataLoader(
        _Telling(clips), batch_sampler=_Keys(keys), collate_fn=list, num_workers=settings.data.workers,
        worker_init_fn=_apart,
    )  # fmt: skip
    return map(_told, iter(loader))


def _told(items: list[Item | str]) -> list[Item]:
    for item in items:
        if isinstance(item, str):
            raise SlotIDError(item)
    return items


class _Telling:
    """The clips; what is wrong with one comes as its message, which a worker would wrap in a traceback of its own."""

    def __init__(self, clips: TrainingClips):
        self._clips = clips

    def __getitem__(self, key: tuple[int, int, int]) -> Item | str:
        try:
            return self._clips[key]
        except SlotIDError as error:
            return str(error)


def _apart(_: int) -> None:
    """Ctrl+C and SIGTERM reach a whole group of processes. The trainer heeds them after the update at hand, for which
    its workers have to live, so they leave the group (on Windows they ignore Ctrl+C). A SIGTERM to a worker itself
    ends it as ever: that is how they are ended when the trainer dies of an error."""
    if hasattr(os, "setsid"):
        os.setsid()
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Keys:
    def __init__(self, make):
        self.make = make

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        return self.make()
