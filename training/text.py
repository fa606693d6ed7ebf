"""Captions to text tokens: Wan's umT5, or the demo's hashed words.

Shape letters: L text tokens, E text-token width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from slotid_core.demo_text import LENGTH as HASHED_LENGTH
from slotid_core.demo_text import embed_prompt, split_words
from slotid_core.errors import SlotIDError
from training.prompts import LENGTH
from training.settings import Settings

TEXT_ENCODER_PARTS = "text_encoder", "tokenizer"
"""What is read of the encoder's folder, which may hold a whole Wan besides."""


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What a text encoder made of a caption."""

    text_LE: Tensor
    """bfloat16, on the CPU, not padded; L is at most what was asked for."""
    cut: bool
    """The caption was longer and its end is left out."""


class TextEncoder(Protocol):
    """Turns captions into tokens."""

    def encode(self, caption: str, most: int) -> Caption:
        """One caption, cut after ``most`` tokens."""
        ...


class HashedWords:
    """The demo's: one token a word, no meaning beyond "the same word, the same vector"."""

    def __init__(self, text_dim: int):
        self._text_dim = text_dim

    def encode(self, caption: str, most: int) -> Caption:
        words = split_words(caption)
        kept = words[:most]
        text_1LE = embed_prompt(" ".join(kept), text_dim=self._text_dim, length=max(1, len(kept)))
        return Caption(text_LE=text_1LE[0].to(torch.bfloat16), cut=len(words) > most)


class UmT5:
    """Wan's text encoder from a folder with ``text_encoder`` and ``tokenizer``, as diffusers lays them out.

    bfloat16 on a GPU and float32 on a CPU.

    Raises:
        SlotIDError: a folder is missing or holds something else.
    """

    def __init__(self, folder: Path, device: torch.device):
        from transformers import AutoTokenizer, UMT5EncoderModel

        for part in TEXT_ENCODER_PARTS:
            if not (folder / part).is_dir():
                raise SlotIDError(
                    f"There is no folder {folder / part}. The text encoder (model.text_encoder, --text-encoder) is a "
                    "folder with text_encoder and tokenizer, as in Wan2.1's diffusers repositories; or hashed, for the "
                    "tiny Wan and the demo's."
                )
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            model = UMT5EncoderModel.from_pretrained(
                folder / "text_encoder", dtype=dtype, use_safetensors=True, local_files_only=True
            )
        except (OSError, ValueError) as error:
            raise SlotIDError(f"{folder} can't be loaded as umT5: {error}") from error
        self._model = model.eval().requires_grad_(False).to(device)

    @property
    def text_dim(self) -> int:
        """E, which has to be the backbone's."""
        return self._model.config.d_model

    @torch.no_grad()
    def encode(self, caption: str, most: int) -> Caption:
        text = " ".join(caption.split())
        whole = self._tokenizer(text)["input_ids"]
        kept = self._tokenizer(text, truncation=True, max_length=most, return_tensors="pt").to(self._model.device)
        hidden_1LE = self._model(kept["input_ids"], kept["attention_mask"]).last_hidden_state
        return Caption(text_LE=hidden_1LE[0].to("cpu", torch.bfloat16), cut=len(whole) > most)


def open_text_encoder(settings: Settings, device: torch.device) -> TextEncoder:
    """The encoder that the settings name.

    Raises:
        SlotIDError: it is not there, or its tokens have another width than the backbone's.
    """
    text_dim = settings.model.slotid_config().backbone.text_dim
    if settings.model.text_encoder == "hashed":
        return HashedWords(text_dim)
    encoder = UmT5(settings.model.text_encoder, device)
    if encoder.text_dim != text_dim:
        raise SlotIDError(
            f"{settings.model.text_encoder} gives tokens of width {encoder.text_dim}, the backbone takes {text_dim}. "
            "Use umT5-XXL, Wan 2.1's text encoder."
        )
    return encoder


def context_length(settings: Settings) -> int:
    """Tokens of a padded prompt: Wan's 512, or the demo's 64."""
    return HASHED_LENGTH if settings.model.text_encoder == "hashed" else LENGTH


def most_text_tokens(settings: Settings) -> int:
    """Tokens a caption may have, so that the identity's prefix still finds room in the context."""
    config = settings.model.slotid_config()
    return context_length(settings) - config.reader.slots - config.portrait.tokens


def encoded_prompt(text: str, encoder: TextEncoder, text_dim: int) -> Tensor:
    """A prompt as the backbone takes it, ``[1, 512, E]`` float32 with zero tokens as pads at the end.

    Raises:
        SlotIDError: the text is too long, or the encoder is not the backbone's.
    """
    caption = encoder.encode(text, LENGTH)
    if caption.cut:
        raise SlotIDError(
            f"The prompt has more than {LENGTH} tokens, which is all that Wan reads. Shorten it: {text!r}"
        )
    length, width = caption.text_LE.shape
    if width != text_dim:
        raise SlotIDError(
            f"The text encoder gives tokens of width {width}, the backbone takes {text_dim}. Use umT5-XXL, Wan 2.1's."
        )
    return functional.pad(caption.text_LE.float(), (0, 0, 0, LENGTH - length))[None]
