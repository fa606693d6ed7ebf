"""Prompt embeddings without a text encoder, for the demo.

umT5-XXL, Wan's text encoder, is 11 GB and has no small version. The demo's small backbone is instead given a
fixed hashed word embedding of the same shape: one token per word, zeros after the last word, as Wan pads its
prompts. It carries no meaning beyond "the same word, the same vector"; a backbone has to be trained on it to
follow prompts.

Shapes: B = 1 prompt, N = words, L = text tokens, E = text-token width.
"""

import hashlib
import re
import unicodedata

import numpy as np
import torch

from .errors import SlotIDError

# Root mean square of a token's entries. umT5's own magnitude varies from word to word, so there is no figure
# to match; 1 keeps the backbone's text MLP in the range that its initialisation expects.
TOKEN_RMS = 1.0

# A token is WORD_PARTS parts word and one part position. Cross-attention sees neither order nor distance, so
# without the position "man bites dog" and "dog bites man" would give the same video.
WORD_PARTS = 4

# Wan pads prompts to 512 tokens. The demo's captions have some 25 words, and most of cross-attention would be pads.
LENGTH = 64

_SCHEME = "slotid-demo-text-1"
_LARGEST = 2**16 - 1
# Entries are uniform on odd integers in [-_LARGEST, _LARGEST]: mean square ((2^16)^2 - 1) / 3 each.
_INTEGER_RMS = ((WORD_PARTS**2 + 1) * (2.0**32 - 1) / 3) ** 0.5


def split_words(text: str) -> list[str]:
    """Lower-cased words of a prompt, in order, without punctuation; Unicode spellings agree (NFKC)."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower())


def embed_prompt(text: str, *, text_dim: int = 4096, length: int = LENGTH) -> torch.Tensor:
    """Embed a prompt as Wan's text encoder would shape it.

    Every entry is an exact integer times one float32 constant, and the integers come from SHAKE-256, so the
    result is bit-identical on every platform and library version.

    Args:
        text: the prompt. An empty one gives zeros only (umT5 would give a single end-of-text token).
        text_dim: width E of a token; 4096 for every Wan size.
        length: tokens L of the result.

    Returns:
        float32 ``[1, length, text_dim]`` on the CPU: one token of RMS about ``TOKEN_RMS`` per word, then
        exact zeros.

    Raises:
        SlotIDError: the prompt has more words than ``length``, or a size is not positive.
    """
    if text_dim < 1 or length < 1:
        raise SlotIDError(f"demo prompt: got text_dim={text_dim}, length={length}; both must be at least 1.")
    words = split_words(text)
    if len(words) > length:
        raise SlotIDError(
            f"demo prompt: got {len(words)} words, but only {length} text tokens are there; "
            f"shorten the prompt by {len(words) - length} words."
        )
    tokens_BLE = np.zeros((1, length, text_dim), dtype=np.float32)
    scale = np.float32(TOKEN_RMS / _INTEGER_RMS)
    for index, word in enumerate(words):
        word_E = _hashed_integers(f"word/{word}", text_dim)
        position_E = _hashed_integers(f"position/{index}", text_dim)
        # The sum stays below 2^24, so it is exact in float32 and the product rounds once, everywhere alike.
        tokens_BLE[0, index] = (WORD_PARTS * word_E + position_E).astype(np.float32) * scale
    return torch.from_numpy(tokens_BLE)


def _hashed_integers(key: str, count: int) -> np.ndarray:
    """``count`` odd int32 in [-65535, 65535], uniform, fixed by ``key``."""
    digest = hashlib.shake_256(f"{_SCHEME}/{key}".encode()).digest(2 * count)
    return 2 * np.frombuffer(digest, dtype="<u2").astype(np.int32) - _LARGEST
