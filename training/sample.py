#!/usr/bin/env python3
"""Reference clip + prompt -> identity -> video, without ComfyUI.

python training/sample.py --demo
python training/sample.py --transformer WAN --vae VAE --weights SLOTID.safetensors --clip CLIP.mp4
    --text-encoder FOLDER --prompt TEXT

Shape letters: F frames, H W height and width, C channels, L context tokens, E text-token width.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slotid_core.errors import SlotIDError
from training.sample_args import parse
from training.sample_reference import FPS, read_reference, write_report

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from slotid_core.checkpoint import SlotIDWeights
    from training.generate import GenerateConfig
    from training.world.score import Score

RANDOM_WAN = (
    "RANDOM WEIGHTS: the tiny Wan of tiny.yaml is untrained, so the picture is noise-like and no identity will appear. "
    "What is shown is that the whole path works."
)
SMALL_WORLD = (
    "The demo's small models were trained on drawn people who do not exist, 80 pixels large, and know nothing else. "
    "They are no measure of a Wan 14B."
)
TINY = Path("tiny")
"""As in a training configuration: the random tiny Wan and VAE."""
HASHED = Path("hashed")
"""Likewise: the demo's words."""
LEAST_LIKE, LEAST_FOLLOWED, MOST_ASTRAY = 0.5, 4, 0.25
"""What the demo's own video must reach: halfway from other people's faces to a real clip's, so many of the prompt's six
attributes, and what only the clip tells no farther from its person's than this. The portrait alone fails the last."""
RANDOM_SLOTID = "RANDOM WEIGHTS: these Slot-ID weights are untrained, so no identity will appear."


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that lacks a letter of the prompt must not end the run
            stream.reconfigure(errors="replace")
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        files, below = run(args)
    except SlotIDError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    for path in files:
        print(path)
    if below:
        print(f"\n{below}", file=sys.stderr)
        return 1
    return 0


@dataclass(frozen=True, kw_only=True)
class _Models:
    transformer: Any
    vae: Any
    weights: SlotIDWeights
    warning: str | None
    """A line that says that no identity will appear, and why."""


