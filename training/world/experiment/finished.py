"""Where on the axis of noise a person is decided: real clips, noised up to a level and finished from there.

    python -m training.world.experiment.finished training/configs/world.yaml demo/world_probe.safetensors \
        [--weights SLOTID.safetensors] [section.field=value ...]

What shows the person in the end was still to be seen at that level, or the identity brought it back; what neither did
is lost below that level. The people are those whom the cache holds out: neither backbone nor Slot-ID learned from them.

Letters: N people.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from slotid_core.checkpoint import SlotIDWeights, load_weights
from training.data.cache import open_cache
from training.settings_file import load
from training.wan_diffusers import AutoencoderKLWan, WanTransformer3DModel, load_transformer, load_vae
from training.world.experiment.evaluate import People, embed, load_people, make_videos
from training.world.models.device import best_device
from training.world.models.probe import Probe, by_part, load_probe, measure, r_squared
from training.world.pictures import clip_of_name

LEVELS = (0.95, 0.85, 0.7, 0.5, 0.3)


def shown(probe: Probe, people: People, videos_NFHW3: Tensor) -> dict[str, float]:
    """Likeness of the faces to the references', and R² by part."""
    measured, reference = measure(probe, videos_NFHW3), measure(probe, people.seen_NFHW3)
    face = (measured.face_BE * reference.face_BE).sum(-1).mean().item()
    parts = by_part(r_squared(measured.traits_BI, people.traits_NI))
    return {name: round(value, 3) for name, value in {"face": face, **parts}.items()}


def finished(
    transformer: WanTransformer3DModel, vae: AutoencoderKLWan, probe: Probe, people: People,
    weights: SlotIDWeights | None, levels: Iterable[float],
) -> Iterator[tuple[str, dict[str, float]]]:  # fmt: skip
    """What is shown, by the level that the other clip was finished from, without and with the identity of the weights;
    first of that clip as it is."""
    yield "real", shown(probe, people, people.wanted_NFHW3)
    identity = None if weights is None else embed(weights, people, vae)[0]
    for level in levels:
        plain = make_videos(transformer, vae, people, None, None, level=level)
        yield f"{level:g}", shown(probe, people, plain)
        if weights is not None:
            videos = make_videos(transformer, vae, people, weights, identity, level=level)
            yield f"{level:g} with the identity", shown(probe, people, videos)


def main(argv: list[str] | None = None) -> None:
    """Print one line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("probe", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.field=value")
    parser.add_argument("--weights", type=Path, help="of Slot-ID, trained on this backbone")
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS)
    args = parser.parse_intermixed_args(argv)
    settings, device = load(args.config, args.overrides), best_device()
    vae = load_vae(Path(settings.model.vae)).to(device)
    transformer = load_transformer(Path(settings.model.transformer), torch.bfloat16).to(device)
    clips = sorted((clip_of_name(e.id) for e in open_cache(settings).entries if e.held_out), key=lambda c: c.name)
    pairs = [(one, other) for one, other in zip(clips, clips[1:], strict=False) if one.person == other.person]
    people = load_people(settings.data.source.parent, vae, pairs)
    print(json.dumps({"people": len(pairs)}), flush=True)
    weights = None if args.weights is None else load_weights(args.weights)
    for name, figures in finished(transformer, vae, load_probe(args.probe).to(device), people, weights, args.levels):
        print(json.dumps({name: figures}), flush=True)


if __name__ == "__main__":
    main()
