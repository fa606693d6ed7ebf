"""Configuration: strict, whole, and the same after a trip through JSON."""

import copy
import dataclasses
import json

import pytest

from slotid_core.config import PRESETS, BackboneConfig, SlotIDConfig
from slotid_core.errors import SlotIDError

CHANGED = {
    "ablation A": {"encoder": {"kind": "conv_pool", "patch": (2, 4, 4)}},
    "ablation B": {"clip_order": "shuffled"},
    "softmax": {"reader": {"routing": "softmax", "slots": 1}},
    "dustbin": {"reader": {"dustbin": "learned", "dustbin_mass": 0.25}},
    "portrait only": {"gate": {"start": 1, "end": 1}},
    "every projection": {"lora": {"targets": ("q", "k", "v", "o"), "rank": 0}},
    "no FiLM": {"film": {"fraction": 0}},
}


def tiny_dict() -> dict:
    return json.loads(json.dumps(SlotIDConfig.preset("tiny").to_dict()))


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_survive_json(name):
    config = SlotIDConfig.preset(name)
    assert SlotIDConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", list(CHANGED))
def test_changed_configs_survive_json(name):
    config = SlotIDConfig.preset("tiny").replace(**CHANGED[name])
    again = SlotIDConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config != SlotIDConfig.preset("tiny")
    assert json.dumps(again.to_dict()) == json.dumps(config.to_dict()), "equal configs must have equal hashes"


def test_presets_hold_the_papers_figures():
    for name, dim, blocks in (("wan-14b", 5120, 40), ("wan-1.3b", 1536, 30)):
        config = SlotIDConfig.preset(name)
        assert config.backbone == BackboneConfig(dim=dim, blocks=blocks, latent_channels=16, text_dim=4096)
        assert (config.encoder.width, config.encoder.layers, config.encoder.heads) == (1024, 2, 16)
        assert config.encoder.token_dropout == 0.05
        assert (config.reader.slots, config.reader.iterations, config.portrait.tokens) == (6, 3, 2)
        assert config.film.fraction == 0.5
        assert (config.lora.rank, config.lora.alpha, config.lora.targets) == (32, 16.0, ("k", "v"))
    tiny = SlotIDConfig.preset("tiny").backbone
    assert (tiny.dim, tiny.blocks, tiny.latent_channels, tiny.text_dim) == (256, 4, 16, 4096)


def test_an_unknown_preset_names_those_that_are_there():
    with pytest.raises(SlotIDError, match="'wan-7b'.*wan-14b, wan-1.3b, tiny"):
        SlotIDConfig.preset("wan-7b")


def test_what_may_be_left_out_gets_its_default():
    config = SlotIDConfig.from_dict({"backbone": {"dim": 5120, "blocks": 40}})
    assert config == SlotIDConfig.preset("wan-14b")


REMOVE = object()
NAN, INF = float("nan"), float("inf")


