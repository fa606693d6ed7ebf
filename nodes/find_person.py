"""Find Person in Frames, and what it shares with Load Reference Clip."""

from collections.abc import Sequence
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io
from torch import Tensor

from ..slotid_core.errors import SlotIDError
from ..slotid_core.reference import (
    Box,
    Reference,
    SeveralPeopleError,
    analyse,
    choose_backend,
    crop_along,
    people_sheet,
)
from .node_text import show_text
from .pictures import to_bytes
from .sockets import CATEGORY, SlotIDReference, download_input

FaceLandmarks = io.Custom("FACE_LANDMARKS")
"""What ComfyUI's own MediaPipe Face Landmarker gives."""


def person_inputs(backends: list[str], tooltip: str) -> list[io.Input]:
    """Which faces, whose, and what to do when they are not in the whole clip."""
    return [
        io.Combo.Input("faces", options=backends, tooltip=tooltip),
        io.Int.Input(
            "person_index",
            default=0,
            min=0,
            max=64,
            tooltip="Which person, numbered from 1 by how much they dominate the clip. 0: the only one who does; if "
            "several could be meant, the run stops and shows them with their numbers.",
        ),
        io.Combo.Input(
            "on_break",
            options=["refuse", "longest part"],
            tooltip="When the person is not in the whole clip (hard cut, another person, a long gap): stop and say "
            "where, or take the longest part of 4n+1 frames.",
        ),
        io.Float.Input(
            "margin",
            default=1.8,
            min=1.0,
            max=4.0,
            step=0.05,
            advanced=True,
            tooltip="Side of the square clip as a multiple of the face: room for hair and shoulders.",
        ),
        download_input(),
    ]


def find_person(
    frames_FHWC: Tensor,
    *,
    fps: float,
    faces: str,
    box: Box | None,
    landmarks: dict | None,
    mask: Tensor | None,
    person_index: int,
    on_break: str,
    margin: float,
    download: bool,
    offered: Sequence[str],
) -> Reference:
    """Analyse uint8 frames with progress and interruption; several people are shown on the node before the error.

    Args:
        offered: the face backends that the node has inputs for.
    """
    count = frames_FHWC.shape[0]
    if count == 0:
        raise SlotIDError("Got no frames to find a person in. Look at the node that cuts them.")
    bar = comfy.utils.ProgressBar(count)

    def progress(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, max(1, total))

    backend = choose_backend(
        faces,
        frames=count,
        offered=offered,
        landmarks=landmarks,
        box=box,
        mask=mask,
        insightface_folder=Path(folder_paths.models_dir) / "insightface",
        download=download,
        progress=progress,
    )
    try:
        analysis = analyse(
            frames_FHWC,
            backend,
            fps=fps,
            person_index=person_index,
            on_break=on_break,
            margin=margin,
            progress=progress,
        )
    except SeveralPeopleError as error:
        from PIL import Image

        sheet = Image.fromarray(people_sheet(error.people, frames_FHWC).numpy())
        bar.update_absolute(1, 1, ("JPEG", sheet, max(sheet.size)))
        raise
    return Reference(frames_FHWC=frames_FHWC, fps=fps, analysis=analysis)


def square_clip(reference: Reference, size: int) -> Tensor:
    """The kept frames along the stable path, ``[F, size, size, 3]`` in [0, 1]."""
    kept = reference.analysis.kept
    return crop_along(reference.frames_FHWC[kept.start : kept.stop], reference.analysis.path, size)


def _one_a_frame(landmarks: dict | None) -> list[str]:
    """ComfyUI's landmark node gives the first face of a frame alone unless told otherwise: nobody else is seen then."""
    if landmarks is None or max(map(len, landmarks["frames"])) > 1:
        return []
    return ["No frame had more than one face among the landmarks: with others in the clip set num_faces to 0."]


class SlotIDFindPerson(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDFindPerson",
            display_name="Find Person in Frames",
            category=CATEGORY,
            description="Finds and follows one person in any frames, also by ComfyUI's face landmarks or by a mask.",
            search_aliases=["track face", "crop face", "face landmarks", "mediapipe", "stabilize face"],
            inputs=[
                io.Image.Input("frames", tooltip="4n+1 frames of a clip, in order."),
                FaceLandmarks.Input(
                    "face_landmarks",
                    optional=True,
                    tooltip="From ComfyUI's Detect Face Landmarks (MediaPipe) on these very frames: the way without "
                    "any non-commercial weights.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the face is, of any node that segments: 1 on the head, one mask for all frames or "
                    "one a frame; an empty one says that the person is not there. Nothing is searched then.",
                ),
                io.Float.Input(
                    "fps", default=16.0, min=1.0, max=120.0, step=0.5, tooltip="Frames per second of these frames."
                ),
                io.Int.Input(
                    "size", default=256, min=64, max=1024, step=16, tooltip="Side of the square clip in pixels."
                ),
                *person_inputs(
                    ["auto", "mediapipe", "insightface", "dlib"],
                    "auto: connected landmarks or mask, else InsightFace where its models are, else dlib; the text on "
                    "the node says which.",
                ),
            ],
            outputs=[
                io.Image.Output("clip", tooltip="The square clip, for Encode Slot-ID."),
                SlotIDReference.Output(
                    "reference", tooltip="For Extract Portrait, Encode Slot-ID and Reference Report."
                ),
                io.String.Output("info", tooltip="Who was found, what the clip shows and what it lacks."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        frames: Tensor,
        fps: float,
        size: int,
        faces: str,
        person_index: int,
        on_break: str,
        margin: float,
        download: bool,
        face_landmarks: dict | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        reference = find_person(
            to_bytes(frames),
            fps=fps,
            faces=faces,
            box=None,
            landmarks=face_landmarks,
            mask=mask,
            person_index=person_index,
            on_break=on_break,
            margin=margin,
            download=download,
            offered=("mediapipe", "insightface", "dlib", "mask"),
        )
        info = "\n".join([reference.analysis.describe(), *_one_a_frame(face_landmarks)])
        return io.NodeOutput(square_clip(reference, size), reference, info, ui=show_text(cls, info))
