"""Backbone weights in other precisions, by ComfyUI's loader nodes and by the GGUF pack where it is present."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture
def sampled(tiny, prompts):
    def function(model):
        latent = tiny.video_latent(5)
        return lambda patch: tiny.ksampler(patch(model), prompts["positive"], prompts["negative"], latent)

    return function


@pytest.mark.parametrize("weight_dtype", ["fp8_e4m3fn", "fp8_e5m2"])
def test_fp8_weights(shows_the_person, sampled, load, weight_dtype):
    """The widget *weight_dtype* of *Load Diffusion Model*. Slot-ID's LoRA is rounded into the 8-bit weights."""
    model = load(1, weight_dtype=weight_dtype)
    assert model.model.diffusion_model.blocks[0].ffn[0].weight.dtype.itemsize == 1
    shows_the_person(sampled(model), bypass=True)


def test_scaled_fp8_weights(shows_the_person, sampled, wan_file, model_folder):
    """A file with 8-bit weights and one scale a layer, as published for Wan."""
    from safetensors.torch import load_file, save_file

    import nodes

    state = {"scaled_fp8": torch.tensor([], dtype=torch.float8_e4m3fn)}
    for name, value in load_file(model_folder / wan_file(1)).items():
        if name.startswith("blocks.") and value.ndim == 2 and name.endswith(".weight"):
            scale = value.abs().max() / 448.0
            state[name] = (value / scale).to(torch.float8_e4m3fn)
            state[name.replace(".weight", ".scale_weight")] = scale
        else:
            state[name] = value
    save_file(state, model_folder / "scaled.safetensors")
    (model,) = nodes.UNETLoader().load_unet("scaled.safetensors", "default")
    shows_the_person(sampled(model), bypass=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(shows_the_person, sampled, comfy, wan_file, model_folder, dtype):
    """As on a GPU. Here by the loader's option, because on a CPU ComfyUI computes in float32."""
    path = str(model_folder / wan_file(1))
    model = comfy.sd.load_diffusion_model(path, model_options={"dtype": dtype})
    model.set_model_compute_dtype(dtype)
    assert model.model.diffusion_model.dtype == dtype
    shows_the_person(sampled(model), bypass=True)


@pytest.fixture(scope="module")
def gguf_pack(comfy, comfy_root):
    """The pack ComfyUI-GGUF: from ``SLOTID_GGUF_PACK``, or among ComfyUI's custom nodes."""
    folder = Path(os.environ.get("SLOTID_GGUF_PACK", comfy_root / "custom_nodes" / "ComfyUI-GGUF"))
    if not (folder / "nodes.py").is_file():
        pytest.skip("needs the pack ComfyUI-GGUF in custom_nodes, or its folder in SLOTID_GGUF_PACK")
    pytest.importorskip("gguf", reason="needs the Python package gguf, which ComfyUI-GGUF names")
    spec = importlib.util.spec_from_file_location("gguf_pack", folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gguf_pack"] = module
    spec.loader.exec_module(module)
    return module


def test_gguf_weights(shows_the_person, sampled, gguf_pack, wan_file, model_folder):
    """Q8_0, loaded by *Unet Loader (GGUF)*; Slot-ID's LoRA is added to what is dequantised in each call."""
    import folder_paths
    import gguf
    from safetensors.torch import load_file

    writer = gguf.GGUFWriter(str(model_folder / "tiny.gguf"), arch="wan")
    for name, value in load_file(model_folder / wan_file(1)).items():
        array = value.numpy()
        if name.startswith("blocks.") and value.ndim == 2 and name.endswith(".weight"):
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
            continue
        if value.ndim > 4:  # the format has four dimensions at most; the pack reads the real shape from here
            writer.add_array(f"comfy.gguf.orig_shape.{name}", tuple(int(size) for size in value.shape))
            array = array.reshape(value.shape[0], -1)
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    for kind in ("unet", "unet_gguf"):
        folder_paths.add_model_folder_path(kind, str(model_folder))
    (model,) = gguf_pack.NODE_CLASS_MAPPINGS["UnetLoaderGGUF"]().load_unet("tiny.gguf")
    assert type(model.model.diffusion_model.blocks[0].ffn[0].weight).__name__ == "GGMLTensor"
    shows_the_person(sampled(model), bypass=True)
