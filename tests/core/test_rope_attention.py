"""Rotary positions against diffusers' Wan, attention and STSA blocks against torch's own modules.

Shape letters: B batch, H heads, L tokens, d head width, D width.
"""

import sys
import textwrap
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from slotid_core import attention as attention_module
from slotid_core import encoder as encoder_module
from slotid_core.attention import attention, flash_attn_fits
from slotid_core.config import EncoderConfig
from slotid_core.encoder import SpaceTimeSelfAttention, STSABlock
from slotid_core.rope import axis_widths, grid_positions, rotate, rotation_angles

GRID = (3, 4, 5)


@pytest.mark.parametrize("head_width", [6, 8, 12, 24, 64, 128])
def test_angles_equal_wans(head_width):
    wan = pytest.importorskip("diffusers.models.transformers.transformer_wan")
    rope = wan.WanRotaryPosEmbed(head_width, (1, 2, 2), 64)
    T, H, W = GRID
    cos, sin = rope(torch.zeros(1, 1, T, 2 * H, 2 * W))
    angles_Ld = rotation_angles(grid_positions(GRID), head_width)
    assert angles_Ld.dtype == torch.float64 and sum(axis_widths(head_width)) == head_width
    for ours, theirs in ((angles_Ld.cos(), cos), (angles_Ld.sin(), sin)):
        torch.testing.assert_close(ours.repeat_interleave(2, -1).float(), theirs[0, :, 0].float(), rtol=0, atol=1e-6)


def test_rotation_equals_a_product_of_complex_numbers():
    x_BHLd = torch.randn(2, 3, 60, 24, dtype=torch.float64)
    angles_Ld = rotation_angles(grid_positions(GRID), 24)
    turned = torch.view_as_complex(x_BHLd.unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angles_Ld), angles_Ld)
    torch.testing.assert_close(rotate(x_BHLd, angles_Ld), torch.view_as_real(turned).flatten(-2))


def test_scores_depend_on_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 24, dtype=torch.float64)

    def score(at_q, at_k):
        angles = [rotation_angles(torch.tensor([at]), 24) for at in (at_q, at_k)]
        return float((rotate(q, angles[0]) * rotate(k, angles[1])).sum())

    assert score((1, 2, 3), (4, 4, 4)) == pytest.approx(score((11, 7, 5), (14, 9, 6)), abs=1e-12)
    assert score((1, 2, 3), (4, 4, 4)) != pytest.approx(score((1, 2, 3), (5, 4, 4)), abs=1e-3)


def test_temporal_rope_off_turns_neither_the_time_channels_nor_leaves_space_unturned():
    width = axis_widths(24)[0] // 2
    on_Ld, off_Ld = (rotation_angles(grid_positions(GRID), 24, temporal) for temporal in (True, False))
    assert on_Ld[:, :width].any() and not off_Ld[:, :width].any()
    assert torch.equal(on_Ld[:, width:], off_Ld[:, width:]) and off_Ld[:, width:].any()


def test_rotation_keeps_the_dtype_and_computes_in_float32():
    x_BHLd = torch.randn(1, 2, 60, 24, dtype=torch.bfloat16)
    angles_Ld = rotation_angles(grid_positions(GRID), 24)
    turned = rotate(x_BHLd, angles_Ld)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x_BHLd.float(), angles_Ld).bfloat16())


def test_attention_equals_its_formula():
    q, k, v = torch.randn(3, 2, 3, 10, 8, dtype=torch.float64)
    expected = (q @ k.mT / 8**0.5).softmax(-1) @ v
    torch.testing.assert_close(attention(q, k, v), expected)


def without_qk_norm(attn: SpaceTimeSelfAttention) -> None:
    attn.norm_q, attn.norm_k = nn.Identity(), nn.Identity()


