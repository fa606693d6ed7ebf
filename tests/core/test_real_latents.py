"""Real Wan 2.1 latents through encoder and reader, and what a few steps of training do to the routing.

Shape letters: B batch, C channels, T H W latent frames, height, width, L tokens, P numbers in a patch, D width,
S slots.
"""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from slotid_core.config import EncoderConfig, ReaderConfig
from slotid_core.encoder import VideoEncoder
from slotid_core.reader import SlotReader

WIDTH = 48
PATCH = (2, 4, 4)  # 1,280 tokens, so that a training step takes a tenth of a second on one core


@pytest.fixture(scope="module")
def latents_BCTHW(shared_latents) -> torch.Tensor:
    return load_file(shared_latents)["latents"].float()


@torch.no_grad()
@pytest.mark.parametrize("step", [0, 3000])
def test_real_latents_give_finite_slots_at_full_length(latents_BCTHW, step):
    encoder, reader = VideoEncoder(EncoderConfig(width=WIDTH, heads=2), 16).eval(), SlotReader(ReaderConfig(), WIDTH)
    reader.step.fill_(step)
    video = encoder(latents_BCTHW)
    assert video.tokens_BLD.shape == (1, 10240, WIDTH) and video.tokens_BLD.isfinite().all()
    reading = reader(video)
    assert reading.slots_BSD.isfinite().all() and reading.slots_BSD.abs().max() > 0.1
    weights_BSTHW = reading.routing.weights_BSTHW
    assert weights_BSTHW.shape == (1, 6, 16, 20, 32) and (weights_BSTHW >= 0).all()
    assert (weights_BSTHW.flatten(2).sum(-1) - 1).abs().max() <= 1e-5


def patches_of(latents_BCTHW: torch.Tensor) -> torch.Tensor:
    """``[B, L, P]``: the latents under each token."""
    B, C, T, H, W = latents_BCTHW.shape
    t, h, w = PATCH
    cells = latents_BCTHW.view(B, C, T // t, t, H // h, h, W // w, w)
    return cells.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(B, -1, C * t * h * w)


@pytest.mark.parametrize("seed", [0, 1])
def test_routed_reconstruction_makes_the_slots_read_different_things(latents_BCTHW, seed):
    """Objective *routed reconstruction*: each token's patch of latents is predicted from the slots that read it.

    A slot's share in a token's prediction is its share in the reading of that token, so slots that all read the same
    can only predict the mean patch. Their couplings' mean pairwise overlap has to fall below its value at the start.
    """
    torch.manual_seed(seed)
    encoder = VideoEncoder(EncoderConfig(width=WIDTH, heads=2, patch=PATCH), 16).eval()
    reader = SlotReader(ReaderConfig(), WIDTH)
    target_BLP = patches_of(latents_BCTHW)
    decoder = nn.Linear(WIDTH, target_BLP.shape[-1])
    parameters = [*encoder.parameters(), *reader.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)

    losses, overlaps = [], []
    for _ in range(26):
        reading = reader(encoder(latents_BCTHW))
        weights_BSL = reading.routing.weights_BSTHW.flatten(2)
        share_BSL = weights_BSL / weights_BSL.sum(1, keepdim=True)
        loss = F.mse_loss(share_BSL.mT @ decoder(reading.slots_BSD), target_BLP)
        losses.append(loss.item())
        overlaps.append(reading.routing.overlap().item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0], losses
    assert overlaps[0] > 0.95, "untrained slots at temperature 1 read much the same"
    assert max(overlaps[-5:]) < overlaps[0] - 0.1, overlaps
