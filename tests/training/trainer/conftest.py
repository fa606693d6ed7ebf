"""A prepared dataset in memory: latents of people who differ in their mean, and the real tiny Wan.

Writing and reading real caches is tested in ``tests/training/data``.

Shape letters: C latent channels, T H W latent frames, height, width, L text tokens, E text-token width.
"""

import functools
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training import settings_file
from training.data.cache import Entry, Sample
from training.random_weights import randomise_outputs
from training.settings import Settings
from training.text import context_length
from training.trainer.adapter import Adapter
from training.trainer.batches import BatchOrder, Item, TrainingClips, micro_batches
from training.wan_diffusers import tiny_transformer

TINY = Path(settings_file.__file__).parent / "configs" / "tiny.yaml"


class MemoryCache:
    """What ``open_cache`` gives, with tensors from a seed."""

    key = "0" * 64
    apart = 1.0
    """How strongly people differ."""

    def __init__(self, people: int, clips: int, held_out: int, cells: tuple[int, int, int]):
        self.empty_text_LE = torch.zeros(0, 4096)
        self.entries = tuple(
            Entry(
                id=f"person{p:02d}/clip{c}",
                person=f"person{p:02d}",
                caption="a person smiles",
                video="clip.mp4",
                video_sha256="",
                held_out=p < held_out,
                shard="shard",
                index=0,
                target_shape=cells,
                reference_shape=cells,
                portrait_shape=(1, *cells[1:]),
                variants=2,
                text_tokens=4,
                text_cut=False,
                target_seconds=(0.0, 1.0),
                reference_seconds=(1.0, 2.0),
                windows="disjoint",
                portrait_second=1.5,
                coverage={},
                sha256={},
            )
            for p in range(people)
            for c in range(clips)
        )

    def load(self, entry: Entry, reference: Entry | None = None, variant: int = 0) -> Sample:
        shown = reference or entry
        assert shown.held_out == entry.held_out
        return Sample(
            entry=entry,
            target_CTHW=self._like(entry.person, f"{entry.id} target", entry.target_shape),
            reference_CTHW=self._like(shown.person, f"{shown.id} reference {variant}", shown.reference_shape),
            portrait_CTHW=self._like(shown.person, f"{shown.id} portrait", shown.portrait_shape),
            text_LE=_normal(f"{entry.id} text", entry.text_tokens, 4096),
        )

    def reference(self, entry: Entry, variant: int = 0) -> torch.Tensor:
        return self.load(entry, entry, variant).reference_CTHW

    def _like(self, person: str, what: str, shape: tuple[int, int, int]) -> torch.Tensor:
        return self.apart * _normal(person, 16, 1, 1, 1) + 0.5 * _normal(what, 16, *shape)


def _normal(key: str, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))


@pytest.fixture
def make_cache_in_memory() -> Callable[..., MemoryCache]:
    """``make_cache_in_memory(people=, clips=, held_out=)``: small latents."""
    return functools.partial(MemoryCache, cells=(2, 4, 4))


@pytest.fixture
def cache(make_cache_in_memory) -> MemoryCache:
    """Six people with two clips each, two of them held out."""
    return make_cache_in_memory(people=6, clips=2, held_out=2)


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """``make_settings("optim.lr=1e-3", ...)``: tiny.yaml with a folder of its own and no samples."""

    def make(*overrides: str) -> Settings:
        small = ["data.workers=0", "validation.samples=0", "log.tensorboard=false", "optim.batch=2"]
        small += ["optim.micro_batch=2", f"run.folder={tmp_path / 'run'}"]
        return settings_file.load(TINY, [*small, *overrides])

    return make


@pytest.fixture
def make_adapter() -> Callable[..., Adapter]:
    """``make_adapter(settings)``: untrained, on a tiny Wan of its own."""

    def make(settings: Settings, seed: int = 0, dtype: torch.dtype = torch.float32) -> Adapter:
        config, wan = settings.model.slotid_config(), tiny_transformer(dtype=dtype)
        return Adapter(
            config, wan, context_length=context_length(settings), seed=seed, device=torch.device("cpu"), precision=dtype
        )

    return make


@pytest.fixture
def awake() -> Callable[[Adapter], Adapter]:
    """``awake(adapter)``: the same with outputs that do something."""

    def wake(adapter: Adapter) -> Adapter:
        randomise_outputs(adapter.slotid, 5)
        generator = torch.Generator().manual_seed(6)
        with torch.no_grad():
            for name, p in adapter.trainable().items():
                if ".lora_B." in name:
                    p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
        return adapter

    return wake


@pytest.fixture
def take_batch() -> Callable[..., list[Item]]:
    """``take_batch(cache, settings, count)``: the first clips of a run."""

    def take(cache: MemoryCache, settings: Settings, count: int) -> list[Item]:
        clips = TrainingClips(cache, settings)
        order = BatchOrder(clips.entries, settings.optim.batch, 0)
        batches = micro_batches(clips, order, settings, first_step=0, rank=0, processes=1)
        return [item for _ in range(count // settings.optim.micro_batch) for item in next(batches)]

    return take
