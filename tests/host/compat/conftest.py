"""Tiny random models of every Wan family, as files that ComfyUI's own loader nodes read, and what must hold of each.

Every test here backs one row of ``docs/compatibility.md``; ``tests/contracts/test_compatibility.py`` holds the two
together. A core node that a supported ComfyUI does not have yet skips the test with that reason.
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

DIM, BLOCKS, PREFIX, FILM_BLOCKS = 256, 4, 8, 2
SIZE = {"width": 64, "height": 64, "length": 9, "batch_size": 1}
_COUNTS = re.compile(r"Slot-ID: (\d+) backbone calls, (\d+) rows with identity, (\d+) blocks modulated")


def core_node(module: str, name: str):
    """``node(**inputs)`` of ComfyUI's own node: a tuple of its outputs. Skips where this ComfyUI has no such node."""
    try:
        cls = getattr(importlib.import_module(f"comfy_extras.{module}"), name)
    except (ImportError, AttributeError):
        import comfyui_version

        pytest.skip(f"ComfyUI {comfyui_version.__version__} has no node {name}")
    return lambda **inputs: cls.execute(**inputs).args


def ksampler(model, positive, negative, latent, *, steps=2, cfg=5.0, sampler="euler", scheduler="simple", **window):
    """KSampler, or KSampler (Advanced) with ``start_at_step`` and ``end_at_step``: the latents."""
    import nodes

    if window:
        first = window["start_at_step"] == 0
        (out,) = nodes.KSamplerAdvanced().sample(
            model, "enable" if first else "disable", 7, steps, cfg, sampler, scheduler, positive, negative, latent,
            return_with_leftover_noise="enable", **window,
        )  # fmt: skip
    else:
        (out,) = nodes.KSampler().sample(model, 7, steps, cfg, sampler, scheduler, positive, negative, latent)
    return out["samples"]


def advanced(guider, sigmas, latent, *, sampler="euler"):
    """SamplerCustomAdvanced: the latents."""
    (noise,) = core_node("nodes_custom_sampler", "RandomNoise")(noise_seed=7)
    (sampler,) = core_node("nodes_custom_sampler", "KSamplerSelect")(sampler_name=sampler)
    sample = core_node("nodes_custom_sampler", "SamplerCustomAdvanced")
    return sample(noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent)[0]["samples"]


def video_latent(length: int = 9, batch_size: int = 1) -> dict:
    (latent,) = core_node("nodes_hunyuan", "EmptyHunyuanLatentVideo")(
        **{**SIZE, "length": length, "batch_size": batch_size}
    )
    return latent


def pictures(seed: int, frames: int = 1) -> torch.Tensor:
    return torch.rand(frames, 64, 64, 3, generator=torch.Generator().manual_seed(seed))


def clip_vision(seed: int) -> SimpleNamespace:
    """What CLIP Vision Encode gives: 257 image tokens."""
    states = torch.randn(1, 257, 1280, generator=torch.Generator().manual_seed(seed))
    return SimpleNamespace(penultimate_hidden_states=states)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@dataclass
class Row:
    """One row of one backbone call, as the innermost wrapper sees it."""

    role: str
    """Which of the test's prompts stands in it."""
    text_LE: torch.Tensor
    velocity: torch.Tensor

    @property
    def prefix_PE(self) -> torch.Tensor:
        return self.text_LE[-PREFIX:]


@dataclass
class Watch:
    """Records every backbone call from inside, after Slot-ID has done its work."""

    prompts: dict[str, list]
    calls: list[list[Row]] = field(default_factory=list)

    def __call__(self, executor, x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs):
        out = executor(x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs)
        rows = zip(context.float().clone(), out.float().clone(), strict=True)
        self.calls.append([Row(self._role(text_LE), text_LE, velocity) for text_LE, velocity in rows])
        return out

    def _role(self, text_LE: torch.Tensor) -> str:
        """By the prompt's words: the text must stand where it stood. Half precision may have rounded it."""
        (role,) = (
            name
            for name, ((text_1LE, _),) in self.prompts.items()
            if torch.allclose(text_LE[:5], text_1LE[0, :5], atol=0.05)
        )
        return role


@dataclass
class Result:
    latents: torch.Tensor
    calls: list[list[Row]]
    counts: list[tuple[int, ...]]
    """What Slot-ID logged of each sampling run: backbone calls, rows with identity, blocks modulated."""


@pytest.fixture
def prompts(tools) -> dict[str, list]:
    """Three prompts as CLIP Text Encode gives them for Wan."""
    return {name: tools.conditioning(seed) for seed, name in enumerate(("positive", "negative", "middle"), start=1)}


@pytest.fixture(scope="session")
def model_folder(comfy, tmp_path_factory):
    """A folder that ComfyUI's loader nodes look into."""
    import folder_paths

    folder = tmp_path_factory.mktemp("models")
    for kind in ("diffusion_models", "loras", "vae"):
        folder_paths.add_model_folder_path(kind, str(folder))
    return folder


