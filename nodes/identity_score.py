"""Identity Score."""

import json
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io, ui
from torch import Tensor

from ..slotid_core.reference import Reference, choose_backend, score_identity, score_plot, score_sheet
from .pictures import from_bytes, to_bytes
from .sockets import CATEGORY, SlotIDReference, download_input, need_reference


class SlotIDIdentityScore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDIdentityScore",
            display_name="Identity Score",
            category=CATEGORY,
            description="Measures how much the face in generated frames is the reference's, whatever method made them.",
            search_aliases=[
                "face similarity",
                "identity metric",
                "compare faces",
                "evaluate",
                "ArcFace score",
                "FaceSim",
            ],
            inputs=[
                io.Image.Input("frames", tooltip="Generated frames, from any method."),
                SlotIDReference.Input(
                    "reference", tooltip="The person, from Load Reference Clip or Find Person in Frames."
                ),
                io.Image.Input(
                    "other_people",
                    optional=True,
                    tooltip="Frames or pictures of anybody else: what they reach is the score's 0. Without them it is "
                    "what two people usually have with this face backend.",
                ),
                io.Combo.Input(
                    "faces",
                    options=["auto", "insightface", "dlib"],
                    tooltip="Who compares the faces; need not be who found the reference. auto: InsightFace where its "
                    "models are, else dlib. Scores of different backends don't compare.",
                ),
                io.Int.Input(
                    "every",
                    default=1,
                    min=1,
                    max=64,
                    advanced=True,
                    tooltip="Look at every so-manieth frame only. A frame takes some 0.1 to 0.3 s with dlib.",
                ),
                download_input(),
            ],
            outputs=[
                io.Float.Output(
                    "score",
                    tooltip="0: as another person, 1: as held-out frames of the clip. Not clamped. nan, no number, "
                    "where no frame shows a face.",
                ),
                io.Float.Output("similarity", tooltip="The bare mean cosine of the frames with a face."),
                io.Image.Output(
                    "plot", tooltip="Similarity by frame with ceiling and floor, by yaw and by expression."
                ),
                io.Image.Output(
                    "sheet", tooltip="The frames that are least like the person, and those without a face."
                ),
                io.String.Output("report", tooltip="Everything that was measured, as JSON."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        frames: Tensor,
        reference: Reference,
        faces: str,
        every: int,
        download: bool,
        other_people: Tensor | None = None,
    ) -> io.NodeOutput:
        bar = comfy.utils.ProgressBar(len(frames))

        def progress(done: int, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, max(1, total))

        reference = need_reference(reference)
        backend = choose_backend(
            faces,
            frames=len(frames),
            offered=("insightface", "dlib"),
            insightface_folder=Path(folder_paths.models_dir) / "insightface",
            download=download,
            progress=progress,
        )
        frames_FHWC = to_bytes(frames)
        score = score_identity(
            frames_FHWC,
            reference,
            backend,
            other_people_FHWC=None if other_people is None else to_bytes(other_people),
            every=every,
            progress=progress,
        )
        plot = from_bytes(score_plot(score))
        sheet = from_bytes(score_sheet(score, frames_FHWC, reference))
        preview = ui.PreviewImage(plot, cls=cls)
        preview.values += ui.PreviewImage(sheet, cls=cls).values  # two pictures of different size
        return io.NodeOutput(score.score, score.similarity, plot, sheet, json.dumps(score.to_dict()), ui=preview)
