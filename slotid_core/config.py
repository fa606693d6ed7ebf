"""Configuration: frozen, validated, and stored whole in every weights file.

A field that is out of range, misspelt or missing is a :class:`SlotIDError` that names it, because a file
may come from anywhere and because the width of a hostile or mistyped config decides how much memory is taken.
"""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .errors import SlotIDError


def _require(condition: bool, where: str, got: Any, expected: str) -> None:
    if not condition:
        raise SlotIDError(f"Slot-ID config: {where} is {reprlib.repr(got)}, expected {expected}.")


def _in_range(where: str, value: float, low: float, high: float) -> None:
    _require(low <= value <= high, where, value, f"a value from {low} to {high}")


def _rotary_heads(where: str, width: int, heads: int) -> None:
    head_width = width / heads
    _require(
        head_width >= 6 and head_width % 2 == 0,
        f"{where}.width / {where}.heads",
        head_width,
        "an even whole number of at least 6, so that rotary pairs exist for time, height and width",
    )


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The Wan model that the weights are for."""

    dim: int
    """Width of the backbone's hidden state."""
    blocks: int
    """Number of transformer blocks."""
    latent_channels: int = 16
    """Channels of the video latents (16 for the Wan 2.1 VAE)."""
    text_dim: int = 4096
    """Width of a text token before the backbone's text embedding (4096 for every Wan size)."""

    def __post_init__(self) -> None:
        _in_range("backbone.dim", self.dim, 8, 16384)
        _in_range("backbone.blocks", self.blocks, 1, 256)
        _in_range("backbone.latent_channels", self.latent_channels, 1, 256)
        _in_range("backbone.text_dim", self.text_dim, 8, 16384)

    def __str__(self) -> str:
        return f"Wan with width {self.dim}, {self.blocks} blocks, {self.latent_channels} latent channels"


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Video stream: patch embedding and STSA blocks (paper, 3.1)."""

    kind: Literal["stsa", "conv_pool"] = "stsa"
    """``stsa`` is the method; ``conv_pool`` is ablation A of the paper, a 3D-conv encoder with global pooling."""
    width: int = 1024
    """Token width D."""
    layers: int = 2
    """STSA blocks, or residual convolution blocks for ``conv_pool``."""
    heads: int = 16
    """Attention heads."""
    mlp_ratio: int = 4
    """Hidden width of a block's MLP as a multiple of the token width."""
    patch: tuple[int, int, int] = (1, 2, 2)
    """Patch size (pt, ph, pw) in latent cells."""
    token_dropout: float = 0.05
    """Chance that a token is dropped in training."""
    temporal_difference: bool = True
    """Stack the latents' temporal difference on the channels. Off is an ablation."""
    temporal_rope: bool = True
    """Rotate queries and keys by time as well as by height and width. Off is an ablation."""
    absolute_positions: bool = False
    """Add to each token when and where in the clip it lies, besides the rotary positions (ours): those say how far
    tokens are from each other, not what came early."""

    def __post_init__(self) -> None:
        _in_range("encoder.width", self.width, 8, 8192)
        _in_range("encoder.layers", self.layers, 0, 64)
        _in_range("encoder.heads", self.heads, 1, 256)
        _in_range("encoder.mlp_ratio", self.mlp_ratio, 1, 16)
        _in_range("encoder.token_dropout", self.token_dropout, 0.0, 0.9)
        _require(len(self.patch) == 3, "encoder.patch", self.patch, "three sizes (time, height, width)")
        for size in self.patch:
            _in_range("encoder.patch", size, 1, 16)
        _rotary_heads("encoder", self.width, self.heads)

    @property
    def patch_channels_factor(self) -> int:
        """2 when the temporal difference is stacked on the latents, else 1."""
        return 2 if self.temporal_difference else 1


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """Slot reader: Sinkhorn routing and recurrent refinement (paper, 3.2)."""

    slots: int = 6
    """Identity slots S."""
    iterations: int = 3
    """Refinement iterations R."""
    routing: Literal["sinkhorn", "softmax"] = "sinkhorn"
    """``softmax`` over slots, as in slot attention, is an ablation."""
    sinkhorn_iterations: int = 8
    """Row and column scalings per refinement iteration."""
    tau_start: float = 1.0
    """Temperature at training step 0."""
    tau_end: float = 0.1
    """Temperature from ``tau_decay_steps`` on."""
    tau_decay_steps: int = 3000
    """Training steps over which the temperature falls linearly."""
    dustbin: Literal["off", "fixed", "learned"] = "off"
    """An extra row that takes background tokens and is never read out; its mass fixed or learned."""
    dustbin_mass: float = 0.5
    """Share of the row mass that the dustbin takes (its initial share when learned)."""

    def __post_init__(self) -> None:
        _in_range("reader.slots", self.slots, 1, 64)
        _in_range("reader.iterations", self.iterations, 1, 32)
        _in_range("reader.sinkhorn_iterations", self.sinkhorn_iterations, 1, 1000)
        _in_range("reader.tau_start", self.tau_start, 1e-3, 100.0)
        _in_range("reader.tau_end", self.tau_end, 1e-3, 100.0)
        _in_range("reader.tau_decay_steps", self.tau_decay_steps, 1, 10**9)
        _in_range("reader.dustbin_mass", self.dustbin_mass, 0.01, 0.99)
        _require(
            self.dustbin == "off" or self.routing == "sinkhorn",
            "reader.dustbin",
            self.dustbin,
            "'off' with softmax routing (a dustbin is a marginal, which only Sinkhorn has)",
        )


