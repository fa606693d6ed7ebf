"""Text and identity guided apart, as arithmetic."""

import pytest
import torch

from slotid_core.guidance import rescaled_positive


@pytest.mark.parametrize(("text_cfg", "identity_cfg"), [(5.0, 5.0), (5.0, 2.0), (3.0, 7.5), (4.0, 0.0)])
def test_ordinary_guidance_with_it_gives_each_difference_its_scale(text_cfg, identity_cfg):
    positive, without, negative = torch.randn(3, 50).double()
    rescaled = rescaled_positive(positive, without, identity_cfg / text_cfg)
    got = negative + text_cfg * (rescaled - negative)
    torch.testing.assert_close(got, negative + text_cfg * (without - negative) + identity_cfg * (positive - without))
