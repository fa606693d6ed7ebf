"""One video to tensors: the reference pipeline that the nodes use, with their defaults, and a target beside it.

Shape letters: F frames, H W height and width, C colours or latent channels, T h w latent frames, height, width,
L text tokens, E text-token width.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from slotid_core.errors import SlotIDError
from slotid_core.latents import shuffle_frames
from slotid_core.reference import (
    Analysis,
    SeveralPeopleError,
    UnusableClipError,
    analyse,
    choose_backend,
    crop_along,
    head_portraits,
    read_clip,
)
from slotid_core.reference.crop import resize
from slotid_core.reference.faces.face import FaceBackend
from slotid_core.reference.track import People, centre_and_size
from training.data.augment import change_colours, change_path, draw_change
from training.data.masks import mask_at
from training.data.sources import PersonHint, Reject, SourceVideo, UnusableError
from training.data.windows import Windows, candidate_windows, longest_length, nearest_size, target_box
from training.data.world import drawn_pictures
from training.settings import DataSettings, Settings
from training.text import most_text_tokens, open_text_encoder

MAX_SIDE = 1280
"""As in Load Reference Clip: larger videos are shrunk while they are read."""
_READ = 2
"""A video is read for this many times the frames of target and reference: the person may come late or be cut off."""
_TRIES = 4
"""Pairs of windows that are tried before a video is left out."""
_THUMBNAIL = 112


@dataclass(frozen=True, kw_only=True)
class PreparedClip:
    """What is stored of one video."""

    tensors: dict[str, Tensor]
    """``target`` and ``text`` in bfloat16, ``reference.0`` ... and ``portrait`` in float32, ``thumbnail.*`` JPEGs."""
    facts: dict[str, Any]
    """Plain data: the fields of an Entry that this clip decides."""


class Bench:
    """What turns videos into tensors: face backend, VAE and text encoder, loaded when first needed, once a process.

    Args:
        faces: finds faces; the one that the settings name where left out. Drawn people are known without any.
        device: of VAE and text encoder; a GPU where there is one.
    """

    def __init__(self, settings: Settings, *, faces: FaceBackend | None = None, device: torch.device | None = None):
        self.settings = settings
        if faces is None and settings.data.layout != "world":
            faces = choose_backend(settings.data.faces, frames=1, offered=("insightface", "dlib"))
        self.faces = faces
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def faces_name(self) -> str:
        """Of the face backend, as the manifest names it."""
        return "none: drawn" if self.faces is None else self.faces.name

    @cached_property
    def vae(self):
        """diffusers' Wan VAE."""
        from training.wan_diffusers import load_vae, tiny_vae

        path = self.settings.model.vae
        return (tiny_vae() if path == "tiny" else load_vae(path)).to(self.device)

    @cached_property
    def text(self):
        """A :class:`training.text.TextEncoder`."""
        return open_text_encoder(self.settings, self.device)

    def encode(self, frames_FHWC: Tensor) -> Tensor:
        """Pixels in [0, 1] to normalised latents ``[C, T, h, w]``, float32, on the CPU."""
        from training.wan_diffusers import encode_frames

        latents_CThw = encode_frames(self.vae, frames_FHWC)[0].cpu()
        if not bool(latents_CThw.isfinite().all()):
            raise SlotIDError(f"The VAE {self.settings.model.vae} gives NaN or infinity. Fetch the file again.")
        return latents_CThw


def prepare_clip(bench: Bench, video: SourceVideo) -> PreparedClip | Reject:
    """Tensors of one video, or why there are none."""
    try:
        return _prepare_drawn(bench, video) if bench.faces is None else _prepare(bench, video)
    except (UnusableError, UnusableClipError) as error:
        return Reject(id=video.id, reason=error.reason, detail=str(error))