@dataclass(frozen=True, kw_only=True)
class PortraitConfig:
    """Image stream: one clean portrait to K tokens (paper, 3.3)."""

    tokens: int = 2
    """Image-anchor tokens K."""
    width: int = 1024
    """Width of the pooled features."""
    heads: int = 16
    """Heads of the attention pooling."""
    patch: tuple[int, int] = (2, 2)
    """Patch size (ph, pw) in latent cells."""

    def __post_init__(self) -> None:
        _in_range("portrait.tokens", self.tokens, 1, 64)
        _in_range("portrait.width", self.width, 8, 8192)
        _in_range("portrait.heads", self.heads, 1, 256)
        _rotary_heads("portrait", self.width, self.heads)
        _require(len(self.patch) == 2, "portrait.patch", self.patch, "two sizes (height, width)")
        for size in self.patch:
            _in_range("portrait.patch", size, 1, 16)


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """How much the portrait weighs against the clip at each noise level (see ``gate.py``)."""

    start: float = 0.9
    """Portrait weight w at pure noise (sigma = 1)."""
    end: float = 0.1
    """Portrait weight w at the clean end (sigma = 0)."""
    shift: float = 5.0
    """The timestep shift that is undone first. A constant of the weights, never the sampler's own shift."""

    def __post_init__(self) -> None:
        _in_range("gate.start", self.start, 0.0, 1.0)
        _in_range("gate.end", self.end, 0.0, 1.0)
        _in_range("gate.shift", self.shift, 1.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class FilmConfig:
    """FiLM on the output of the backbone's last blocks (paper, 3.3)."""

    global_dim: int = 512
    """Width G of the global vectors."""
    hidden: int = 512
    """Width of the shared trunk."""
    rank: int = 16
    """Rank of each block's head."""
    fraction: float = 0.5
    """Share of the blocks, counted from the last, that is modulated. 0 turns FiLM off."""

    def __post_init__(self) -> None:
        _in_range("film.global_dim", self.global_dim, 1, 8192)
        _in_range("film.hidden", self.hidden, 1, 8192)
        _in_range("film.rank", self.rank, 1, 1024)
        _in_range("film.fraction", self.fraction, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank update of the backbone's cross-attention (paper, 3.3 and 4.1)."""

    rank: int = 32
    """Rank r. 0 turns the LoRA off."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank."""
    targets: tuple[Literal["q", "k", "v", "o"], ...] = ("k", "v")
    """Projections of ``cross_attn`` that are updated."""

    def __post_init__(self) -> None:
        _in_range("lora.rank", self.rank, 0, 1024)
        _in_range("lora.alpha", self.alpha, 1e-6, 1e6)
        _require(
            0 < len(self.targets) == len(set(self.targets)),
            "lora.targets",
            self.targets,
            "one or more of 'q', 'k', 'v', 'o', each once",
        )


@dataclass(frozen=True, kw_only=True)
class SlotIDConfig:
    """Everything that shapes a Slot-ID model. One preset a backbone size, ablations by ``replace``."""

    backbone: BackboneConfig
    """The Wan model that the weights are for."""
    clip_order: Literal["temporal", "shuffled"] = "temporal"
    """``shuffled`` is ablation B of the paper: the clip's *pixels* are shuffled in time before the VAE."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    portrait: PortraitConfig = field(default_factory=PortraitConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    film: FilmConfig = field(default_factory=FilmConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)

    def replace(self, **parts: dict[str, Any] | str) -> SlotIDConfig:
        """A copy with fields of the named parts changed: ``config.replace(reader={"slots": 1})``."""
        changes = {
            name: replace(getattr(self, name), **value) if isinstance(value, dict) else value
            for name, value in parts.items()
        }
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries and lists, fit for JSON. A whole number given for a float comes out as a float, so
        that equal configs have equal hashes.
        """
        return dataclasses.asdict(self.from_dict(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: Any) -> SlotIDConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            SlotIDError: a field is unknown, missing, of the wrong type or out of range.
        """
        return _parse(cls, data, "config")

    @classmethod
    def preset(cls, name: str) -> SlotIDConfig:
        """``wan-14b`` (D = 1024), ``wan-1.3b`` (the same for the small Wan) or ``tiny`` (tests and demo).

        Raises:
            SlotIDError: no preset has that name.
        """
        if name not in PRESETS:
            raise SlotIDError(f"There is no Slot-ID preset {name!r}; presets: {', '.join(PRESETS)}.")
        return PRESETS[name]


def _parse(cls: type, data: Any, where: str) -> Any:
    """Strictly build the dataclass ``cls`` from plain JSON data."""
    _require(isinstance(data, dict), where, type(data).__name__, "a mapping")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in data:
        _require(key in known, f"{where}.{str(key)[:60]}", "there", f"one of {', '.join(known)}")
    for name, f in known.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        _require(name in data or not required, f"{where}.{name}", "missing", "a value")
    return cls(**{name: _coerce(hints[name], value, f"{where}.{name}") for name, value in data.items()})


def _coerce(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _parse(hint, value, where)
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        _require(value in choices, where, value, f"one of {', '.join(map(repr, choices))}")
        return value
    if origin is tuple:
        _require(isinstance(value, (list, tuple)), where, value, "a list")
        item = typing.get_args(hint)[0]
        return tuple(_coerce(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float:
        # JSON has whole numbers that no float holds; the ranges end far below.
        holds = type(value) is float or (type(value) is int and abs(value) < 10**300)
        _require(holds, where, value, "a number (below 1e300)")
        return float(value)
    _require(type(value) is hint, where, value, f"of type {hint.__name__}")
    return value


PRESETS: typing.Mapping[str, SlotIDConfig] = types.MappingProxyType(
    {
        "wan-14b": SlotIDConfig(backbone=BackboneConfig(dim=5120, blocks=40)),
        "wan-1.3b": SlotIDConfig(backbone=BackboneConfig(dim=1536, blocks=30)),
        "tiny": SlotIDConfig(
            backbone=BackboneConfig(dim=256, blocks=4),
            encoder=EncoderConfig(width=96, heads=4),
            portrait=PortraitConfig(width=96, heads=4),
            film=FilmConfig(global_dim=32, hidden=32, rank=4),
            lora=LoraConfig(rank=8, alpha=4.0),
        ),
    }
)
