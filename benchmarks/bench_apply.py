"""What *Apply Slot-ID to Wan* adds to a sampling step in ComfyUI, side by side with Phantom's reference latents.

    python benchmarks/bench_apply.py                                        # CPU, the tiny Wan at 1,024 video tokens
    python benchmarks/bench_apply.py --device cuda --preset wan-14b         # a GPU of 80 GB, 14B shape in bfloat16
    python benchmarks/bench_apply.py ... [--frames N --height H --width W] [--repeats N] [--out FILE]

A step is one evaluation with guidance: positive and negative in one batch. Backbone, Slot-ID weights, prompts and
latents are random. Needs a ComfyUI checkout (COMFYUI_PATH, or ~/comfy/ComfyUI) whose requirements are installed.

Beside the ratios stands Apply's own time: between the outermost and the innermost wrapper of the backbone, and in FiLM.
It is far less noisy than the difference of two steps.

Contenders take turns within a round and a ratio is of one round, so that a busy minute hits all of them. On the CPU
everything runs on one thread and what is measured is the process's CPU time, which other programs hardly change.
"""

import argparse
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe, load_average, run_facts

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from run import find_host  # noqa: E402

GOAL = 0.01
SIGMA = 0.7
SHAPES = {  # width, feed-forward, blocks, heads; pixels and frames of the default video
    "tiny": ((256, 512, 4, 2), (256, 256, 13)),
    "wan-1.3b": ((1536, 8960, 30, 12), (832, 480, 81)),
    "wan-14b": ((5120, 13824, 40, 40), (832, 480, 81)),
}


