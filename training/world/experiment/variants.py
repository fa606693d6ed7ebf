"""Slot-ID and what it is compared with: changes of ``training/configs/world.yaml``, and nothing else.

Names are those of ``docs/method.md``; A and B are the paper's ablations (4.5).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    title: str
    changes: tuple[str, ...] = ()
    """Overrides on ``train.py``'s command line."""
    seeds: int = 1
    own_cache: bool = False
    """Whether its references are other latents than everybody's."""


def _slotid(*changes: str) -> tuple[str, ...]:
    return tuple(f"model.slotid.{change}" for change in changes)


VARIANTS = {
    "slotid": Variant("Slot-ID", seeds=3),
    "portrait_only": Variant(
        "portrait only (w = 1)", (*_slotid("gate.start=1.0", "gate.end=1.0"), "contrast.weight=0"), seeds=3
    ),
    "clip_only": Variant("clip only (w = 0)", _slotid("gate.start=0.0", "gate.end=0.0"), seeds=3),
    "conv_pool": Variant("A: 3DConv-Pool", _slotid("encoder.kind=conv_pool"), seeds=3),
    "orderless": Variant("B: orderless", _slotid("clip_order=shuffled"), seeds=3, own_cache=True),
    "no_difference": Variant("no temporal difference", _slotid("encoder.temporal_difference=false"), seeds=3),
    "softmax": Variant("softmax routing", _slotid("reader.routing=softmax")),
    "no_film": Variant("no FiLM", _slotid("film.fraction=0.0")),
    "no_lora": Variant("no LoRA", _slotid("lora.rank=0")),
    "no_contrast": Variant("no contrast of slots", ("contrast.weight=0",)),
    "rotary": Variant("rotary positions alone", _slotid("encoder.absolute_positions=false")),
    "dustbin": Variant("dustbin", _slotid("reader.dustbin=fixed")),
    "gate_falling": Variant("gate from 0.9 to 0.1", _slotid("gate.start=0.9", "gate.end=0.1")),
    "gate_linear": Variant(
        "gate from 0.9 to 0.1, linear in sigma", _slotid("gate.start=0.9", "gate.end=0.1", "gate.shift=1.0")
    ),
    "slots_1": Variant("1 slot", _slotid("reader.slots=1")),
    "slots_2": Variant("2 slots", _slotid("reader.slots=2")),
    "slots_12": Variant("12 slots", _slotid("reader.slots=12")),
}
"""In the order of the report."""
