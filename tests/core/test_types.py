"""The named values.

Shape letters: B batch.
"""

import dataclasses

import pytest
import torch


def test_one_identity_expands_to_every_row_without_a_copy(make_embedding):
    one = make_embedding()
    four = one.expand(4)
    assert (one.batch, four.batch) == (1, 4)
    for field in dataclasses.fields(one):
        tensor, rows = getattr(one, field.name), getattr(four, field.name)
        assert rows.shape == (4, *tensor.shape[1:])
        assert rows.data_ptr() == tensor.data_ptr() and all(torch.equal(row, tensor[0]) for row in rows)


def test_several_identities_do_not_expand(make_embedding):
    with pytest.raises(AssertionError, match="can't expand 2 identities"):
        make_embedding(batch=2).expand(4)


def test_to_moves_every_tensor(make_embedding):
    half = make_embedding().to(torch.device("cpu"), torch.bfloat16)
    assert {getattr(half, field.name).dtype for field in dataclasses.fields(half)} == {torch.bfloat16}
    meta = make_embedding().to(torch.device("meta"), torch.float32)
    assert {getattr(meta, field.name).device.type for field in dataclasses.fields(meta)} == {"meta"}
