"""Apply Slot-ID to Wan."""

import logging

from comfy_api.latest import io
from torch import Tensor

from ..slotid_core.checkpoint import NO_IDENTITY, SlotIDWeights
from ..slotid_core.gate import GateEnds
from ..slotid_core.injection import Injection
from ..slotid_core.region import Reach, block_range
from ..slotid_core.types import Identity
from .gate import chosen_gate, gate_curve_input, gate_input
from .host_wan import apply_identity
from .node_text import show_text
from .sockets import CATEGORY, SlotIDIdentity, SlotIDModel

_log = logging.getLogger("slotid")


class SlotIDApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDApply",
            display_name="Apply Slot-ID to Wan",
            category=CATEGORY,
            description="Makes a Wan model show the person. The model that comes in is not changed.",
            search_aliases=["identity", "character consistency", "face id", "patch wan", "reference to video"],
            inputs=[
                io.Model.Input("model", tooltip="A Wan model, before or after LoRA and sampling nodes."),
                SlotIDModel.Input("slotid_model", tooltip="The same that encoded the identity."),
                SlotIDIdentity.Input("identity", tooltip="From Encode Slot-ID or Load Identity."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How much of the person: scales the identity tokens and FiLM. 0 switches both off.",
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the denoising after which the identity is active. Early steps set pose and "
                    "layout: starting later leaves them to the prompt.",
                ),
                io.Float.Input(
                    "end",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the denoising up to which the identity is active.",
                ),
                gate_input(
                    "Portrait against clip over the steps. As trained: the gate that the weights were trained with, "
                    "which Gate Preview shows; the paper's goes from mostly the portrait to mostly the clip."
                ),
                io.Float.Input(
                    "film_strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Scales FiLM, the modulation of the blocks (the last half, unless the weights say "
                    "otherwise), on top of strength.",
                ),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Strength of the LoRA that was trained with the identity tokens. It is active on all rows "
                    "and steps, as in training. Nodes that share weights share it.",
                ),
                io.Combo.Input(
                    "negative",
                    options=["none", "same"],
                    advanced=True,
                    tooltip="Identity in the negative conditioning. none: guidance strengthens the identity along with "
                    "the text. same: guidance works on the text alone.",
                ),
                io.Float.Input(
                    "prefix_strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="Scales the identity tokens that stand beside the text, on top of strength.",
                ),
                io.Int.Input(
                    "first_block",
                    default=0,
                    min=0,
                    max=255,
                    optional=True,
                    advanced=True,
                    tooltip="First block of the model in which the person acts, by tokens and FiLM. 0 is the first. "
                    "The weights were trained on all blocks.",
                ),
                io.Int.Input(
                    "last_block",
                    default=-1,
                    min=-1,
                    max=255,
                    optional=True,
                    advanced=True,
                    tooltip="Last block in which the person acts; -1 is the model's last. FiLM stays in the blocks "
                    "that the weights have it in, usually the last half.",
                ),
                gate_curve_input(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The region of the frame in which this person is to be seen: white inside, in the video's "
                    "proportions, one mask for all frames or one a frame. Chain an Apply node for each person.",
                ),
                SlotIDIdentity.Input(
                    "negative_identity",
                    optional=True,
                    tooltip="Somebody to steer away from: goes into the negative conditioning, as strong as the person "
                    "in the positive. Needs CFG above 1, and negative: none.",
                ),
            ],
            outputs=[io.Model.Output("model", tooltip="For KSampler or any sampler or guider.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        slotid_model: SlotIDWeights,
        identity: Identity,
        strength: float,
        start: float,
        end: float,
        gate: str,
        film_strength: float,
        lora_strength: float,
        negative: str,
        prefix_strength: float = 1.0,
        first_block: int = 0,
        last_block: int = -1,
        gate_curve: GateEnds | None = None,
        mask: Tensor | None = None,
        negative_identity: Identity | None = None,
    ) -> io.NodeOutput:
        injection = Injection(
            slotid_model.model,
            identity.embedding,
            strength,
            prefix_strength=prefix_strength,
            film_strength=film_strength,
            gate=chosen_gate(gate, gate_curve, slotid_model),
        )
        patched = apply_identity(
            model,
            slotid_model,
            identity,
            injection=injection,
            lora_strength=lora_strength,
            start_percent=start,
            end_percent=end,
            negative=negative,
            negative_identity=negative_identity,
            reach=Reach(mask, block_range(first_block, last_block, slotid_model.model.config.backbone.blocks)),
        )
        if not slotid_model.untrained:
            return io.NodeOutput(patched)
        _log.warning(NO_IDENTITY)
        return io.NodeOutput(patched, ui=show_text(cls, NO_IDENTITY))
