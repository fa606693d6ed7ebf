"""The one seam to diffusers' Wan: the only file that imports its transformer and its VAE.

Shape letters: F pixel frames, H W pixel height and width, T latent frames (F = 4 (T - 1) + 1), h w latent height and
width (an eighth of H and W), B batch, C latent channels (16).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample as WanResample
from torch import Tensor

from slotid_core.config import SlotIDConfig
from slotid_core.errors import SlotIDError
from slotid_core.latents import WAN21_MEAN, WAN21_STD, denormalise, normalise
from training.demo_clip import demo_clip
from training.random_weights import fill
from training.wan_files import assign, cast, load_folder, read_tensors

HEAD_WIDTH = 128


def tiny_transformer(seed: int = 0, dtype: torch.dtype = torch.float32) -> WanTransformer3DModel:
    """A real Wan transformer of the ``tiny`` preset's size with weights made from a seed.

    2 heads x 128, 4 blocks, 5 million parameters; on the CPU, in eval mode, without gradients. The same seed gives
    the same bits, and the global random state is left alone.
    """
    backbone = SlotIDConfig.preset("tiny").backbone
    with torch.random.fork_rng(devices=[]):
        model = WanTransformer3DModel(
            num_attention_heads=backbone.dim // HEAD_WIDTH,
            attention_head_dim=HEAD_WIDTH,
            in_channels=backbone.latent_channels,
            out_channels=backbone.latent_channels,
            text_dim=backbone.text_dim,
            ffn_dim=2 * backbone.dim,
            num_layers=backbone.blocks,
        )
    fill(model, seed)
    with torch.no_grad():
        # The head reads what the patch embedding wrote, so the velocity points at the noise and sampling removes most
        # of it: what is left depends on prompt and identity.
        patch_DCthw = model.patch_embedding.weight
        model.proj_out.weight.copy_(0.5 * patch_DCthw.permute(2, 3, 4, 1, 0).flatten(0, 3))
        for block in model.blocks:
            # Trained Wan attends sharply; at gain 1, eight tokens of 512 would hardly be noticed.
            block.attn2.norm_q.weight.mul_(2.0)
            block.attn2.norm_k.weight.mul_(2.0)
    return cast(model, dtype).eval().requires_grad_(False)


def tiny_vae(seed: int = 0) -> AutoencoderKLWan:
    """A real Wan 2.1 VAE of small width with weights made from a seed; see :func:`tiny_transformer`.

    It is calibrated so that its raw latents of the demo clip have Wan's mean and spread, and that it decodes such
    latents to pictures of ordinary contrast. It compresses nothing well: what it decodes does not look like what it
    encoded.
    """
    with torch.random.fork_rng(devices=[]):
        vae = AutoencoderKLWan(base_dim=4)  # Wan's is 96; a clip has to be encoded in seconds on a CPU
    fill(vae, seed)
    vae.eval().requires_grad_(False)
    for block in vae.decoder.up_blocks:
        if block.upsamplers is not None and hasattr(block.upsamplers[0], "time_conv"):
            # Two sets of kernels make two frames out of one; unrelated sets would make the video flicker.
            layer = block.upsamplers[0].time_conv
            for tensor in (layer.weight, layer.bias):
                first, second = tensor.chunk(2)
                second.lerp_(first, 0.8)

    frames_FHWC = torch.from_numpy(demo_clip(0, frames=17, size=64)).float() / 255.0
    channels = len(WAN21_MEAN)
    mean_C, std_C = _statistics(_raw_latents(vae, frames_FHWC)[0])
    gain_C, shift_C = _affine(mean_C, std_C, torch.tensor(WAN21_MEAN), torch.tensor(WAN21_STD))
    layer = vae.quant_conv
    layer.weight[:channels] *= gain_C.view(-1, 1, 1, 1, 1)
    layer.bias[:channels] = layer.bias[:channels] * gain_C + shift_C

    vae.decoder.conv_out.weight *= 2.0**-6  # well inside [-1, 1], where decode() clips, until the spread is known
    noise_BCThw = torch.randn([1, channels, 5, 8, 8], generator=torch.Generator().manual_seed(seed))
    mean_C, std_C = _statistics(vae.decode(denormalise(noise_BCThw)).sample[0])
    gain_C, shift_C = _affine(mean_C, std_C, torch.zeros(3), torch.full([3], 0.3))
    layer = vae.decoder.conv_out
    layer.weight *= gain_C.view(-1, 1, 1, 1, 1)
    layer.bias.mul_(gain_C).add_(shift_C)
    return vae


def _statistics(values_CTHW: Tensor) -> tuple[Tensor, Tensor]:
    return values_CTHW.mean(dim=(1, 2, 3)), values_CTHW.std(dim=(1, 2, 3))


def _affine(mean_C: Tensor, std_C: Tensor, wanted_mean_C: Tensor, wanted_std_C: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and shift that bring one mean and spread to another, in steps of 1/64.

    The coarse steps hide differences in the last bits of a convolution, so that every machine gets the same weights.
    """
    gain_C = ((wanted_std_C / std_C) * 64).round() / 64
    return gain_C, ((wanted_mean_C - gain_C * mean_C) * 64).round() / 64


def _raw_latents(vae: AutoencoderKLWan, frames_FHWC: Tensor) -> Tensor:
    pixels_1CFHW = frames_FHWC.permute(3, 0, 1, 2).unsqueeze(0) * 2.0 - 1.0
    parameter = next(vae.parameters())
    with torch.no_grad():
        return vae.encode(pixels_1CFHW.to(parameter.device, parameter.dtype)).latent_dist.mode().float()


