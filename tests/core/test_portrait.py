"""Image stream: attention pooling against its formula, and what it refuses.

Shape letters: B batch, h w latent height and width, K anchor tokens, L patches, D width.
"""

import pytest
import torch

from slotid_core.config import PortraitConfig
from slotid_core.errors import SlotIDError
from slotid_core.portrait import PortraitEncoder
from slotid_core.rope import grid_positions, rotate, rotation_angles


def encoder_of(**fields) -> PortraitEncoder:
    return PortraitEncoder(PortraitConfig(**{"width": 24, "heads": 2, **fields}), 4)


@torch.no_grad()
def test_equals_its_formula():
    encoder = encoder_of(tokens=3, patch=(2, 1)).double()
    latents = torch.randn(2, 4, 1, 6, 4, dtype=torch.float64)
    for b in range(2):
        cells_LP = latents[b, :, 0].unfold(1, 2, 2).permute(1, 2, 0, 3).reshape(12, 8)
        patches_LD = encoder.norm(cells_LP @ encoder.conv.weight.flatten(1).T + encoder.conv.bias)
        k_LD, v_LD = encoder.key_value(patches_LD).split(24, dim=-1)
        angles_Ld = rotation_angles(grid_positions((1, 3, 4)), 12)
        read = []
        for head in (slice(0, 12), slice(12, 24)):
            k_Ld = rotate(k_LD[None, None, :, head], angles_Ld)[0, 0]
            read.append((encoder.queries[:, head] @ k_Ld.T / 12**0.5).softmax(-1) @ v_LD[:, head])
        torch.testing.assert_close(encoder(latents)[b], encoder.out(torch.cat(read, -1)))


@torch.no_grad()
def test_it_sees_where_things_are():
    encoder, latents = encoder_of(), torch.randn(1, 4, 1, 8, 8)
    assert encoder(latents).shape == (1, 2, 24)
    assert (encoder(latents) - encoder(latents.flip(-1))).abs().max() > 1e-3
    moved = latents.roll(4, dims=-2)  # whole patches, so that the bag of patches stays the same
    assert (encoder(latents) - encoder(moved)).abs().max() > 1e-3


@pytest.mark.parametrize(
    "shape", [(1, 5, 1, 4, 4), (1, 4, 2, 4, 4), (1, 4, 1, 5, 4), (1, 4, 1, 4, 5), (1, 4, 4, 4), (1, 4, 1, 0, 4)]
)
def test_latents_that_do_not_fit_say_what_would(shape):
    with pytest.raises(SlotIDError) as error:
        encoder_of()(torch.zeros(shape))
    assert str(list(shape)) in str(error.value) and "[B, 4, 1, h, w]" in str(error.value)
