"""Reading Wan models from files: one ``.safetensors`` in either naming, or a diffusers folder, strictly.

Nothing here knows Wan's classes; the caller (``wan_diffusers.py``) brings them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from slotid_core.errors import SlotIDError
from training.wan_keys import diffusers_names

_PLAIN_FLOATS = {str(dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)}


def read_tensors(path: Path, kind: str) -> dict[str, Tensor]:
    """All tensors of a Wan file under diffusers' names, as they are stored.

    Args:
        kind: ``"transformer"`` or ``"vae"``.

    Raises:
        SlotIDError: no such file, no safetensors, damaged, another model, or quantised weights.
    """
    if not path.is_file():
        raise SlotIDError(
            f"There is no file or folder {path}. Give a Wan 2.1 {kind}: one .safetensors file or a diffusers folder."
        )
    if path.suffix != ".safetensors":
        raise SlotIDError(f"{path.name} is not a .safetensors file; other formats are not read. Convert it first.")
    try:
        with safe_open(path, framework="pt") as file:
            try:
                names = diffusers_names(file.keys(), kind)
            except SlotIDError as error:
                raise SlotIDError(f"{path.name}: {error}") from error
            tensors = {ours: file.get_tensor(theirs) for theirs, ours in names.items()}
    except OSError as error:  # safetensors takes a file that may not be read for one that is not there
        raise SlotIDError(f"{path.name} can't be read. Give whoever runs this the right to.") from error
    except SafetensorError as error:
        raise SlotIDError(f"{path.name} is damaged or was not written to the end ({error}). Fetch it again.") from error
    odd = {str(tensor.dtype) for tensor in tensors.values()} - _PLAIN_FLOATS
    if odd:
        raise SlotIDError(
            f"{path.name} holds {sorted(odd)} weights, expected float32, float16 or bfloat16. Use the unquantised file."
        )
    return tensors


def assign(model: nn.Module, tensors: dict[str, Tensor], path: Path, dtype: torch.dtype) -> Any:
    """Put tensors into a diffusers model that was built on the meta device; names and shapes must agree exactly.

    Raises:
        SlotIDError: a tensor is missing, left over or of another shape.
    """
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    got = {name: list(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))
    if wrong:
        name = wrong[0]
        raise SlotIDError(
            f"{path.name} does not fit: {len(wrong)} of {len(expected)} tensors differ, the first is {name} "
            f"(got {got.get(name, 'none')}, expected {expected.get(name, 'none')}). "
            f"Expected the weights of a {type(model).__name__}."
        )
    model.load_state_dict(tensors, assign=True)
    return cast(model, dtype).eval().requires_grad_(False)


def cast(model: Any, dtype: torch.dtype) -> Any:
    """Bring a diffusers model to a dtype, in place, except for the few parts that it keeps in float32."""
    in_float32 = set(model._keep_in_fp32_modules or ())
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if in_float32.intersection(name.split(".")) else dtype)
    return model


def load_folder(cls: type, path: Path, dtype: torch.dtype) -> Any:
    """A diffusers model from its own folder (``config.json`` and safetensors), complete and of this very class.

    Raises:
        SlotIDError: no config, another class, no safetensors, or weights that are not all there.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SlotIDError(
            f"{path} has no readable config.json ({error}). Give the folder of the model itself, "
            "in a diffusers pipeline its 'transformer' or 'vae' subfolder."
        ) from error
    found = config.get("_class_name") if isinstance(config, dict) else config
    if found != cls.__name__:
        raise SlotIDError(f"{path} holds the class {found}, expected Wan 2.1's {cls.__name__}.")
    try:
        model, report = cls.from_pretrained(
            path, torch_dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SlotIDError(f"{path} can't be loaded as a {cls.__name__}: {error}") from error
    problems = {kind: items for kind, items in report.items() if items}
    if problems:
        raise SlotIDError(f"{path} does not hold exactly the weights of a {cls.__name__}: {problems}")
    return model.eval().requires_grad_(False)
