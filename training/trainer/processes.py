"""Several processes as one: accelerate starts them, and what is trained is kept equal by summing its gradients.

Encoder, FiLM and LoRA are small beside the frozen backbone (under 1 %), so every process has all of them and one sum
over one flat tensor an update keeps them equal. The backbone needs no gradient; it is replicated, or shared out block
by block (FSDP2) where it does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn

from slotid_core.errors import SlotIDError

_REPLICATED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class Processes:
    """The processes of this run.

    Raises:
        SlotIDError: accelerate was told to shard or wrap models by itself.
    """

    def __init__(self, device: str | None = None):
        self.accelerator = Accelerator(cpu=device == "cpu")
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

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        self.accelerator.end_training()

    def sum_gradients(self, trainable: Mapping[str, nn.Parameter]) -> None:
        """Make every process's gradients the sum of all."""
        if self.count == 1:
            return
        parameters = list(trainable.values())
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
        for parameter, part in zip(parameters, self.sum(flat).split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)


def shard_backbone(transformer: nn.Module, processes: int) -> None:
    """Share the frozen blocks out over the processes with torch's FSDP2; each is gathered when it is used.

    What is trained inside them (LoRA) and the few tensors that Wan keeps in another dtype stay replicated.

    Raises:
        SlotIDError: one process only.
    """
    if processes < 2:
        raise SlotIDError("memory.shard shares the backbone out over processes and there is one. Set it to false.")
    from torch.distributed.fsdp import fully_shard

    for block in transformer.blocks:
        dtypes = [p.dtype for p in block.parameters() if not p.requires_grad and p.ndim >= 2]
        common = max(set(dtypes), key=dtypes.count)
        kept = {p for p in block.parameters() if p.requires_grad or p.dtype != common}
        # Each block is a root of its own, which FSDP would keep gathered after its forward unless told.
        fully_shard(block, reshard_after_forward=True, ignored_params=kept)
