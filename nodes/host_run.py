"""What one sampling run remembers: who is to be seen in which rows, and what has been done about it.

Shape letters: B rows of one backbone call, T H W video tokens in time, height and width.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from ..slotid_core.errors import SlotIDError
from ..slotid_core.injection import Injection
from ..slotid_core.types import IdentityEmbedding
from .host_memory import Recycled

POSITIVE, NEGATIVE = "positive", "negative"
"""What guiders call their conditionings, as far as it matters here; any other gets no identity."""
WITHOUT = "without_identity"
"""What the pack's own guider calls the positive prompt that no identity may reach, not even one for all rows."""

_KNOWN = (POSITIVE, NEGATIVE, WITHOUT, "middle", "empty_negative_prompt")
"""Names of ComfyUI's own guiders, whose docs say who is seen where."""

_log = logging.getLogger("slotid")


@dataclass(frozen=True)
class Part:
    """One Apply node's request in one run."""

    injection: Injection
    """With its noise window."""
    to_all: bool
    """Whether every row gets it or only the positive ones."""
    negative: IdentityEmbedding | None
    """Somebody else, for the negative rows."""
    blocks: range | None
    weights_THW: Tensor | None
    """Its weight at each token of the whole video; ``None`` is 1 everywhere."""

    def shown(self, roles_B: list[str]) -> Tensor:
        """Which rows of these roles are to show the person. Shape ``[B]``, bool."""
        return torch.tensor([role == POSITIVE or (self.to_all and role != WITHOUT) for role in roles_B])

    def at(self, roles_B: list[str]) -> tuple[Injection, Tensor]:
        """What is injected into rows of these roles, and into which of them."""
        shown_B = self.shown(roles_B)
        if self.negative is None:
            return self.injection, shown_B
        embedding = self.injection.embedding.where(shown_B, self.negative)
        negative_B = torch.tensor([role == NEGATIVE for role in roles_B])
        return replace(self.injection, embedding=embedding), shown_B | negative_B


