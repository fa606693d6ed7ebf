"""Captions to tokens, by hashed words and by a tiny umT5 with random weights."""

import pytest
import torch

from slotid_core.demo_text import embed_prompt
from slotid_core.errors import SlotIDError
from training.settings_file import from_dict
from training.text import HashedWords, UmT5, most_text_tokens, open_text_encoder


@pytest.fixture(scope="module")
def folder(make_umt5):
    return make_umt5(32)


def test_umt5_gives_the_models_hidden_states_without_pads(folder):
    from transformers import UMT5EncoderModel

    caption = UmT5(folder, torch.device("cpu")).encode("a  head\nturns", 504)
    model = UMT5EncoderModel.from_pretrained(folder / "text_encoder")
    with torch.no_grad():
        # Wan pads to 512 and masks the pads; what stands before them is the same.
        ids = torch.tensor([[3, 4, 5, 1] + [0] * 508])
        padded = model(ids, (ids != 0).long()).last_hidden_state[0, :4]
    assert caption.text_LE.dtype == torch.bfloat16 and not caption.cut
    torch.testing.assert_close(caption.text_LE, padded.to(torch.bfloat16), rtol=1e-2, atol=1e-2)


def test_umt5_is_cut_and_ends_with_its_end(folder):
    encoder = UmT5(folder, torch.device("cpu"))
    cut = encoder.encode("a head turns and smiles", 4)
    assert cut.cut and cut.text_LE.shape == (4, 32)
    torch.testing.assert_close(cut.text_LE, encoder.encode("a head turns", 4).text_LE)
    assert not encoder.encode("a head turns", 4).cut


def test_umt5_that_is_not_there_or_something_else(folder, tmp_path):
    with pytest.raises(SlotIDError, match="text_encoder. The text encoder .model.text_encoder"):
        UmT5(tmp_path, torch.device("cpu"))
    for part in ("text_encoder", "tokenizer"):
        (tmp_path / part).mkdir()
    with pytest.raises(SlotIDError, match="can't be loaded as umT5"):
        UmT5(tmp_path, torch.device("cpu"))


def settings_with(text_encoder, slotid):
    model = {"preset": "tiny", "transformer": "tiny", "vae": "tiny", "text_encoder": text_encoder, "slotid": slotid}
    data = {"layout": "generated", "cache": "cache"}
    return from_dict({"run": {"folder": "r"}, "model": model, "data": data, "optim": {"steps": 1, "batch": 1}}, "test")


def test_the_width_has_to_be_the_backbones(folder):
    with pytest.raises(SlotIDError, match="width 32, the backbone takes 4096"):
        open_text_encoder(settings_with(str(folder), {}), torch.device("cpu"))


def test_hashed_words_are_the_demos_and_are_cut():
    encoder = HashedWords(64)
    caption = encoder.encode("A head turns.", 3)
    assert not caption.cut
    assert torch.equal(caption.text_LE, embed_prompt("A head turns.", text_dim=64)[0, :3].to(torch.bfloat16))
    cut = encoder.encode("A head turns.", 2)
    assert cut.cut and torch.equal(cut.text_LE, caption.text_LE[:2])


def test_captions_leave_room_for_the_prefix():
    assert most_text_tokens(settings_with("umt5", {})) == 504
    assert most_text_tokens(settings_with("umt5", {"reader": {"slots": 12}})) == 498
    assert most_text_tokens(settings_with("hashed", {})) == 56
