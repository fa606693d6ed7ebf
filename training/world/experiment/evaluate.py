"""How much of held-out people a set of weights shows: videos of them, read by the probe.

Each person is shown to Slot-ID in one clip and one portrait, and made to do what the caption of their other clip says;
the two share neither action, background, clothing nor light.

Letters: N people, I traits, B rows, C latent channels, F frames, H W height and width, T h w latent frames, height and
width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from slotid_core.checkpoint import SlotIDWeights
from slotid_core.demo_text import embed_prompt
from slotid_core.injection import Injection
from slotid_core.latents import shuffle_frames
from slotid_core.types import IdentityEmbedding, Routing
from training.generate import GenerateConfig, Velocity, generate
from training.sample_args import DEMO
from training.wan_diffusers import AutoencoderKLWan, WanTransformer3DModel
from training.wan_injection import inject
from training.world.models.clips import decode_clips, encode_clips
from training.world.models.device import half
from training.world.models.probe import Measured, Probe, measure, traits_of
from training.world.pictures import FRAMES, SIZE, WorldClip, picture_path, read_pictures
from training.world.scenario import SLOTS, labels

SAMPLING = {name: DEMO[name] for name in ("steps", "shift", "guidance", "identity_guidance")}
"""Of all videos, the demo's, as ``GenerateConfig`` takes it; without an identity there is nothing to guide by apart."""


def _together(device: torch.device) -> int:
    """Videos that are made at once; each is what it would be by itself."""
    return 20 if device.type == "cpu" else 100


@dataclass(frozen=True, kw_only=True)
class People:
    """Held-out people, ready to be shown: everything that does not depend on the weights."""

    clips: list[tuple[WorldClip, WorldClip]]
    """Of each person the clip that is the reference, and the one whose caption is asked for."""
    reference_NFHW3: Tensor
    """uint8, as drawn."""
    reference_NCThw: Tensor
    portrait_NCThw: Tensor
    wanted_NCThw: Tensor
    wanted_NFHW3: Tensor
    """The other clip after the VAE, uint8: what could be reached at best."""
    seen_NFHW3: Tensor
    """The reference after the VAE, uint8."""

    @property
    def traits_NI(self) -> Tensor:
        return torch.stack([traits_of(reference.identity) for reference, _ in self.clips])

    @property
    def said(self) -> list[dict[str, int]]:
        return [labels(wanted.scenario) for _, wanted in self.clips]


def load_people(folder: Path, vae: AutoencoderKLWan, clips: Sequence[tuple[WorldClip, WorldClip]]) -> People:
    """Read what was drawn of people.

    Args:
        folder: of all pictures.
        clips: as :attr:`People.clips`.
    """
    drawn = [read_pictures(picture_path(folder, reference)) for reference, _ in clips]
    reference_NFHW3, portraits_NHW3 = (torch.stack([d[name] for d in drawn]) for name in ("clip", "portrait"))
    others_NFHW3 = torch.stack([read_pictures(picture_path(folder, other))["clip"] for _, other in clips])
    reference_NCThw, wanted_NCThw = encode_clips(vae, reference_NFHW3), encode_clips(vae, others_NFHW3)
    return People(
        clips=list(clips),
        reference_NFHW3=reference_NFHW3,
        reference_NCThw=reference_NCThw,
        portrait_NCThw=encode_clips(vae, portraits_NHW3[:, None]),
        wanted_NCThw=wanted_NCThw,
        wanted_NFHW3=decode_clips(vae, wanted_NCThw),
        seen_NFHW3=decode_clips(vae, reference_NCThw),
    )


@torch.no_grad()
def embed(
    weights: SlotIDWeights, people: People, vae: AutoencoderKLWan, portraits_of: Callable[[int], int] = lambda n: n
) -> tuple[IdentityEmbedding, Routing | None]:
    """All people's identities, and what the slots read where there is routing.

    Args:
        portraits_of: whose portrait is shown with person n's clip.
    """
    clips_NCThw = people.reference_NCThw
    if weights.model.config.clip_order == "shuffled":
        shuffled = [_shuffled(frames_FHW3) for frames_FHW3 in people.reference_NFHW3]
        clips_NCThw = encode_clips(vae, torch.stack(shuffled))
    portraits_NCThw = people.portrait_NCThw[[portraits_of(n) for n in range(len(clips_NCThw))]]
    encoding = weights.model.encode(clips_NCThw, portraits_NCThw)
    return encoding.embedding, encoding.routing


def _shuffled(frames_FHW3: Tensor) -> Tensor:
    return (shuffle_frames(frames_FHW3.float() / 255) * 255).round().to(torch.uint8)