@dataclass
class Run:
    """One sampling run: what percents and conditionings mean in it, and what was done."""

    parts: tuple[Part, ...]
    roles: dict[uuid.UUID, str]
    """For each conditioning the name that the guider has for it."""
    levels: set[float] = field(default_factory=set)
    """Noise levels that the model was called with: some samplers choose their own."""
    evaluated: set[uuid.UUID] = field(default_factory=set)
    """Conditionings that the backbone was called for: from then on a cache may answer in its place."""
    calls: int = 0
    identity_rows: int = 0
    negative_rows: int = 0
    """That got the negative identity of some part."""
    modulations_wanted: int = 0
    modulations: int = 0
    attentions_wanted: int = 0
    attentions: int = 0
    memory: Recycled = field(default_factory=Recycled)
    """For the contexts with a prefix."""
    lock: Lock = field(default_factory=Lock)

    def __deepcopy__(self, memo: dict) -> "Run":
        return self  # packs copy the options of a running sampler; what is counted belongs to the one run

    @torch.compiler.disable
    def count(self, **what: int) -> None:
        with self.lock:  # multi-GPU runs call the backbone from threads
            for name, n in what.items():
                setattr(self, name, getattr(self, name) + n)

    def empty_like(self, context: Tensor) -> Callable[[Tensor], Tensor] | None:
        """What makes the tensors of contexts with a prefix, or ``None`` for torch's own way.

        That is for GPUs, and for the nodes that train a LoRA by sampling: there gradients go through.
        """
        return self.memory.empty_like if context.device.type == "cpu" and not torch.is_grad_enabled() else None

    def rows(self, options: dict[str, Any], batch: int) -> tuple[list[str], Tensor]:
        """The role and the noise level of each row of this call; the latter ``[B]``, on the CPU.

        ``cond_or_uncond`` would give positions in the guider's own list, which mean something else in every guider.
        """
        unknown = [u for u in options["uuids"] if u not in self.roles]
        if unknown:
            raise SlotIDError(
                "A node made a conditioning of its own during sampling, so Slot-ID can't tell whether it is a positive "
                "or a negative one. Remove that node, or bypass Apply Slot-ID to Wan."
            )
        chunks = len(options["uuids"])
        size = batch // chunks
        if size * chunks != batch:
            raise SlotIDError(
                f"The model was called with {batch} rows for {chunks} conditionings, so Slot-ID can't tell which row "
                "is whose. Remove the node that takes batches apart, or bypass Apply Slot-ID to Wan."
            )
        roles_B = [self.roles[u] for u in options["uuids"] for _ in range(size)]
        sigma_B = options["sigmas"].float().cpu().expand(size).repeat(chunks)
        self.levels.update(sigma_B.tolist())
        return roles_B, sigma_B

    def check_names(self, names: list[str]) -> None:
        """Before the first step: some conditioning is to show the people.

        Raises:
            SlotIDError: the guider has none that would.
        """
        speaking = [part for part in self.parts if part.injection.speaks]
        if speaking and not any(bool(part.shown(names).any()) for part in speaking):
            raise SlotIDError(
                f"The guider has no conditioning named '{POSITIVE}', which identity goes to, but "
                f"{', '.join(names)}. Use another guider, or set negative to same on Apply Slot-ID to Wan: then all of "
                "them get it."
            )
        others = [name for name in names if name not in _KNOWN]
        if others and not all(part.to_all for part in speaking):
            _log.warning(
                "Slot-ID: the guider's conditionings %s get no identity, only '%s' does. If they are to show the "
                "person too, set negative to same on Apply Slot-ID to Wan.",
                ", ".join(others), POSITIVE,
            )  # fmt: skip

    @torch.compiler.disable
    def called(self, conds: list[uuid.UUID], **hooks: int) -> None:
        """Counts what was hooked into one call of the backbone for these conditionings, and what of it came by.

        Args:
            hooks: ``modulations_wanted``, ``modulations``, ``attentions_wanted`` and ``attentions``.

        Raises:
            SlotIDError: nothing came by, and no cache can be the reason, since one of them is evaluated for the first
                time. For the rest, ``check`` asks at the end of the run.
        """
        self.count(**hooks)
        with self.lock:
            first = not self.evaluated.issuperset(conds)
            self.evaluated.update(conds)
        if first:
            _check_hooks(**hooks)

    def check(self, sigmas: Tensor, prompts: list[dict[str, Any]]) -> None:
        """What was asked for has happened; what has not, though the video is made, is said.

        Args:
            sigmas: of this run's steps; the model is not called with the last.
            prompts: the guider's positive conditionings, with their noise windows where they have any.

        Raises:
            SlotIDError: identity was to be seen and the model, or what was hooked into it, was never called.
        """
        if len(sigmas) < 2:
            return
        if self.calls == 0:
            raise SlotIDError(
                "Slot-ID was applied, but the model was sampled without calling it, so no identity was injected. "
                "Another node has replaced the model's forward pass: remove that node."
            )
        _check_hooks(
            self.modulations_wanted, self.modulations, self.attentions_wanted, self.attentions,
            or_else=" Or a cache has answered every step between start and end: let the identity start earlier.",
        )  # fmt: skip
        steps = torch.tensor(sorted(self.levels))
        heard = torch.stack([_in_range_of(prompt, steps) for prompt in prompts]).any(0) if prompts else steps > -1
        wanted = [part.injection.is_active(steps) for part in self.parts if part.injection.speaks]
        if not any(bool(active.any()) for active in wanted):
            if wanted:
                _log.warning(
                    "Slot-ID: no step of this sampler lies between start and end, or another node skipped those that "
                    "do; no identity was injected."
                )
        elif self.identity_rows == 0 and not any(bool((active & heard).any()) for active in wanted):
            _log.warning(
                "Slot-ID: in no step of this sampler are both the identity (start, end) and the positive prompt (its "
                "timestep range) on; no identity was injected."
            )
        elif self.identity_rows == 0:
            _log.warning(
                "Slot-ID: the model was called %d times and never for the positive prompt between start and end; no "
                "identity was injected. Another node evaluates the negative alone there.",
                self.calls,
            )
        if self.identity_rows and not self.negative_rows and any(part.negative is not None for part in self.parts):
            _log.warning(
                "Slot-ID: a negative_identity is connected, and no negative was evaluated, so nobody was steered away "
                "from. At CFG 1 ComfyUI leaves the negative out."
            )
        _log.info(
            "Slot-ID: %d backbone calls, %d rows with identity, %d blocks modulated",
            self.calls, self.identity_rows, self.modulations,
        )  # fmt: skip


def _check_hooks(
    modulations_wanted: int, modulations: int, attentions_wanted: int, attentions: int, or_else: str = ""
) -> None:
    """The backbone has called what was hooked into it, at least once.

    Raises:
        SlotIDError: it has not; ``or_else`` ends the sentence.
    """
    if modulations_wanted and not modulations:
        raise SlotIDError(
            f"Slot-ID patched {modulations_wanted} blocks and the model called none of the patches. Another node has "
            f"replaced the model's forward pass: remove that node, or set film_strength to 0.{or_else}"
        )
    if attentions_wanted and not attentions:
        raise SlotIDError(
            "Slot-ID was to bind an identity to a region or to some blocks, and the model's cross-attention never came "
            f"by. Another node has replaced it: remove that node, or the mask and block range.{or_else}"
        )


def _in_range_of(prompt: dict[str, Any], sigmas: Tensor) -> Tensor:
    """In which steps ComfyUI hears a conditioning. Bool, as many as there are steps."""
    heard = torch.ones_like(sigmas, dtype=torch.bool)
    if (start := prompt.get("timestep_start")) is not None:
        heard &= sigmas <= float(start)
    if (end := prompt.get("timestep_end")) is not None:
        heard &= sigmas >= float(end)
    return heard


def name_roles(conds_by_name: dict[str, list[dict[str, Any]]]) -> dict[uuid.UUID, str]:
    """The guider's name for each conditioning of this run, by uuid.

    ComfyUI fills an area that only the positive has into the negative by copying the positive's entry, uuid and all;
    such a copy is given a uuid of its own. The entries are this run's copies.
    """
    roles: dict[uuid.UUID, str] = {}
    for name, conds in conds_by_name.items():
        for cond in conds:
            if cond["uuid"] in roles:
                cond["uuid"] = uuid.uuid4()
            roles[cond["uuid"]] = name
    return roles
