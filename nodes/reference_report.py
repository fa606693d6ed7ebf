"""Reference Report."""

import json

from comfy_api.latest import io, ui

from ..slotid_core.reference import Reference, contact_sheet, coverage_plot
from .pictures import from_bytes
from .sockets import CATEGORY, SlotIDReference, need_reference


class SlotIDReferenceReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDReferenceReport",
            display_name="Reference Report",
            category=CATEGORY,
            description="Shows what a reference clip gives: kept and dropped frames with reasons, angles, expressions, "
            "light, and in words what is missing.",
            search_aliases=["contact sheet", "coverage", "clip quality", "face report"],
            inputs=[SlotIDReference.Input("reference", tooltip="From Load Reference Clip or Find Person in Frames.")],
            outputs=[
                io.Image.Output("contact_sheet", tooltip="Frames that were looked at, with scores and reasons."),
                io.Image.Output("coverage_plot", tooltip="Angles, expression, light and size over the clip."),
                io.String.Output("missing", tooltip="What the clip lacks, a sentence a line; empty when nothing."),
                io.String.Output("data", tooltip="The coverage as JSON."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, reference: Reference | None) -> io.NodeOutput:
        reference = need_reference(reference)
        sheet = from_bytes(contact_sheet(reference.analysis, reference.frames_FHWC))
        plot = from_bytes(coverage_plot(reference.analysis, reference.fps))
        coverage = reference.analysis.coverage
        preview = ui.PreviewImage(sheet, cls=cls)
        preview.values += ui.PreviewImage(plot, cls=cls).values  # two pictures of different size
        return io.NodeOutput(
            sheet,
            plot,
            "\n".join(coverage.missing),
            json.dumps(coverage.to_dict()),
            ui=preview,
        )
