"""Learning a VAE from whole clips: the same numbers as diffusers' own way of a few frames at a time."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from training.wan_diffusers import AutoencoderKLWan
from training.world.models.vae import _face_weights
from training.world.models.whole import WholeClips


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


def test_faces_count_more_and_pictures_as_much_as_before():
    weights = _face_weights(80)
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights[36, 40] / weights[0, 0]) == pytest.approx(4, rel=0.05)
