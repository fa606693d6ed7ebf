"""Routing Preview."""

import json

import comfy.model_management
import comfy.utils
from comfy_api.latest import io, ui

from ..slotid_core.errors import SlotIDError
from ..slotid_core.routing_view import ClipRouting, describe_routing, overlay, routing_grid, routing_numbers
from .pictures import from_bytes
from .sockets import CATEGORY, SlotIDRouting


class SlotIDRoutingPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDRoutingPreview",
            display_name="Routing Preview",
            category=CATEGORY,
            description="Shows which parts of the reference clip each identity slot reads, over space and time.",
            search_aliases=["attention map", "slot attention", "what slots read", "heatmap", "overlay"],
            inputs=[
                SlotIDRouting.Input("routing", tooltip="From Encode Slot-ID."),
                io.Int.Input(
                    "slot",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Which slot the overlay shows, counted from 1. 0: all, each in its colour.",
                ),
            ],
            outputs=[
                io.Image.Output("overlay", tooltip="The clip with what is read in colour, at the clip's frame rate."),
                io.Image.Output("grid", tooltip="A row a slot, a column a moment, with the numbers."),
                io.String.Output(
                    "info", tooltip="Overlap, entropy and, where Encode has a reference, the share on the face."
                ),
                io.String.Output("data", tooltip="The same numbers as JSON."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, routing: ClipRouting | None, slot: int) -> io.NodeOutput:
        if routing is None:
            raise SlotIDError(
                "These Slot-ID weights pool the clip without slots (encoder kind conv_pool), so there is nothing to "
                "show. Remove Routing Preview, or load weights with a slot reader."
            )
        bar = comfy.utils.ProgressBar(len(routing.frames_FHWC))

        def progress(done: int, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        numbers = routing_numbers(routing)
        video = overlay(routing, slot, progress)
        grid = from_bytes(routing_grid(routing, numbers))
        info = "\n".join(describe_routing(routing, numbers))
        return io.NodeOutput(video, grid, info, json.dumps(numbers.to_dict()), ui=ui.PreviewImage(grid, cls=cls))
