"""Names of Wan 2.1 weights: diffusers' naming <-> the original one, which ComfyUI reads too.

Names only; no tensor is touched. Two naming worlds, called here

- ``diffusers``: ``WanTransformer3DModel`` and ``AutoencoderKLWan``;
- ``original``: the files that the Wan authors published and that ComfyUI loads.

Text-to-video transformers and the Wan 2.1 VAE are covered. A name of anything else (image-to-video, VACE,
the Wan 2.2 VAE, scaled-fp8 extras) is an error that names it, so a wrong file cannot load in part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from slotid_core.errors import SlotIDError

# diffusers -> original. A row maps a module or parameter together with everything below it.
_TRANSFORMER = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "scale_shift_table": "head.modulation",
    "proj_out": "head.head",
}
_ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "o", "norm_q": "norm_q", "norm_k": "norm_k"}
_BLOCK = {
    **{f"attn1.{ours}": f"self_attn.{theirs}" for ours, theirs in _ATTENTION.items()},
    **{f"attn2.{ours}": f"cross_attn.{theirs}" for ours, theirs in _ATTENTION.items()},
    # The norm before cross-attention is the second of three in diffusers and the third in the original.
    # diffusers' norm1 and norm3 have no parameters.
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "scale_shift_table": "modulation",
}
_RESNET = {
    "norm1": "residual.0",
    "conv1": "residual.2",
    "norm2": "residual.3",
    "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}
_RESAMPLE = {"resample.1": "resample.1", "time_conv": "time_conv"}
_VAE_ATTENTION = {"norm": "norm", "to_qkv": "to_qkv", "proj": "proj"}
# Four resolutions with two residual blocks at each on the way down: every published Wan 2.1 VAE.
_STEPS, _RESNETS = 4, 2


def _below(head: str, table: dict[str, str], other_head: str) -> dict[str, str]:
    return {f"{head}.{ours}": f"{other_head}.{theirs}" for ours, theirs in table.items()}


def _vae_table() -> dict[str, str]:
    table = {"quant_conv": "conv1", "post_quant_conv": "conv2"}
    for side in ("encoder", "decoder"):
        table |= {
            f"{side}.conv_in": f"{side}.conv1",
            f"{side}.norm_out": f"{side}.head.0",
            f"{side}.conv_out": f"{side}.head.2",
        }
        middle = f"{side}.mid_block"
        table |= _below(f"{middle}.resnets.0", _RESNET, f"{side}.middle.0")
        table |= _below(f"{middle}.attentions.0", _VAE_ATTENTION, f"{side}.middle.1")
        table |= _below(f"{middle}.resnets.1", _RESNET, f"{side}.middle.2")
    for step in range(_STEPS):
        # The encoder is a flat list in both namings; the decoder is a flat list in the original only.
        for index in range(step * (_RESNETS + 1), step * (_RESNETS + 1) + _RESNETS):
            table |= _below(f"encoder.down_blocks.{index}", _RESNET, f"encoder.downsamples.{index}")
        flat = step * (_RESNETS + 2)
        for index in range(_RESNETS + 1):
            ours, theirs = f"decoder.up_blocks.{step}.resnets.{index}", f"decoder.upsamples.{flat + index}"
            table |= _below(ours, _RESNET, theirs)
        if step < _STEPS - 1:
            down = step * (_RESNETS + 1) + _RESNETS
            ours, theirs = f"decoder.up_blocks.{step}.upsamplers.0", f"decoder.upsamples.{flat + _RESNETS + 1}"
            table |= _below(f"encoder.down_blocks.{down}", _RESAMPLE, f"encoder.downsamples.{down}")
            table |= _below(ours, _RESAMPLE, theirs)
    return table


_VAE = _vae_table()


def _inverse(table: dict[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in table.items()}


def _rename(name: str, table: dict[str, str], kind: str) -> str:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        head = ".".join(parts[:length])
        if head in table:
            return ".".join([table[head], *parts[length:]])
    raise SlotIDError(
        f"'{name}' is not a name of {kind}. Expected a plain Wan 2.1 text-to-video model (not image-to-video, VACE, "
        "scaled fp8 or GGUF); use that model's own file."
    )


def _rename_transformer(name: str, outer: dict[str, str], block: dict[str, str], kind: str) -> str:
    parts = name.split(".", 2)
    if parts[0] == "blocks" and len(parts) == 3 and parts[1].isdigit():
        return f"blocks.{parts[1]}." + _rename(parts[2], block, f"a block of {kind}")
    return _rename(name, outer, kind)


def transformer_to_original(name: str) -> str:
    """``WanTransformer3DModel`` parameter or module name -> the original one (ComfyUI, Wan's own files).

    Module names work as well as parameter names, so LoRA targets go through the same door:
    ``blocks.3.attn2.to_k`` -> ``blocks.3.cross_attn.k``.

    Raises:
        SlotIDError: the name does not belong to a text-to-video transformer in diffusers' naming.
    """
    return _rename_transformer(name, _TRANSFORMER, _BLOCK, "a Wan transformer in diffusers' naming")


def transformer_to_diffusers(name: str) -> str:
    """The inverse of :func:`transformer_to_original`: ``blocks.3.cross_attn.k`` -> ``blocks.3.attn2.to_k``."""
    return _rename_transformer(
        name, _inverse(_TRANSFORMER), _inverse(_BLOCK), "a Wan transformer in the original naming"
    )


def vae_to_original(name: str) -> str:
    """``AutoencoderKLWan`` parameter name -> the original Wan 2.1 VAE's, which ComfyUI's VAE loader wants.

    Raises:
        SlotIDError: the name does not belong to a Wan 2.1 VAE in diffusers' naming.
    """
    return _rename(name, _VAE, "a Wan 2.1 VAE in diffusers' naming")


def vae_to_diffusers(name: str) -> str:
    """The inverse of :func:`vae_to_original`."""
    return _rename(name, _inverse(_VAE), "a Wan 2.1 VAE in the original naming")


# A name that tells the naming of this kind of file -> the function that brings its names to diffusers' naming.
_KINDS: dict[str, dict[str, Callable[[str], str]]] = {
    "transformer": {
        "condition_embedder.time_proj.weight": lambda name: transformer_to_diffusers(transformer_to_original(name)),
        "head.modulation": transformer_to_diffusers,
    },
    "vae": {
        "post_quant_conv.weight": lambda name: vae_to_diffusers(vae_to_original(name)),
        "decoder.head.0.gamma": vae_to_diffusers,
    },
}
_PREFIXES = ("", "model.diffusion_model.", "diffusion_model.")


def diffusers_names(names: Iterable[str], kind: str) -> dict[str, str]:
    """Map every name of a file to diffusers' naming, whichever of the two namings the file uses.

    Args:
        names: all tensor names of the file; a leading ``model.diffusion_model.`` or ``diffusion_model.``
            (checkpoint files) is dropped.
        kind: ``"transformer"`` or ``"vae"``.

    Returns:
        ``{name in the file: diffusers name}``.

    Raises:
        SlotIDError: the file is not of this kind, or holds a name that such a file does not have.
    """
    names = list(names)
    for prefix in _PREFIXES:
        for mark, rename in _KINDS[kind].items():
            if prefix + mark in names:
                return {name: rename(name.removeprefix(prefix)) for name in names}
    raise SlotIDError(
        f"not a Wan 2.1 {kind}: none of {sorted(_KINDS[kind])} is among its {len(names)} tensors "
        f"(the first are {sorted(names)[:3]}). Expected a text-to-video Wan file in diffusers' or ComfyUI's naming."
    )
