"""What a training run is told, field by field, checked strictly.

``training/settings_file.py`` reads them. The resolved settings are stored with the run, in the cache and in weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from slotid_core.config import SlotIDConfig

# Of the reference, of all clips of a shard together: each has hashes in the shard's head, which holds a megabyte.
_VARIANTS_A_SHARD = 4096


class Part(BaseModel):
    """A group of settings; a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class RunSettings(Part):
    folder: Path
    """Where the run puts everything: settings, checkpoints, logs, samples, weights."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of the initial weights, the order of the data, noise, noise levels and every dropout; ``data.seed`` shapes the
    cache, so that runs of several seeds share one."""


class ModelSettings(Part):
    preset: Literal["wan-14b", "wan-1.3b", "tiny"]
    """Which Slot-ID config to start from."""
    transformer: Path | Literal["tiny"]
    """Wan text-to-video transformer: a ``.safetensors`` file or a diffusers folder; ``tiny`` is a random tiny one."""
    vae: Path | Literal["tiny"]
    """The Wan 2.1 VAE, likewise."""
    text_encoder: Path | Literal["hashed"]
    """Folder with ``text_encoder`` and ``tokenizer`` as diffusers lays them out (umT5-XXL); ``hashed``: the demo's."""
    slotid: dict[str, Any] = {}
    """Changes of the preset, for instance ``{reader: {slots: 12}, lora: {rank: 64}}``."""

    def slotid_config(self) -> SlotIDConfig:
        """The preset with the changes.

        Raises:
            SlotIDError: a field is unknown or out of range.
        """
        merged = merge(SlotIDConfig.preset(self.preset).to_dict(), self.slotid)
        return SlotIDConfig.from_dict(merged)


class GeneratedSettings(Part):
    """People who do not exist, rendered: for a first run without any data."""

    people: int = Field(8, ge=2, le=100_000)
    clips: int = Field(2, ge=1, le=100)
    """Of each person."""
    frames: int = Field(49, ge=5, le=2000)
    side: int = Field(128, ge=96, le=1024, multiple_of=2)
    """Of the square picture in pixels; at 128 the faces are some 65 large, and 48 are the least that is used."""


class AugmentSettings(Part):
    """Colour, exposure and crop of the reference differ from the target's, or the model learns to copy. Never flipped:
    a face is not symmetric. 0 turns each off."""

    variants: int = Field(4, ge=1, le=64)
    """Versions of each reference that are encoded; training takes one at random. The first is left as it is."""
    brightness: float = Field(0.15, ge=0.0, le=0.5)
    contrast: float = Field(0.15, ge=0.0, le=0.5)
    saturation: float = Field(0.15, ge=0.0, le=1.0)
    crop: float = Field(0.08, ge=0.0, le=0.4)
    """Shift and change of size of the square, as a share of its side."""


