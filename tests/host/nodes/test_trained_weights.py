"""Really trained weights in ComfyUI: through the pack's nodes, the LoRA through ComfyUI's own, and the merged Wan.

The backbone calls of ComfyUI are recorded and made again in diffusers, as in ``test_parity.py``.
"""

import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from slotid_core.checkpoint import load_weights
from slotid_core.identify import identify
from slotid_core.injection import Injection
from slotid_core.types import IdentityEmbedding
from training.demo_clip import demo_clip
from training.export import main as export
from training.trainer.weights import LORA_FILE, SLOTID_FILE
from training.wan_diffusers import encode_frames, tiny_transformer
from training.wan_injection import inject
from training.wan_keys import transformer_to_diffusers, transformer_to_original

TOLERANCE = 1e-4


def relative(a, b):
    return float((a - b).norm() / b.norm())


def again(wan, call):
    """The recorded call in diffusers, without an identity."""
    with torch.no_grad():
        return wan(call["x"], 1000 * call["sigma"], call["context"], return_dict=False)[0]


@pytest.fixture(scope="module")
def weights_of_run(trained_run):
    return trained_run / "weights"


@pytest.fixture(scope="module")
def slotid(weights_of_run):
    """As the installed core reads them, for diffusers."""
    return load_weights(weights_of_run / SLOTID_FILE)


@pytest.fixture(scope="module")
def slotid_model(run, folders, weights_of_run):
    """As Load Slot-ID Model reads them."""
    shutil.copy(weights_of_run / SLOTID_FILE, folders.slotid / "trained.safetensors")
    return run("SlotIDLoadModel", model_name="trained.safetensors")


@pytest.fixture(scope="module")
def pictures():
    """Clips of two drawn people, ``[F, H, W, 3]``; the portrait is a frame of it."""
    return [torch.from_numpy(demo_clip(seed, frames=9, size=64)).float() / 255 for seed in (0, 1)]


@pytest.fixture(scope="module")
def identities(run, slotid_model, vae, pictures):
    """Encoded in ComfyUI."""
    encode = {"slotid_model": slotid_model.slotid_model, "vae": vae}
    return [run("SlotIDEncode", **encode, clip=clip, portrait=clip[:1]).identity for clip in pictures]


@pytest.fixture
def model(wan, tools):
    """The tiny Wan with its backbone calls recorded: ``model.calls``."""
    probe = tools.Probe()
    model = tools.probed(wan, probe)
    model.calls = probe.calls
    return model


def call_of(model, patched, tools, sigma=0.7):
    tools.evaluate(patched, sigma)
    (call,) = model.calls
    model.calls.clear()
    return call


def test_the_node_loads_them_and_says_what_they_are(run, slotid_model, slotid, caplog):
    loaded = run("SlotIDLoadModel", model_name="trained.safetensors")
    assert loaded.slotid_model.sha256 == slotid_model.slotid_model.sha256 == slotid.sha256
    assert not loaded.slotid_model.untrained and not caplog.records
    (text,) = loaded.ui["text"]
    assert "12 updates." in text and "NO IDENTITY" not in text


@pytest.mark.parametrize("sigma", [1.0, 0.7, 0.05])
def test_the_nodes_and_diffusers_give_the_same_velocity(
    run, tools, model, transformer, slotid_model, slotid, identities, sigma
):
    patched = run("SlotIDApply", model=model, slotid_model=slotid_model.slotid_model, identity=identities[0]).model
    call = call_of(model, patched, tools, sigma)
    positive = torch.tensor([role == 0 for role in call["roles"]])
    ours = []
    for identity in identities:
        part = Injection(slotid.model, IdentityEmbedding(**vars(identity.embedding)))
        with inject(transformer, [part], slotid.lora) as injected, torch.no_grad():
            ours.append(injected(call["x"], call["sigma"], call["context"], positive))
    assert relative(call["velocity"], ours[0]) < TOLERANCE
    assert relative(call["velocity"][positive], ours[1][positive]) > 10 * TOLERANCE, "a dead adapter"
    assert relative(call["velocity"], again(transformer, call)) > 100 * TOLERANCE


def test_the_same_pixels_encoded_in_diffusers_are_the_same_identity(slotid, tiny_vae, pictures, identities):
    def encode(clip):
        return identify(slotid, slotid.model, lambda frames: encode_frames(tiny_vae, frames), clip, clip[0]).identity

    for name in ("clip_tokens_BSE", "portrait_tokens_BKE", "clip_global_BG", "portrait_global_BG"):
        theirs, other = (getattr(identity.embedding, name) for identity in identities)
        ours = getattr(encode(pictures[0]).embedding, name)
        assert relative(ours, theirs) < 1e-3, name
        assert relative(other, theirs) > 1e-2, name