def set_at(data: dict, path: str, value: object) -> None:
    *parents, last = path.split(".")
    for name in parents:
        data = data[name]
    if value is REMOVE:
        del data[last]
    else:
        data[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # unknown or missing
        ("encodr", {}),
        ("encoder.widht", 96),
        ("reader.slot", 6),
        ("backbone.extra", None),
        ("backbone", REMOVE),
        ("backbone.dim", REMOVE),
        ("backbone.blocks", REMOVE),
        # of the wrong type
        ("backbone", [256, 4]),
        ("encoder", None),
        ("backbone.dim", 256.0),
        ("backbone.dim", "256"),
        ("backbone.dim", True),
        ("backbone.blocks", None),
        ("encoder.layers", True),
        ("reader.slots", True),
        ("encoder.width", [96]),
        ("encoder.width", {"value": 96}),
        ("encoder.temporal_difference", 1),
        ("encoder.temporal_rope", "no"),
        ("encoder.token_dropout", "0.05"),
        ("encoder.token_dropout", True),
        ("encoder.patch", 2),
        ("encoder.patch", "122"),
        ("encoder.patch", [1, 2, 2.0]),
        ("reader.tau_start", [1.0]),
        ("gate.shift", None),
        ("lora.targets", "k"),
        ("lora.targets", [["k"]]),
        ("clip_order", 1),
        ("clip_order", ["temporal"]),
        # no such choice
        ("encoder.kind", "STSA"),
        ("reader.routing", "hard"),
        ("reader.dustbin", True),
        ("clip_order", "random"),
        ("lora.targets", ["k", "x"]),
        # out of range
        ("backbone.dim", 10**9),
        ("backbone.dim", 0),
        ("backbone.blocks", -1),
        ("backbone.blocks", 10**9),
        ("backbone.latent_channels", 0),
        ("backbone.text_dim", 10**9),
        ("encoder.width", 10**9),
        ("encoder.layers", 10**9),
        ("encoder.layers", -1),
        ("encoder.heads", 0),
        ("encoder.mlp_ratio", 0),
        ("encoder.token_dropout", 1.0),
        ("encoder.token_dropout", NAN),
        ("encoder.patch", []),
        ("encoder.patch", [1, 2]),
        ("encoder.patch", [1] * 10_000),
        ("encoder.patch", [0, 2, 2]),
        ("encoder.patch", [1, 2, 17]),
        ("reader.slots", 0),
        ("reader.slots", 65),
        ("reader.iterations", 0),
        ("reader.sinkhorn_iterations", 10**9),
        ("reader.tau_start", 0.0),
        ("reader.tau_end", -0.1),
        ("reader.tau_end", INF),
        ("reader.tau_decay_steps", 0),
        ("reader.dustbin_mass", 1.0),
        ("portrait.tokens", 0),
        ("portrait.width", 10**9),
        ("portrait.heads", 10**9),
        ("portrait.patch", [2, 2, 2]),
        ("portrait.patch", [2, 0]),
        ("gate.start", 1.1),
        ("gate.end", -0.1),
        ("gate.shift", 0.5),
        ("gate.shift", NAN),
        ("gate.shift", 10**400),
        ("gate.start", -(10**400)),
        ("film.global_dim", 0),
        ("film.hidden", 10**9),
        ("film.rank", 0),
        ("film.fraction", 1.5),
        ("lora.rank", -1),
        ("lora.rank", 10**9),
        ("lora.alpha", 0.0),
        ("lora.alpha", -INF),
        ("lora.targets", []),
        ("lora.targets", ["k", "k"]),
    ],
    ids=lambda value: "removed" if value is REMOVE else str(value)[:30],
)
def test_a_bad_field_is_refused_by_its_name(path, value):
    data = tiny_dict()
    set_at(data, path, value)
    with pytest.raises(SlotIDError) as error:
        SlotIDConfig.from_dict(data)
    message = str(error.value)
    assert path in message and "expected" in message
    assert len(message) < 500


@pytest.mark.parametrize(("part", "width", "heads"), [("encoder", 96, 5), ("encoder", 20, 4), ("portrait", 45, 3)])
def test_heads_must_leave_rotary_pairs(part, width, heads):
    data = tiny_dict()
    data[part].update(width=width, heads=heads)
    with pytest.raises(SlotIDError, match=f"{part}.width / {part}.heads"):
        SlotIDConfig.from_dict(data)


def test_a_dustbin_needs_sinkhorn():
    with pytest.raises(SlotIDError, match="reader.dustbin.*'off' with softmax"):
        SlotIDConfig.preset("tiny").replace(reader={"routing": "softmax", "dustbin": "fixed"})


@pytest.mark.parametrize("data", [None, [], "tiny", 3, {}])
def test_a_config_is_a_mapping_with_a_backbone(data):
    with pytest.raises(SlotIDError, match="^Slot-ID config: config"):
        SlotIDConfig.from_dict(data)


def test_configs_are_frozen_and_replaced_by_copies():
    config = SlotIDConfig.preset("tiny")
    before = copy.deepcopy(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.encoder.width = 8
    changed = config.replace(encoder={"layers": 3}, clip_order="shuffled")
    assert changed.encoder.layers == 3 and changed.encoder.width == 96 and changed.clip_order == "shuffled"
    assert config == before == SlotIDConfig.preset("tiny")
    with pytest.raises(SlotIDError, match="encoder.layers"):
        config.replace(encoder={"layers": -3})
