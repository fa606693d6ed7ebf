"""Loading Wan: every form of the same weights is the same model, and every wrong file says what it is."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from slotid_core.errors import SlotIDError
from training.wan_diffusers import load_transformer, load_vae
from training.wan_keys import transformer_to_original, vae_to_original


def plain(model):
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def files(transformer, vae, tmp_path_factory):
    """Both models as a diffusers folder, as a file in diffusers' naming, and as two that ComfyUI reads."""
    folder = tmp_path_factory.mktemp("wan")
    transformer.save_pretrained(folder / "transformer")
    vae.save_pretrained(folder / "vae")
    save_file(plain(transformer), folder / "transformer.safetensors")
    save_file(plain(vae), folder / "vae.safetensors")
    original = {transformer_to_original(name): tensor for name, tensor in plain(transformer).items()}
    save_file(original, folder / "transformer_original.safetensors")
    checkpoint = {f"model.diffusion_model.{name}": tensor for name, tensor in original.items()}
    save_file(checkpoint, folder / "transformer_checkpoint.safetensors")
    save_file(
        {vae_to_original(name): tensor for name, tensor in plain(vae).items()}, folder / "vae_original.safetensors"
    )
    return folder


FORMS = ["transformer", "transformer.safetensors", "transformer_original.safetensors"]


@pytest.mark.parametrize("form", [*FORMS, "transformer_checkpoint.safetensors"])
def test_every_form_of_the_transformer_is_the_same_model(files, transformer, form):
    loaded = load_transformer(files / form)
    latents, timestep, text = torch.randn(1, 16, 3, 8, 6), torch.tensor([300.0]), torch.randn(1, 20, 4096)
    assert torch.equal(loaded(latents, timestep, text).sample, transformer(latents, timestep, text).sample)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_keeps_the_same_parts_in_float32_in_every_form(files, form):
    loaded = load_transformer(files / form, torch.bfloat16)
    full = {name for name, parameter in loaded.named_parameters() if parameter.dtype == torch.float32}
    assert "scale_shift_table" in full and "blocks.0.norm2.weight" in full
    assert "condition_embedder.time_embedder.linear_1.weight" in full
    assert "blocks.0.attn2.to_k.weight" not in full and len(full) == 17


@pytest.mark.parametrize("form", ["vae", "vae.safetensors", "vae_original.safetensors"])
def test_every_form_of_the_vae_is_the_same_model(files, vae, form):
    loaded = load_vae(files / form)
    pixels = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    assert torch.equal(loaded.encode(pixels).latent_dist.mean, vae.encode(pixels).latent_dist.mean)


@pytest.mark.parametrize(
    ("load", "name", "message"),
    [
        (load_transformer, "nothing.safetensors", "There is no file or folder .*nothing"),
        (load_transformer, "vae.safetensors", "vae.safetensors: not a Wan 2.1 transformer"),
        (load_vae, "transformer_original.safetensors", "not a Wan 2.1 vae"),
        (load_transformer, "vae", "holds the class AutoencoderKLWan, expected .*WanTransformer3DModel"),
        (load_vae, ".", "no readable config.json .*'vae' subfolder"),
    ],
)
def test_wrong_files(files, load, name, message):
    with pytest.raises(SlotIDError, match=message):
        load(files / name)


def test_a_missing_and_a_misshapen_tensor(files, transformer, tmp_path):
    tensors = plain(transformer)
    del tensors["blocks.2.norm2.weight"]
    save_file(tensors, tmp_path / "short.safetensors")
    with pytest.raises(SlotIDError, match=r"1 of 123 tensors differ, the first is blocks.2.norm2.weight \(got none"):
        load_transformer(tmp_path / "short.safetensors")
    tensors = plain(transformer) | {"blocks.1.ffn.net.2.bias": torch.zeros(255)}
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(SlotIDError, match=r"got \[255\], expected \[256\]"):
        load_transformer(tmp_path / "odd.safetensors")


def test_a_folder_without_all_weights(files, transformer, tmp_path):
    shutil.copytree(files / "transformer", tmp_path / "transformer")
    tensors = plain(transformer)
    del tensors["proj_out.bias"]
    save_file(tensors, tmp_path / "transformer" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SlotIDError, match="proj_out.bias"):
        load_transformer(tmp_path / "transformer")
    (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(SlotIDError, match="can't be loaded"):
        load_transformer(tmp_path / "transformer")


def test_damaged_pickled_and_quantised_files(files, transformer, tmp_path):
    whole = (files / "transformer.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SlotIDError, match="damaged"):
        load_transformer(tmp_path / "cut.safetensors")
    (tmp_path / "wan.pth").write_bytes(b"PK")
    with pytest.raises(SlotIDError, match="not a .safetensors file"):
        load_transformer(tmp_path / "wan.pth")
    save_file({n: t.to(torch.float8_e4m3fn) for n, t in plain(transformer).items()}, tmp_path / "fp8.safetensors")
    with pytest.raises(SlotIDError, match="float8_e4m3fn.*unquantised"):
        load_transformer(tmp_path / "fp8.safetensors")


def test_a_file_that_may_not_be_read(files, unreadable):
    whole = files / "transformer.safetensors"
    with unreadable(whole) as closed, pytest.raises(SlotIDError, match="transformer.safetensors can't be read"):
        load_transformer(closed)
