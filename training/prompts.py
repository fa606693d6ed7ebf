"""The text side of sampling: tokens from a file that an umT5 run wrote, or the demo's hashed words.

Shape letters: L text tokens, E text-token width.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional

from slotid_core.demo_text import embed_prompt
from slotid_core.errors import SlotIDError

LENGTH = 512
"""Tokens of a Wan prompt, padded. The demo's own prompts are shorter, see ``slotid_core.demo_text``."""


def prompt_tokens(text: str, file: Path | None, text_dim: int) -> Tensor:
    """Text tokens as the backbone takes them: ``[1, L, E]`` float32, zero tokens as pads at the end; L is 512, and 64
    for hashed words.

    Args:
        text: embedded as hashed words (see ``slotid_core.demo_text``) where no file is given.
        file: a safetensors file with one tensor ``[1, L, E]``, L at most 512; zero tokens are added up to 512, as Wan
            pads its prompts.
        text_dim: width E that the backbone wants.

    Raises:
        SlotIDError: the file is not such a file, or the text has too many words.
    """
    if file is None:
        return embed_prompt(text, text_dim=text_dim)
    if not file.is_file():
        raise SlotIDError(f"There is no file {file}. Give a safetensors file with text tokens [1, L, {text_dim}].")
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except OSError as error:  # safetensors takes a file that may not be read for one that is not there
        raise SlotIDError(f"{file.name} can't be read. Give whoever runs this the right to.") from error
    except SafetensorError as error:
        raise SlotIDError(f"{file.name} is no safetensors file or is damaged ({error}).") from error
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    (tokens_1LE,) = tensors.values() if len(tensors) == 1 else (None,)
    fits = tokens_1LE is not None and tokens_1LE.is_floating_point() and tokens_1LE.ndim == 3
    if not fits or tokens_1LE.shape[0] != 1 or tokens_1LE.shape[1] > LENGTH or tokens_1LE.shape[2] != text_dim:
        raise SlotIDError(
            f"{file.name} holds {shapes}, expected one float tensor [1, L, {text_dim}] with L at most {LENGTH}: the "
            "output of Wan's text encoder for one prompt."
        )
    return functional.pad(tokens_1LE.float(), (0, 0, 0, LENGTH - tokens_1LE.shape[1]))
