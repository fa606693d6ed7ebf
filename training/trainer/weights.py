"""What a run leaves: one Slot-ID file for *Load Slot-ID Model*, and the LoRA alone for any loader.

Shape letters: R rank, I input width, O output width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from slotid_core.checkpoint import SlotIDWeights, bundle, save_weights, untrained_weights_of
from slotid_core.errors import SlotIDError
from slotid_core.lora import LoraWeights, to_tensors
from slotid_core.model import SlotID
from training.atomic import atomic
from training.settings import ModelSettings
from training.trainer.adapter import Adapter, unused_parts
from training.trainer.state import State, checkpoints, differences, read_facts, read_tensors
from training.wan_keys import transformer_to_diffusers, transformer_to_original

SLOTID_FILE, LORA_FILE = "slotid.safetensors", "slotid_lora.safetensors"


def averaged_weights(adapter: Adapter, state: State, facts: Mapping[str, Any]) -> SlotIDWeights:
    """The averaged weights as they are now, on the CPU. ``facts`` must hold nothing that differs between equal runs."""
    state.averaged.swap(state.trainable)
    try:
        model = SlotID(adapter.config).eval().requires_grad_(False)
        model.load_state_dict({name: t.detach().cpu().clone() for name, t in adapter.slotid.state_dict().items()})
        return bundle(model, copy.deepcopy(adapter.lora()), {**facts, "trained_steps": state.step})
    finally:
        state.averaged.swap(state.trainable)


def write_weights(folder: Path, weights: SlotIDWeights) -> list[Path]:
    """Both files, each whole or not at all.

    Raises:
        SlotIDError: the folder can't be written.
    """
    slotid, lora = folder / SLOTID_FILE, folder / LORA_FILE
    save_weights(slotid, weights)
    written = [slotid]
    if weights.lora.pairs:
        write_lora(lora, weights.lora)
        written.append(lora)
    return written


def write_lora(path: Path, lora: LoraWeights) -> None:
    """The LoRA alone, in the keys that both ComfyUI's and diffusers' loaders read, with ``.alpha``.

    Raises:
        SlotIDError: the name does not end in ``.safetensors``, or the folder can't be written.
    """
    _save(path, to_tensors(lora))


def weights_of_checkpoint(checkpoint: Path, *, averaged: bool = True) -> SlotIDWeights:
    """The weights in a run's checkpoint.

    Args:
        averaged: the averaged ones, where the run keeps an average; else the last ones.

    Raises:
        SlotIDError: no checkpoint, or a damaged one.
    """
    _check_is_checkpoint(checkpoint)
    facts = read_facts(checkpoint)
    settings, stored = facts["settings"], read_tensors(checkpoint)
    try:
        config = ModelSettings.model_validate(settings["model"]).slotid_config()
    except ValidationError as error:
        raise SlotIDError(
            f"The settings in {checkpoint} are of another version of Slot-ID ({error.error_count()} differ, the first "
            f"is model.{'.'.join(map(str, error.errors()[0]['loc']))}). Export with the version that trained it."
        ) from error
    kind = "averaged." if averaged and any(name.startswith("averaged.") for name in stored) else "weights."
    got = {name.removeprefix(kind): tensor for name, tensor in stored.items() if name.startswith(kind)}

    start = untrained_weights_of(config, settings["run"]["seed"])
    idle = {id(p) for part in unused_parts(start.model) for p in part.parameters()}
    state = start.model.state_dict()
    used = {name: p for name, p in start.model.named_parameters() if id(p) not in idle and p.numel()}
    expected: dict[str, Tensor] = {f"slotid.{name}": p for name, p in used.items()}
    for name, pair in start.lora.pairs.items():
        expected |= {_factor(name, "A"): pair.down_RI, _factor(name, "B"): pair.up_OR}
    _check_fits(checkpoint, got, expected)

    state |= {name: got[f"slotid.{name}"] for name in state if f"slotid.{name}" in got}
    if config.encoder.kind == "stsa":
        state["reader.step"] = torch.tensor(facts["step"])
    start.model.load_state_dict(state)
    pairs = {
        name: replace(pair, down_RI=got[_factor(name, "A")], up_OR=got[_factor(name, "B")])
        for name, pair in start.lora.pairs.items()
    }
    told = {name: fact for name, fact in facts.items() if name != "step"} | {"trained_steps": facts["step"]}
    return bundle(start.model, LoraWeights(pairs), told)


def merge_lora(wan: Path, weights: SlotIDWeights, out: Path) -> None:
    """A Wan transformer file with ``alpha / rank * up @ down`` added to its weights, in the original key names, which
    ComfyUI and diffusers both read, and in the number formats that it had.

    The tensors that stay as they are remain windows into the file; those with a LoRA are held in memory.

    Raises:
        SlotIDError: not one Wan file, not the one that the LoRA is for, or the folder can't be written.
    """
    from training.wan_diffusers import HEAD_WIDTH, config_of
    from training.wan_files import read_tensors as read_wan

    if wan.is_dir():
        raise SlotIDError(
            f"{wan} is a folder, and merging takes one .safetensors file. For a folder of diffusers' write the LoRA "
            "with --lora, and in diffusers call load_lora_weights and fuse_lora."
        )
    if out.exists() and out.samefile(wan):
        raise SlotIDError(f"{out} is the Wan itself, which would be lost. Give the merged one another name.")
    tensors, wanted = read_wan(wan, "transformer"), weights.model.config.backbone
    found = config_of({name: list(tensor.shape) for name, tensor in tensors.items()})
    width, blocks = found["num_attention_heads"] * HEAD_WIDTH, found["num_layers"]
    got = (width, blocks, found["out_channels"], found["text_dim"])
    if got != (wanted.dim, wanted.blocks, wanted.latent_channels, wanted.text_dim):
        raise SlotIDError(
            f"{wan.name} is a Wan with width {width}, {blocks} blocks, {got[2]} latent channels; this LoRA is for "
            f"{wanted}. Merge it into the Wan that it was trained on."
        )
    for name, pair in weights.lora.pairs.items():
        key = f"{transformer_to_diffusers(name)}.weight"
        if key not in tensors:
            raise SlotIDError(f"{wan.name} is not a whole Wan: {name} is not in it. Fetch the whole file.")
        weight_OI, scale = tensors[key], pair.alpha / pair.down_RI.shape[0]
        tensors[key] = torch.addmm(weight_OI.float(), pair.up_OR, pair.down_RI, alpha=scale).to(weight_OI.dtype)
    _save(out, {transformer_to_original(name): tensor for name, tensor in tensors.items()})


def _factor(module: str, factor: str) -> str:
    """A checkpoint's name of a LoRA's factor, ``A`` (down) or ``B`` (up)."""
    return f"lora.{transformer_to_diffusers(module)}.lora_{factor}.weight"


def _check_is_checkpoint(folder: Path) -> None:
    if folder.resolve() in checkpoints(folder.resolve().parent):
        return
    here = checkpoints(folder) or checkpoints(folder / "checkpoints")
    advice = f"Its newest checkpoint is {here[-1]}" if here else "Give a folder such as RUN/checkpoints/step_000100"
    raise SlotIDError(f"{folder} is not a checkpoint of a run. {advice}.")


def _check_fits(checkpoint: Path, got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Nothing is left as it was before training because the checkpoint lacks it."""
    shapes, wanted = ({name: tuple(t.shape) for name, t in part.items()} for part in (got, expected))
    if odd := differences(shapes, wanted):
        raise SlotIDError(
            f"{checkpoint} does not hold the weights that its settings describe: {odd}. Take another checkpoint of "
            "this run."
        )


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    if path.suffix != ".safetensors":
        raise SlotIDError(f"Got the name {path.name}, expected one that ends in .safetensors.")
    with atomic(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, {"format": "pt"})
        except SafetensorError as error:
            raise SlotIDError(f"Can't write {path.name} into {path.parent}: {error}. Make room there.") from error
        temporary.chmod(mode)  # safetensors makes files that nobody else can read
