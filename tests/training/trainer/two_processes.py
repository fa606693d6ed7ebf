"""Train as ``train.py`` does, one run after the other, and write what became of each backbone: what a test of several
processes can't see.

torchrun two_processes.py CONFIG.yaml [CONFIG.yaml ...]
"""

import json
import sys
from pathlib import Path

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from training.planner.machine import Machine
from training.settings_file import load
from training.trainer import run as running
from training.trainer.processes import Processes

torch.set_num_threads(1)
processes = Processes("cpu")
made = []


class Watched(running.Run):
    def __init__(self, *args):
        super().__init__(*args)
        made.append(self)


def plan_applied(injected, plan, device):
    """There is no card here to run out of memory: what is whole when blocks go to the device is counted instead."""
    frozen = [p for p in injected.transformer.blocks.parameters() if not p.requires_grad and p.ndim == 2]
    whole_matrices.append(sum(not isinstance(p, DTensor) for p in frozen))
    apply_plan(injected, plan, device)


def gradients_summed():
    """Of three parameters: one that nobody reached, one that the last process reached, one that all did."""
    parameters = {name: torch.nn.Parameter(torch.zeros(2)) for name in ("nobody", "last", "all")}
    if processes.rank == processes.count - 1:
        parameters["last"].grad = torch.ones(2)
    parameters["all"].grad = torch.full((2,), float(processes.rank + 1))
    processes.sum_gradients(parameters)
    return {name: None if p.grad is None else p.grad.tolist() for name, p in parameters.items()}


whole_matrices, apply_plan = [], running.apply_plan
running.Run, running.apply_plan = Watched, plan_applied
found = Machine(name="here", device="CPU", ram=100 - processes.rank, disk=50 + processes.rank)
for config in sys.argv[1:]:
    made.clear(), whole_matrices.clear()
    settings = load(Path(config))
    running.train(settings, processes, "plain", show_progress=False)
    transformer = made[0].adapter.transformer
    frozen = [p for p in transformer.blocks.parameters() if not p.requires_grad]
    told = {
        "processes": processes.count,
        "leanest": [processes.leanest(found).ram, processes.leanest(found).disk, processes.leanest(found).vram],
        "gradients": gradients_summed(),
        "of_first": processes.gather(torch.tensor([int(processes.of_first(lambda: str(processes.rank)))])).tolist(),
        "whole_matrices": whole_matrices,
        "blocks": len(transformer.blocks),
        "sharded_blocks": sum(isinstance(block, FSDPModule) for block in transformer.blocks),
        "frozen_numbers_here": sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in frozen),
    }
    if processes.is_first:
        (settings.run.folder / "told.json").write_text(json.dumps(told), encoding="utf-8")
processes.close()
