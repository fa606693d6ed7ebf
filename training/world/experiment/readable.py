"""What of a person can be read from the latents that Slot-ID is shown, and from what it makes of them.

    python -m training.world.experiment.readable training/configs/world.yaml [section.field=value ...]

A linear reader (ridge regression) is fitted to the prepared cache's portraits and clips, and tested on the people whom
the cache holds out. ``--encoder UPDATES`` trains Slot-ID's own video encoder as well, told the traits outright. What
neither reads, no training by a loss on pixels can be expected to find with as few people. ``--weights FILE`` reads the
tokens and global vectors of a trained Slot-ID: what stands there and is not in its videos, the backbone does not show.

Letters: N clips, I traits, L numbers of a picture or clip.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from slotid_core.checkpoint import load_weights
from slotid_core.encoder import VideoEncoder
from slotid_core.model import SlotID
from training.data.cache import Cache, open_cache
from training.settings import Settings
from training.settings_file import load
from training.world.models.device import best_device, half
from training.world.models.probe import by_part, r_squared, traits_of
from training.world.pictures import clip_of_name

_RIDGES = (1e2, 1e3, 1e4, 1e5)


def latents(cache: Cache) -> tuple[Tensor, Tensor, Tensor, int]:
    """Portraits and reference clips as latents, traits ``[N, I]``, and how many of the first clips are fitted: those
    after them are of people whom the cache holds out."""
    portraits, clips, traits = [], [], []
    for entry in sorted(cache.entries, key=lambda entry: entry.held_out):
        sample = cache.load(entry)
        portraits.append(sample.portrait_CTHW)
        clips.append(sample.reference_CTHW)
        traits.append(traits_of(clip_of_name(entry.id).identity))
    fitted = sum(not entry.held_out for entry in cache.entries)
    return torch.stack(portraits).float(), torch.stack(clips).float(), torch.stack(traits), fitted


@torch.no_grad()
def embeddings(model: SlotID, portraits_NC1hw: Tensor, clips_NCThw: Tensor) -> dict[str, Tensor]:
    """Tokens and global vectors of everybody, by their names in :class:`IdentityEmbedding`."""
    parts = [
        vars(model.encode(clips, portraits).embedding)
        for clips, portraits in zip(clips_NCThw.split(50), portraits_NC1hw.split(50), strict=True)
    ]
    return {name: torch.cat([part[name].float() for part in parts]) for name in parts[0]}


def linear(inputs: Tensor, traits_NI: Tensor, fitted: int) -> dict[str, float]:
    """R² by trait on the people who were not fitted, for the ridge that reads most: an upper bound, if anything."""
    x_NL = inputs.flatten(1)
    x_NL = ((x_NL - x_NL[:fitted].mean(0)) / (x_NL[:fitted].std(0) + 1e-3)).double()
    mean_I = traits_NI[:fitted].mean(0)
    products = x_NL @ x_NL[:fitted].T
    found = []
    for ridge in _RIDGES:
        inner = products[:fitted] + ridge * torch.eye(fitted, dtype=torch.float64)
        weights = torch.linalg.solve(inner, (traits_NI[:fitted] - mean_I).double())
        found.append(r_squared(products[fitted:] @ weights + mean_I, traits_NI[fitted:]))
    return max(found, key=lambda of_trait: sum(of_trait.values()))


def encoder(
    settings: Settings, clips_NCThw: Tensor, traits_NI: Tensor, fitted: int, updates: int
) -> list[dict[str, float]]:
    """R² by part of Slot-ID's video encoder with a head for the traits, every 150 updates of 48 clips."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    config, device = settings.model.slotid_config(), best_device()
    video = VideoEncoder(config.encoder, config.backbone.latent_channels)
    head = nn.Sequential(nn.Linear(config.encoder.width, 256), nn.SiLU(), nn.Linear(256, traits_NI.shape[1]))
    both = nn.ModuleList([video, head]).to(device).train()
    mean_I, std_I = traits_NI[:fitted].mean(0), traits_NI[:fitted].std(0)
    optimizer = torch.optim.AdamW(both.parameters(), lr=1e-3, weight_decay=0.05)

    def read(latents_BCThw: Tensor) -> Tensor:
        with half(device):
            return head(video(latents_BCThw.to(device)).tokens_BLD.mean(1)).float().cpu() * std_I + mean_I

    found = []
    for update in range(1, updates + 1):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, update / 50)
        chosen = torch.randint(fitted, (48,), generator=random)
        loss = (read(clips_NCThw[chosen]) - traits_NI[chosen]).div(std_I).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if update % 150 == 0:
            both.eval()
            with torch.no_grad():
                read_NI = torch.cat([read(part) for part in clips_NCThw[fitted:].split(50)])
            both.train()
            found.append({"updates": update, "fitted_loss": round(loss.item(), 3)})
            found[-1] |= _rounded(by_part(r_squared(read_NI, traits_NI[fitted:])))
    return found


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figures.items()}


def main(argv: list[str] | None = None) -> None:
    """Print all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.field=value")
    parser.add_argument("--encoder", type=int, default=0, metavar="UPDATES")
    parser.add_argument("--weights", type=Path, help="of Slot-ID, trained on this cache")
    args = parser.parse_intermixed_args(argv)
    settings = load(args.config, args.overrides)
    portraits, clips, traits_NI, fitted = latents(open_cache(settings))
    told = {"clips": len(clips), "fitted": fitted}
    read = {"portrait": portraits, "clip": clips}
    if args.weights:
        read |= embeddings(load_weights(args.weights).model, portraits, clips)
    for name, inputs in read.items():
        of_trait = linear(inputs, traits_NI, fitted)
        told[name] = {**_rounded(by_part(of_trait)), "traits": _rounded(of_trait)}
    if args.encoder:
        told["encoder"] = encoder(settings, clips, traits_NI, fitted, args.encoder)
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