class DataSettings(Part):
    layout: Literal["consisid", "folder", "generated", "world"]
    """``consisid``: ConsisID-preview's tree; ``folder``: videos with captions beside them; ``generated``: made here;
    ``world``: drawn by ``training/world/pictures.py``."""
    source: Path | None = None
    """The dataset's folder; not given for ``generated``."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of who is held out, of how references are changed, and of people that are rendered here."""
    cache: Path
    """Where ``prepare.py`` puts latents, text tokens, rejects and the summary."""
    sizes: list[tuple[int, int]] = [(480, 720)]
    """Height and width of the targets in pixels, multiples of 16; each video gets the one of the nearest aspect."""
    lengths: list[int] = [65]
    """Frames of the targets, 4n + 1; each video gets the longest that it fills."""
    fps: float = Field(16.0, ge=1.0, le=120.0)
    """Frames a second that videos are resampled to, by their timestamps. Wan's is 16."""
    reference_frames: int = 65
    """Frames of the reference clip, 4n + 1."""
    reference_side: int = Field(256, ge=64, le=1024, multiple_of=16)
    portrait_side: int = Field(512, ge=64, le=1024, multiple_of=16)
    faces: Literal["auto", "insightface", "dlib"] = "auto"
    """What finds faces; ``auto`` takes the first that is installed, and the summary says which."""
    person: str | None = None
    """Regular expression whose first group in a video's path is the person; without it, a ``folder`` of sub-folders has
    one person in each, and otherwise every video is a person of its own."""
    held_out: float = Field(0.05, gt=0.0, lt=1.0)
    """Share of the people, at least two, who are never trained on."""
    reference_from: Literal["another clip", "the same clip"] = "another clip"
    """Whose reference training shows: that of another clip of the person where there is one, or the clip's own, which
    is another stretch of time where the video is long enough."""
    clips_per_shard: int = Field(32, ge=1, le=256)
    """Clips in one file of the cache; a kill while preparing loses at most the shard at work."""
    workers: int = Field(2, ge=0, le=64)
    """Processes that read the cache ahead of training; 0 reads in the training process."""
    augment: AugmentSettings = AugmentSettings()
    generated: GeneratedSettings = GeneratedSettings()

    @field_validator("lengths")
    @classmethod
    def _lengths(cls, value: list[int]) -> list[int]:
        return sorted((_frames(v) for v in value), reverse=True) if value else _fail("expected at least one")

    @field_validator("reference_frames")
    @classmethod
    def _reference_frames(cls, value: int) -> int:
        return _frames(value)

    @field_validator("sizes")
    @classmethod
    def _sizes(cls, value: list[tuple[int, int]]) -> list[tuple[int, int]]:
        if not value or any(side < 32 or side % 16 for size in value for side in size):
            _fail("expected one or more [height, width], multiples of 16 and at least 32")
        return value

    @model_validator(mode="after")
    def _source(self) -> DataSettings:
        if (self.layout == "generated") != (self.source is None):
            _fail("data.source: expected a folder for every layout but generated, which takes none")
        if self.person is not None and self.layout in ("generated", "world"):
            _fail(f"data.person: layout {self.layout} says who is who; expected none")
        if (variants := self.clips_per_shard * self.augment.variants) > _VARIANTS_A_SHARD:
            _fail(
                f"data.clips_per_shard x data.augment.variants: expected {_VARIANTS_A_SHARD} at most, whose hashes fit "
                f"into a shard's head, got {variants}"
            )
        if self.layout == "world" and self.augment.variants != 1:
            _fail("data.augment.variants: expected 1 for layout world, whose clips differ as they are")
        return self


class OptimSettings(Part):
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    """Clips in one update, over all processes; what is learned does not depend on how they are shared out."""
    micro_batch: int = Field(1, ge=1)
    """Clips that go through the backbone at once in one process; the rest of the batch is accumulated."""
    lr: float = Field(1e-4, gt=0.0)
    warmup: int = Field(200, ge=0)
    """Updates over which the learning rate rises from 0."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """What follows the warm-up, down to ``lr * floor``."""
    floor: float = Field(0.1, ge=0.0, le=1.0)
    optimizer: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    """``adamw8bit`` needs the package bitsandbytes; ``muon`` takes orthogonal steps on matrices, and adamw's on the
    rest."""
    betas: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]] = (0.9, 0.99)
    weight_decay: float = Field(0.01, ge=0.0)
    clip_norm: float = Field(1.0, gt=0.0)
    """Gradients of a larger norm are scaled down to it."""
    ema: float = Field(0.999, ge=0.0, lt=1.0)
    """Decay of the averaged weights, which are the ones that are validated and exported; 0 turns averaging off."""


class NoiseSettings(Part):
    """Where on the noise axis training looks (paper, 3.4: uniform)."""

    sampling: Literal["uniform", "shift", "logit_normal"] = "uniform"
    shift: float = Field(5.0, ge=1.0, le=100.0)
    """For ``shift``: uniform levels are moved as the sampler's timestep shift moves them."""
    mean: float = Field(0.0, ge=-10.0, le=10.0)
    """For ``logit_normal``: of the normal before the sigmoid."""
    std: float = Field(1.0, gt=0.0, le=10.0)
    """Likewise."""

    @model_validator(mode="after")
    def _used(self) -> NoiseSettings:
        # Stored settings hold every field, so what is at its default counts as not asked for.
        for name, sampling in (("shift", "shift"), ("mean", "logit_normal"), ("std", "logit_normal")):
            value = getattr(self, name)
            if self.sampling != sampling and value != type(self).model_fields[name].default:
                _fail(
                    f"{name} is {value} and nothing looks at it, since sampling is {self.sampling}; expected "
                    f"sampling {sampling}, or no {name}"
                )
        return self


