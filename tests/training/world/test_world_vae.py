"""Learning a VAE from whole clips: the same numbers as diffusers' own way of a few frames at a time."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from training.wan_diffusers import AutoencoderKLWan
from training.world.models.focus import counts, parts_of_clips
from training.world.models.vae import _Pictures
from training.world.models.whole import WholeClips
from training.world.pictures import WorldClip


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    """Narrow, with weights by chance, those of the steps in time among them."""
    torch.manual_seed(0)
    return AutoencoderKLWan(base_dim=8).eval()


@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_whole_clips_are_encoded_and_decoded_as_in_parts(vae, frames):
    pixels = 2 * torch.rand(2, 3, frames, 16, 24) - 1
    whole = WholeClips(vae)
    with torch.no_grad():
        latents, asked = whole.encode(pixels), vae.encode(pixels).latent_dist.mean
        decoded, wanted = whole.decode(asked), vae.decode(asked).sample
    assert latents.shape == (2, 16, (frames + 3) // 4, 2, 3) and decoded.shape == pixels.shape
    torch.testing.assert_close(latents, asked, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoded, wanted, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_parts_too(vae):
    pixels = 2 * torch.rand(1, 3, 9, 16, 16) - 1
    whole, parameters = WholeClips(vae), dict(vae.named_parameters())
    ways = (
        lambda: whole.decode(whole.encode(pixels)),
        lambda: vae.decode(vae.encode(pixels).latent_dist.mean).sample,
    )
    one, other = (torch.autograd.grad(way().square().sum(), list(parameters.values())) for way in ways)
    for name, mine, theirs in zip(parameters, one, other, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max() + 1), msg=name)


def test_a_whole_clip_takes_far_fewer_operations(vae):
    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    pixels, whole = torch.zeros(1, 3, 17, 16, 16), WholeClips(vae)
    with torch.no_grad():
        with Count() as few:
            whole.decode(whole.encode(pixels))
        with Count() as many:
            vae.decode(vae.encode(pixels).latent_dist.mean)
    assert 3 * few.calls < many.calls


def test_what_counts_is_cut_and_mirrored_with_its_clip():
    """Clips that are pictures of how much their own pixels count."""
    known = [WorldClip(split="train", index=index, clip=0) for index in range(4)]
    parts = parts_of_clips(known)
    shown = (30 * counts(parts)).round().to(torch.uint8)[..., None].expand(-1, -1, -1, -1, 3)
    for frames, side in ((17, 80), (9, 48)):
        random = np.random.RandomState(0)
        crops, counted = _Pictures(shown, parts).crops(random, 8, frames, side)
        assert crops.shape == (8, 3, frames, side, side) and counted.shape == (8, 1, frames, side, side)
        # Counts of a part of a clip have another mean: alike but for one factor.
        pixels = (crops[:, :1] + 1) * 127.5 / 30
        factor = (counted.sum((1, 2, 3, 4)) / pixels.sum((1, 2, 3, 4))).view(-1, 1, 1, 1, 1)
        assert torch.allclose(factor * pixels, counted, atol=0.05), side
        assert float(counted.max() / counted.min()) > 4