def load_host(device: str):
    """ComfyUI and the pack, as ComfyUI loads it: by path."""
    host = find_host(os.environ, Path.home())
    if host is None:
        raise SystemExit("There is no ComfyUI in ~/comfy/ComfyUI. Set COMFYUI_PATH to a checkout.")
    sys.path.insert(0, str(host))
    from comfy.cli_args import args

    args.cpu = device == "cpu"
    import comfy.samplers
    import comfy.sd

    spec = importlib.util.spec_from_file_location("slotid_pack", ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["slotid_pack"] = module
    spec.loader.exec_module(module)
    return comfy, lambda name: importlib.import_module(f"slotid_pack.{name}")


def backbone(comfy, preset: str, dtype: torch.dtype):
    """A MODEL of that shape with random weights, through ComfyUI's own detection."""
    dim, ffn, blocks, heads = SHAPES[preset][0]
    import comfy.ldm.wan.model
    import comfy.ops

    with torch.device("meta"):
        shape = comfy.ldm.wan.model.WanModel(
            dim=dim, ffn_dim=ffn, num_layers=blocks, num_heads=heads, operations=comfy.ops.disable_weight_init
        )
    # One block of random numbers, repeated: drawing 14 billion would take longer than the benchmark.
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    state = {}
    for name, tensor in shape.state_dict().items():
        count = tensor.numel()
        value = noise.repeat(-(-count // noise.numel()))[:count].view(tensor.shape)
        state[name] = value * tensor.shape[1:].numel() ** -0.5 if tensor.ndim > 1 else 1 + 0.1 * value
    return comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": dtype})


def slotid(pack, preset: str):
    """Random Slot-ID weights for that backbone, and a person."""
    from training.random_weights import random_slotid

    weights = random_slotid(preset, seed=1)
    path = ROOT / "outputs" / f"bench_{preset}.safetensors"
    path.parent.mkdir(exist_ok=True)
    importlib.import_module("slotid_core.checkpoint").save_weights(path, weights)
    weights = pack("slotid_core.checkpoint").load_weights(path)
    path.unlink()
    generator = torch.Generator().manual_seed(2)
    clip, portrait = (torch.randn(1, 16, *size, generator=generator) for size in ((5, 8, 8), (1, 16, 16)))
    embedding = weights.model.encode(clip, portrait).embedding
    thumbnail = torch.zeros(8, 8, 3, dtype=torch.uint8)
    return weights, pack("slotid_core.types").Identity(embedding, weights.sha256, "0" * 64, "0" * 64, thumbnail)


def prompt(seed: int, **extra) -> list:
    context = torch.zeros(1, 512, 4096)
    context[:, :40] = torch.randn(1, 40, 4096, generator=torch.Generator().manual_seed(seed))
    return [[context, extra]]


class Steps:
    """Times evaluations inside a real sampling run."""

    def __init__(self, comfy, clock: Callable[[], float], latent: torch.Tensor, calls: int):
        self.comfy, self.clock, self.latent, self.calls = comfy, clock, latent, calls

    def seconds(self, model, positive: list, negative: list) -> float:
        """One step: the fastest of ``calls``, after one that does not count."""
        guider = self.comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(5.0)
        taken = []

        def function(evaluate, noise, sigmas, extra_args, callback, disable, **options):
            sigma = sigmas[:1].expand(noise.shape[0])
            for _ in range(1 + self.calls):
                start = self.clock()
                out = evaluate(noise, sigma, **extra_args)
                taken.append(self.clock() - start)
            return out

        sampler = self.comfy.samplers.KSAMPLER(function)
        guider.sample(self.latent, torch.zeros_like(self.latent), sampler, torch.tensor([SIGMA, 0.0]), seed=0)
        return min(taken[1:])


class Own:
    """Apply's own time in a step, measured from outside of its wrapper, from inside, and around FiLM."""

    def __init__(self, clock: Callable[[], float]):
        self.clock = clock
        self.outside: list[float] = []
        self.inside: list[float] = []
        self.film: list[float] = []

    def wrapper(self, taken: list[float]):
        def around(executor, *args, **kwargs):
            start = self.clock()
            out = executor(*args, **kwargs)
            taken.append(self.clock() - start)
            return out

        return around

    def timed(self, function):
        def film(*args):
            start = self.clock()
            out = function(*args)
            args[0] + out  # what host_wan does with it, which can't be timed there
            self.film.append(self.clock() - start)
            return out

        return film

    def measure(self, host_wan, steps: Steps, model, apply, positive: list, negative: list) -> dict[str, float]:
        """Milliseconds: the fastest steps of one sampling run but the first, which takes memory for its context."""
        outside = model.clone()
        outside.add_wrapper_with_key("diffusion_model", "outside", self.wrapper(self.outside))
        inside = apply(outside)
        inside.add_wrapper_with_key("diffusion_model", "inside", self.wrapper(self.inside))
        function, host_wan.film_change = host_wan.film_change, self.timed(host_wan.film_change)
        try:
            steps.seconds(inside, positive, negative)
        finally:
            host_wan.film_change = function
        blocks = len(self.film) // len(self.outside)
        films = [sum(self.film[i : i + blocks]) for i in range(0, len(self.film), blocks)]
        first, *prefixes = (1000 * (o - i) for o, i in zip(self.outside, self.inside, strict=True))
        prefix, film, step = min(prefixes), 1000 * min(films[1:]), 1000 * min(self.outside[1:])
        share = (prefix + film) / (step - prefix - film)
        return {
            "prefix_ms": prefix,
            "prefix_of_the_first_step_ms": first,
            "film_ms": film,
            "step_ms": step,
            "share_of_the_rest": share,
        }


@torch.inference_mode()  # as ComfyUI runs its nodes
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--preset", choices=list(SHAPES), default="tiny")
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--repeats", type=int, default=30, help="rounds")
    parser.add_argument("--calls", type=int, default=3, help="evaluations a round and contender; the fastest counts")
    parser.add_argument("--references", type=int, default=2, help="Phantom's reference pictures")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cuda = args.device == "cuda"
    if not cuda:
        torch.set_num_threads(1)

    comfy, pack = load_host(args.device)
    width, height, frames = (
        given or default
        for given, default in zip((args.width, args.height, args.frames), SHAPES[args.preset][1], strict=True)
    )
    cells = (1 + (frames - 1) // 4, height // 8, width // 8)
    latent = torch.randn(1, 16, *cells, generator=torch.Generator().manual_seed(3))
    model = backbone(comfy, args.preset, torch.bfloat16 if cuda else torch.float32)
    weights, identity = slotid(pack, args.preset)
    host_wan, injection = pack("nodes.host_wan"), pack("slotid_core.injection").Injection

    def applied(to=model, **strengths):
        return host_wan.apply_identity(
            to, weights, identity, injection=injection(weights.model, identity.embedding, **strengths),
            lora_strength=1.0, start_percent=0.0, end_percent=1.0, negative="none",
        )  # fmt: skip

    pictures = torch.randn(1, 16, args.references, *cells[1:], generator=torch.Generator().manual_seed(4))
    plain, phantom = (prompt(5), prompt(6)), [prompt(n, time_dim_concat=pictures) for n in (5, 6)]
    contenders = {
        "plain": (model, *plain),
        "plain again": (model, *plain),
        "apply": (applied(), *plain),
        "apply without FiLM": (applied(film_strength=0.0), *plain),
        "phantom": (model, *phantom),
    }

    def clock() -> float:
        if not cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    steps = Steps(comfy, clock, latent, args.calls)
    load_before, rounds, own = load_average(), [], []
    for _ in range(args.repeats):
        own.append(Own(clock).measure(host_wan, steps, model, applied, *plain))
        rounds.append({name: steps.seconds(*contender) for name, contender in contenders.items()})

    figures = {}
    for name in contenders:
        taken = [r[name] for r in rounds]
        ratios = [r[name] / r["plain"] for r in rounds]
        figures[name] = {
            "median_ms": round(1000 * statistics.median(taken), 3),
            "fastest_ms": round(1000 * min(taken), 3),
            "median_ratio": round(statistics.median(ratios), 5),
            "ratio_of_fastest": round(min(taken) / min(r["plain"] for r in rounds), 5),
        }
    result = {
        "run": run_facts(__file__, 0),
        "machine": describe(args.device),
        "load_before": load_before,
        "clock": "wall clock around synchronised calls" if cuda else "CPU time of the process, one thread",
        "preset": args.preset,
        "video_tokens": cells[0] * cells[1] * cells[2] // 4,
        "references": args.references,
        "rounds": args.repeats,
        "goal": GOAL,
        "step": figures,
        "apply_itself": {name: round(statistics.median(o[name] for o in own), 5) for name in own[0]},
    }
    print(json.dumps(result, indent=2))
    out = args.out or ROOT / "benchmarks" / "results" / f"apply-{args.device}-{args.preset}.json"
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
