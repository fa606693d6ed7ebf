"""Wrong backbones, VAEs, identities and settings are refused before sampling, with what was found and needed."""

from types import SimpleNamespace

import pytest
import torch


def test_a_wan_of_another_size(wan, apply, people, core):
    weights = core.checkpoint.untrained_weights("wan-1.3b")
    with pytest.raises(core.errors.SlotIDError, match=r"width 256, 4 blocks.*width 1536, 30 blocks"):
        apply(wan, people[0], weights=weights)


def test_another_block_count(comfy, apply, people, core, transformer):
    from training.wan_keys import transformer_to_original

    state = {
        transformer_to_original(name): tensor
        for name, tensor in transformer.state_dict().items()
        if not name.startswith("blocks.3.")
    }
    shorter = comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": torch.float32})
    with pytest.raises(core.errors.SlotIDError, match="3 blocks"):
        apply(shorter, people[0])


class Patcher(SimpleNamespace):
    """Stands for a ModelPatcher of a model that is too large or too odd to build here."""

    def get_model_object(self, name):
        return self.diffusion_model


def test_not_a_wan_model(apply, people, core):
    with pytest.raises(core.errors.SlotIDError, match="Linear, which is not a Wan model"):
        apply(Patcher(diffusion_model=torch.nn.Linear(1, 1)), people[0])


def test_the_autoregressive_wan(comfy, apply, people, core):
    ar_model = pytest.importorskip("comfy.ldm.wan.ar_model", reason="this ComfyUI has no autoregressive Wan")
    import comfy.ops

    with torch.device("meta"):
        backbone = ar_model.CausalWanModel(
            dim=256, ffn_dim=512, num_heads=2, num_layers=4, operations=comfy.ops.disable_weight_init, device="meta"
        )
    with pytest.raises(core.errors.SlotIDError, match="autoregressive variant .CausalWanModel."):
        apply(Patcher(diffusion_model=backbone), people[0])


def test_an_identity_of_other_weights(wan, apply, people, core):
    from dataclasses import replace

    with pytest.raises(core.errors.SlotIDError, match="other Slot-ID weights: got 000000000000"):
        apply(wan, replace(people[0], weights_hash="0" * 64))


@pytest.mark.parametrize("window", [(0.5, 0.5), (0.7, 0.2), (-0.1, 0.5), (0.0, 1.1)])
def test_an_impossible_window(wan, apply, people, core, window):
    with pytest.raises(core.errors.SlotIDError, match="start"):
        apply(wan, people[0], start=window[0], end=window[1])


@pytest.mark.parametrize(
    "setting", [{"strength": -1.0}, {"strength": 11.0}, {"film_strength": -0.1}, {"prefix_strength": 11.0}]
)
def test_a_strength_out_of_range(wan, apply, people, core, setting):
    with pytest.raises(core.errors.SlotIDError, match="strength"):
        apply(wan, people[0], **setting)


@pytest.mark.parametrize(
    ("settings", "blocks"), [({"film_strength": 0.0}, None), ({}, range(0, 2)), ({"film_strength": 0.0}, range(2, 4))]
)
def test_strengths_and_blocks_that_leave_nothing(wan, apply, people, core, settings, blocks):
    """FiLM modulates the last two of the four blocks."""
    reach = core.region.Reach(blocks=blocks)
    with pytest.raises(core.errors.SlotIDError, match="Nothing of the identity would be left.*blocks 2 to 3"):
        apply(wan, people[0], prefix_strength=0.0, lora=0.0, reach=reach, **settings)
    apply(wan, people[0], prefix_strength=0.0, lora=1.0, reach=reach, **settings)
    apply(wan, people[0], strength=0.0, prefix_strength=0.0, lora=0.0, reach=reach, **settings)


def test_a_lora_that_fits_no_layer(wan, apply, people, core, weights):
    from dataclasses import replace

    renamed = core.lora.LoraWeights({f"{name}_gone": pair for name, pair in weights.lora.pairs.items()})
    with pytest.raises(core.errors.SlotIDError, match="fits 0 of 8 layers"):
        apply(wan, people[0], weights=replace(weights, lora=renamed))


def test_a_vae_with_sixteen_channels_that_is_not_wan(pack, core):
    """Flux, SD3 and Hunyuan have 16 latent channels too: the class decides."""
    import importlib

    host_vae = importlib.import_module("slotid_pack.nodes.host_vae")
    from comfy.ldm.models.autoencoder import AutoencoderKL

    flux = AutoencoderKL.__new__(AutoencoderKL)
    vae = SimpleNamespace(first_stage_model=flux, latent_channels=16)
    with pytest.raises(core.errors.SlotIDError, match="AutoencoderKL, expected the Wan 2.1 VAE"):
        host_vae.encode_frames(vae, torch.rand(5, 64, 64, 3))
