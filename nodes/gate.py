"""Slot-ID Gate, and what the gate widgets of other nodes mean."""

from comfy_api.latest import io

from ..slotid_core.checkpoint import SlotIDWeights
from ..slotid_core.config import GateConfig
from ..slotid_core.gate import GateEnds
from .sockets import CATEGORY, SlotIDGateCurve

GATES = {"as trained": None, "portrait only": GateEnds(1.0, 1.0), "clip only": GateEnds(0.0, 0.0)}
"""What the widget *gate* means; ``None`` is the weights' own."""


def gate_input(tooltip: str) -> io.Combo.Input:
    """The widget *gate*."""
    return io.Combo.Input("gate", options=list(GATES), tooltip=tooltip)


def gate_curve_input() -> io.Input:
    """The optional socket for a gate of one's own."""
    return SlotIDGateCurve.Input(
        "gate_curve", optional=True, tooltip="From Slot-ID Gate. It takes the place of the widget gate."
    )


def chosen_gate(widget: str, curve: GateEnds | None, weights: SlotIDWeights) -> GateConfig:
    """The gate that the widget, or what is connected in its place, means for these weights."""
    trained = weights.model.config.gate
    ends = curve or GATES[widget]
    return ends.over(trained) if ends else trained


class SlotIDGate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDGate",
            display_name="Slot-ID Gate",
            category=CATEGORY,
            description="Portrait against clip as you want it: how much the portrait weighs at the noisy and at the "
            "clean end.",
            search_aliases=["gate curve", "portrait weight", "clip weight", "identity schedule", "weight curve"],
            inputs=[
                io.Float.Input(
                    "start",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The portrait's weight at pure noise, where pose and layout are decided. The clip has the "
                    "rest.",
                ),
                io.Float.Input(
                    "end",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The portrait's weight at the clean end, where fine detail is made. The clip has the rest.",
                ),
            ],
            outputs=[SlotIDGateCurve.Output("gate_curve", tooltip="For Apply Slot-ID to Wan and Gate Preview.")],
        )

    @classmethod
    def execute(cls, start: float, end: float) -> io.NodeOutput:
        return io.NodeOutput(GateEnds(start, end))