def no_rotation(length: int, head_width: int) -> torch.Tensor:
    return torch.zeros(length, head_width // 2, dtype=torch.float64)


@torch.no_grad()
def test_self_attention_equals_torchs_but_for_norm_and_rotation():
    ours, theirs = SpaceTimeSelfAttention(24, 2).double(), nn.MultiheadAttention(24, 2, batch_first=True).double()
    without_qk_norm(ours)
    theirs.in_proj_weight.copy_(ours.qkv.weight)
    theirs.in_proj_bias.copy_(ours.qkv.bias)
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x_BLD = torch.randn(2, 10, 24, dtype=torch.float64)
    expected_BLD, _ = theirs(x_BLD, x_BLD, x_BLD)
    torch.testing.assert_close(ours(x_BLD, no_rotation(10, 12)), expected_BLD)


@torch.no_grad()
def test_block_equals_torchs_pre_norm_encoder_layer_but_for_norm_and_rotation():
    ours = STSABlock(EncoderConfig(width=24, heads=2, mlp_ratio=3)).double()
    without_qk_norm(ours.attn)
    theirs = nn.TransformerEncoderLayer(
        24, 2, 72, 0.0, lambda x: F.gelu(x, approximate="tanh"), batch_first=True, norm_first=True
    ).double()
    for name in ("norm1", "norm2"):  # torch starts norms at 1 and 0, where a swap would not show
        getattr(ours, name).weight.normal_()
        getattr(ours, name).bias.normal_()
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.out.",
        "linear1.": "mlp.0.",
        "linear2.": "mlp.2.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }
    state = {
        their + kind: ours.get_parameter(our + kind) for their, our in names.items() for kind in ("weight", "bias")
    }
    theirs.load_state_dict(state)
    x_BLD = torch.randn(2, 10, 24, dtype=torch.float64)
    torch.testing.assert_close(ours(x_BLD, no_rotation(10, 12)), theirs(x_BLD))


@torch.no_grad()
def test_queries_and_keys_are_normalised_then_rotated():
    attn = SpaceTimeSelfAttention(24, 2).double()
    attn.norm_q.weight.normal_()
    attn.norm_k.weight.normal_()
    x_BLD, angles_Ld = torch.randn(1, 60, 24, dtype=torch.float64), rotation_angles(grid_positions(GRID), 12)

    def head(x_LD, h, norm):
        x_Ld = x_LD[:, 12 * h : 12 * h + 12]
        x_Ld = x_Ld / (x_Ld.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight
        return rotate(x_Ld[None, None], angles_Ld)[0, 0]

    q_LD, k_LD, v_LD = (x_BLD[0] @ attn.qkv.weight.T + attn.qkv.bias).split(24, dim=-1)
    read = [
        (head(q_LD, h, attn.norm_q) @ head(k_LD, h, attn.norm_k).T / 12**0.5).softmax(-1)
        @ v_LD[:, 12 * h : 12 * h + 12]
        for h in range(2)
    ]
    expected_LD = torch.cat(read, -1) @ attn.out.weight.T + attn.out.bias
    torch.testing.assert_close(attn(x_BLD, angles_Ld)[0], expected_LD)

    before = attn(x_BLD, angles_Ld)
    attn.qkv.weight[:48] *= 100  # queries and keys alone
    attn.qkv.bias[:48] *= 100
    torch.testing.assert_close(attn(x_BLD, angles_Ld), before, rtol=1e-4, atol=1e-4)


@pytest.fixture
def stand_in_flash_attn(tmp_path, monkeypatch):
    """The flash_attn package needs a CUDA compiler to install and a GPU to run, so a package of the same name stands
    in: the same function and layout, [B, L, H, d], computed by SDPA. It replaces the kernel, and the check that the
    tensors lie on a GPU; finding, importing and calling it are the real ones.
    """
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn" / "__init__.py").write_text(
        textwrap.dedent(
            """
            import torch.nn.functional as F
            calls = []

            def flash_attn_func(q, k, v):
                calls.append(tuple(q.shape))
                return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    attention_module._flash_attn_installed.cache_clear()
    yield
    sys.modules.pop("flash_attn", None)
    attention_module._flash_attn_installed.cache_clear()


def test_flash_attn_is_used_where_it_fits_and_gets_its_own_layout(stand_in_flash_attn, monkeypatch):
    q, k, v = torch.randn(3, 2, 3, 10, 8)
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attention(q, k, v), expected)
    assert "flash_attn" not in sys.modules, "tensors that do not fit must not reach it"
    monkeypatch.setattr(attention_module, "flash_attn_fits", lambda q: True)
    torch.testing.assert_close(attention(q, k, v), expected)
    assert sys.modules["flash_attn"].calls == [(2, 10, 3, 8)]


@pytest.mark.parametrize(
    ("cuda", "dtype", "head_width", "fits"),
    [
        (True, torch.bfloat16, 64, True),
        (True, torch.float16, 256, True),
        (True, torch.float32, 64, False),
        (False, torch.bfloat16, 64, False),
        (True, torch.bfloat16, 264, False),
        (True, torch.bfloat16, 12, False),
    ],
)
def test_what_flash_attn_takes(cuda, dtype, head_width, fits):
    assert flash_attn_fits(SimpleNamespace(is_cuda=cuda, dtype=dtype, shape=(1, 2, 10, head_width))) is fits


def test_the_kernel_gets_one_dtype_where_autocast_leaves_the_norms_in_float32(monkeypatch):
    """CUDA's autocast runs RMSNorm in float32, the CPU's does not: norms that return float32 stand in for it."""
    attn = SpaceTimeSelfAttention(24, 2)
    seen = []
    monkeypatch.setattr(encoder_module, "attention", lambda *qkv: seen.extend(x.dtype for x in qkv) or qkv[2])
    for norm in (attn.norm_q, attn.norm_k):
        norm.register_forward_hook(lambda module, inputs, output: output.float())
    with torch.autocast("cpu", torch.bfloat16):
        attn(torch.randn(1, 60, 24), rotation_angles(grid_positions(GRID), 12))
    assert seen == [torch.bfloat16] * 3
