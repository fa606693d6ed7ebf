"""Memory for contexts that one backbone call after another needs and drops."""

import weakref

import torch
from torch import Tensor


class Recycled:
    """New tensors on the CPU, in memory of earlier ones that nobody holds any more.

    They are like any other: memory comes back when the last tensor and the last view upon it are gone, whoever held
    them, in whichever thread. Why at all: the system's allocator gives large memory back at once, and taking 16 MB anew
    in every step costs three times the copy that goes in. GPUs' allocators do this by themselves.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[Tensor]] = {}

    def empty_like(self, other: Tensor) -> Tensor:
        """An uninitialised, contiguous tensor of the same shape and dtype."""
        assert other.device.type == "cpu"
        size = other.numel() * other.element_size()
        free = self._free.setdefault(size, [])
        try:
            memory = free.pop()
        except IndexError:
            memory = torch.empty(size, dtype=torch.uint8)
        # torch keeps the array as long as any tensor lies in it; its end is the end of them all.
        array = memory.numpy()
        weakref.finalize(array, free.append, memory)
        return torch.from_numpy(array).view(other.dtype).view(other.shape)