def encode_frames(vae: AutoencoderKLWan, frames_FHWC: Tensor) -> Tensor:
    """Pixels to the latents that the backbone and Slot-ID see.

    Args:
        frames_FHWC: float RGB in [0, 1]; ``4n + 1`` frames, height and width multiples of 16 (the VAE's 8 times the
            backbone's patch of 2).

    Returns:
        *Normalised* latents ``[1, 16, T, h, w]``, float32: the mean of the VAE's posterior, so that the same clip
        always gives the same latents.

    Raises:
        SlotIDError: a frame count or size that does not fit, or values that are not in [0, 1].
    """
    shape = list(frames_FHWC.shape)
    if len(shape) != 4 or shape[3] != 3 or not frames_FHWC.is_floating_point():
        raise SlotIDError(f"Got frames of {frames_FHWC.dtype} {shape}, expected float [F, H, W, 3] in [0, 1].")
    frames, height, width = shape[:3]
    if frames % 4 != 1:
        near = f"{frames - (frames - 1) % 4} or {frames + (1 - frames) % 4}" if frames else "1"
        raise SlotIDError(f"Got {frames} frames, but Wan's VAE takes 4n + 1 of them. Use {near}.")
    if height % 16 or width % 16 or not height or not width:
        raise SlotIDError(f"Got frames of {width} x {height} pixels, expected multiples of 16. Crop or resize them.")
    low, high = frames_FHWC.aminmax()
    if low < 0 or high > 1:
        raise SlotIDError(f"Got pixel values from {low:g} to {high:g}, expected 0 to 1. Divide 8-bit values by 255.")
    return normalise(_raw_latents(vae, frames_FHWC))


def decode_latents(vae: AutoencoderKLWan, latents_BCThw: Tensor) -> Tensor:
    """*Normalised* latents ``[1, 16, T, h, w]`` to pixels: float32 RGB ``[F, H, W, 3]`` in [0, 1], on the CPU.

    Raises:
        SlotIDError: latents of another shape.
    """
    raw_BCThw = denormalise(latents_BCThw)
    if raw_BCThw.shape[0] != 1:
        raise SlotIDError(f"Got latents of {raw_BCThw.shape[0]} videos, expected one. Decode them one by one.")
    parameter = next(vae.parameters())
    with torch.no_grad():
        pixels_CFHW = vae.decode(raw_BCThw.to(parameter.device, parameter.dtype)).sample[0]
    return (pixels_CFHW.permute(1, 2, 3, 0).float() * 0.5 + 0.5).clamp(0.0, 1.0).cpu()


def config_of(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Arguments of a ``WanTransformer3DModel`` from the shapes of its weights, under diffusers' names.

    Raises:
        SlotIDError: the weights are not all there.
    """
    try:
        first = shapes["patch_embedding.weight"]
        patch = tuple(first[2:])
        return {
            "patch_size": patch,
            "num_attention_heads": first[0] // HEAD_WIDTH,
            "attention_head_dim": HEAD_WIDTH,
            "in_channels": first[1],
            "out_channels": shapes["proj_out.weight"][0] // math.prod(patch),
            "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
            "freq_dim": shapes["condition_embedder.time_embedder.linear_1.weight"][1],
            "ffn_dim": shapes["blocks.0.ffn.net.2.weight"][1],
            "num_layers": 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
        }
    except KeyError as error:
        raise SlotIDError(
            f"This is not a whole Wan: {error.args[0]} is not in it. Of a model in several files, one is not enough: "
            "give the diffusers folder, or one file that holds all."
        ) from error


def load_transformer(path: Path, dtype: torch.dtype = torch.float32) -> WanTransformer3DModel:
    """A text-to-video Wan transformer from a diffusers folder or from one ``.safetensors`` file in either naming.

    On the CPU, in eval mode, without gradients; the few parts that Wan keeps in float32 stay so in any ``dtype``.

    Raises:
        SlotIDError: no such file, no safetensors, damaged, another model, or quantised weights.
    """
    if path.is_dir():
        return load_folder(WanTransformer3DModel, path, dtype)
    tensors = read_tensors(path, "transformer")
    with torch.device("meta"):
        model = WanTransformer3DModel(**config_of({name: list(tensor.shape) for name, tensor in tensors.items()}))
    # The rotary tables are computed, not loaded, so they have to be built where there is memory behind them.
    model.rope = type(model.rope)(HEAD_WIDTH, model.config.patch_size, model.config.rope_max_seq_len)
    return assign(model, tensors, path, dtype)


def load_vae(path: Path, dtype: torch.dtype = torch.float32) -> AutoencoderKLWan:
    """A Wan 2.1 VAE from a diffusers folder or from one ``.safetensors`` file in either naming.

    Raises:
        SlotIDError: as :func:`load_transformer`; the VAE of Wan 2.2 5B is another model, and sixteen latent channels
            alone do not make a Wan VAE.
    """
    if path.is_dir():
        return load_folder(AutoencoderKLWan, path, dtype)
    tensors = read_tensors(path, "vae")
    with torch.device("meta"):
        model = AutoencoderKLWan(
            base_dim=tensors["encoder.conv_in.weight"].shape[0],
            decoder_base_dim=tensors["decoder.norm_out.gamma"].shape[0],
            z_dim=tensors["post_quant_conv.weight"].shape[0],
        )
    return assign(model, tensors, path, dtype)
