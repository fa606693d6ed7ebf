"""One JSON for each variant and seed, and one for what it is held against."""

from __future__ import annotations

import json
import os
import platform
import time
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slotid_core.checkpoint import load_weights
from training.atomic import atomic
from training.wan_diffusers import load_transformer, load_vae
from training.world.experiment import evaluate
from training.world.experiment.evaluate import People
from training.world.experiment.origin import check, learned_from, models_ids
from training.world.identity import DYNAMICS, FRONT, SIDE
from training.world.models.device import best_device
from training.world.models.probe import load_probe
from training.world.pictures import WorldClip

BOUNDS = "bounds"


def world_suffix(world: int) -> str:
    """Of names of files that are about another world than the first."""
    return f"-world{world}" if world else ""


class Bench:
    """The models that measure and are measured with, loaded when first needed."""

    def __init__(self, folder: Path, models: dict[str, Path], *, people: int, world: int):
        self._folder, self._models, self._count, self.world = folder, models, people, world

    @cached_property
    def made_with(self) -> dict[str, str]:
        return models_ids(self._models)

    @cached_property
    def vae(self):
        return load_vae(self._models["vae"]).to(best_device())

    @cached_property
    def transformer(self):
        return load_transformer(self._models["backbone"], torch.bfloat16).to(best_device())

    @cached_property
    def probe(self):
        return load_probe(self._models["probe"]).to(best_device())

    @cached_property
    def people(self) -> People:
        both = partial(WorldClip, split="held_out", world=self.world)
        clips = [(both(index=i, clip=0), both(index=i, clip=1)) for i in range(self._count)]
        return evaluate.load_people(self._folder / "pictures", self.vae, clips)

    def write_bounds(self, results: Path) -> None:
        """What can be reached: people's real other clips; and what comes without any identity. Kept where it is there.

        Raises:
            SlotIDError: what is there was made with other models, sampled otherwise, or of another number of people.
        """
        path = results / f"{BOUNDS}{world_suffix(self.world)}.json"
        if path.is_file():
            check(path, models=self.made_with, people=self._count, sampling=evaluate.SAMPLING)
            return
        started = time.monotonic()
        plain = evaluate.make_videos(self.transformer, self.vae, self.people, None, None)
        self._keep(plain, f"none{world_suffix(self.world)}")
        _write(
            path,
            {
                **self._facts(started),
                "true": [[round(value, 4) for value in row] for row in self.people.traits_NI.tolist()],
                "real": evaluate.numbers(self.probe, self.people, self.people.wanted_NFHW3),
                "none": evaluate.numbers(self.probe, self.people, plain),
                "stranger_face": evaluate.stranger_likeness(self.probe, self.people),
            },
        )

    def write_result(self, path: Path, variant: str, seed: int, weights_file: Path, *, changes: list[str]) -> None:
        """Videos of everybody with these weights, and what the probe reads from them."""
        started, weights = time.monotonic(), load_weights(weights_file)
        embedding, routing = evaluate.embed(weights, self.people, self.vae)
        videos = evaluate.make_videos(self.transformer, self.vae, self.people, weights, embedding)
        self._keep(videos, path.stem)
        result = {
            **self._facts(started),
            "variant": variant,
            "seed": seed,
            "changes": changes,
            "settings": learned_from(weights.facts["settings"]),
            "cache": weights.facts["cache"],
            "trained_steps": weights.facts["trained_steps"],
            "validation": weights.facts["validation"],
            "weights": weights.sha256,
            "videos": evaluate.numbers(self.probe, self.people, videos),
        }
        if routing is not None:
            result["routing"] = evaluate.routing_figures(routing)
        if variant == "slotid":
            crossed, _ = evaluate.embed(weights, self.people, self.vae, lambda n: (n + 1) % self._count)
            videos = evaluate.make_videos(self.transformer, self.vae, self.people, weights, crossed)
            self._keep(videos, f"{path.stem}-crossed")
            result["crossed"] = evaluate.numbers(self.probe, self.people, videos)
        _write(path, result)

    def _keep(self, videos_NFHW3: Tensor, name: str) -> None:
        """The first videos, for pictures of the report."""
        from safetensors.torch import save_file

        folder = self._folder / "videos"
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"videos": videos_NFHW3[:24].contiguous()}, folder / f"{name}.safetensors")

    def _facts(self, started: float) -> dict[str, Any]:
        return {
            "machine": f"{_gpu()}{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            "seconds": round(time.monotonic() - started),
            "models": self.made_with,
            "people": self._count,
            "identity_seed": self.world,
            "traits": list(FRONT + SIDE + DYNAMICS),
            "sampling": evaluate.SAMPLING,
        }


def _gpu() -> str:
    return f"{torch.cuda.get_device_name()}, " if best_device().type == "cuda" else ""


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
