"""What training prepares of a clip is what the nodes make of it: the same crop, latents and identity tokens."""

import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from slotid_core.checkpoint import load_weights
from training.data.clip import Bench, PreparedClip, prepare_clip
from training.data.sources import SourceVideo
from training.settings_file import from_dict

FRAMES, FPS, SIDE, PORTRAIT_SIDE = 17, 16.0, 96, 128
TOLERANCE = 1e-3


@dataclass
class Reading:
    """A clip on its way to an identity."""

    crop_FHWC: Tensor
    portrait_HWC: Tensor
    clip_latents: Tensor
    portrait_latents: Tensor
    clip_tokens: Tensor
    portrait_tokens: Tensor


def differences(a: Reading, b: Reading) -> dict[str, float]:
    """The largest anywhere; tokens are as large as 1, latents and pixels too."""
    assert {name: value.shape for name, value in vars(a).items()} == {n: value.shape for n, value in vars(b).items()}
    return {name: float((value - vars(b)[name].detach()).abs().max()) for name, value in vars(a).items()}


@pytest.fixture(scope="module")
def heads(folders):
    """Video files of two rendered people, who are there from half a second on."""
    from training.media import write_mp4
    from training.world.clips import Motion, head_clip, move
    from training.world.scene import Scene
    from training.world.traits import sample_traits

    for seed in (1, 102):
        scenes = move(Scene(), Motion(swing=6.0), frames=9, fps=4.0, seed=seed)
        shown_FHWC = head_clip(sample_traits(seed), scenes, height=160, width=176).frames_FHWC.repeat(4, axis=0)
        frames_FHWC = np.concatenate([np.full_like(shown_FHWC[:8], 128), shown_FHWC])
        write_mp4(folders.input / f"head{seed}.mp4", frames_FHWC, FPS)
    return "head1.mp4", "head102.mp4"


class RecordingBench(Bench):
    """Keeps the pixels that were encoded, by their latents."""

    def encode(self, frames_FHWC: Tensor) -> Tensor:
        latents = super().encode(frames_FHWC)
        self.pixels[id(latents)] = frames_FHWC
        return latents


@pytest.fixture(scope="module")
def prepared(folders, weights_file):
    """``prepared(file name)``: what ``prepare.py`` stores, and its facts; or the reject."""
    settings = from_dict(
        {
            "run": {"folder": "out"},
            "model": {"preset": "tiny", "transformer": "tiny", "vae": "tiny", "text_encoder": "hashed"},
            "data": {
                "layout": "folder",
                "source": str(folders.input),
                "cache": "out/cache",
                "sizes": [[64, 64]],
                "lengths": [FRAMES],
                "fps": FPS,
                "reference_frames": FRAMES,
                "reference_side": SIDE,
                "portrait_side": PORTRAIT_SIDE,
                "faces": "dlib",
            },
            "optim": {"steps": 1, "batch": 1},
        },
        "test",
    )
    bench = RecordingBench(settings, device=torch.device("cpu"))
    bench.pixels = {}
    model = load_weights(weights_file).model

    def function(name: str):
        video = SourceVideo(id=name, path=folders.input / name, caption="A person.", person=name)
        clip = prepare_clip(bench, video)
        if not isinstance(clip, PreparedClip):
            return clip, None
        reference, portrait = clip.tensors["reference.0"], clip.tensors["portrait"]
        with torch.no_grad():
            embedding = model.encode(reference[None], portrait[None]).embedding
        return clip, Reading(
            crop_FHWC=bench.pixels[id(reference)],
            portrait_HWC=bench.pixels[id(portrait)][0],
            clip_latents=reference,
            portrait_latents=portrait,
            clip_tokens=embedding.clip_tokens_BSE,
            portrait_tokens=embedding.portrait_tokens_BKE,
        )

    return function


@pytest.fixture(scope="module")
def through_nodes(run, pack, folders, vae, weights_file):
    """``through_nodes(file name, start, shift=...)``: the same by Load Reference Clip, Extract Portrait and Encode."""
    import importlib

    encode_frames = importlib.import_module("slotid_pack.nodes.host_vae").encode_frames
    shutil.copy(weights_file, folders.slotid / "parity.safetensors")
    slotid_model = run("SlotIDLoadModel", model_name="parity.safetensors").slotid_model

    def function(name: str, start: float, shift: int = 0) -> Reading:
        read = run("SlotIDLoadReferenceClip", video=name, start=start, frame_count=FRAMES, size=SIDE, faces="dlib")
        portrait = run("SlotIDExtractPortrait", reference=read.reference, size=PORTRAIT_SIDE).portrait
        clip = read.clip.roll(shift, dims=2)
        identity = run("SlotIDEncode", slotid_model=slotid_model, vae=vae, clip=clip, portrait=portrait).identity
        return Reading(
            crop_FHWC=clip,
            portrait_HWC=portrait[0],
            clip_latents=encode_frames(vae, clip)[0],
            portrait_latents=encode_frames(vae, portrait)[0],
            clip_tokens=identity.embedding.clip_tokens_BSE,
            portrait_tokens=identity.embedding.portrait_tokens_BKE,
        )

    return function


@pytest.fixture(scope="module")
def person_a(prepared, heads):
    return prepared(heads[0])


def test_a_clip_is_read_as_the_nodes_read_it(person_a, through_nodes, heads):
    clip, ours = person_a
    assert clip.facts["reference_seconds"][0] >= 0.5, "the stretch without the person is no reference"
    found = differences(ours, through_nodes(heads[0], clip.facts["reference_seconds"][0]))
    assert max(found.values()) < TOLERANCE, found
    assert float(ours.clip_tokens.std()) > 0.1 and float(ours.portrait_tokens.std()) > 0.1, "a dead adapter"


def test_a_crop_that_is_two_pixels_off_would_be_seen(person_a, through_nodes, heads):
    clip, ours = person_a
    found = differences(ours, through_nodes(heads[0], clip.facts["reference_seconds"][0], shift=2))
    assert all(found[name] > 10 * TOLERANCE for name in ("crop_FHWC", "clip_latents", "clip_tokens")), found


def test_another_person_would_be_seen(person_a, through_nodes, heads):
    clip, ours = person_a
    found = differences(ours, through_nodes(heads[1], clip.facts["reference_seconds"][0]))
    assert all(difference > 10 * TOLERANCE for difference in found.values()), found


def test_a_real_clip_is_read_as_the_nodes_read_it(shared_clips, prepared, through_nodes, folders):
    why = {}
    for path in shared_clips:
        shutil.copy(path, folders.input / path.name)
        clip, ours = prepared(path.name)
        if ours is not None:
            break
        why[path.name] = f"{clip.reason}: {clip.detail}"
    assert ours is not None, why
    found = differences(ours, through_nodes(path.name, clip.facts["reference_seconds"][0]))
    assert max(found.values()) < TOLERANCE, found
