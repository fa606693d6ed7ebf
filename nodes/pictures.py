"""Between ComfyUI's IMAGE, float in [0, 1], and bytes.

Shape letters: B pictures, H W height and width, C channels.
"""

import torch
from torch import Tensor

from ..slotid_core.errors import SlotIDError


def rgb(images_BHWC: Tensor) -> Tensor:
    """An IMAGE in float32 without alpha: what is transparent is laid over white, as Slot-ID is trained with.

    ComfyUI's ``--fp16-intermediates`` makes float16 ones, which torch can't resize on the CPU.

    Raises:
        SlotIDError: neither RGB nor RGBA.
    """
    channels = images_BHWC.shape[-1]
    images_BHWC = images_BHWC.float()
    if channels == 3:
        return images_BHWC
    if channels != 4:
        raise SlotIDError(f"Got pictures with {channels} channels, expected RGB (3) or RGBA (4).")
    colour_BHW3, alpha_BHW1 = images_BHWC.split([3, 1], dim=-1)
    return torch.lerp(torch.ones_like(colour_BHW3), colour_BHW3, alpha_BHW1.clamp(0, 1))


def to_bytes(images_BHWC: Tensor) -> Tensor:
    """:func:`rgb` as uint8 on the CPU."""
    return (rgb(images_BHWC).clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def from_bytes(picture_HWC: Tensor) -> Tensor:
    """One uint8 picture as an IMAGE."""
    return picture_HWC.unsqueeze(0).to(torch.float32) / 255
