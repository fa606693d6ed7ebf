"""Slot-ID Demo Prompt."""

from comfy_api.latest import io

from ..slotid_core.demo_text import embed_prompt
from .sockets import CATEGORY


class SlotIDDemoPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDDemoPrompt",
            display_name="Slot-ID Demo Prompt",
            category=CATEGORY,
            description="Conditioning for the small demo Wan alone: words become fixed hashed vectors, without "
            "weights. A real Wan needs CLIP Text Encode with umT5-XXL.",
            search_aliases=["hashed prompt", "demo text"],
            inputs=[
                io.String.Input(
                    "text", multiline=True, tooltip="The demo's prompt. Empty gives an empty conditioning."
                ),
            ],
            outputs=[io.Conditioning.Output("conditioning", tooltip="For the demo's sampler.")],
        )

    @classmethod
    def execute(cls, text: str) -> io.NodeOutput:
        return io.NodeOutput([[embed_prompt(text), {}]])