@pytest.fixture(scope="session")
def wan_file(comfy, model_folder):
    """``wan_file(seed, cls="WanModel", module="model", prepare=None, **config)``: the name of a file with random
    weights in the keys and shapes that ComfyUI's own class has."""
    from safetensors.torch import save_file

    from training.random_weights import fill

    made: dict[str, str] = {}

    def function(seed: int = 1, cls: str = "WanModel", module: str = "model", **config) -> str:
        name = f"{cls}_{seed}_{'_'.join(f'{k}{v}' for k, v in config.items())}.safetensors"
        if name not in made:
            try:
                network = getattr(importlib.import_module(f"comfy.ldm.wan.{module}"), cls)
            except (ImportError, AttributeError):
                import comfyui_version

                pytest.skip(f"ComfyUI {comfyui_version.__version__} has no {cls}")
            shape = {"dim": DIM, "ffn_dim": 2 * DIM, "num_heads": DIM // 128, "num_layers": BLOCKS} | config
            model = network(**shape, operations=comfy.ops.disable_weight_init, dtype=torch.float32)
            fill(model, seed)
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, model_folder / name)
            made[name] = name
        return made[name]

    return function


@pytest.fixture(scope="session")
def load(comfy, wan_file):
    """``load(seed, cls, ..., weight_dtype="default")``: MODEL, by the node *Load Diffusion Model*."""
    import nodes

    models = {}

    def function(*args, weight_dtype: str = "default", **config):
        key = (wan_file(*args, **config), weight_dtype)
        if key not in models:
            (models[key],) = nodes.UNETLoader().load_unet(*key)
        return models[key]

    return function


@pytest.fixture(scope="session")
def t2v(load):
    """The tiny Wan 2.1 T2V."""
    return load(1)


@pytest.fixture(scope="session")
def vae(comfy, model_folder):
    """The demo's VAE in Wan 2.1's layout, by the node *Load VAE*."""
    import nodes
    from safetensors.torch import save_file

    from training.wan_diffusers import tiny_vae
    from training.wan_keys import vae_to_original

    state = {vae_to_original(name): tensor.clone() for name, tensor in tiny_vae().state_dict().items()}
    save_file(state, model_folder / "tiny_vae.safetensors")
    (loaded,) = nodes.VAELoader().load_vae("tiny_vae.safetensors")
    return loaded


@pytest.fixture
def run(apply, people, prompts, caplog):
    """``run(sample, person, ...)``: what ``sample(patch)`` makes when its ``patch`` is Apply, watched from inside.

    ``person`` None leaves the MODEL alone.
    """

    def function(sample: Callable, person: int | None = 0, **setting) -> Result:
        watch = Watch(prompts)

        def patch(model):
            if person is not None:
                model = apply(model, people[person], **setting)
            return model

        def watched(model):
            clone = model.clone()
            clone.add_wrapper_with_key("diffusion_model", "watch", watch)
            return clone

        caplog.clear()
        with caplog.at_level("INFO", logger="slotid"):
            latents = sample(lambda model: watched(patch(model)))
        counts = [tuple(map(int, found.groups())) for found in map(_COUNTS.search, caplog.messages) if found]
        return Result(latents, watch.calls, counts)

    return function


@pytest.fixture
def shows_the_person(run):
    """``shows_the_person(sample)``: the identity reaches the output, the rows it is meant for, and no other.

    ``sample(patch)`` makes latents with the MODEL that ``patch`` makes of one; ``positives`` are the prompts whose rows
    get the person. Returns the run with person A.
    """

    def function(sample: Callable, positives=("positive",), same_batches: bool = True) -> Result:
        before = run(sample, None)
        null, a, b = run(sample, strength=0.0), run(sample, 0), run(sample, 1)
        assert torch.isfinite(a.latents).all()
        for name, left, right in (("A, B", a, b), ("A, nobody", a, null), ("B, nobody", b, null)):
            assert relative(left.latents, right.latents) > 1e-3, f"no difference: {name}"

        rows = [row for call in a.calls for row in call]
        with_person = [row for row in rows if row.role in positives]
        assert with_person, "no row shows the person"
        for row in rows:
            silent = bool((row.prefix_PE == 0).all(dim=1).any())
            assert silent is not (row.role in positives), f"prefix of {row.role}"
            assert row.text_LE.shape == (512, 4096)
        first = next(row for call in b.calls for row in call if row.role in positives)
        assert not torch.allclose(first.prefix_PE, with_person[0].prefix_PE, rtol=0.1), "A and B have one prefix"

        calls = sum(any(row.role in positives for row in call) for call in a.calls)
        assert tuple(map(sum, zip(*a.counts, strict=True))) == (len(a.calls), len(with_person), FILM_BLOCKS * calls)

        if same_batches:  # before the latents part, a row without the person has the same velocity in every bit
            for row, silent in zip(a.calls[0], null.calls[0], strict=True):
                assert row.role == silent.role
                assert torch.equal(row.velocity, silent.velocity) is not (row.role in positives), row.role
        assert torch.equal(run(sample, None).latents, before.latents), "something of Slot-ID stayed behind"
        return a

    return function


@pytest.fixture(scope="session")
def tiny():
    """The helpers of this file, for the test modules."""
    return SimpleNamespace(
        SIZE=SIZE,
        advanced=advanced,
        clip_vision=clip_vision,
        core_node=core_node,
        ksampler=ksampler,
        pictures=pictures,
        relative=relative,
        video_latent=video_latent,
    )
