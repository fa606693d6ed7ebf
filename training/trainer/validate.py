"""Validation on people who were never trained on, at fixed noise and fixed noise levels.

Each clip is asked for three times: with its own person's identity, with none, and with another person's. What is worth
watching is the gap between the last and the first: a loss that falls alike for all three has learned no identity.

Shape letters: V clips, S noise levels, W = 3 (right, none, other).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slotid_core.errors import SlotIDError
from training.data.cache import Cache, Entry
from training.settings import Settings
from training.trainer.adapter import Adapter
from training.trainer.batches import Item, latent_channels, load_item, other_clips, prefix_tokens
from training.trainer.draws import Draw, generator_of

WHO = ("right", "none", "other")

# 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom.
_T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


@dataclass(frozen=True)
class Validation:
    """Losses of every clip at every level with each of :data:`WHO`."""

    sigmas: tuple[float, ...]
    people: tuple[str, ...]
    """Of each clip."""
    losses_VSW: Tensor
    spread: dict[str, float]
    """Of each stream's tokens, the share of their energy that differs from person to person: 0 is a stream that says
    the same of everybody."""

    def figures(self) -> dict[str, float]:
        """Flat numbers for a log: a loss for each of ``right``, ``none``, ``other``, the gap, and both by level.

        ``gap`` is (other - right) / right in percent, paired over clips, the mean over people of each one's mean;
        ``gap_low`` and ``gap_high`` bound it with 95 % confidence, people being what was drawn (Student's t).
        """
        losses_VW = self.losses_VSW.mean(1)
        gap_V = 100 * (losses_VW[:, 2] - losses_VW[:, 0]) / losses_VW[:, 0]
        clips_of = {person: [v for v, one in enumerate(self.people) if one == person] for person in self.people}
        gap_N = torch.stack([gap_V[clips].mean() for clips in clips_of.values()])
        half = _t_975(len(gap_N) - 1) * float(gap_N.std()) / len(gap_N) ** 0.5
        mean = float(gap_N.mean())
        figures = {f"loss/{who}": float(losses_VW[:, i].mean()) for i, who in enumerate(WHO)}
        figures |= {"gap": mean, "gap_low": mean - half, "gap_high": mean + half}
        figures |= {f"spread/{stream}": share for stream, share in self.spread.items()}
        for s, sigma in enumerate(self.sigmas):
            right, _, other = self.losses_VSW[:, s].mean(0).tolist()
            figures[f"loss_at_{sigma:g}/right"] = right
            figures[f"gap_at_{sigma:g}"] = 100 * (other - right) / right
        return figures


def _t_975(freedom: int) -> float:
    """97.5 % quantile of Student's t; beyond the table by its series, good to 0.0001 (Abramowitz and Stegun 26.7.5)."""
    if freedom <= len(_T_975):
        return _T_975[freedom - 1]
    z = 1.959964
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


class HeldOut:
    """The held-out clips that are looked at, each with a reference of its own person and one of another.

    Raises:
        SlotIDError: the cache has fewer than two held-out people.
    """

    def __init__(self, cache: Cache, settings: Settings, *, trained: bool = False):
        entries = [entry for entry in cache.entries if entry.held_out != trained]
        people = sorted({entry.person for entry in entries})
        if len(people) < 2:
            raise SlotIDError(
                f"Validation compares people and found {len(people)} held-out ones, expected at least 2. Raise "
                "data.held_out, or prepare clips of more people."
            )
        self.cache, self.settings = cache, settings
        of_person = {person: [e for e in entries if e.person == person] for person in people}
        # Round by round, so that few clips show many people.
        rounds = max(len(clips) for clips in of_person.values())
        chosen = [of_person[p][i] for i in range(rounds) for p in people if i < len(of_person[p])]
        self.clips = chosen[: settings.validation.clips]
        self._of_person, self._people = of_person, people
        self._prefix_tokens, self._channels = prefix_tokens(settings), latent_channels(settings)

    def references(self, entry: Entry) -> tuple[Entry, Entry]:
        """The reference of the clip's own person, and one of another's: the next person with a fitting one."""
        own = other_clips(entry, self._of_person[entry.person], self.settings)[0]
        start = self._people.index(entry.person)
        for person in self._people[start + 1 :] + self._people[:start]:
            for other in self._of_person[person]:
                if (other.reference_shape, other.portrait_shape) == (own.reference_shape, own.portrait_shape):
                    return own, other
        raise SlotIDError(
            f"No other held-out person has a reference of the shape of {entry.id}'s. Hold out more people."
        )

    def item(self, entry: Entry, reference: Entry, sigma: float, *, identity: bool) -> Item:
        """The clip at a level; its noise depends on the clip and the level alone."""
        noise = generator_of(self.settings.run.seed, "validation", entry.id, sigma)
        drawn = Draw(
            sigma=sigma,
            noise_CTHW=torch.randn(self._channels, *entry.target_shape, generator=noise),
            keep_identity=identity,
            keep_text=True,
            keep_prefix_P=torch.ones(self._prefix_tokens, dtype=torch.bool),
            token_seed=0,
            reference=0,
            variant=0,
        )
        return load_item(self.cache, entry, reference, drawn)


@torch.no_grad()
def validate(
    adapter: Adapter, held_out: HeldOut, *, rank: int = 0, processes: int = 1,
    gather: Callable[[Tensor], Tensor] = lambda x: x,
) -> Validation:  # fmt: skip
    """Losses of all held-out clips.

    Args:
        gather: joins the rows of all processes. Each takes every ``processes``-th clip; where they do not come out
            even, the first ones are done once more, so that all processes call a shared backbone equally often.
    """
    sigmas = tuple(held_out.settings.validation.sigmas)
    count = -(-len(held_out.clips) // processes) * processes
    padded = [held_out.clips[i % len(held_out.clips)] for i in range(count)]
    was_training = adapter.slotid.training
    adapter.slotid.eval()
    rows = [_one(adapter, held_out, entry, sigmas) for entry in padded[rank::processes]]
    spread = _spread(adapter, held_out)
    adapter.slotid.train(was_training)
    gathered = gather(torch.stack(rows).to(adapter.device)).cpu()
    by_clip = gathered.view(processes, -1, *gathered.shape[1:]).transpose(0, 1).flatten(0, 1)
    return Validation(sigmas, tuple(e.person for e in held_out.clips), by_clip[: len(held_out.clips)], spread)


def _one(adapter: Adapter, held_out: HeldOut, entry: Entry, sigmas: Sequence[float]) -> Tensor:
    own, other = held_out.references(entry)
    items: list[Item] = []
    for sigma in sigmas:
        right = held_out.item(entry, own, sigma, identity=True)
        wrong = held_out.item(entry, other, sigma, identity=True)
        items += [right, replace(right, draw=replace(right.draw, keep_identity=False)), wrong]
    at_once = held_out.settings.optim.micro_batch
    chunks = [items[i : i + at_once] for i in range(0, len(items), at_once)]
    return torch.cat([adapter.losses(chunk) for chunk in chunks]).view(len(sigmas), len(WHO))


def _spread(adapter: Adapter, held_out: HeldOut) -> dict[str, float]:
    """Every process has the small encoder, so each works it out for itself."""
    one_each = {entry.person: entry for entry in reversed(held_out.clips)}
    items = [held_out.item(entry, held_out.references(entry)[0], 1.0, identity=True) for entry in one_each.values()]
    embeddings = [adapter.embed([item]) for item in items]
    spread = {}
    for stream, name in (("clip_tokens", "clip_tokens_BSE"), ("portrait_tokens", "portrait_tokens_BKE")):
        tokens_PE = torch.cat([getattr(embedding, name).flatten(1) for embedding in embeddings]).float()
        energy = tokens_PE.square().mean()
        spread[stream] = float(tokens_PE.var(0, correction=0).mean() / energy) if energy > 0 else 0.0
    return spread
