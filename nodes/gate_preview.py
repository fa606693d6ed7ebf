"""Gate Preview."""

import comfy.samplers
from comfy_api.latest import io, ui
from torch import Tensor

from ..slotid_core.checkpoint import SlotIDWeights
from ..slotid_core.gate import GateEnds
from ..slotid_core.gate_view import gate_plot, gate_steps
from .gate import chosen_gate, gate_curve_input, gate_input
from .host_model import noise_window, sampler_sigmas
from .pictures import from_bytes
from .sockets import CATEGORY, SlotIDModel


class SlotIDGatePreview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDGatePreview",
            display_name="Gate Preview",
            category=CATEGORY,
            description="Shows what the identity is made of in each step of your sampler: portrait against clip.",
            search_aliases=["gate curve", "sigma plot", "schedule preview", "identity schedule", "portrait weight"],
            inputs=[
                io.Model.Input("model", tooltip="The Wan model as it goes into the sampler, after shift nodes."),
                SlotIDModel.Input("slotid_model", tooltip="Whose gate is shown: the same that Apply has."),
                gate_input("As on Apply Slot-ID to Wan."),
                io.Combo.Input(
                    "sampler_name",
                    options=comfy.samplers.KSampler.SAMPLERS,
                    tooltip="As on KSampler: some samplers leave out the last step but one.",
                ),
                io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS, tooltip="As on KSampler."),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="As on KSampler."),
                io.Float.Input("denoise", default=1.0, min=0.01, max=1.0, step=0.01, tooltip="As on KSampler."),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="As on Apply Slot-ID to Wan: steps before it are shown pale.",
                ),
                io.Float.Input(
                    "end",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="As on Apply Slot-ID to Wan: steps after it are shown pale.",
                ),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="The noise levels of a custom sampler. They take the place of sampler, scheduler, steps "
                    "and denoise.",
                ),
                gate_curve_input(),
            ],
            outputs=[
                io.Image.Output("plot", tooltip="Portrait, clip and noise level over the steps, and the gate's curve."),
                io.String.Output("info", tooltip="The same in numbers, a line a step."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        slotid_model: SlotIDWeights,
        gate: str,
        sampler_name: str,
        scheduler: str,
        steps: int,
        denoise: float,
        start: float,
        end: float,
        sigmas: Tensor | None = None,
        gate_curve: GateEnds | None = None,
    ) -> io.NodeOutput:
        # Also where sigmas are given: it refuses a model that the weights are not for.
        usual = sampler_sigmas(
            model, slotid_model, sampler=sampler_name, scheduler=scheduler, steps=steps, denoise=denoise
        )
        sigma_start, sigma_end = noise_window(model, start, end)
        shown = gate_steps(
            usual if sigmas is None else sigmas,
            chosen_gate(gate, gate_curve, slotid_model),
            sigma_start=sigma_start,
            sigma_end=sigma_end,
        )
        plot = from_bytes(gate_plot(shown))
        return io.NodeOutput(plot, "\n".join(shown.describe()), ui=ui.PreviewImage(plot, cls=cls))