@torch.no_grad()
def make_videos(
    transformer: WanTransformer3DModel, vae: AutoencoderKLWan, people: People, weights: SlotIDWeights | None,
    embedding: IdentityEmbedding | None, *, level: float = 1.0,
) -> Tensor:  # fmt: skip
    """Everybody doing what their other clip's caption says, uint8 ``[N, F, H, W, 3]``; without weights: nobody in
    particular. Person n has noise n, whatever the weights.

    Args:
        level: of the noise up to which the other clip itself is brought, to be finished from there; 1 is noise alone.
    """
    videos, together = [], _together(transformer.device)
    for start in tqdm(range(0, len(people.clips), together), desc="videos", unit=f"{together} videos"):
        rows = range(start, min(start + together, len(people.clips)))
        context_BLE = torch.cat([embed_prompt(people.clips[n][1].caption) for n in rows]).to(transformer.device)
        config = GenerateConfig(width=SIZE, height=SIZE, frames=FRAMES, seed=start, **SAMPLING)
        with ExitStack() as stack:
            if weights is None:
                config = replace(config, identity_guidance=None)
                patched = partial(_plain_velocity, transformer)
            else:
                injection = Injection(weights.model, _rows(embedding, rows))
                patched = stack.enter_context(inject(transformer, [injection], weights.lora))
            stack.enter_context(half(transformer.device))
            latents_BCThw = generate(
                partial(_velocity, patched, transformer.dtype),
                config,
                positive_BLE=context_BLE,
                negative_BLE=torch.zeros_like(context_BLE),
                clean_BCThw=people.wanted_NCThw[rows],
                level=level,
            )
        videos.append(decode_clips(vae, latents_BCThw))
    return torch.cat(videos)


def _plain_velocity(
    transformer: WanTransformer3DModel, latents_BCThw: Tensor, sigma_B: Tensor, text_BLE: Tensor, _: Tensor
) -> Tensor:
    timestep_B = 1000 * sigma_B.to(latents_BCThw.device)
    return transformer(latents_BCThw, timestep_B, text_BLE, return_dict=False)[0]


def _velocity(patched: Velocity, dtype: torch.dtype, latents_BCThw: Tensor, *others: Tensor) -> Tensor:
    """In the backbone's numbers, as in training; the sampler adds up in float32."""
    return patched(latents_BCThw.to(dtype), *others).float()


def _rows(embedding: IdentityEmbedding, rows: range) -> IdentityEmbedding:
    return IdentityEmbedding(**{name: tensor[rows.start : rows.stop] for name, tensor in vars(embedding).items()})


def numbers(probe: Probe, people: People, videos_NFHW3: Tensor) -> dict[str, list]:
    """What is kept of each person's video: the traits that are read from it, how alike the face is to the reference's,
    which slots of the caption it follows, and how much it shakes."""
    measured = measure(probe, videos_NFHW3)
    reference = measure(probe, people.seen_NFHW3)
    return {
        "traits": _rounded(measured.traits_BI),
        "face": _rounded((measured.face_BE * reference.face_BE).sum(-1)),
        "follows": _follows(measured, people.said),
        "jitter": _rounded(jitter(videos_NFHW3)),
        "sha256": [video_id(video.numpy()) for video in videos_NFHW3],
    }


def video_id(video_FHW3: np.ndarray) -> str:
    """Tells a video from all others."""
    return hashlib.sha256(video_FHW3.tobytes()).hexdigest()[:12]


def stranger_likeness(probe: Probe, people: People) -> list[float]:
    """The floor: real videos of somebody else, held against this person's reference."""
    wanted, reference = measure(probe, people.wanted_NFHW3), measure(probe, people.seen_NFHW3)
    return _rounded((wanted.face_BE.roll(1, 0) * reference.face_BE).sum(-1))


def _follows(measured: Measured, said: list[dict[str, int]]) -> list[dict[str, bool]]:
    best = {slot: logits.argmax(-1).tolist() for slot, logits in measured.slots.items()}
    return [{slot: best[slot][n] == words[slot] for slot in SLOTS} for n, words in enumerate(said)]


def jitter(videos_NFHW3: Tensor) -> Tensor:
    """``[N]``: mean third difference of the pixels in time, 0 to 1 scale; motion that is smooth has little of it."""
    return (videos_NFHW3.float() / 255).diff(n=3, dim=1).abs().mean((1, 2, 3, 4))


def _rounded(values: Tensor) -> list:
    return torch.round(values.float(), decimals=4).tolist()


def routing_figures(routing: Routing) -> dict[str, float]:
    """How the slots share a clip out: entropy of what one slot reads (1 is evenly everywhere), and how much of the same
    two slots read (1 is all)."""
    read_NSL = routing.weights_BSTHW.flatten(2)
    even = torch.tensor(float(read_NSL.shape[-1])).log()
    entropy = -(read_NSL * read_NSL.clamp(min=1e-12).log()).sum(-1) / even
    figures = {"entropy": entropy.mean().item()}
    if read_NSL.shape[1] > 1:
        figures["overlap"] = routing.overlap().mean().item()
    return {name: round(value, 4) for name, value in figures.items()}
