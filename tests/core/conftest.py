"""Models small enough to test with (real classes, few channels, outputs that are not zero), and their files."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slotid_core import lora as lora_format
from slotid_core.checkpoint import SlotIDWeights, bundle, load_weights, save_weights
from slotid_core.config import (
    BackboneConfig,
    EncoderConfig,
    FilmConfig,
    LoraConfig,
    PortraitConfig,
    SlotIDConfig,
)
from slotid_core.errors import SlotIDError
from slotid_core.identity_file import load_identity, save_identity
from slotid_core.model import SlotID
from slotid_core.reference.coverage import Coverage
from slotid_core.types import FaceEmbedding, Identity, IdentityEmbedding

SMALL = SlotIDConfig(
    backbone=BackboneConfig(dim=16, blocks=4, latent_channels=4, text_dim=24),
    encoder=EncoderConfig(width=32, heads=2, mlp_ratio=2),
    portrait=PortraitConfig(width=24, heads=2),
    film=FilmConfig(global_dim=12, hidden=10, rank=3),
    lora=LoraConfig(rank=2, alpha=1.5),
)


def randomise_outputs(model: SlotID, std: float = 0.3) -> None:
    """Give the zero-initialised layers values, so that something reaches the backbone."""
    with torch.no_grad():
        for parameter in model.output_layers:
            parameter.normal_(std=std)


@pytest.fixture
def small_config() -> SlotIDConfig:
    """A valid config of a few thousand parameters."""
    return SMALL


@pytest.fixture
def make_model() -> Callable[..., SlotID]:
    """``make_model(seed=0, reader={"slots": 1}, ...)``: a small model in eval mode whose outputs are not zero."""

    def make(seed: int = 0, **parts) -> SlotID:
        torch.manual_seed(seed)
        model = SlotID(SMALL.replace(**parts)).eval()
        randomise_outputs(model)
        return model

    return make


@pytest.fixture
def make_weights(make_model) -> Callable[..., SlotIDWeights]:
    """Small weights with a LoRA; other values for every seed."""

    def make(seed: int = 0, facts: dict | None = None, **parts) -> SlotIDWeights:
        model = make_model(seed, **parts).requires_grad_(False)
        config = model.config
        lora = lora_format.untrained_lora(config.lora, config.backbone, torch.Generator().manual_seed(seed))
        for pair in lora.pairs.values():
            pair.up_OR.normal_(generator=torch.Generator().manual_seed(seed + 1))
        return bundle(model, lora, {"trained_steps": 7} if facts is None else facts)

    return make


@pytest.fixture
def make_inputs() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """``make_inputs(batch, seed)``: latents of clips ``[B, 4, 4, 4, 6]`` and of portraits ``[B, 4, 1, 4, 4]``."""

    def make(batch: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        clip = torch.randn(batch, 4, 4, 4, 6, generator=generator)
        return clip, torch.randn(batch, 4, 1, 4, 4, generator=generator)

    return make


@pytest.fixture
def make_embedding() -> Callable[..., IdentityEmbedding]:
    """Random tokens and global vectors that fit the small model."""

    def make(batch: int = 1, seed: int = 0, slots: int = 6, anchors: int = 2) -> IdentityEmbedding:
        g = torch.Generator().manual_seed(seed)
        return IdentityEmbedding(
            clip_tokens_BSE=torch.randn(batch, slots, SMALL.backbone.text_dim, generator=g),
            portrait_tokens_BKE=torch.randn(batch, anchors, SMALL.backbone.text_dim, generator=g),
            clip_global_BG=torch.randn(batch, SMALL.film.global_dim, generator=g),
            portrait_global_BG=torch.randn(batch, SMALL.film.global_dim, generator=g),
        )

    return make


@pytest.fixture
def make_identity(make_embedding) -> Callable[..., Identity]:
    """A person with a small thumbnail and a coverage."""

    def make(seed: int = 0) -> Identity:
        g = torch.Generator().manual_seed(seed)
        thumbnail_HWC = torch.randint(0, 256, (8, 6, 3), generator=g).to(torch.uint8)
        coverage = Coverage(
            backend="dlib",
            first_frame=4,
            frames=33,
            faces=9,
            yaw=(-31.25, 12.1 + seed),
            pitch=None,
            mouth_open=(0.0, 0.1),
            smile=(0.0, 1.0),
            eyes_open=None,
            brightness=(0.25, 0.5),
            sharpness=(0.01, 0.02),
            size_px=(80.0, 95.5),
            missing=("no blink", "Blick über die Schulter: fehlt"),
        )
        return Identity(make_embedding(seed=seed), "a" * 64, "b" * 64, "0123456789abcdef" * 4, thumbnail_HWC, coverage)

    return make


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Order of summation, and with it the last bit, independent of the machine's cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def file_kinds() -> dict[str, tuple[Callable, Callable]]:
    """How each kind of file is loaded and saved."""
    return {"weights": (load_weights, save_weights), "identity": (load_identity, save_identity)}


@pytest.fixture
def good(tmp_path, file_kinds, make_weights, make_identity) -> dict[str, Path]:
    """A good file of each kind, with everything that it may hold."""
    paths = {}
    facts = {"frames": 33, "backbone": "Wan of a test", "origin": "Merged from x", "notes": ("agreed\nin writing",)}
    identity = replace(make_identity(), face=FaceEmbedding("dlib", torch.tensor([0.6, 0.8])), **facts)
    for kind, value in (("weights", make_weights(film={"rank": 1})), ("identity", identity)):
        paths[kind] = tmp_path / f"good {kind}.safetensors"
        file_kinds[kind][1](paths[kind], value)
    return paths


@pytest.fixture
def refused(file_kinds) -> Callable[..., None]:
    """``refused(kind, path, *reasons)``: loading fails, names the file and says one of the reasons."""

    def check(kind: str, path: Path, *reasons: str) -> None:
        with pytest.raises(SlotIDError) as error:
            file_kinds[kind][0](path)
        message = str(error.value)
        assert path.name in message, message
        assert any(reason in message for reason in reasons), message
        assert len(message) < 1000, "a hostile file must not fill the screen"

    return check
