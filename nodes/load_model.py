"""Load Slot-ID Model."""

import logging
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..slotid_core.checkpoint import NO_IDENTITY, SlotIDWeights, load_weights, untrained_weights
from .folders import weight_files, weight_path
from .node_text import show_text
from .sockets import CATEGORY, SlotIDModel

_UNTRAINED = {"untrained (Wan 14B)": "wan-14b", "untrained (Wan 1.3B)": "wan-1.3b"}
_log = logging.getLogger("slotid")


class SlotIDLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDLoadModel",
            display_name="Load Slot-ID Model",
            category=CATEGORY,
            description="Loads Slot-ID weights (encoder, FiLM and LoRA in one file) from models/slotid.",
            search_aliases=["slot id", "identity adapter", "load identity model", "face adapter"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=[*weight_files(), *_UNTRAINED],
                    tooltip="A file in models/slotid. The untrained entries change nothing at all: they are for wiring "
                    "a graph before you have weights, and no identity will appear.",
                ),
            ],
            outputs=[SlotIDModel.Output("slotid_model", tooltip="For Encode Slot-ID and Apply Slot-ID to Wan.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        weights = _load(model_name)
        if weights.untrained:
            _log.warning("%s: %s", model_name, NO_IDENTITY)
        return io.NodeOutput(weights, ui=show_text(cls, _describe(weights)))

    @classmethod
    def fingerprint_inputs(cls, model_name: str) -> float | str:
        return model_name if model_name in _UNTRAINED else weight_path(model_name).stat().st_mtime


def _load(model_name: str) -> SlotIDWeights:
    if model_name in _UNTRAINED:
        return untrained_weights(_UNTRAINED[model_name])
    return load_weights(weight_path(model_name))


def _of_the_training(facts: Mapping[str, Any]) -> list[str]:
    """What the trainer kept of the run, where it was the trainer that wrote the file; the log has all of it."""
    lines = []
    match facts.get("trained_steps"):
        case int(steps):
            lines.append(f"{steps:,} updates.")
    match facts.get("settings"):
        case {"data": {"layout": "world"}}:
            lines.append("Trained on drawn people of the small world: for the demo's Wan, no measure of a large one.")
        case {"data": {"layout": str(layout)}}:
            lines.append(f"Trained on: {layout}.")
    match facts.get("validation"):
        case {"gap": float(gap), "gap_low": float(low), "gap_high": float(high)}:
            lines.append(f"Identity gap on people it was not trained on: {gap:.1f} % [{low:.1f}, {high:.1f}].")
    return lines


def _describe(weights: SlotIDWeights) -> str:
    lines = [f"For {weights.model.config.backbone}.", f"Weights {weights.sha256[:12]}."]
    if weights.untrained:
        lines.insert(0, NO_IDENTITY)
    else:
        lines += _of_the_training(weights.facts)
        gate = weights.model.config.gate
        lines.append(f"Gate: portrait {gate.start:g} in noise to {gate.end:g} at the end.")
        _log.info("%s: %s", weights.sha256[:12], dict(weights.facts))
    return "\n".join(lines)