class DropSettings(Part):
    """What is left out at random, so that guidance has something to guide away from and no token is relied on."""

    identity: float = Field(0.1, ge=0.0, le=1.0)
    text: float = Field(0.1, ge=0.0, le=1.0)
    prefix_token: float = Field(0.05, ge=0.0, lt=1.0)
    """Chance of each identity token to be zero."""


class ContrastSettings(Part):
    """Two clips of one person should fill the slots alike, two people's should not. Ours, not the paper's: the video's
    loss alone hardly tells a slot what to look for (``docs/world.md``)."""

    weight: float = Field(0.0, ge=0.0, le=100.0)
    """Of this loss beside the video's; 0 turns it off. People are told apart within a micro-batch, so with it
    ``optim.micro_batch`` and the number of processes shape what is learned."""
    temperature: float = Field(0.1, ge=0.01, le=10.0)
    """Of the likeness of slots, a cosine: the lower, the more the most alike people count."""


class MemorySettings(Part):
    plan: Literal["auto", "plain", "checkpointed", "offloaded", "fp8", "streamed"] = "auto"
    """What is given up for memory, each plan on top of the one before: ``checkpointed`` computes activations twice,
    ``offloaded`` keeps what lies between blocks in host RAM, ``fp8`` holds the frozen base in scaled float8,
    ``streamed`` holds it in host RAM. ``auto`` takes the first that fits."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of the frozen base and of autocast; what is trained is always float32."""
    shard: bool = False
    """Share the frozen base out over the processes (FSDP2); needs more than one."""
    compile: bool = False
    """torch.compile on the backbone's blocks."""


class ValidationSettings(Part):
    every: int = Field(500, ge=1)
    """Updates between validations on held-out people."""
    clips: int = Field(16, ge=2)
    """Held-out clips that are looked at, at most."""
    sigmas: list[float] = [0.2, 0.4, 0.6, 0.8, 0.95]
    """Fixed noise levels."""
    samples: int = Field(2, ge=0)
    """Videos sampled at each validation."""
    sample_steps: int = Field(20, ge=1, le=1000)
    guidance: float = Field(5.0, ge=1.0, le=100.0)
    shift: float = Field(5.0, ge=1.0, le=100.0)

    @field_validator("sigmas")
    @classmethod
    def _sigmas(cls, value: list[float]) -> list[float]:
        if not value or not all(0.0 < sigma <= 1.0 for sigma in value):
            _fail("expected one or more levels above 0 and at most 1")
        return value


class CheckpointSettings(Part):
    every: int = Field(250, ge=1)
    """Updates between checkpoints: what a kill loses at most."""
    keep: int = Field(3, ge=1)
    """The last so many stay."""


class LogSettings(Part):
    tensorboard: bool = True
    wandb: str | None = None
    """Project name; needs the package wandb and a login of your own."""


class Settings(Part):
    run: RunSettings
    model: ModelSettings
    data: DataSettings
    optim: OptimSettings
    noise: NoiseSettings = NoiseSettings()
    drop: DropSettings = DropSettings()
    contrast: ContrastSettings = ContrastSettings()
    memory: MemorySettings = MemorySettings()
    validation: ValidationSettings = ValidationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        self.model.slotid_config()
        if self.optim.batch % self.optim.micro_batch:
            _fail(f"optim.batch is {self.optim.batch}, expected a multiple of optim.micro_batch")
        if not self.contrast.weight:
            return self
        if self.optim.micro_batch < 2:
            _fail("contrast.weight: tells the people of a micro-batch apart; expected optim.micro_batch of at least 2")
        if self.data.reference_from == "the same clip":
            _fail("contrast.weight: compares two clips of a person; expected data.reference_from 'another clip'")
        if (gate := self.model.slotid_config().gate).start == gate.end == 1.0:
            _fail("contrast.weight: nothing reads the slots where gate.start and gate.end are 1; expected 0")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fit for JSON and YAML."""
        return self.model_dump(mode="json")


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the changes, mapping by mapping; neither is changed."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _frames(value: int) -> int:
    if value < 5 or value % 4 != 1:
        below = max(5, value - (value - 1) % 4)
        _fail(f"expected 4n + 1 frames and at least 5, such as {below} or {below + 4}")
    return value


def _fail(message: str) -> Any:
    raise ValueError(message)
