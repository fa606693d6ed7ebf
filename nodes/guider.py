"""Slot-ID Guider."""

from comfy_api.latest import io

from .host_guider import IdentityGuider
from .sockets import CATEGORY


class SlotIDGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDGuider",
            display_name="Slot-ID Guider",
            category=CATEGORY,
            description="Guides by the text and by the identity apart. Three model evaluations a step instead of two: "
            "about half as long again as ordinary CFG.",
            search_aliases=["identity cfg", "identity guidance", "dual cfg", "guidance scale", "face guidance"],
            inputs=[
                io.Model.Input("model", tooltip="From Apply Slot-ID to Wan, with negative: none."),
                io.Conditioning.Input("positive", tooltip="The prompt. It is evaluated with and without the identity."),
                io.Conditioning.Input("negative", tooltip="The negative prompt."),
                io.Float.Input(
                    "text_cfg",
                    default=5.0,
                    min=1.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance by the text, as cfg on KSampler. At 1 the negative is not evaluated: two "
                    "evaluations a step.",
                ),
                io.Float.Input(
                    "identity_cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance by the identity. The same as text_cfg is ordinary CFG; lower leaves more to the "
                    "prompt, higher insists on the person. 0 is the prompt without the person.",
                ),
            ],
            outputs=[io.Guider.Output("guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        positive: io.Conditioning.Type,
        negative: io.Conditioning.Type,
        text_cfg: float,
        identity_cfg: float,
    ) -> io.NodeOutput:
        return io.NodeOutput(IdentityGuider(model, positive, negative, text_cfg, identity_cfg))
