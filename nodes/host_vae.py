"""The seam to ComfyUI's VAE: pixels -> normalised Wan 2.1 latents."""

import comfy.ldm.wan.vae
from comfy.sd import VAE
from torch import Tensor

from ..slotid_core.errors import SlotIDError
from ..slotid_core.latents import normalise


def encode_frames(vae: VAE, frames_FHWC: Tensor) -> Tensor:
    """Frames in [0, 1], ``[4n + 1, H, W, 3]`` -> normalised latents ``[1, 16, n + 1, H / 8, W / 8]``, float32, CPU.

    Raises:
        SlotIDError: not a Wan 2.1 VAE. The class is checked, because Flux, SD3 and Hunyuan have 16 channels too.
    """
    if not isinstance(vae.first_stage_model, comfy.ldm.wan.vae.WanVAE):
        found = type(vae.first_stage_model)
        raise SlotIDError(
            f"The VAE is {found.__module__}.{found.__qualname__}, expected the Wan 2.1 VAE "
            "(wan_2.1_vae.safetensors), which Wan 2.1 and the Wan 2.2 14B models use."
        )
    return normalise(vae.encode(frames_FHWC).float().cpu())
