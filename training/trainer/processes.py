"""Several processes as one: accelerate starts them, and what is trained is kept equal by summing its gradients.

Encoder, FiLM and LoRA are small beside the frozen backbone (under 1 %), so every process has all of them and one sum
over one flat tensor an update keeps them equal. The backbone needs no gradient; it is replicated, or shared out block
by block (FSDP2) where it does not fit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedType, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from slotid_core.errors import SlotIDError
from training.planner.machine import Machine
from training.torch_version import require_torch

_REPLICATED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
_PATIENCE = timedelta(hours=12)
"""How long processes wait for one another. NCCL's ten minutes are less than the first process alone takes to sample a
14B, or to draw people."""


class Processes:
    """The processes of this run.

    Raises:
        SlotIDError: accelerate was told to shard or wrap models by itself.
    """

    def __init__(self, device: str | None = None):
        self.accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)])
        if self.accelerator.distributed_type not in _REPLICATED:
            raise SlotIDError(
                f"accelerate was configured for {self.accelerator.distributed_type.value}, expected plain multi-GPU: "
                "launch with --config_file training/accelerate_gpus.yaml, and set memory.shard=true to share "
                "the backbone out."
            )

    @property
    def count(self) -> int:
        return self.accelerator.num_processes

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def is_first(self) -> bool:
        return self.accelerator.is_main_process

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor if self.count == 1 else self.accelerator.reduce(tensor, reduction="sum")

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all processes, one process after the other."""
        return rows if self.count == 1 else self.accelerator.gather(rows)

    def leanest(self, machine: Machine) -> Machine:
        """What every process may count on: the least that any of them found. All then plan alike, which they must."""
        if self.count == 1:
            return machine
        found: list[Machine] = gather_object([machine])
        least = {name: [getattr(one, name) for one in found] for name in ("vram", "ram", "disk")}
        return replace(machine, **{name: None if None in sizes else min(sizes) for name, sizes in least.items()})

    def of_first(self, find: Callable[[], str]) -> str:
        """What the first process finds out, for all of them."""
        found = [find() if self.is_first else ""]
        return (found if self.count == 1 else broadcast_object_list(found))[0]

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the group; to be called last."""
        self.accelerator.end_training()
        if self.count > 1 and self.device.type == "cpu":
            # One of gloo's threads may still be waiting for Python, to drop what it was given last; where sharded
            # blocks keep the group alive nobody joins it, and Python's end aborts the process (pytorch/pytorch#179291).
            time.sleep(0.2)

    def sum_gradients(self, trainable: Mapping[str, nn.Parameter]) -> None:
        """Make every process's gradients the sum of all. What got none anywhere has none afterwards, as in a run of
        one process: to an optimizer that is not the same as zero."""
        if self.count == 1:
            return
        parameters = list(trainable.values())
        reached = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        gradients = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
        *gradients, reached = self.sum(torch.cat([*gradients, reached])).split([*map(len, gradients), len(parameters)])
        for parameter, gradient, somewhere in zip(parameters, gradients, reached.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter) if somewhere else None


def shard_backbone(transformer: nn.Module, processes: int, device: torch.device) -> None:
    """Share the frozen blocks out over the processes with torch's FSDP2; each is gathered when it is used.

    To be called while the blocks lie in host memory: one after the other is then brought to the device and cut, so that
    a card never holds more than its share and one block. What is trained inside them (LoRA) and the few tensors that
    Wan keeps in another dtype stay replicated.

    Raises:
        SlotIDError: one process only, or an old torch.
    """
    if processes < 2:
        raise SlotIDError("memory.shard shares the backbone out over processes and there is one. Set it to false.")
    require_torch("2.9", "memory.shard")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))

    for block in transformer.blocks:
        dtypes = [p.dtype for p in block.parameters() if not p.requires_grad and p.ndim >= 2]
        common = max(set(dtypes), key=dtypes.count)
        kept = {p for p in block.parameters() if p.requires_grad or p.dtype != common}
        # Each block is a root of its own, which FSDP would keep gathered after its forward unless told.
        fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=kept)
