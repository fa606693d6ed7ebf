"""Latent statistics against diffusers' VAE, the temporal difference, and the shuffled clip.

Shape letters: B batch, C channels, T H W frames, height, width, F frames of pixels.
"""

import inspect

import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.latents import denormalise, normalise, shuffle_frames, shuffled_order, temporal_difference


def test_statistics_are_those_of_diffusers_wan_vae():
    diffusers = pytest.importorskip("diffusers")
    defaults = inspect.signature(diffusers.AutoencoderKLWan.__init__).parameters
    mean, std = (torch.tensor(defaults[name].default).view(1, 16, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    raw_BCTHW = torch.randn(2, 16, 3, 4, 5) * 3
    torch.testing.assert_close(normalise(raw_BCTHW), (raw_BCTHW - mean) / std)


def test_denormalise_is_the_inverse():
    raw_BCTHW = torch.randn(2, 16, 3, 4, 5, dtype=torch.float64) * 3
    torch.testing.assert_close(denormalise(normalise(raw_BCTHW)), raw_BCTHW)
    assert (normalise(raw_BCTHW) - raw_BCTHW).abs().max() > 0.5


@pytest.mark.parametrize("function", [normalise, denormalise])
@pytest.mark.parametrize("shape", [(1, 48, 2, 4, 4), (16, 2, 4, 4), (1, 4, 2, 4, 4)])
def test_latents_of_another_vae_are_refused(function, shape):
    with pytest.raises(SlotIDError, match=r"expected \[B, 16, T, H, W\]") as error:
        function(torch.zeros(shape))
    assert str(list(shape)) in str(error.value)


def test_temporal_difference_literally():
    latents_BCTHW = torch.tensor([[3.0, 5.0, 4.0, 4.0], [0.0, -1.0, 7.0, 6.5]]).view(1, 2, 4, 1, 1)
    expected = torch.tensor([[0.0, 2.0, -1.0, 0.0], [0.0, -1.0, 8.0, -0.5]]).view(1, 2, 4, 1, 1)
    assert torch.equal(temporal_difference(latents_BCTHW), expected)
    assert torch.equal(temporal_difference(latents_BCTHW[:, :, :1]), torch.zeros(1, 2, 1, 1, 1))


def test_every_clip_is_shuffled_in_an_order_of_its_own():
    """One order for all clips could be learned, and then nothing would be shuffled."""
    frames_FHWC = (torch.arange(20.0) / 20).view(20, 1, 1, 1).expand(20, 2, 3, 3)
    state = torch.get_rng_state()
    first, again, other = (shuffled_order(clip).tolist() for clip in (frames_FHWC, frames_FHWC, frames_FHWC / 2))
    assert first == again != other and first != sorted(first) == list(range(20))
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers must not move"
    orders_NF = torch.stack([shuffled_order(torch.rand(9, 4, 4, 3)) for _ in range(400)])
    assert (orders_NF.float().mean(0) - 4).abs().max() < 0.6, "every place holds every frame"
    shuffled = shuffle_frames(frames_FHWC)
    assert torch.equal(shuffled, frames_FHWC[first])
    assert torch.equal(shuffled, shuffled[:, :1, :1, :1].expand_as(shuffled)), "a frame moves whole"
