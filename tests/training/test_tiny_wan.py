"""The tiny models: deterministic, sane in their statistics, and the pixels-to-latents door around the VAE."""

import pytest
import torch

from slotid_core.config import SlotIDConfig
from slotid_core.demo_text import embed_prompt
from slotid_core.errors import SlotIDError
from slotid_core.latents import WAN21_MEAN, WAN21_STD
from training.demo_clip import demo_clip
from training.wan_diffusers import decode_latents, encode_frames, tiny_transformer, tiny_vae


def clip(frames=17, size=64, seed=0):
    return torch.from_numpy(demo_clip(seed, frames=frames, size=size)).float() / 255


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("build", [tiny_transformer, tiny_vae])
def test_the_same_seed_gives_the_same_bits(build):
    before = torch.get_rng_state()
    first, second = build(5), build(5)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(first, second)
    assert not same_weights(first, build(6))
    assert not first.training and not any(p.requires_grad for p in first.parameters())


def test_the_calibration_does_not_depend_on_the_kernels(vae):
    """Other convolution kernels, as on another machine, differ in the last bits of what is measured."""
    with torch.backends.mkldnn.flags(enabled=False):
        assert same_weights(vae, tiny_vae())


def test_the_transformer_fits_the_tiny_preset(transformer):
    wanted, config = SlotIDConfig.preset("tiny").backbone, transformer.config
    assert config.num_attention_heads * config.attention_head_dim == wanted.dim
    assert (config.num_layers, config.in_channels, config.text_dim) == (
        wanted.blocks,
        wanted.latent_channels,
        wanted.text_dim,
    )


@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.05])
def test_the_transformer_is_sane_and_hears_the_prompt(transformer, sigma):
    latents = torch.randn(1, 16, 3, 8, 8)
    timestep = torch.tensor([1000 * sigma])
    prompts = [embed_prompt(text) for text in ("a person smiles", "a man walks his dog", "")]
    velocities = [transformer(latents, timestep, prompt).sample for prompt in prompts]
    assert 0.5 < velocities[0].std() < 4
    for other in velocities[1:]:
        assert (velocities[0] - other).norm() > 0.05 * velocities[0].norm()


def test_raw_latents_have_wans_statistics(vae):
    """The demo clip, another person and another size than it was calibrated on included."""
    for frames in (clip(), clip(9, 96, seed=3)):
        latents = encode_frames(vae, frames)
        assert latents.mean().abs() < 0.3 and 0.6 < latents.std() < 1.5
        assert latents.mean(dim=(0, 2, 3, 4)).abs().max() < 1.5


def test_latents_are_normalised_once_and_are_the_posterior_mean(vae):
    frames = clip(5)
    raw = vae.encode(frames.permute(3, 0, 1, 2)[None] * 2 - 1).latent_dist.mean
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    assert torch.allclose(encode_frames(vae, frames), (raw - mean) / std, atol=1e-6)
    assert list(WAN21_MEAN) == vae.config.latents_mean and list(WAN21_STD) == vae.config.latents_std


@pytest.mark.parametrize(("frames", "latent_frames"), [(1, 1), (5, 2), (17, 5)])
def test_shapes_there_and_back(vae, frames, latent_frames):
    latents = encode_frames(vae, torch.rand(frames, 48, 32, 3))
    assert latents.shape == (1, 16, latent_frames, 6, 4) and latents.dtype == torch.float32
    pixels = decode_latents(vae, latents)
    assert pixels.shape == (frames, 48, 32, 3)
    assert 0 <= pixels.min() and pixels.max() <= 1


def test_latents_are_brought_back_to_raw_ones_to_decode(vae):
    latents = torch.randn(1, 16, 2, 4, 4)
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    pixels = vae.decode(latents * std + mean).sample[0].permute(1, 2, 3, 0) / 2 + 0.5
    assert torch.allclose(decode_latents(vae, latents), pixels, atol=1e-5)


def test_decoded_noise_is_an_ordinary_picture(vae):
    pixels = decode_latents(vae, torch.randn(1, 16, 5, 8, 8))
    assert 0.4 < pixels.mean() < 0.6 and 0.1 < pixels.std() < 0.3
    assert ((pixels == 0) | (pixels == 1)).float().mean() < 0.05


def test_the_latents_depend_on_what_is_seen_where_and_when(vae):
    frames = clip(9)
    base = encode_frames(vae, frames)
    later = frames.clone()
    later[5:, :32] = 0.5  # the second latent step after the first frame, upper half
    changed = (encode_frames(vae, later) - base).abs().amax(dim=(0, 1))
    assert changed[2].max() > 0.1
    assert changed[:2].max() == 0  # the VAE is causal
    # Attention in the VAE's middle reaches everywhere; what changed most lies where the picture did.
    assert changed[2, :4].mean() > 3 * changed[2, 6:].mean()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.rand(4, 32, 32, 3), "4 frames.*1 or 5"),
        (torch.rand(16, 32, 32, 3), "16 frames.*13 or 17"),
        (torch.rand(0, 32, 32, 3), "0 frames.*Use 1"),
        (torch.rand(5, 40, 32, 3), "32 x 40.*multiples of 16"),
        (torch.rand(5, 32, 32, 4), r"\[5, 32, 32, 4\], expected float \[F, H, W, 3\]"),
        (torch.randint(0, 255, (5, 32, 32, 3)).byte(), "uint8"),
        (torch.rand(5, 32, 32, 3) * 255, "0 to 1"),
    ],
)
def test_frames_that_do_not_fit(vae, frames, message):
    with pytest.raises(SlotIDError, match=message):
        encode_frames(vae, frames)


@pytest.mark.parametrize("shape", [(2, 16, 1, 4, 4), (1, 48, 1, 4, 4), (16, 1, 4, 4)])
def test_latents_that_do_not_fit(vae, shape):
    with pytest.raises(SlotIDError):
        decode_latents(vae, torch.randn(shape))
