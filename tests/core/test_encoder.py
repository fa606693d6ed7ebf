"""Patch embedding, token dropout and the 3DConv-Pool ablation.

Shape letters: B batch, C channels, T H W frames, height, width, L tokens, D width, S slots.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from slotid_core.config import EncoderConfig
from slotid_core.encoder import ConvPoolEncoder, PatchEmbedding, VideoEncoder, drop_tokens
from slotid_core.errors import SlotIDError
from slotid_core.rope import grid_positions


def config(**fields) -> EncoderConfig:
    return EncoderConfig(**{"width": 24, "heads": 2, **fields})


@pytest.mark.parametrize("temporal_difference", [True, False])
@torch.no_grad()
def test_patch_embedding_is_a_linear_map_of_latents_and_their_difference(temporal_difference):
    patch = (2, 1, 3)
    embed = PatchEmbedding(config(patch=patch, temporal_difference=temporal_difference), 4).double()
    latents = np.random.default_rng(0).standard_normal((2, 4, 6, 2, 9))
    difference = np.zeros_like(latents)
    difference[:, :, 1:] = latents[:, :, 1:] - latents[:, :, :-1]
    channels = np.concatenate([latents, difference], axis=1) if temporal_difference else latents
    weight_DP = embed.conv.weight.flatten(1).numpy()
    features = embed(torch.from_numpy(latents))
    assert features.shape == (2, 24, 3, 2, 3)
    for b, t, h, w in np.ndindex(2, 3, 2, 3):
        cell = channels[b, :, 2 * t : 2 * t + 2, h : h + 1, 3 * w : 3 * w + 3]
        expected_D = weight_DP @ cell.ravel() + embed.conv.bias.numpy()
        np.testing.assert_allclose(features[b, :, t, h, w].numpy(), expected_D, atol=1e-12)


def test_tokens_come_in_row_major_order_of_their_positions():
    encoder = VideoEncoder(config(layers=0), 4)
    video = encoder(torch.randn(1, 4, 3, 4, 6))
    assert video.grid_THW == (3, 2, 3) and video.tokens_BLD.shape == (1, 18, 24)
    assert grid_positions(video.grid_THW).tolist() == [list(p) for p in np.ndindex(3, 2, 3)]
    plain_DTHW = encoder.embed(torch.randn(1, 4, 3, 4, 6))
    tokens_BLD = encoder.contextualise(plain_DTHW.flatten(2).transpose(1, 2), grid_positions(video.grid_THW))
    for place, (t, h, w) in enumerate(np.ndindex(3, 2, 3)):
        torch.testing.assert_close(tokens_BLD[0, place], encoder.norm(plain_DTHW[0, :, t, h, w]))


@pytest.mark.parametrize(
    ("shape", "patch", "says"),
    [
        ((1, 5, 4, 4, 4), (1, 2, 2), ["[1, 5, 4, 4, 4]", "[B, 4, T, H, W]"]),
        ((4, 4, 4, 4), (1, 2, 2), ["[4, 4, 4, 4]", "[B, 4, T, H, W]"]),
        ((1, 4, 3, 4, 4), (2, 2, 2), ["3 latent frames", "2 or 4 would fit"]),
        ((1, 4, 4, 5, 4), (1, 2, 2), ["5 latent height", "4 or 6 would fit"]),
        ((1, 4, 4, 4, 11), (1, 2, 4), ["11 latent width", "8 or 12 would fit"]),
        ((1, 4, 1, 4, 4), (2, 2, 2), ["1 latent frames", "2 would fit"]),
        ((1, 4, 0, 4, 4), (1, 2, 2), ["0 latent frames", "1 would fit"]),
    ],
)
@pytest.mark.parametrize("kind", ["stsa", "conv_pool"])
def test_latents_that_do_not_fit_say_what_would(shape, patch, says, kind):
    made = config(patch=patch, kind=kind)
    encoder = VideoEncoder(made, 4) if kind == "stsa" else ConvPoolEncoder(made, 4, 6)
    with pytest.raises(SlotIDError) as error:
        encoder(torch.zeros(shape))
    assert all(words in str(error.value) for words in says), error.value


def test_dropout_drops_whole_tokens_at_its_rate_and_keeps_the_expectation():
    tokens_BLD = torch.randn(8, 5000, 4) + 3
    dropped_BLD = drop_tokens(
        tokens_BLD, 0.05, [torch.Generator().manual_seed(0 + row) for row in range(len(tokens_BLD))]
    )
    is_zero_BLD = dropped_BLD == 0
    assert torch.equal(is_zero_BLD.any(-1), is_zero_BLD.all(-1)), "a token is dropped whole"
    # 40,000 draws: the share's standard deviation is 0.0011.
    assert abs(float(is_zero_BLD[..., 0].float().mean()) - 0.05) < 0.005
    kept_BL = ~is_zero_BLD[..., 0]
    torch.testing.assert_close(dropped_BLD[kept_BL], tokens_BLD[kept_BL] / 0.95)
    assert float(dropped_BLD.mean()) == pytest.approx(float(tokens_BLD.mean()), rel=0.01)


def test_dropout_follows_its_generator_and_differs_between_rows():
    tokens_BLD = torch.ones(2, 500, 4)

    def drop(*seeds):
        return drop_tokens(tokens_BLD, 0.3, [torch.Generator().manual_seed(seed) for seed in seeds])

    first, again, swapped = drop(5, 6), drop(5, 6), drop(6, 5)
    assert torch.equal(first, again) and not torch.equal(first[0], first[1])
    assert torch.equal(first, swapped.flip(0)), "a row's dropout does not depend on its place in the batch"


def test_dropout_acts_in_training_alone():
    encoder = VideoEncoder(config(token_dropout=0.5), 4)
    latents = torch.randn(1, 4, 2, 4, 4)

    def run(seed):
        return encoder(latents, [torch.Generator().manual_seed(seed)]).tokens_BLD

    encoder.train()
    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(1))
    encoder.eval()
    assert torch.equal(run(0), run(1))
    encoder.train()
    encoder.config = config(token_dropout=0.0)
    assert torch.equal(run(0), run(1))


def test_encoder_stacks_its_blocks_and_ends_in_a_norm():
    encoder = VideoEncoder(config(layers=3), 4).eval()
    assert len(encoder.blocks) == 3
    tokens_BLD = encoder(torch.randn(2, 4, 3, 4, 6) * 50).tokens_BLD
    torch.testing.assert_close(tokens_BLD.mean(-1), torch.zeros(2, 18), rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens_BLD.var(-1, correction=0), torch.ones(2, 18), rtol=0, atol=1e-3)


@torch.no_grad()
def test_conv_pool_pools_over_the_whole_clip_to_one_state_per_slot():
    encoder = ConvPoolEncoder(config(kind="conv_pool", layers=2), 4, slots=5)
    latents = torch.randn(2, 4, 3, 4, 6)
    slots_BSD = encoder(latents)
    assert slots_BSD.shape == (2, 5, 24)

    features = encoder.embed(latents)
    for conv in encoder.convs:
        features = features + conv(features)
    pooled_BD = F.layer_norm(features.mean((2, 3, 4)), (24,), encoder.norm.weight, encoder.norm.bias)
    torch.testing.assert_close(slots_BSD.flatten(1), encoder.to_slots(pooled_BD), rtol=1e-4, atol=1e-5)
    assert not torch.equal(slots_BSD[:, 0], slots_BSD[:, 1])
