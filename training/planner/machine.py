"""What a run may use: a machine that is there, or one of four that are common. Sizes in bytes."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

GIB = 2**30
CUDA_CONTEXT = int(0.7 * GIB)
"""Assumed: CUDA's context and the libraries' kernels and workspaces."""

# Dense bfloat16 peak with float32 sums in TFLOP/s, from the makers' data sheets (where those give the figure with
# sparsity, half of it). The first name that occurs in the device's as whole words is taken.
PEAKS = {
    "B200": 2250.0,
    "H200": 989.0,
    "GH200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H20": 148.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 6000 Ada": 364.0,
    "RTX A6000": 155.0,
    "A40": 150.0,
    "RTX 5090": 209.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine; its processes have a card each, or share the CPU."""

    name: str
    device: str
    """The card's name, or ``CPU``."""
    cards: int = 1
    vram: int | None = None
    """Of one card, all that a process may have; None on a CPU."""
    ram: int | None = None
    """Host memory that is free for the run; None is unknown, and then only what is needed is told."""
    disk: int | None = None
    """Free in the run's folder; None as above."""

    @property
    def peak_flops(self) -> float | None:
        """Dense bfloat16 of one card in FLOP/s; None where it is not known."""
        if self.vram is None or "Laptop" in self.device:  # a slower card of the same name
            return None
        found = [peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", self.device)]
        return found[0] * 1e12 if found else None


COMMON = {
    "1x24": Machine(name="1 x 24 GB", device="NVIDIA GeForce RTX 4090", vram=int(23.5 * GIB)),
    "1x80": Machine(name="1 x 80 GB", device="NVIDIA H100 80GB HBM3", vram=int(79.1 * GIB)),
    "1x141": Machine(name="1 x 141 GB", device="NVIDIA H200", vram=int(139.7 * GIB)),
    "8x80": Machine(name="8 x 80 GB", device="NVIDIA H100 80GB HBM3", vram=int(79.1 * GIB), cards=8),
}
"""What torch reports as such cards' memory, rounded down."""


def this_machine(folder: Path, on_cpu: bool = False) -> Machine:
    """The machine that this runs on.

    Args:
        folder: where the run will write.
        on_cpu: train on the CPU though there is a card.
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    ram, disk = psutil.virtual_memory().available, shutil.disk_usage(there).free
    if on_cpu or not torch.cuda.is_available():
        return Machine(name="this machine", device="CPU", ram=ram, disk=disk)
    free, total = torch.cuda.mem_get_info()
    # Asking has made a context, which is among what the plan counts.
    return Machine(
        name="this machine",
        device=torch.cuda.get_device_name(),
        cards=torch.cuda.device_count(),
        vram=min(total, free + CUDA_CONTEXT),
        ram=ram,
        disk=disk,
    )
