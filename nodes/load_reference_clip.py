"""Load Reference Clip."""

import math

import comfy.model_management
import comfy.utils
from comfy_api.latest import io

from ..slotid_core.reference import read_clip, square_crop
from .find_person import find_person, person_inputs, square_clip
from .folders import input_video_path, input_videos
from .node_text import show_text
from .sockets import CATEGORY, SlotIDReference, box_from, box_inputs

_OFF = "off"


class SlotIDLoadReferenceClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDLoadReferenceClip",
            display_name="Load Reference Clip",
            category=CATEGORY,
            description="Reads a stretch of a video, finds the person, and cuts a square clip that follows the face.",
            search_aliases=["reference video", "identity clip", "load video", "face video", "track face"],
            inputs=[
                io.Combo.Input(
                    "video",
                    options=input_videos(),
                    upload=io.UploadType.video,
                    tooltip="A video of one person who turns, smiles and talks, in the input folder.",
                ),
                io.Float.Input(
                    "start", default=0.0, min=0.0, max=86400.0, step=0.1, tooltip="Where to begin, in seconds."
                ),
                io.Int.Input(
                    "frame_count",
                    default=65,
                    min=5,
                    max=1025,
                    step=4,
                    tooltip="Frames to take: 4n+1, as Wan's VAE needs. 65 (4 seconds) is what Slot-ID is trained with. "
                    "A clip that is too short is an error; nothing is padded.",
                ),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=1.0,
                    max=120.0,
                    step=0.5,
                    tooltip="Frames per second to take, whatever the file has. Wan is trained at 16.",
                ),
                io.Int.Input(
                    "size",
                    default=256,
                    min=64,
                    max=1024,
                    step=16,
                    tooltip="Side of the square clip in pixels. 256 is what Slot-ID is trained with.",
                ),
                io.Int.Input(
                    "max_side",
                    default=1280,
                    min=64,
                    max=8192,
                    step=16,
                    advanced=True,
                    tooltip="Larger videos are shrunk while they are read, so that neither side is longer than this. "
                    "65 whole frames of 4K would take 6.5 GB. The box is in pixels of the shrunk frames.",
                ),
                *box_inputs(
                    "With faces on auto it takes the place of a face backend: one box for the whole clip.",
                    "faces are searched, or with faces off the largest centred square is taken",
                ),
                *person_inputs(
                    ["auto", "insightface", "dlib", _OFF],
                    "How faces are found. auto: the box if there is one, else InsightFace where its models are, else "
                    "dlib; the text on the node says which. off: nothing is searched, the clip is the square around "
                    "the box or the largest centred one.",
                ),
            ],
            outputs=[
                io.Image.Output("clip", tooltip="The square clip, for Encode Slot-ID."),
                io.Image.Output("frames", tooltip="The same frames whole, for Extract Portrait."),
                io.String.Output("info", tooltip="What was read and who was found; what the clip lacks."),
                SlotIDReference.Output(
                    "reference",
                    tooltip="For Extract Portrait, Encode Slot-ID and Reference Report; nothing with faces off.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        video: str,
        start: float,
        frame_count: int,
        fps: float,
        size: int,
        max_side: int,
        box_x: int,
        box_y: int,
        box_width: int,
        box_height: int,
        faces: str,
        person_index: int,
        on_break: str,
        margin: float,
        download: bool,
    ) -> io.NodeOutput:
        bar = comfy.utils.ProgressBar(frame_count)

        def progress(done: int, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)

        clip = read_clip(
            input_video_path(video), start=start, frames=frame_count, fps=fps, max_side=max_side, progress=progress
        )
        box = box_from(box_x, box_y, box_width, box_height)
        if faces == _OFF:
            info = clip.describe()
            frames_FHWC = clip.as_float()
            return io.NodeOutput(square_crop(frames_FHWC, box, size), frames_FHWC, info, None, ui=show_text(cls, info))
        reference = find_person(
            clip.frames_FHWC,
            fps=fps,
            faces=faces,
            box=box,
            landmarks=None,
            mask=None,
            person_index=person_index,
            on_break=on_break,
            margin=margin,
            download=download,
            offered=("insightface", "dlib", "box"),
        )
        info = f"{clip.describe()}\n{reference.analysis.describe()}"
        return io.NodeOutput(square_clip(reference, size), clip.as_float(), info, reference, ui=show_text(cls, info))

    @classmethod
    def fingerprint_inputs(cls, video: str | None, **_: object) -> float:
        if video is None:  # linked: not equal to itself, so it runs anew
            return math.nan
        return input_video_path(video).stat().st_mtime

    @classmethod
    def validate_inputs(cls, video: str | None) -> bool | str:
        # With this method the server does not insist on the list, so a file uploaded a moment ago is accepted.
        if video is None:  # linked: known only when it runs
            return True
        return input_video_path(video).is_file() or f"There is no video {video!r} in the input folder; upload it."