@pytest.fixture(scope="module")
def by_lora_node(weights_of_run, tmp_path_factory):
    """``by_lora_node(model)``: ComfyUI's own node with the LoRA file from models/loras."""
    import folder_paths

    import nodes

    folder = tmp_path_factory.mktemp("loras")
    shutil.copy(weights_of_run / LORA_FILE, folder / "trained_lora.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(folder)], {".safetensors"}))
        patch.setattr(folder_paths, "filename_list_cache", {})
        yield lambda model: nodes.LoraLoaderModelOnly().load_lora_model_only(model, "trained_lora.safetensors", 1.0)[0]


def test_comfyuis_lora_loader_leaves_no_key_over(by_lora_node, wan, slotid, caplog):
    with caplog.at_level(logging.INFO):
        patched = by_lora_node(wan)
    assert [r.message for r in caplog.records if "not loaded" in r.message.lower()] == []
    assert set(patched.patches) == {f"diffusion_model.{name}.weight" for name in slotid.lora.pairs}
    assert len(patched.patches) == 8 and all(len(patches) == 1 for patches in patched.patches.values())


def test_a_key_that_is_left_over_would_be_seen(comfy, wan, weights_of_run, caplog):
    odd = {"diffusion_model.blocks.9.cross_attn.k.alpha": torch.tensor(1.0)}
    comfy.sd.load_lora_for_models(wan, None, {**load_file(weights_of_run / LORA_FILE), **odd}, 1.0, 0)
    assert [r.message for r in caplog.records] == [f"lora key not loaded: {next(iter(odd))}"]


def test_both_hosts_own_loaders_make_the_same_of_the_lora(tools, model, by_lora_node, weights_of_run, slotid):
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    call = call_of(model, by_lora_node(model), tools)
    pipeline = WanPipeline(None, None, None, FlowMatchEulerDiscreteScheduler(), transformer=tiny_transformer())
    pipeline.load_lora_weights(str(weights_of_run / LORA_FILE))
    assert relative(call["velocity"], again(pipeline.transformer, call)) < TOLERANCE
    assert relative(call["velocity"], again(tiny_transformer(), call)) > 100 * TOLERANCE

    def merged(scale):
        wan = tiny_transformer()
        for name, pair in slotid.lora.pairs.items():
            wan.get_submodule(transformer_to_diffusers(name)).weight.add_(scale(pair) * (pair.up_OR @ pair.down_RI))
        return again(wan, call)

    assert relative(call["velocity"], merged(lambda pair: pair.alpha / len(pair.down_RI))) < TOLERANCE
    assert relative(call["velocity"], merged(lambda pair: 1.0)) > 100 * TOLERANCE, "twice as strong without alpha"


def test_the_merged_wan_loads_in_comfyui_and_is_wan_with_the_lora(
    comfy, tools, model, by_lora_node, weights_of_run, transformer, tmp_path, caplog
):
    wan, out = tmp_path / "wan.safetensors", tmp_path / "merged.safetensors"
    save_file({transformer_to_original(name): tensor for name, tensor in transformer.state_dict().items()}, wan)
    assert export([str(weights_of_run / SLOTID_FILE), "--merge", str(wan), "--out-wan", str(out)]) == 0
    with caplog.at_level(logging.INFO):
        loaded = comfy.sd.load_diffusion_model(str(out), model_options={"dtype": torch.float32})
    assert not [r for r in caplog.records if "missing" in r.message or "unexpected" in r.message]
    assert loaded.model.diffusion_model.state_dict().keys() == load_file(wan).keys()
    call = call_of(model, by_lora_node(model), tools)
    probe = tools.Probe()
    tools.evaluate(tools.probed(loaded, probe))
    assert torch.equal(probe.calls[0]["x"], call["x"])
    assert relative(probe.calls[0]["velocity"], call["velocity"]) < TOLERANCE
    assert relative(again(transformer, call), call["velocity"]) > 100 * TOLERANCE


@pytest.mark.full
def test_what_tiny_yaml_makes_loads_and_gives_the_velocity_of_diffusers(
    run, comfy, folders, tools, wan, model, vae, pictures, transformer, tiny_run, caplog
):
    """60 updates on a random Wan tell nobody apart, but they do act."""
    folder = tiny_run / "weights"
    shutil.copy(folder / SLOTID_FILE, folders.slotid / "tiny_yaml.safetensors")
    loaded = run("SlotIDLoadModel", model_name="tiny_yaml.safetensors")
    assert not loaded.slotid_model.untrained and "60 updates." in loaded.ui["text"][0]
    encode = {"slotid_model": loaded.slotid_model, "vae": vae, "clip": pictures[0], "portrait": pictures[0][:1]}
    identity = run("SlotIDEncode", **encode).identity
    patched = run("SlotIDApply", model=model, slotid_model=loaded.slotid_model, identity=identity).model
    call = call_of(model, patched, tools)
    slotid = load_weights(folder / SLOTID_FILE)
    part = Injection(slotid.model, IdentityEmbedding(**vars(identity.embedding)))
    positive = torch.tensor([role == 0 for role in call["roles"]])
    with inject(transformer, [part], slotid.lora) as injected, torch.no_grad():
        ours = injected(call["x"], call["sigma"], call["context"], positive)
    assert relative(call["velocity"], ours) < TOLERANCE
    plain = again(transformer, call)
    assert relative(call["velocity"][positive], plain[positive]) > 100 * TOLERANCE
    with caplog.at_level(logging.INFO):
        comfy.sd.load_lora_for_models(wan, None, load_file(folder / LORA_FILE), 1.0, 0)
    assert [r.message for r in caplog.records if "not loaded" in r.message.lower()] == []
