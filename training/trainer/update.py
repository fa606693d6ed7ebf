"""One update of the trained tensors: losses, gradients, checks, optimizer, averages.

Shape letters: B clips.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from slotid_core.sinkhorn import temperature
from training.settings import Settings
from training.trainer.adapter import Adapter
from training.trainer.batches import Item
from training.trainer.checks import Reached, check_finite, check_gradients
from training.trainer.optim import clip, learning_rate, set_learning_rate
from training.trainer.processes import Processes
from training.trainer.state import State


def update(
    adapter: Adapter,
    state: State,
    batches: Iterator[list[Item]],
    settings: Settings,
    processes: Processes,
    reached: Reached,
) -> dict[str, float]:
    """Learn from one batch; returns its figures.

    Args:
        batches: this process's micro-batches; as many are taken as make its share of the batch.

    Raises:
        SlotIDError: a loss or gradient that is no number, or a tensor that is never reached. Nothing was applied then.
    """
    optim, weight = settings.optim, settings.contrast.weight
    step, lr = state.step, learning_rate(optim, state.step)
    items: list[Item] = []
    seen: list[tuple[torch.Tensor, list[Item]]] = []
    total = torch.zeros(3, device=adapter.device)
    for _ in range(optim.batch // (optim.micro_batch * processes.count)):
        micro = next(batches)
        if weight:
            losses_B, contrast_B = adapter.losses_and_contrast(micro, settings.contrast.temperature)
        else:
            losses_B, contrast_B = adapter.losses(micro), torch.zeros(len(micro), device=adapter.device)
        seen.append(((losses_B + contrast_B).detach(), micro))
        ((losses_B + weight * contrast_B).sum() / optim.batch).backward()
        total[0] += losses_B.detach().sum()
        total[1] += sum(item.draw.keep_identity for item in micro)
        total[2] += contrast_B.detach().sum()
        items += micro
    # Whoever asks for a number waits for the device: all losses are asked for at once, and the sums when the norm,
    # which they do not outlast, has been waited for.
    found = torch.cat([losses_B for losses_B, _ in seen]).cpu().split([len(micro) for _, micro in seen])
    for losses_B, (_, micro) in zip(found, seen, strict=True):
        check_finite(losses_B, micro, step)
    processes.sum_gradients(state.trainable)
    total = processes.sum(total)
    norm = clip(state.trainable, optim.clip_norm)
    loss, with_identity, contrast = total.tolist()
    check_gradients(norm, items, step)
    reached.look(state.trainable, with_identity=with_identity > 0, lr=lr)
    set_learning_rate(state.optimizer, lr)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.averaged.update(state.trainable, step)
    state.step += 1
    adapter.set_step(state.step)
    figures = {"loss": loss / optim.batch, "lr": lr, "gradient_norm": norm}
    if weight:
        figures["contrast"] = contrast / optim.batch
    if adapter.config.encoder.kind == "stsa":
        reader = adapter.config.reader  # the model's own step lies on the device
        figures["temperature"] = temperature(state.step, reader.tau_start, reader.tau_end, reader.tau_decay_steps)
    return figures
