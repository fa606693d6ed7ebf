"""What has to be known of, and done to, a Wan MODEL before anything is sampled: is it the right one, its noise levels,
the LoRA.
"""

import logging
import uuid
from collections.abc import Sequence

import comfy.ldm.wan.model
import comfy.lora
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..slotid_core.checkpoint import SlotIDWeights
from ..slotid_core.errors import SlotIDError
from ..slotid_core.lora import to_tensors

_log = logging.getLogger("slotid")


def sampler_sigmas(
    model: ModelPatcher, weights: SlotIDWeights, *, sampler: str, scheduler: str, steps: int, denoise: float
) -> Tensor:
    """The noise levels that KSampler takes with this model and its shift, ``[N + 1]``, on the CPU.

    Raises:
        SlotIDError: not the Wan that the weights are for.
    """
    check_backbone(model, weights)
    return comfy.samplers.KSampler(
        model, steps=steps, device=torch.device("cpu"), sampler=sampler, scheduler=scheduler, denoise=denoise
    ).sigmas


def noise_window(model: ModelPatcher, start_percent: float, end_percent: float) -> tuple[float, float]:
    """The noise levels that start and end mean with this model and its shift.

    Raises:
        SlotIDError: see :func:`check_window`.
    """
    check_window(start_percent, end_percent)
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    return float(to_sigma(start_percent)), float(to_sigma(end_percent))


def check_window(start_percent: float, end_percent: float) -> None:
    """Start and end make a window.

    Raises:
        SlotIDError: they do not.
    """
    if not 0.0 <= start_percent < end_percent <= 1.0:
        raise SlotIDError(f"start is {start_percent} and end is {end_percent}, expected 0 <= start < end <= 1.")


def check_backbone(model: ModelPatcher, weights: SlotIDWeights) -> None:
    """The MODEL is the Wan that the weights are for.

    Raises:
        SlotIDError: it is not.
    """
    wanted = weights.model.config.backbone
    backbone = model.get_model_object("diffusion_model")
    found = type(backbone).__name__
    # By module name: the oldest supported ComfyUI does not have that module yet.
    if any(cls.__module__ == "comfy.ldm.wan.ar_model" for cls in type(backbone).__mro__):
        raise SlotIDError(
            f"The model is Wan's autoregressive variant ({found}), which calls no hooks, so nothing could be applied. "
            "Load an ordinary Wan text-to-video or image-to-video model."
        )
    if not isinstance(backbone, comfy.ldm.wan.model.WanModel):
        raise SlotIDError(f"The model is {found}, which is not a Wan model; these weights are for {wanted}.")
    channels = model.model.latent_format.latent_channels
    got = (backbone.dim, len(backbone.blocks), channels, backbone.text_dim)
    if got != (wanted.dim, wanted.blocks, wanted.latent_channels, wanted.text_dim):
        raise SlotIDError(
            f"The model is {found} with width {got[0]}, {got[1]} blocks, {got[2]} latent channels; these Slot-ID "
            f"weights are for {wanted}. Load that Wan, or the Slot-ID weights that were trained for this one."
        )


def add_lora(patched: ModelPatcher, weights: SlotIDWeights, strength: float, earlier: Sequence[float]) -> None:
    """Put the LoRA on as ordinary weight patches. It belongs to the weights, not to a person: once a weights file,
    however many people share it.

    Args:
        earlier: the strengths that Apply nodes before this one asked for with the same weights.

    Raises:
        SlotIDError: another strength than the earlier ones, or a model whose layers it does not fit.
    """
    if earlier:
        if earlier[0] != strength:
            raise SlotIDError(
                f"Two Apply nodes with the same Slot-ID weights ask for LoRA strengths {earlier[0]} and {strength}. "
                "The LoRA is applied once: set the same lora_strength on both."
            )
        return
    if strength == 0 or weights.lora.is_zero():
        return
    names = {f"diffusion_model.{name}": f"diffusion_model.{name}.weight" for name in weights.lora.pairs}
    patches = comfy.lora.load_lora(to_tensors(weights.lora), names)
    before = patched.patches_uuid
    done = patched.add_patches(patches, strength)
    # ComfyUI draws a new one, and loads the whole model anew for whatever has another than what is loaded: each time
    # that a widget is touched, though the LoRA is the same.
    patched.patches_uuid = uuid.uuid5(before, f"{weights.sha256} {strength}")
    if len(done) != len(names):
        raise SlotIDError(
            f"The Slot-ID LoRA fits {len(done)} of {len(names)} layers of "
            f"{type(patched.model.diffusion_model).__name__}: {sorted(set(names.values()) - set(done))[0]} is not "
            "there. The model's layers were renamed or replaced."
        )
    _log.info("Slot-ID LoRA: %d layers patched at strength %g", len(done), strength)
