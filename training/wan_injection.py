"""Slot-ID inside diffusers' ``WanTransformer3DModel``: context argument, block hooks, peft LoRA.

Shape letters: B rows, C latent channels, T H W latent frames, height, width, L context tokens, E text-token width,
D backbone width.

The arithmetic is the core's (``condition``, ``place_prefix``, ``apply_film``), so that the same weights and identity
give the same velocity here and in ComfyUI.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slotid_core.config import BackboneConfig
from slotid_core.config import LoraConfig as SlotIDLoraConfig
from slotid_core.errors import SlotIDError
from slotid_core.film import apply_film
from slotid_core.injection import BlockFilm, Injection, condition
from slotid_core.lora import LoraPair, LoraWeights, module_names
from slotid_core.prefix import missing_slots, place_prefix
from training.wan_keys import transformer_to_diffusers

if TYPE_CHECKING:
    from training.wan_diffusers import WanTransformer3DModel

ADAPTER = "slotid"


class InjectedWan:
    """A transformer whose calls carry identities. Made by :func:`inject`."""

    def __init__(self, transformer: WanTransformer3DModel, injections: Sequence[Injection]):
        self.transformer = transformer
        self.injections = injections
        self._film: dict[int, BlockFilm] = {}

    def __call__(
        self, latents_BCTHW: Tensor, sigma_B: Tensor, context_BLE: Tensor, identity_rows_B: Tensor, **kwargs: Any
    ) -> Tensor:
        """Velocity ``[B, C, T, H, W]`` at noise level ``sigma`` in [0, 1].

        Args:
            latents_BCTHW: noisy latents.
            sigma_B: noise level of each row, float32.
            context_BLE: text tokens before the backbone's text embedding, zero tokens as pads at the end.
            identity_rows_B: bool; the other rows get the null identity.
            kwargs: passed on to the transformer.

        Raises:
            SlotIDError: an image-to-video transformer whose context would have to grow.
        """
        device = latents_BCTHW.device
        conditioning = condition([(i, identity_rows_B.to(sigma_B.device)) for i in self.injections], sigma_B)
        prefix_BPE = conditioning.prefix_BPE.to(device)
        missing_B = missing_slots(context_BLE, prefix_BPE)
        if missing_B.any() and self.transformer.config.added_kv_proj_dim is not None:
            raise SlotIDError(
                f"The prompt leaves {prefix_BPE.shape[1] - int(missing_B.max())} free tokens, the identity needs "
                f"{prefix_BPE.shape[1]}. The context of diffusers' image-to-video Wan has a fixed length: shorten the "
                "prompt."
            )
        out_BCTHW = torch.empty_like(latents_BCTHW[:, : self.transformer.config.out_channels])
        # Rows whose prompt leaves too few pads need a longer context than the others, so they run apart.
        lengths = missing_B.unique()
        for missing in lengths:
            # Most often all rows are alike; whoever picks some by a mask waits for the device with every tensor.
            rows = missing_B == missing if len(lengths) > 1 else slice(None)
            self._film = {
                block: BlockFilm(film.gamma_BD.to(device)[rows], film.beta_BD.to(device)[rows])
                for block, film in conditioning.film.items()
            }
            out_BCTHW[rows] = self.transformer(
                hidden_states=latents_BCTHW[rows],
                timestep=1000.0 * sigma_B.to(device)[rows],
                encoder_hidden_states=place_prefix(context_BLE[rows], prefix_BPE[rows]),
                return_dict=False,
                **kwargs,
            )[0]
        return out_BCTHW

    def film_as_now(self) -> AbstractContextManager[None]:
        """A context in which blocks are modulated as in the call that runs now: for whoever computes them again, in a
        backward that may come after other calls.
        """
        film = self._film

        @contextmanager
        def again() -> Iterator[None]:
            self._film, before = film, self._film
            try:
                yield
            finally:
                self._film = before

        return again()

    def film_hook(self, block: int):
        """A forward hook for that block. It runs inside gradient checkpointing too (see :meth:`film_as_now`)."""

        def hook(module: torch.nn.Module, args: tuple, hidden_BLD: Tensor) -> Tensor:
            film = self._film.get(block)
            return hidden_BLD if film is None else apply_film(hidden_BLD, film.gamma_BD, film.beta_BD)

        return hook


@contextmanager
def inject(
    transformer: WanTransformer3DModel,
    injections: Sequence[Injection],
    lora: LoraWeights,
    lora_strength: float = 1.0,
) -> Iterator[InjectedWan]:
    """Patch the transformer for the time of the ``with`` block; afterwards it is as it was.

    Raises:
        SlotIDError: the transformer is not the Wan that the weights are for.
    """
    for injection in injections:
        _check_backbone(transformer, injection)
    injected = InjectedWan(transformer, injections)
    hooks = [block.register_forward_hook(injected.film_hook(i)) for i, block in enumerate(transformer.blocks)]
    with_lora = lora_strength != 0 and not lora.is_zero()
    if with_lora:
        add_lora(transformer, lora, lora_strength)
    try:
        yield injected
    finally:
        for hook in hooks:
            hook.remove()
        if with_lora:
            transformer.delete_adapters(ADAPTER)
            # peft's layers stay in place for somebody else's adapters; the last one takes the attribute along.
            if not getattr(transformer, "peft_config", None):
                transformer.unload_lora()


def _check_backbone(transformer: WanTransformer3DModel, injection: Injection) -> None:
    wanted, config = injection.model.config.backbone, transformer.config
    dim = config.num_attention_heads * config.attention_head_dim
    got = (dim, config.num_layers, config.out_channels, config.text_dim)
    if got != (wanted.dim, wanted.blocks, wanted.latent_channels, wanted.text_dim):
        raise SlotIDError(
            f"The transformer is a Wan with width {got[0]}, {got[1]} blocks, {got[2]} latent channels; these Slot-ID "
            f"weights are for {wanted}. Load that Wan, or the Slot-ID weights that were trained for this one."
        )


def add_lora(transformer: WanTransformer3DModel, lora: LoraWeights, strength: float) -> None:
    """Put a LoRA on the transformer, as peft's layers under the name :data:`ADAPTER`."""
    from peft import LoraConfig

    modules = {transformer_to_diffusers(name): pair for name, pair in lora.pairs.items()}
    ranks = {name: pair.down_RI.shape[0] for name, pair in modules.items()}
    alphas = {name: pair.alpha for name, pair in modules.items()}
    config = LoraConfig(target_modules=list(modules), rank_pattern=ranks, alpha_pattern=alphas)
    transformer.add_adapter(config, adapter_name=ADAPTER)
    transformer.set_adapters([ADAPTER], [strength])
    with torch.no_grad():
        for name, pair in modules.items():
            layer = transformer.get_submodule(name)
            layer.lora_A[ADAPTER].weight.copy_(pair.down_RI)
            layer.lora_B[ADAPTER].weight.copy_(pair.up_OR)


def lora_parameters(transformer: WanTransformer3DModel) -> dict[str, nn.Parameter]:
    """The LoRA's factors as they lie in the transformer, by name; none where there is no LoRA."""
    return {
        name.replace(f".{ADAPTER}.", "."): parameter
        for name, parameter in transformer.named_parameters()
        if f".lora_A.{ADAPTER}." in name or f".lora_B.{ADAPTER}." in name
    }


def read_lora(transformer: WanTransformer3DModel, lora: SlotIDLoraConfig, backbone: BackboneConfig) -> LoraWeights:
    """The LoRA that :func:`add_lora` put there and training changed, as plain float32 tensors on the CPU."""
    factors = {name: p.detach().float().cpu() for name, p in lora_parameters(transformer).items()}
    pairs = {}
    for name in module_names(lora, backbone):
        theirs = transformer_to_diffusers(name)
        pairs[name] = LoraPair(
            factors[f"{theirs}.lora_A.weight"].clone(), factors[f"{theirs}.lora_B.weight"].clone(), lora.alpha
        )
    return LoraWeights(pairs)