def _load_models(args: argparse.Namespace) -> _Models:
    import torch

    from slotid_core.checkpoint import NO_IDENTITY, load_weights
    from training.demo_models import SLOTID, VAE, WAN
    from training.wan_diffusers import load_transformer, load_vae, tiny_transformer, tiny_vae

    try:
        torch.empty(1, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise SlotIDError(f"The device {args.device!r} can't be used here ({error}). Use --device cpu.") from error
    dtype = getattr(torch, args.dtype)
    is_tiny = args.transformer == TINY
    transformer = tiny_transformer(dtype=dtype) if is_tiny else load_transformer(args.transformer or WAN.path, dtype)
    vae = tiny_vae() if args.vae == TINY else load_vae(args.vae or VAE.path)
    weights = load_weights(args.weights or SLOTID.path)
    warning = None
    if weights.untrained:
        warning = NO_IDENTITY
    elif weights.facts.get("trained_steps") == 0:
        warning = RANDOM_SLOTID
    elif is_tiny:
        warning = RANDOM_WAN
    elif args.transformer is None:
        warning = SMALL_WORLD
    return _Models(transformer=transformer.to(args.device), vae=vae.to(args.device), weights=weights, warning=warning)


def _text(args: argparse.Namespace, text_dim: int) -> tuple[Tensor, Tensor]:
    """Tokens of the prompt and of the negative prompt."""
    import torch

    from training.prompts import prompt_tokens
    from training.text import UmT5, encoded_prompt

    if args.text_encoder in (None, HASHED):
        positive = prompt_tokens(args.prompt, args.text_embeds, text_dim)
        return positive, prompt_tokens(args.negative, args.negative_embeds, text_dim)
    print("Reading the prompt with umT5 ...", flush=True)
    encoder = UmT5(args.text_encoder, torch.device(args.device))
    return encoded_prompt(args.prompt, encoder, text_dim), encoded_prompt(args.negative, encoder, text_dim)


def run(args: argparse.Namespace) -> tuple[list[Path], str | None]:
    """Sample one video, with progress on the terminal.

    Returns:
        The files written: video, contact sheet, identity; and of the reference clip a contact sheet and the coverage
        plot. And where the demo made of its own person less than it should, a sentence that says so.

    Raises:
        SlotIDError: something of the input can't be used.
    """
    started = time.monotonic()
    print("Loading PyTorch and diffusers ...", flush=True)
    from slotid_core.identify import identify
    from slotid_core.identity_file import save_identity
    from slotid_core.injection import Injection
    from training.generate import GenerateConfig, generate
    from training.media import SheetRow, contact_sheet, to_bytes, write_mp4
    from training.wan_diffusers import decode_latents, encode_frames
    from training.wan_injection import inject

    width, height = args.size
    config = GenerateConfig(
        width=width,
        height=height,
        frames=args.frames,
        steps=args.steps,
        shift=args.shift,
        guidance=args.guidance,
        identity_guidance=args.identity_guidance,
        seed=args.seed,
        identity_in_negative=args.identity_in_negative,
    )
    models = _load_models(args)
    if models.warning:
        print(models.warning)
    positive_1LE, negative_1LE = (tokens.to(args.device) for tokens in _text(args, models.transformer.config.text_dim))

    reference = read_reference(args, _progress)
    print("Encoding the identity ...", flush=True)
    identity = identify(
        models.weights,
        models.weights.model,
        partial(encode_frames, models.vae),
        reference.clip_FHWC,
        reference.portrait_HWC,
        reference.reference,
    ).identity
    injection = Injection(
        model=models.weights.model,
        embedding=identity.embedding,
        strength=args.strength,
        film_strength=args.film_strength,
    )

    def sample(what: str, person: Injection, *, with_identity: bool = True) -> np.ndarray:
        # Without an identity there is nothing to guide by apart, and no evaluation to spend on it.
        guided = config if with_identity else replace(config, identity_guidance=None)

        def velocity(latents_1CThw, sigma_1, context_1LE, rows_1):
            dtype = models.transformer.dtype
            out = injected(latents_1CThw.to(dtype), sigma_1, context_1LE.to(dtype), rows_1 & with_identity)
            return out.float()

        with (
            inject(models.transformer, [person], models.weights.lora, args.lora_strength) as injected,
            _progress(what, "steps") as progress,
        ):
            latents_1CThw = generate(
                velocity,
                guided,
                positive_BLE=positive_1LE,
                negative_BLE=negative_1LE,
                channels=models.transformer.config.out_channels,
                progress=progress,
            )
        print("Decoding the video ...", flush=True)
        return to_bytes(decode_latents(models.vae, latents_1CThw))

    made = f"{config.frames} frames, {config.width} x {config.height}"
    videos = {f"Generated: {made}": sample("Sampling", injection)}
    if args.compare:
        alone = replace(injection, embedding=identity.embedding.without_clip())
        label = "The same weights, noise and prompt with the portrait alone, without the clip"
        videos[label] = sample("Sampling from the portrait alone", alone)
        label = "The same noise and prompt without the identity"
        videos[label] = sample("Sampling without the identity", injection, with_identity=False)
    rows = [
        SheetRow(label=f"Reference clip: {reference.name}", frames_FHWC=to_bytes(reference.clip_FHWC)),
        SheetRow(label=f"Portrait: {reference.about_portrait}", frames_FHWC=to_bytes(reference.portrait_HWC[None])),
        *(SheetRow(label=label, frames_FHWC=frames_FHWC) for label, frames_FHWC in videos.items()),
    ]
    scores = _score(args, models, reference.clip_FHWC, videos)
    for label, of_it in scores.items():
        print(f"{label}: {of_it}")

    stem = f"slotid_{'demo_' if args.demo else ''}seed{args.seed}"
    endings = (".mp4", ".png", ".safetensors", "_reference.png", "_coverage.png")
    files = video, sheet, person, frames, coverage = [args.out / f"{stem}{ending}" for ending in endings]
    save_identity(person, identity)
    write_mp4(video, next(iter(videos.values())), FPS)
    write_report(reference.reference, frames, coverage)
    contact_sheet(
        sheet,
        title="Slot-ID",
        warning=models.warning,
        rows=rows,
        captions=[
            f"Prompt: {args.prompt if not args.text_embeds else f'tokens from {args.text_embeds.name}'}",
            f"{config.steps} steps, seed {config.seed}, guidance {_guidance(config)}, shift {config.shift:g}. "
            f"Identity strength {args.strength:g}, FiLM {args.film_strength:g}, LoRA {args.lora_strength:g}. "
            f"Slot-ID weights {models.weights.sha256[:12]}.",
            *(f"{label}: {of_it}." for label, of_it in scores.items()),
        ],
    )
    print(f"Done in {time.monotonic() - started:.0f} s.")
    return files, _below(next(iter(scores.values()))) if args.all_built_in else None


def _score(
    args: argparse.Namespace, models: _Models, clip_FHWC: Tensor, videos: dict[str, np.ndarray]
) -> dict[str, Score]:
    """What the probe says of each of the demo's videos, by label; nothing where it can't read them."""
    from training.demo_models import PROBE
    from training.media import to_bytes
    from training.wan_diffusers import decode_latents, encode_frames
    from training.world.pictures import FRAMES, SIZE
    from training.world.score import score

    readable = (args.frames, args.size, clip_FHWC.shape[:2]) == (FRAMES, (SIZE, SIZE), (FRAMES, SIZE))
    if args.transformer or args.vae or args.text_embeds or not readable:
        return {}
    seen_FHWC = to_bytes(decode_latents(models.vae, encode_frames(models.vae, clip_FHWC.to(args.device))))
    return dict(zip(videos, score(PROBE.path, list(videos.values()), seen_FHWC, args.prompt), strict=True))


def _guidance(config: GenerateConfig) -> str:
    apart = "" if config.identity_guidance is None else f" (identity {config.identity_guidance:g})"
    return f"{config.guidance:g}{apart}"


def _below(score: Score) -> str | None:
    """What to say where the demo's own person is not to be recognised, by the portrait's part or by the clip's, or does
    not do what was asked."""
    if score.share >= LEAST_LIKE and score.followed >= LEAST_FOLLOWED and score.astray <= MOST_ASTRAY:
        return None
    return (
        f"The demo's video is below its bounds: it got {score}; expected at least {100 * LEAST_LIKE:.0f} %, "
        f"{LEAST_FOLLOWED} attributes, and what only the clip tells within {MOST_ASTRAY}. Something of the way from "
        "the clip to the video is broken: please report it with the contact sheet."
    )


@contextlib.contextmanager
def _progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, fed with ``(done, total)``."""
    from tqdm import tqdm

    with tqdm(desc=what, unit=f" {unit}") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


if __name__ == "__main__":
    sys.exit(main())
