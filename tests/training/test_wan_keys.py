"""Names against diffusers' own converters, which were written by others, for the other direction."""

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers

from slotid_core.errors import SlotIDError
from training import wan_keys


def names_of(cls, **config):
    with torch.device("meta"):
        return list(cls(**config).state_dict())


TRANSFORMER = names_of(WanTransformer3DModel, num_attention_heads=1, ffn_dim=8, num_layers=12)
VAE = names_of(AutoencoderKLWan, base_dim=4)


@pytest.mark.parametrize(
    ("names", "to_original", "to_diffusers", "reference"),
    [
        (
            TRANSFORMER,
            wan_keys.transformer_to_original,
            wan_keys.transformer_to_diffusers,
            convert_wan_transformer_to_diffusers,
        ),
        (VAE, wan_keys.vae_to_original, wan_keys.vae_to_diffusers, convert_wan_vae_to_diffusers),
    ],
    ids=["transformer", "vae"],
)
def test_names_agree_with_diffusers_converters(names, to_original, to_diffusers, reference):
    original = [to_original(name) for name in names]
    assert len(set(original)) == len(names)
    # The converter maps names; the "tensors" here are the names that should come out.
    assert reference(dict(zip(original, names, strict=True))) == dict(zip(names, names, strict=True))
    assert [to_diffusers(name) for name in original] == names


def test_the_norms_swap():
    assert wan_keys.transformer_to_original("blocks.11.norm2.bias") == "blocks.11.norm3.bias"
    assert wan_keys.transformer_to_original("scale_shift_table") == "head.modulation"
    assert wan_keys.transformer_to_original("blocks.0.scale_shift_table") == "blocks.0.modulation"


@pytest.mark.parametrize(
    ("original", "diffusers"),
    [
        ("blocks.3.cross_attn.k", "blocks.3.attn2.to_k"),
        ("blocks.39.cross_attn.o", "blocks.39.attn2.to_out.0"),
        ("blocks.0.self_attn.q", "blocks.0.attn1.to_q"),
    ],
)
def test_module_names_for_lora(original, diffusers):
    assert wan_keys.transformer_to_diffusers(original) == diffusers
    assert wan_keys.transformer_to_original(diffusers) == original


@pytest.mark.parametrize(
    ("kind", "names", "named"),
    [
        ("transformer", [*TRANSFORMER, "condition_embedder.image_embedder.norm1.weight"], "image_embedder"),
        ("transformer", ["head.modulation", "blocks.0.cross_attn.k_img.weight"], "k_img"),
        ("transformer", ["head.modulation", "vace_blocks.0.before_proj.weight"], "vace_blocks"),
        ("transformer", ["head.modulation", "blocks.0.self_attn.q.scale_weight", "scaled_fp8"], "scaled_fp8"),
        ("vae", ["decoder.head.0.gamma", "decoder.upsamples.0.upsamples.0.residual.2.weight"], "upsamples.0.upsamples"),
        ("vae", ["decoder.conv_in.weight", "encoder.conv_in.weight"], "not a Wan 2.1 vae"),
        ("transformer", VAE, "not a Wan 2.1 transformer"),
        ("vae", TRANSFORMER, "not a Wan 2.1 vae"),
    ],
)
def test_other_models_are_refused_by_name(kind, names, named):
    with pytest.raises(SlotIDError, match=named):
        wan_keys.diffusers_names(names, kind)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_a_file_in_either_naming_comes_out_in_diffusers_naming(prefix):
    for names in (TRANSFORMER, [wan_keys.transformer_to_original(name) for name in TRANSFORMER]):
        found = wan_keys.diffusers_names([prefix + name for name in names], "transformer")
        assert list(found) == [prefix + name for name in names]
        assert list(found.values()) == TRANSFORMER
