"""LoRA tensors: the names both hosts load, and nothing lost on the way.

Shape letters: R rank, I input width, O output width.
"""

import pytest
import torch

from slotid_core.config import BackboneConfig, LoraConfig, SlotIDConfig
from slotid_core.lora import LoraPair, LoraWeights, from_tensors, module_names, to_tensors, untrained_lora

BACKBONE = BackboneConfig(dim=16, blocks=3)


def lora_of(config: LoraConfig, seed: int = 0) -> LoraWeights:
    return untrained_lora(config, BACKBONE, torch.Generator().manual_seed(seed))


def test_names_are_those_of_wans_own_checkpoints():
    config = SlotIDConfig.preset("wan-14b")
    names = module_names(config.lora, config.backbone)
    assert len(names) == 80
    assert names[:2] == ["blocks.0.cross_attn.k", "blocks.0.cross_attn.v"] and names[-1] == "blocks.39.cross_attn.v"
    assert module_names(LoraConfig(targets=("o",)), BACKBONE) == [f"blocks.{i}.cross_attn.o" for i in range(3)]
    assert module_names(LoraConfig(rank=0), BACKBONE) == []


def test_keys_carry_alpha_beside_both_factors():
    """Without alpha a loader takes alpha = rank, and at rank 32 and alpha 16 the strength doubles."""
    tensors = to_tensors(lora_of(LoraConfig(rank=4, alpha=2.0, targets=("v",))))
    prefix = "diffusion_model.blocks.0.cross_attn.v."
    assert sorted(tensors)[:3] == [prefix + "alpha", prefix + "lora_A.weight", prefix + "lora_B.weight"]
    assert len(tensors) == 9
    assert tensors[prefix + "lora_A.weight"].shape == (4, 16) and tensors[prefix + "lora_B.weight"].shape == (16, 4)
    assert float(tensors[prefix + "alpha"]) == 2.0


@pytest.mark.parametrize("alpha", [16, 0.5])
def test_tensors_round_trip(alpha):
    lora = lora_of(LoraConfig(rank=4, alpha=alpha))
    for pair in lora.pairs.values():
        pair.up_OR.normal_()
    tensors = to_tensors(lora)
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    again = from_tensors(tensors)
    assert list(again.pairs) == list(lora.pairs)
    for name, pair in lora.pairs.items():
        assert torch.equal(again.pairs[name].down_RI, pair.down_RI)
        assert torch.equal(again.pairs[name].up_OR, pair.up_OR)
        assert again.pairs[name].alpha == alpha


def test_only_a_product_that_is_zero_is_zero():
    down_RI, up_OR = torch.randn(2, 8), torch.randn(8, 2)

    def lora(*pairs):
        return LoraWeights({f"blocks.{i}.cross_attn.k": LoraPair(*pair, alpha=1.0) for i, pair in enumerate(pairs)})

    assert lora().is_zero()
    assert lora((down_RI, up_OR * 0), (down_RI * 0, up_OR)).is_zero()
    assert not lora((down_RI, up_OR * 0), (down_RI, up_OR)).is_zero()


def test_training_starts_from_a_random_down_and_a_zero_up_by_seed():
    config = LoraConfig(rank=4)
    first, again, other = (lora_of(config, seed) for seed in (0, 0, 1))
    assert first.is_zero()
    for name, pair in first.pairs.items():
        assert pair.down_RI.any() and not pair.up_OR.any()
        assert torch.equal(pair.down_RI, again.pairs[name].down_RI)
        assert not torch.equal(pair.down_RI, other.pairs[name].down_RI)
