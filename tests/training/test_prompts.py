"""Text tokens from a file or from hashed words."""

import pytest
import torch
from safetensors.torch import save_file

from slotid_core.demo_text import embed_prompt
from slotid_core.errors import SlotIDError
from training.prompts import prompt_tokens


def test_hashed_words_without_a_file():
    assert torch.equal(prompt_tokens("a person smiles", None, 4096), embed_prompt("a person smiles"))


def test_tokens_from_a_file_are_padded_with_zeros(tmp_path):
    tokens = torch.randn(1, 7, 32, dtype=torch.bfloat16)
    save_file({"any_name": tokens}, tmp_path / "text.safetensors")
    out = prompt_tokens("ignored", tmp_path / "text.safetensors", 32)
    assert out.shape == (1, 512, 32) and out.dtype == torch.float32
    assert torch.equal(out[:, :7], tokens.float()) and not out[:, 7:].any()


@pytest.mark.parametrize(
    "tensors",
    [
        {"x": torch.randn(1, 7, 31)},
        {"x": torch.randn(2, 7, 32)},
        {"x": torch.randn(1, 513, 32)},
        {"x": torch.randn(7, 32)},
        {"x": torch.ones(1, 7, 32, dtype=torch.int64)},
        {"x": torch.randn(1, 7, 32), "y": torch.randn(1, 7, 32)},
    ],
    ids=["width", "batch", "long", "flat", "integers", "two"],
)
def test_a_file_that_holds_something_else(tmp_path, tensors):
    save_file(tensors, tmp_path / "text.safetensors")
    with pytest.raises(SlotIDError, match=r"text.safetensors holds .*expected one float tensor \[1, L, 32\]"):
        prompt_tokens("", tmp_path / "text.safetensors", 32)


def test_no_file_and_no_safetensors(tmp_path):
    with pytest.raises(SlotIDError, match="There is no file"):
        prompt_tokens("", tmp_path / "text.safetensors", 32)
    (tmp_path / "text.safetensors").write_bytes(b"hello")
    with pytest.raises(SlotIDError, match="no safetensors file"):
        prompt_tokens("", tmp_path / "text.safetensors", 32)


def test_a_file_that_may_not_be_read(tmp_path, unreadable):
    save_file({"tokens": torch.zeros(1, 3, 32)}, tmp_path / "text.safetensors")
    with unreadable(tmp_path / "text.safetensors") as closed, pytest.raises(SlotIDError, match="text.*can't be read"):
        prompt_tokens("", closed, 32)
