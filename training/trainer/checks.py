"""What has to hold before and while a run learns: the adapter starts as a no-op, gradients reach what they can reach,
every trained tensor soon gets one, and no number is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from slotid_core.errors import SlotIDError
from training.trainer.adapter import Adapter
from training.trainer.batches import Item

# Updates of non-zero learning rate, with an identity in the batch, within which everything must have been reached.
_SOON = 3


def check_start(adapter: Adapter, items: Sequence[Item]) -> None:
    """Before the first update, on real clips with nothing dropped: the untrained adapter changes no bit of the
    backbone's output, and the first backward reaches exactly the tensors that start at zero.

    Leaves no gradient behind.

    Raises:
        SlotIDError: one of the two does not hold.
    """
    whole = [
        replace(
            item, draw=replace(item.draw, keep_identity=True, keep_prefix_P=torch.ones_like(item.draw.keep_prefix_P))
        )
        for item in items
    ]
    plain = [replace(item, draw=replace(item.draw, keep_identity=False)) for item in items]
    # With gradients too: without, a compiled block is another program, whose bfloat16 is rounded in other places.
    without_B = adapter.losses(plain).detach()
    losses_B = adapter.losses(whole)
    check_finite(losses_B.detach(), whole, 0)
    if not torch.equal(losses_B.detach(), without_B):
        raise SlotIDError(
            f"The untrained adapter is not a no-op: losses {losses_B.tolist()} with it, {without_B.tolist()} without. "
            "Something else changes the backbone (another adapter, a hook), or its arithmetic is not deterministic."
        )
    losses_B.mean().backward()
    reached = {name for name, p in adapter.trainable().items() if p.grad is not None and bool(p.grad.any())}
    for parameter in adapter.trainable().values():
        parameter.grad = None
    expected = adapter.zero_initialised()
    if reached != expected:
        unreached, surprising = sorted(expected - reached), sorted(reached - expected)
        raise SlotIDError(
            "The first gradient must reach exactly the tensors that start at zero. "
            f"Not reached: {', '.join(unreached) or 'none'}. Reached though they should not: "
            f"{', '.join(surprising) or 'none'}."
        )


class Reached:
    """Whether every trained tensor has had a finite gradient that is not zero."""

    def __init__(self, names: Sequence[str]):
        self.missing = set(names)
        self.updates = 0

    def look(self, trainable: Mapping[str, nn.Parameter], *, with_identity: bool, lr: float) -> None:
        """After a backward.

        Raises:
            SlotIDError: some tensors were not reached in time; each is named.
        """
        if not self.missing:
            return
        self.missing -= {n for n in self.missing if trainable[n].grad is not None and bool(trainable[n].grad.any())}
        self.updates += with_identity and lr > 0
        if self.missing and self.updates > _SOON:
            raise SlotIDError(
                f"{len(self.missing)} trained tensors had no gradient in {_SOON} updates: "
                f"{', '.join(sorted(self.missing))}. They would never learn. A part of the Slot-ID config that "
                "nothing reads is the usual cause."
            )


def check_finite(losses_B: Tensor, items: Sequence[Item], step: int) -> None:
    """Stop at the first loss that is not a number.

    Raises:
        SlotIDError: it names the clips, their noise levels and the step.
    """
    if bool(losses_B.isfinite().all()):
        return
    said = ", ".join(
        f"{item.entry.id} (sigma {item.draw.sigma:.3f}, loss {float(loss)})"
        for item, loss in zip(items, losses_B, strict=True)
    )
    raise SlotIDError(
        f"The loss of update {step} is not a finite number: {said}. Nothing of this update was applied; the last "
        "checkpoint is whole. Look at these clips, or lower optim.lr and start again from that checkpoint."
    )


def check_gradients(norm: float, items: Sequence[Item], step: int) -> None:
    """The same for the gradients' norm.

    Raises:
        SlotIDError: it names the clips of the update and the step.
    """
    if norm == norm and norm != float("inf"):
        return
    raise SlotIDError(
        f"The gradient of update {step} is not finite (norm {norm}); its clips: "
        f"{', '.join(item.entry.id for item in items)}. Nothing of this update was applied; the last checkpoint is "
        "whole. Lower optim.lr, or leave these clips out."
    )