def _prepare(bench: Bench, video: SourceVideo) -> PreparedClip:
    data = bench.settings.data
    hint = None if video.person_hint is None else video.person_hint.read()
    start_s, frames_FHWC = _read(video, hint, data.fps, _READ * (data.reference_frames + max(data.lengths)))
    _check_length("It", len(frames_FHWC), data)
    whole = _follow(frames_FHWC, bench.faces, hint, start_s, data.fps, "longest part")
    stretch = _stretch(whole)
    _check_length("The longest part that shows the person", len(stretch), data)
    windows, analysis = _windows(bench, frames_FHWC, whole, stretch, hint, start_s)
    reference_FHWC = frames_FHWC[windows.reference.start : windows.reference.stop]
    target_FHWC = _target(bench, frames_FHWC, windows, whole)
    masks_1HW = _mask(reference_FHWC, analysis, hint, start_s + windows.reference.start / data.fps, data.fps)
    try:
        portrait = head_portraits(reference_FHWC, analysis, masks_FHW=masks_1HW, size=data.portrait_side)[0]
    except SlotIDError as error:
        raise UnusableError("no portrait", str(error)) from error

    references = [_reference(bench, reference_FHWC, analysis, video.id, v) for v in range(data.augment.variants)]
    caption = bench.text.encode(video.caption, most_text_tokens(bench.settings))
    tensors = {
        "target": bench.encode(target_FHWC).to(torch.bfloat16),
        "portrait": bench.encode(portrait.image_HWC.unsqueeze(0)),
        "text": caption.text_LE,
        **{f"reference.{v}": bench.encode(_ordered(bench, frames)) for v, frames in enumerate(references)},
    }

    def seconds(window: range) -> tuple[float, float]:
        return start_s + window.start / data.fps, start_s + window.stop / data.fps

    facts = {
        "target_shape": tuple(tensors["target"].shape[1:]),
        "reference_shape": tuple(tensors["reference.0"].shape[1:]),
        "portrait_shape": tuple(tensors["portrait"].shape[1:]),
        "variants": data.augment.variants,
        "text_tokens": len(caption.text_LE),
        "text_cut": caption.cut,
        "target_seconds": seconds(windows.target),
        "reference_seconds": seconds(windows.reference),
        "windows": windows.kind,
        "portrait_second": seconds(windows.reference)[0] + portrait.frame_index / data.fps,
        "coverage": analysis.coverage.to_dict(),
    }
    tensors |= {
        "thumbnail.reference": _jpeg(references[0][len(references[0]) // 2]),
        "thumbnail.portrait": _jpeg(portrait.image_HWC),
        "thumbnail.target": _jpeg(target_FHWC[len(target_FHWC) // 2]),
    }
    return PreparedClip(tensors=tensors, facts=facts)


def _prepare_drawn(bench: Bench, video: SourceVideo) -> PreparedClip:
    """The whole clip is the reference, and the target of the person's other clips."""
    clip_FHWC, portrait_HWC = drawn_pictures(video, bench.settings)
    shuffled = bench.settings.model.slotid_config().clip_order == "shuffled"
    # A third of the time on a CPU, and latents within a hundredth of their spread.
    half = bench.settings.memory.precision == "bf16"
    with torch.autocast(bench.device.type, torch.bfloat16, enabled=half):
        latents_CThw = bench.encode(clip_FHWC)
        portrait_C1hw = bench.encode(portrait_HWC.unsqueeze(0))
        reference_CThw = bench.encode(_ordered(bench, clip_FHWC)) if shuffled else latents_CThw
    caption = bench.text.encode(video.caption, most_text_tokens(bench.settings))
    tensors = {
        "target": latents_CThw.to(torch.bfloat16),
        "portrait": portrait_C1hw,
        "text": caption.text_LE,
        "reference.0": reference_CThw,
        "thumbnail.reference": _jpeg(clip_FHWC[0]),
        "thumbnail.portrait": _jpeg(portrait_HWC),
        "thumbnail.target": _jpeg(clip_FHWC[len(clip_FHWC) // 2]),
    }
    seconds = (0.0, len(clip_FHWC) / bench.settings.data.fps)
    facts = {
        "target_shape": tuple(tensors["target"].shape[1:]),
        "reference_shape": tuple(tensors["reference.0"].shape[1:]),
        "portrait_shape": tuple(tensors["portrait"].shape[1:]),
        "variants": 1,
        "text_tokens": len(caption.text_LE),
        "text_cut": caption.cut,
        "target_seconds": seconds,
        "reference_seconds": seconds,
        "windows": "same",
        "portrait_second": 0.0,
        "coverage": None,
    }
    return PreparedClip(tensors=tensors, facts=facts)


def _read(video: SourceVideo, hint: PersonHint | None, fps: float, most: int) -> tuple[float, Tensor]:
    """Where reading began, and frames from there on; with a hint, those of its time."""
    start_s = 0.0
    if hint is not None:
        start_s, end_s = hint.boxes[0].second, hint.boxes[-1].second
        most = min(most, int((end_s - start_s) * fps) + 1)
    try:
        clip = read_clip(
            video.path, start=start_s, frames=max(5, most // 4 * 4 + 1), fps=fps, max_side=MAX_SIDE, or_fewer=True
        )
    except SlotIDError as error:
        raise UnusableError("unreadable", str(error)) from error
    return start_s, clip.frames_FHWC


def _check_length(what: str, frames: int, data: DataSettings) -> None:
    needed = max(data.reference_frames, min(data.lengths))
    if frames < needed:
        raise UnusableError(
            "too short",
            f"{what} has {frames} frames at {data.fps:g} fps, and {needed} are needed (data.reference_frames is "
            f"{data.reference_frames}, the shortest of data.lengths {min(data.lengths)}).",
        )


def _follow(
    frames_FHWC: Tensor, faces: FaceBackend, hint: PersonHint | None, start_s: float, fps: float, on_break: str
) -> Analysis:
    """The one person of the clip, or the one the hint says."""
    try:
        analysis = analyse(frames_FHWC, faces, fps=fps, on_break=on_break)
        if hint is None:
            return analysis
        people, followed = analysis.people, analysis.person
    except SeveralPeopleError as error:
        if hint is None:
            raise
        people, followed = error.people, None
    number = _hinted(people, hint, start_s, fps, height=frames_FHWC.shape[1], width=frames_FHWC.shape[2])
    if number == followed:
        return analysis
    return analyse(frames_FHWC, faces, fps=fps, on_break=on_break, person_index=number)


def _hinted(people: People, hint: PersonHint, start_s: float, fps: float, *, height: int, width: int) -> int:
    """Number of the person whose faces lie in the hint's boxes most often."""

    def inside(index: int, face) -> bool:
        second = start_s + index / fps
        box = min(hint.boxes, key=lambda box: abs(box.second - second)).box_xyxy
        (x, y), _ = centre_and_size(face)
        return box[0] <= x / width <= box[2] and box[1] <= y / height <= box[3]

    counts = [sum(inside(index, face) for index, face in person.faces.items()) for person in people.persons]
    if not max(counts):
        raise UnusableError(
            "no face", f"No face was found where the dataset says that the person is (of {len(counts)})."
        )
    return counts.index(max(counts)) + 1


def _stretch(analysis: Analysis) -> range:
    """The longest part, with the frames that were left out only to make it 4n+1."""
    rounded = sum(frame.dropped == "rounded to 4n+1" for frame in analysis.frames)
    return range(analysis.kept.start, analysis.kept.stop + rounded)


def _windows(
    bench: Bench, frames_FHWC: Tensor, whole: Analysis, stretch: range, hint: PersonHint | None, start_s: float
) -> tuple[Windows, Analysis]:
    """Reference and target, and the analysis of the reference by itself, as a node does it."""
    data = bench.settings.data
    faces = [frame.index for frame in whole.frames if frame.face is not None]
    target = longest_length(stretch, data.lengths)
    assert target is not None, "lengths were checked"
    problem = "The face is not found in two frames that are a reference apart."
    for windows in candidate_windows(stretch, faces, reference=data.reference_frames, target=target)[:_TRIES]:
        reference_FHWC = frames_FHWC[windows.reference.start : windows.reference.stop]
        second = start_s + windows.reference.start / data.fps
        try:
            return windows, _follow(reference_FHWC, bench.faces, hint, second, data.fps, "refuse")
        except UnusableClipError as error:
            problem = str(error)
    raise UnusableError("broken up", problem)


def _target(bench: Bench, frames_FHWC: Tensor, windows: Windows, whole: Analysis) -> Tensor:
    """``[F, h, w, 3]`` float in [0, 1]."""
    height, width = frames_FHWC.shape[1:3]
    size = nearest_size(height, width, bench.settings.data.sizes)
    boxes = [whole.frames[i].face.box_xyxy for i in windows.target if whole.frames[i].face is not None]
    if not boxes:
        raise UnusableError("face lost", f"The face was found in none of the target's {len(windows.target)} frames.")
    box = target_box(height, width, size, boxes)
    if isinstance(box, str):
        raise UnusableError(box, f"Of a picture of {width}x{height} a target of {size[1]}x{size[0]} was wanted: {box}.")
    return resize(box.cut(frames_FHWC[windows.target.start : windows.target.stop]).float() / 255, size)


def _reference(bench: Bench, frames_FHWC: Tensor, analysis: Analysis, clip: str, variant: int) -> Tensor:
    """One version of the square clip, ``[F, side, side, 3]`` float in [0, 1]."""
    data, seed = bench.settings.data, bench.settings.data.seed
    change = draw_change(data.augment, seed=seed, clip=clip, variant=variant)
    path = change_path(analysis.path, change, height=frames_FHWC.shape[1], width=frames_FHWC.shape[2])
    return change_colours(crop_along(frames_FHWC, path, data.reference_side), change)


def _mask(
    frames_FHWC: Tensor, analysis: Analysis, hint: PersonHint | None, start_s: float, fps: float
) -> Tensor | None:
    """The dataset's own mask of the best portrait's frame, ``[1, H, W]``; ``None``: the built-in matte."""
    if hint is None or not analysis.candidates:
        return None
    best = analysis.candidates[0]
    mask_HW = mask_at(hint, start_s + best.index / fps, best.face.box_xyxy, *frames_FHWC.shape[1:3])
    return None if mask_HW is None else mask_HW.unsqueeze(0)


def _ordered(bench: Bench, frames_FHWC: Tensor) -> Tensor:
    # As slotid_core.identify does it: ablation B shuffles pixels.
    shuffled = bench.settings.model.slotid_config().clip_order == "shuffled"
    return shuffle_frames(frames_FHWC) if shuffled else frames_FHWC


def _jpeg(picture_HWC: Tensor) -> Tensor:
    """A small JPEG file as ``[bytes]`` uint8."""
    from PIL import Image

    picture = Image.fromarray((picture_HWC * 255).round().to(torch.uint8).numpy())
    picture.thumbnail((2 * _THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
