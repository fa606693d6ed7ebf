"""The pack's node classes, called as ComfyUI calls them but without its server."""

import asyncio
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="session")
def nodes(pack) -> dict:
    """Node classes by id, in the order in which the pack lists them."""

    async def listed():
        return await (await pack.comfy_entrypoint()).get_node_list()

    return {node.__name__: node for node in asyncio.run(listed())}


@pytest.fixture(scope="session")
def run(nodes):
    """``run(id, **inputs)`` executes a node; what is not given is the widget's default."""

    def function(name: str, /, **inputs):
        node = nodes[name].PREPARE_CLASS_CLONE(None)
        schema = node.GET_SCHEMA()
        defaults = {slot.id: _default(slot) for slot in schema.inputs if not slot.optional}
        output = node.execute(**{**defaults, **inputs})
        names = [slot.id or slot.display_name for slot in schema.outputs]
        return SimpleNamespace(**dict(zip(names, output.args, strict=True)), ui=output.ui and output.ui.as_dict())

    return function


def _default(slot):
    options = getattr(slot, "options", None)
    return options[0] if options and slot.default is None else getattr(slot, "default", None)


@pytest.fixture(scope="module")
def folders(pack, tmp_path_factory):
    """ComfyUI's input, output, temp and models/slotid folders, moved to a place of the tests' own."""
    import folder_paths

    root = tmp_path_factory.mktemp("comfy")
    places = SimpleNamespace(**{name: root / name for name in ("input", "output", "temp", "slotid")})
    with pytest.MonkeyPatch.context() as patch:
        for name, path in vars(places).items():
            path.mkdir()
            if name != "slotid":
                patch.setattr(folder_paths, f"{name}_directory", str(path))
        patch.setitem(folder_paths.folder_names_and_paths, "slotid", ([str(places.slotid)], {".safetensors"}))
        patch.setattr(folder_paths, "filename_list_cache", {})
        patch.setattr(folder_paths, "models_dir", str(root))
        yield places


@pytest.fixture(scope="session")
def tiny_vae():
    """The demo's VAE in diffusers."""
    from training.wan_diffusers import tiny_vae

    return tiny_vae()


@pytest.fixture(scope="session")
def vae(comfy, tiny_vae):
    """The same weights as a ComfyUI VAE."""
    from training.wan_keys import vae_to_original

    state = {vae_to_original(name): tensor.clone() for name, tensor in tiny_vae.state_dict().items()}
    return comfy.sd.VAE(sd=state, dtype=torch.float32)
