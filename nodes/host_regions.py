"""Identities in parts of the frame, or in some blocks: ComfyUI's Wan with a bias on cross-attention.

Shape letters: B rows of one backbone call, T H W latent frames, height, width, Q video tokens, N identities, L context
tokens, K keys of cross-attention, E text-token width.

Wan's cross-attention takes no mask, but every attention call goes through ``optimized_attention_override`` where the
options hold one. Ours adds the core's ``key_bias`` to the calls whose keys are the text, known by a number of keys that
no other call has, and hands every other call on. Those calls are computed by torch's own attention: kernels that other
nodes put in place (SageAttention, FlashAttention) take no bias or ignore it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.ldm.wan.model
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor

from ..slotid_core.errors import SlotIDError
from ..slotid_core.injection import Conditioning
from ..slotid_core.region import append_prefix, key_bias

_OVERRIDE = "optimized_attention_override"
_TIME_DIM = 2
"""Of latents ``[B, C, T, H, W]``."""
# Backbones whose order of tokens is known. Others put tokens of poses, sound or motion among those of the frame.
_KNOWN = tuple(getattr(comfy.ldm.wan.model, name) for name in ("WanModel", "VaceWanModel", "CameraWanModel"))


@dataclass(frozen=True)
class Placed:
    """One identity in one backbone call, and where it acts."""

    conditioning: Conditioning
    blocks: range | None
    """``None`` is all of them."""
    weights_Q: Tensor | None
    """Its weight at each video token; ``None`` is 1 everywhere."""

    def acts_in(self, block: int) -> bool:
        return self.blocks is None or block in self.blocks


@dataclass(frozen=True)
class Tokens:
    """The video tokens of one backbone call, in the order in which they stand."""

    before: int
    """Tokens of a reference picture."""
    grid: tuple[int, int, int]
    """Those of the video: in time, height and width."""
    after: int
    """Tokens of references that other methods append."""

    @property
    def total(self) -> int:
        return self.before + math.prod(self.grid) + self.after


def video_tokens(backbone: torch.nn.Module, x: Tensor, time_dim_concat: Tensor | None, extra: dict[str, Any]) -> Tokens:
    """What the backbone will make of these inputs; ``extra`` are the call's keyword arguments."""
    patch = backbone.patch_size
    before = after = 0
    if backbone.ref_conv is not None and extra.get("reference_latent") is not None:
        before = math.prod(size // p for size, p in zip(extra["reference_latent"].shape[-2:], patch[1:], strict=True))
    for latents in (time_dim_concat, *(extra.get("context_latents") or ())):
        after += 0 if latents is None else math.prod(_grid(latents, patch))
    return Tokens(before, _grid(x, patch), after)


def video_weights(backbone: torch.nn.Module, tokens: Tokens, weights_THW: Tensor, options: dict[str, Any]) -> Tensor:
    """An identity's weights at all video tokens of one call, ``[Q]``.

    Tokens that belong to no frame of the video get the null identity.

    Args:
        weights_THW: at the tokens of the whole video.

    Raises:
        SlotIDError: the call shows another part of the video than a window in time, or a backbone that puts other
            tokens among the frame's.
    """
    if type(backbone) not in _KNOWN:
        raise SlotIDError(
            f"The model is {type(backbone).__name__}, in which Slot-ID does not know where the frame's tokens stand. "
            "Remove the mask, or use Wan text-to-video, image-to-video, Fun, camera or VACE."
        )
    frames = list(range(len(weights_THW)))
    window = options.get("context_window")
    if window is not None and window.dim == _TIME_DIM:
        anchor = getattr(window, "causal_anchor_index", None)
        frames = [*([anchor] if anchor is not None and anchor >= 0 else []), *window.index_list]
    if tokens.grid != (len(frames), *weights_THW.shape[1:]):
        raise SlotIDError(
            f"The model was called with {' x '.join(map(str, tokens.grid))} tokens (time, height, width) of a video of "
            f"{' x '.join(map(str, weights_THW.shape))}. Slot-ID can't tell which part of the mask that is: remove the "
            "node that cuts the frame (an area prompt, tiles, context windows over another dimension than 2), or the "
            "mask."
        )
    return torch.cat([torch.zeros(tokens.before), weights_THW[frames].flatten(), torch.zeros(tokens.after)])


def _grid(latents_BCTHW: Tensor, patch: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple(math.ceil(size / p) for size, p in zip(latents_BCTHW.shape[2:], patch, strict=True))


def with_cross_attention(
    options: dict[str, Any],
    context_BLE: Tensor,
    placed: Sequence[Placed],
    *,
    other_lengths: set[int],
    count: Callable[[], None],
) -> tuple[dict[str, Any], Tensor]:
    """Options and context for a call in which every identity's tokens are seen where it acts, and nowhere else.

    Args:
        placed: identities, at least one of which has something to say.
        other_lengths: numbers of keys of the model's other attention calls.
        count: called at every call of cross-attention.
    """
    prefixes = [p.conditioning.prefix_BPE.to(context_BLE.device) for p in placed]
    active_BN = torch.stack([prefix_BPE.flatten(1).any(dim=1) for prefix_BPE in prefixes], dim=1)
    masks = [p.weights_Q for p in placed if p.weights_Q is not None]
    queries = len(masks[0]) if masks else None
    ones_Q = context_BLE.new_ones(queries or 1, dtype=torch.float32)
    weights_QN = torch.stack([ones_Q if p.weights_Q is None else p.weights_Q for p in placed], dim=1)
    placed_BKE = append_prefix(context_BLE, torch.cat(prefixes, dim=1), other_lengths)
    keys = placed_BKE.shape[1]
    biases: dict[tuple[bool, ...], Tensor] = {}

    def bias(block: int) -> Tensor:
        acts = tuple(p.acts_in(block) for p in placed)
        if acts not in biases:
            acts_N = torch.tensor(acts, device=active_BN.device)
            tokens_N = [prefix_BPE.shape[1] for prefix_BPE in prefixes]
            biases[acts] = key_bias(context_BLE, active_BN & acts_N, weights_QN, tokens_N, keys)
        return biases[acts]

    earlier = options.get(_OVERRIDE)

    def override(func: Callable, *args: Any, **kwargs: Any) -> Tensor:
        q, k = args[:2]
        if k.shape[-2] != keys or q.shape[-2] == keys:
            return func(*args, **kwargs) if earlier is None else earlier(func, *args, **kwargs)
        if queries not in (None, q.shape[-2]):
            raise SlotIDError(
                f"The model's cross-attention was called with {q.shape[-2]} video tokens, expected {queries}: another "
                "node adds tokens of its own. Remove it, or the masks on Apply Slot-ID to Wan."
            )
        count()
        block_bias_BQK = bias(kwargs["transformer_options"]["block_index"])
        return attention_pytorch(*args, mask=block_bias_BQK.to(q.dtype), **kwargs)

    return {**options, _OVERRIDE: override}, placed_BKE
