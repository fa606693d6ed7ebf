"""Time of encoder, reader and Sinkhorn, side by side with POT and with a plain softmax slot attention.

    python benchmarks/bench_core.py [--device cpu|cuda] [--lengths 4352 17408] [--parts sinkhorn reader] [--out FILE]

Shape letters: B batch, L tokens, D width, S slots.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ot
import torch
from machine import describe, load_average, run_facts
from torch import Tensor, nn

from slotid_core.config import SlotIDConfig
from slotid_core.encoder import VideoEncoder, VideoTokens
from slotid_core.reader import SlotReader
from slotid_core.sinkhorn import log_sinkhorn

LATENT_FRAMES = 17  # 65 frames, the paper's clip
CONFIG = SlotIDConfig.preset("wan-14b")

Contender = Callable[[], Tensor]


class PlainSlotAttention(nn.Module):
    """Slot attention as usually written, softmax over slots, for the same tokens, slots, iterations and GRU."""

    def __init__(self, reader: SlotReader):
        super().__init__()
        self.queries, self.gru, self.iterations = reader.queries, reader.gru, reader.config.iterations

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        slots_BSD = self.queries.expand(tokens_BLD.shape[0], -1, -1)
        for _ in range(self.iterations):
            attention_BSL = torch.softmax(slots_BSD @ tokens_BLD.mT / math.sqrt(tokens_BLD.shape[-1]), dim=1)
            attention_BSL = attention_BSL / (attention_BSL.sum(-1, keepdim=True) + 1e-8)
            slots_BSD = self.gru((attention_BSL @ tokens_BLD).flatten(0, 1), slots_BSD.flatten(0, 1)).view_as(slots_BSD)
        return slots_BSD


class Bench:
    """Timing of contenders in turns, so that a busy minute hits all of them."""

    def __init__(self, device: str, repeats: int, budget: float):
        self.device, self.repeats, self.budget = device, repeats, budget

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def forward(self, run: Contender) -> float:
        """Seconds of one call without gradients."""
        with torch.no_grad():
            start = self._now()
            run()
            return self._now() - start

    def backward(self, run: Contender) -> float:
        """Seconds of the backward alone, after a forward that is not counted."""
        loss = run().sum()
        start = self._now()
        loss.backward()
        return self._now() - start

    def compare(self, contenders: dict[str, Contender]) -> dict[str, dict]:
        """Forward and backward of every contender, after one of each that does not count.

        At least three repeats, then more until ``repeats`` or the time budget (seconds) is reached.
        """
        results = {name: {} for name in contenders}
        for what, measure in (("forward", self.forward), ("backward", self.backward)):
            for run in contenders.values():
                measure(run)
            times: dict[str, list[float]] = {name: [] for name in contenders}
            start = time.perf_counter()
            for i in range(self.repeats):
                if i >= 3 and time.perf_counter() - start > self.budget:
                    break
                for name, run in contenders.items():
                    times[name].append(measure(run))
            for name, seconds in times.items():
                results[name][what] = {
                    "median_ms": round(1e3 * statistics.median(seconds), 3),
                    "fastest_ms": round(1e3 * min(seconds), 3),
                    "repeats": len(seconds),
                }
                print(f"  {what:9}{name:28}{results[name][what]['median_ms']:12.2f} ms", file=sys.stderr, flush=True)
        return results


def ratios(results: dict[str, dict], ours: str) -> dict[str, dict]:
    """Time of ours over the time of each other: below 1, ours is faster. On a busy machine trust the fastest."""
    return {
        f"{ours} / {name}": {
            what: {
                kind: round(results[ours][what][f"{kind}_ms"] / figures[what][f"{kind}_ms"], 3)
                for kind in ("median", "fastest")
            }
            for what in ("forward", "backward")
        }
        for name, figures in results.items()
        if name != ours
    }


def bench_encoder(bench: Bench, length: int, device: str) -> dict:
    side = 2 * math.isqrt(length // LATENT_FRAMES)
    encoder = VideoEncoder(CONFIG.encoder, CONFIG.backbone.latent_channels).to(device).eval()
    latents_BCTHW = torch.randn(1, CONFIG.backbone.latent_channels, LATENT_FRAMES, side, side, device=device)
    results = bench.compare({"encoder": lambda: encoder(latents_BCTHW).tokens_BLD})
    return {"latents": list(latents_BCTHW.shape), "times": results}


def bench_reader(bench: Bench, length: int, device: str) -> dict:
    width, side = CONFIG.encoder.width, math.isqrt(length // LATENT_FRAMES)
    grid_THW = (LATENT_FRAMES, side, side)
    reader = SlotReader(CONFIG.reader, width).to(device)
    softmax = SlotReader(CONFIG.replace(reader={"routing": "softmax"}).reader, width).to(device)
    plain = PlainSlotAttention(reader)
    tokens_BLD = torch.randn(1, length, width, device=device, requires_grad=True)
    results = bench.compare(
        {
            "reader": lambda: reader(VideoTokens(tokens_BLD, grid_THW)).slots_BSD,
            "reader, softmax ablation": lambda: softmax(VideoTokens(tokens_BLD, grid_THW)).slots_BSD,
            "plain slot attention": lambda: plain(tokens_BLD),
        }
    )
    return {"tokens": list(tokens_BLD.shape), "times": results, "ratios": ratios(results, "reader")}


def bench_sinkhorn(bench: Bench, length: int, device: str) -> dict:
    slots, iterations = CONFIG.reader.slots, CONFIG.reader.sinkhorn_iterations
    logits_SL = torch.randn(slots, length, device=device, requires_grad=True)
    a_S, b_L = torch.full((slots,), 1 / slots, device=device), torch.full((length,), 1 / length, device=device)

    def pot() -> Tensor:
        # Transposed, because POT scales its columns first and ours scale the rows first.
        coupling_LS = ot.sinkhorn(
            b_L, a_S, -logits_SL.T, 1.0, "sinkhorn_log", numItermax=iterations, stopThr=0, warn=False
        )
        return coupling_LS.T

    contenders = {
        "sinkhorn": lambda: log_sinkhorn(logits_SL, iterations),
        "POT sinkhorn_log": pot,
        "one softmax over slots": lambda: logits_SL.softmax(0),
    }
    # A sum over the whole coupling is 1 whatever the logits: weights give the backward something to do.
    weights_SL = torch.randn(slots, length, device=device)
    results = bench.compare({name: lambda run=run: run() * weights_SL for name, run in contenders.items()})
    with torch.no_grad():
        distance = float((contenders["sinkhorn"]() - pot()).abs().sum())
    return {
        "logits": [slots, length],
        "iterations": iterations,
        "l1_distance_to_pot": distance,
        "times": results,
        "ratios": ratios(results, "sinkhorn"),
    }


PARTS = {"sinkhorn": bench_sinkhorn, "reader": bench_reader, "encoder": bench_encoder}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--lengths", type=int, nargs="+", default=[4352, 17408], help="tokens: 17 times a square")
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=25, help="at most; slow ones are stopped by --budget")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds per measurement after three repeats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/core-<device>.json")
    arguments = parser.parse_args()
    for length in arguments.lengths:
        if length % LATENT_FRAMES or math.isqrt(length // LATENT_FRAMES) ** 2 * LATENT_FRAMES != length:
            parser.error(f"{length} is not {LATENT_FRAMES} times a square, as 4352 and 17408 are")
    if arguments.repeats < 3:
        parser.error("a median needs at least 3 repeats")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    bench = Bench(arguments.device, arguments.repeats, arguments.budget)
    report = {
        **run_facts(__file__, arguments.seed),
        "machine": describe(arguments.device),
        "model": f"preset wan-14b: width {CONFIG.encoder.width}, {CONFIG.encoder.layers} blocks, float32",
        "results": {},
    }
    for length in arguments.lengths:
        print(f"L = {length}", file=sys.stderr)
        report["results"][f"L={length}"] = {
            part: PARTS[part](bench, length, arguments.device) for part in arguments.parts
        }
    report["machine"]["load_average_at_end"] = load_average()
    out = arguments.out or Path(__file__).parent / "results" / f"core-{arguments.device}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
