"""Tiny random models of every Wan family, as files that ComfyUI's own loader nodes read, and what must hold of each.

Every test here backs one row of ``docs/compatibility.md``; ``tests/contracts/test_compatibility.py`` holds the two
together. A core node that a supported ComfyUI does not have yet skips the test with that reason.
"""

import importlib
import json
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


def wan_class(cls: str, module: str) -> type:
    """ComfyUI's own backbone class. Skips where this ComfyUI does not have it."""
    try:
        return getattr(importlib.import_module(f"comfy.ldm.wan.{module}"), cls)
    except (ImportError, AttributeError):
        import comfyui_version

        pytest.skip(f"ComfyUI {comfyui_version.__version__} has no {cls}")


def ksampler(model, positive, negative, latent, *, steps=1, cfg=5.0, sampler="euler", scheduler="simple", **window):
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

    @torch.compiler.disable(recursive=False)
    def __call__(self, executor, x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs):
        out = executor(x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs)
        self._record(context, out)
        return out

    @torch.compiler.disable
    def _record(self, context: torch.Tensor, out: torch.Tensor) -> None:
        rows = zip(context.float().clone(), out.float().clone(), strict=True)
        self.calls.append([Row(self._role(text_LE), text_LE, velocity) for text_LE, velocity in rows])

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


