"""ComfyUI inside the test process, on the CPU, and the pack loaded as ComfyUI loads it: by path."""

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="session")
def comfy(comfy_root: Path) -> ModuleType:
    """ComfyUI's ``comfy`` package; its root stands first on the path, as when ComfyUI runs."""
    sys.path.insert(0, str(comfy_root))
    from comfy.cli_args import args

    args.cpu = True
    import comfy
    import comfy.ldm.wan.model
    import comfy.model_management
    import comfy.sample
    import comfy.samplers
    import comfy.sd

    return comfy


@pytest.fixture(scope="session")
def pack(comfy, repo_root: Path) -> ModuleType:
    """The pack as ComfyUI imports it. Its ``slotid_core`` is another copy than the installed one."""
    spec = importlib.util.spec_from_file_location("slotid_pack", repo_root / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["slotid_pack"] = module
    spec.loader.exec_module(module)
    importlib.import_module("slotid_pack.nodes.folders").register_model_folder()
    return module


@dataclass
class Probe:
    """Records what each backbone call got and gave, seen from outside all wrappers."""

    calls: list[dict] = field(default_factory=list)

    def __call__(self, executor, x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs):
        out = executor(x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs)
        self.calls.append(
            {
                "x": x.clone(),
                "sigma": (timestep / 1000).float(),
                "context": context.clone(),
                "roles": list(transformer_options["cond_or_uncond"]),
                "velocity": out.clone(),
            }
        )
        return out


def probed(model, probe: Probe):
    """A clone of ``model`` whose backbone calls are recorded, under whatever is applied later."""
    clone = model.clone()
    clone.add_wrapper_with_key("diffusion_model", "probe", probe)
    return clone


def one_call_sampler(sigma: float):
    """A sampler that evaluates the model once, at ``sigma``, and returns what came out."""
    import comfy.samplers

    def function(model, noise, sigmas, extra_args, callback, disable, **options):
        return model(noise, sigmas[:1].expand(noise.shape[0]), **extra_args)

    return comfy.samplers.KSAMPLER(function), torch.tensor([sigma, 0.0])


def latent_noise(seed: int = 0, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 16, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def conditioning(seed: int, words: int = 5, length: int = 512) -> list:
    """A prompt as CLIP Text Encode gives it for Wan: ``words`` tokens, then zero pads."""
    context = torch.zeros(1, length, 4096)
    context[:, :words] = torch.randn(1, words, 4096, generator=torch.Generator().manual_seed(seed))
    return [[context, {}]]


def evaluate(model, sigma: float = 0.7, positive=None, negative=None, guider=None) -> torch.Tensor:
    """One guided model evaluation at one noise level: what the guider makes of it."""
    import comfy.samplers

    if guider is None:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive or conditioning(1), negative or conditioning(2))
        guider.set_cfg(5.0)
    sampler, sigmas = one_call_sampler(sigma)
    noise = latent_noise()
    return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas)


@pytest.fixture(scope="session")
def transformer():
    """The tiny Wan in diffusers."""
    from training.wan_diffusers import tiny_transformer

    return tiny_transformer()


@pytest.fixture(scope="session")
def wan(comfy, transformer):
    """The same weights as a ComfyUI MODEL."""
    from training.wan_keys import transformer_to_original

    state = {transformer_to_original(name): tensor.clone() for name, tensor in transformer.state_dict().items()}
    return comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": torch.float32})


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory) -> Path:
    """Slot-ID weights for the tiny Wan with *non-zero* outputs and LoRA."""
    from slotid_core.checkpoint import save_weights
    from training.random_weights import random_slotid

    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_weights(path, random_slotid("tiny", seed=1))
    return path


@pytest.fixture(scope="session")
def core(pack):
    """The pack's own copy of the core, by module name: ``core.checkpoint``."""

    class Core:
        def __getattr__(self, name: str) -> ModuleType:
            return importlib.import_module(f"slotid_pack.slotid_core.{name}")

    return Core()


@pytest.fixture(scope="session")
def host_wan(pack) -> ModuleType:
    return importlib.import_module("slotid_pack.nodes.host_wan")


@pytest.fixture(scope="session")
def weights(core, weights_file):
    """Those weights, read by the pack."""
    return core.checkpoint.load_weights(weights_file)


@pytest.fixture(scope="session")
def people(core, weights):
    """Two identities, A and B."""

    def person(seed: int):
        generator = torch.Generator().manual_seed(seed)
        clip = torch.randn(1, 16, 5, 8, 8, generator=generator)
        portrait = torch.randn(1, 16, 1, 16, 16, generator=generator)
        embedding = weights.model.encode(clip, portrait).embedding
        thumbnail = torch.zeros(8, 8, 3, dtype=torch.uint8)
        return core.types.Identity(embedding, weights.sha256, "0" * 64, "0" * 64, thumbnail)

    return person(10), person(11)


@pytest.fixture(scope="session")
def apply(core, host_wan, weights):
    """``apply(model, identity, ...)`` with the node's defaults."""

    def function(
        model, identity, *, weights=weights, lora=1.0, start=0.0, end=1.0, negative="none", negative_identity=None,
        reach=core.region.EVERYWHERE, **injection,
    ):  # fmt: skip
        return host_wan.apply_identity(
            model,
            weights,
            identity,
            injection=core.injection.Injection(weights.model, identity.embedding, **injection),
            lora_strength=lora,
            start_percent=start,
            end_percent=end,
            negative=negative,
            negative_identity=negative_identity,
            reach=reach,
        )

    return function


@pytest.fixture(scope="session")
def tools(comfy):
    """The functions of this file, for the test modules."""
    return SimpleNamespace(
        Probe=Probe,
        probed=probed,
        conditioning=conditioning,
        evaluate=evaluate,
        latent_noise=latent_noise,
        one_call_sampler=one_call_sampler,
    )
