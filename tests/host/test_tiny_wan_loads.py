"""The tiny Wan and its VAE in ComfyUI: loaded whole by its own loaders, and the same functions as in diffusers."""

import logging

import pytest
import torch

from slotid_core.demo_text import embed_prompt
from slotid_core.latents import denormalise, normalise
from training.demo_clip import demo_clip
from training.wan_diffusers import decode_latents, encode_frames, tiny_vae
from training.wan_keys import transformer_to_original, vae_to_original

TOLERANCE = 1e-4


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference anywhere, against the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def original_names(model, rename):
    return {rename(name): tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def vae():
    return tiny_vae()


@pytest.fixture(scope="module")
def comfy_vae(comfy, vae):
    return comfy.sd.VAE(sd=original_names(vae, vae_to_original))


def test_the_transformer_loads_whole(comfy, transformer, caplog):
    state = original_names(transformer, transformer_to_original)
    with caplog.at_level(logging.INFO):
        wan = comfy.sd.load_diffusion_model_state_dict(dict(state), model_options={"dtype": torch.float32})
    assert type(wan.model) is comfy.model_base.WAN21
    assert not [record for record in caplog.records if "missing" in record.message or "unexpected" in record.message]
    loaded = wan.model.diffusion_model.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_the_vae_loads_whole(comfy, vae, caplog):
    state = original_names(vae, vae_to_original)
    with caplog.at_level(logging.INFO):
        loaded = comfy.sd.VAE(sd=dict(state)).first_stage_model
    assert type(loaded) is comfy.ldm.wan.vae.WanVAE
    assert not [record for record in caplog.records if "VAE keys" in record.message]
    loaded = loaded.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.fixture(scope="module")
def untouched_wan(comfy, transformer):
    """A MODEL of its own: ComfyUI leaves the weights of the session's one patched between runs."""
    state = original_names(transformer, transformer_to_original)
    return comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": torch.float32})


@pytest.mark.parametrize("sigma", [1.0, 0.9, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("size", [(5, 16, 16), (1, 8, 12)])
def test_the_same_velocity(untouched_wan, transformer, sigma, size):
    latents = torch.randn(2, 16, *size)
    context = torch.cat([embed_prompt("a person smiles in the sun"), embed_prompt("")])
    timestep = torch.tensor([1000 * sigma] * 2)
    with torch.no_grad():
        ours = transformer(latents, timestep, context).sample
        theirs = untouched_wan.model.diffusion_model(latents, timestep, context)
    assert relative(theirs, ours) < TOLERANCE


@pytest.mark.parametrize(("frames", "size"), [(17, 64), (5, 48), (1, 64)])
def test_the_same_latents_and_pixels(comfy_vae, vae, frames, size):
    pixels = torch.from_numpy(demo_clip(1, frames=frames, size=size)).float() / 255
    ours = encode_frames(vae, pixels)
    with torch.no_grad():
        theirs = normalise(comfy_vae.encode(pixels).float().cpu())
    assert theirs.shape == ours.shape == (1, 16, (frames - 1) // 4 + 1, size // 8, size // 8)
    assert relative(theirs, ours) < TOLERANCE

    latents = torch.randn_like(ours)
    with torch.no_grad():
        decoded = comfy_vae.decode(denormalise(latents))
    assert decoded.shape == (1, frames, size, size, 3)
    assert relative(decoded[0].float().cpu(), decode_latents(vae, latents)) < TOLERANCE