@pytest.fixture(autouse=True)
def as_nodes_are_run():
    """ComfyUI executes every node in inference mode."""
    with torch.inference_mode():
        yield


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
    """``wan_file(seed, cls, module, variant=None, **config)``: the name of a file with random weights in the keys and
    shapes of ComfyUI's own class. ``variant`` is what some families' files say of themselves in the metadata."""
    from safetensors.torch import save_file

    from training.random_weights import fill

    def function(seed: int = 1, cls: str = "WanModel", module: str = "model", variant: dict | None = None, **config):
        settings = "_".join(f"{key}-{value}" for key, value in {**config, **(variant or {})}.items())
        name = f"{cls}_{seed}_{settings}.safetensors"
        if not (model_folder / name).exists():
            network = wan_class(cls, module)
            shape = {"dim": DIM, "ffn_dim": 2 * DIM, "num_heads": DIM // 128, "num_layers": BLOCKS} | config
            model = network(**shape, operations=comfy.ops.disable_weight_init, dtype=torch.float32)
            fill(model, seed)
            state = {key: value.contiguous() for key, value in model.state_dict().items()}
            metadata = {"config": json.dumps({"transformer": variant})} if variant else None
            save_file(state, model_folder / name, metadata)
        return name

    return function


@pytest.fixture(scope="session")
def load(comfy, model_folder, wan_file):
    """``load(seed, cls, ..., weight_dtype="default")``: MODEL, by the node *Load Diffusion Model*. ComfyUI's detection
    has found the family, and every weight is in its place."""
    from safetensors import safe_open

    import nodes

    models = {}

    def function(seed: int = 1, cls: str = "WanModel", *args, weight_dtype: str = "default", **config):
        key = (wan_file(seed, cls, *args, **config), weight_dtype)
        if key not in models:
            (model,) = nodes.UNETLoader().load_unet(*key)
            backbone = model.model.diffusion_model
            assert type(backbone).__name__ == cls
            with safe_open(model_folder / key[0], "pt") as file:
                assert set(file.keys()) == set(backbone.state_dict())
                name = "blocks.1.ffn.0.weight"
                assert torch.allclose(file.get_tensor(name), backbone.state_dict()[name].float(), atol=0.05)
            models[key] = model
        return models[key]

    return function


@pytest.fixture(scope="session")
def t2v(load):
    """The tiny Wan 2.1 T2V."""
    return load(1)


@pytest.fixture(scope="session")
def vae(comfy, model_folder):
    """The demo's VAE in Wan 2.1's layout, by the node *Load VAE*."""
    from safetensors.torch import save_file

    import nodes
    from training.wan_diffusers import tiny_vae
    from training.wan_keys import vae_to_original

    state = {vae_to_original(name): tensor.clone() for name, tensor in tiny_vae().state_dict().items()}
    save_file(state, model_folder / "tiny_vae.safetensors")
    (loaded,) = nodes.VAELoader().load_vae("tiny_vae.safetensors")
    return loaded


@pytest.fixture(scope="session")
def of_five_blocks(core, pack, tmp_path_factory):
    """Random Slot-ID weights and two people for a Wan of five blocks."""
    from slotid_core.checkpoint import bundle, save_weights, untrained_weights_of
    from slotid_core.config import SlotIDConfig
    from training.random_weights import randomise_lora, randomise_outputs

    start = untrained_weights_of(SlotIDConfig.preset("tiny").replace(backbone={"blocks": 5}), seed=1)
    randomise_outputs(start.model, seed=1)
    path = tmp_path_factory.mktemp("weights") / "five.safetensors"
    save_weights(path, bundle(start.model, randomise_lora(start.lora, seed=2), start.facts))
    weights = core.checkpoint.load_weights(path)

    def person(seed: int):
        generator = torch.Generator().manual_seed(seed)
        clip, portrait = (torch.randn(1, 16, *size, generator=generator) for size in ((5, 8, 8), (1, 16, 16)))
        embedding = weights.model.encode(clip, portrait).embedding
        thumbnail = torch.zeros(8, 8, 3, dtype=torch.uint8)
        return core.types.Identity(embedding, weights.sha256, "0" * 64, "0" * 64, thumbnail)

    return SimpleNamespace(weights=weights, people=(person(10), person(11)))


@pytest.fixture
def run(apply, people, prompts, caplog):
    """``run(sample, person, ...)``: what ``sample(patch)`` makes when its ``patch`` is Apply, watched from inside.

    ``person`` None leaves the MODEL alone. ``slotid`` has other weights and people than the tiny ones.
    """

    def function(sample: Callable, person: int | None = 0, slotid=None, **setting) -> Result:
        watch = Watch(prompts)

        def patch(model):
            if person is None:
                patched = model.clone()
            elif slotid is None:
                patched = apply(model, people[person], **setting)
            else:
                patched = apply(model, slotid.people[person], weights=slotid.weights, **setting)
            patched.add_wrapper_with_key("diffusion_model", "watch", watch)
            return patched

        caplog.clear()
        with caplog.at_level("INFO", logger="slotid"):
            latents = sample(patch)
        counts = [tuple(map(int, found.groups())) for found in map(_COUNTS.search, caplog.messages) if found]
        return Result(latents, watch.calls, counts)

    return function


@pytest.fixture
def shows_the_person(run):
    """``shows_the_person(sample)``: the identity reaches the output, the rows it is meant for, and no other.

    ``sample(patch)`` makes latents with the MODEL that ``patch`` makes of one; ``positives`` are the prompts whose rows
    get the person; ``cached``: something skips blocks in some calls; ``bypass``: the same without Apply, before and
    after, is the same in every bit. Returns the run with person A.
    """

    def function(sample: Callable, positives=("positive",), slotid=None, cached=False, bypass=False) -> Result:
        before = run(sample, None) if bypass else None
        null, a, b = run(sample, strength=0.0, slotid=slotid), run(sample, 0, slotid), run(sample, 1, slotid)
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
        counted_calls, counted_rows, modulated = map(sum, zip(*a.counts, strict=True))
        assert (counted_calls, counted_rows) == (len(a.calls), len(with_person))
        assert 0 < modulated <= FILM_BLOCKS * calls if cached else modulated == FILM_BLOCKS * calls

        # before the latents part, a row without the person has the same velocity in every bit
        for row, silent in zip(a.calls[0], null.calls[0], strict=True):
            assert row.role == silent.role
            assert torch.equal(row.velocity, silent.velocity) is not (row.role in positives), row.role
        if bypass:
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
