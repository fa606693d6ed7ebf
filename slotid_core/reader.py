"""Sinkhorn-routed slot reader (paper, 3.2): tokens of the clip -> S identity slots.

Shape letters: B batch, L video tokens, D token width, S slots, R rows (the slots, and the dustbin where there
is one), T H W the token grid.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ReaderConfig
from .encoder import VideoTokens
from .sinkhorn import aggregation_weights, log_sinkhorn, renormalise, temperature
from .types import Routing


@dataclass(frozen=True)
class SlotReading:
    """Slot states after the last iteration, and what each slot read in it."""

    slots_BSD: Tensor
    routing: Routing


class SlotReader(nn.Module):
    """Slots compete for tokens, read a convex combination of them, and are refined by a GRU.

    Keys and values are the tokens themselves, without a projection (paper, 3.2). The buffer ``step`` is the global
    training step: it sets the temperature and is stored with the weights, so that inference reads at the
    temperature that training ended with.
    """

    step: Tensor

    def __init__(self, config: ReaderConfig, width: int):
        super().__init__()
        self.config = config
        self.queries = nn.Parameter(torch.randn(config.slots, width))
        self.gru = nn.GRUCell(width, width)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        if config.dustbin != "off":
            # A constant score would cancel in the row scaling, so the dustbin needs a query of its own.
            self.dustbin_query = nn.Parameter(torch.randn(1, width))
        if config.dustbin == "learned":
            self.dustbin_logit = nn.Parameter(torch.tensor(_logit(config.dustbin_mass)))

    @property
    def temperature(self) -> float:
        """tau(s) at the stored training step."""
        c = self.config
        return temperature(int(self.step), c.tau_start, c.tau_end, c.tau_decay_steps)

    def forward(self, video: VideoTokens) -> SlotReading:
        """``[B, L, D]`` tokens -> ``[B, S, D]`` slot states and the routing of the last iteration."""
        # At least float32 throughout: the marginals, and a weighted mean of thousands of tokens, need it.
        with torch.autocast(video.tokens_BLD.device.type, enabled=False):
            tokens_BLD = video.tokens_BLD.to(torch.promote_types(video.tokens_BLD.dtype, torch.float32))
            slots_BSD = self.queries.expand(tokens_BLD.shape[0], -1, -1)
            tau = self.temperature  # once: a GPU is waited for until it has told the step
            for _ in range(self.config.iterations):
                weights_BSL = self.route(slots_BSD, tokens_BLD, tau)
                read_BSD = weights_BSL @ tokens_BLD
                slots_BSD = self.gru(read_BSD.flatten(0, 1), slots_BSD.flatten(0, 1)).view_as(slots_BSD)
        return SlotReading(slots_BSD, Routing(weights_BSL.unflatten(-1, video.grid_THW)))

    def route(self, slots_BSD: Tensor, tokens_BLD: Tensor, tau: float) -> Tensor:
        """What each slot reads at that temperature: ``[B, S, L]``, non-negative, rows summing to 1."""
        rows_BRD = slots_BSD
        if self.config.dustbin != "off":
            rows_BRD = torch.cat([slots_BSD, self.dustbin_query.expand(slots_BSD.shape[0], -1, -1)], dim=1)
        logits_BRL = rows_BRD @ tokens_BLD.mT / (math.sqrt(tokens_BLD.shape[-1]) * tau)
        if self.config.routing == "softmax":
            # By logarithms: all shares of a slot that wins no token together may be too small to divide by.
            return logits_BRL.log_softmax(dim=1).softmax(dim=-1)
        log_a_R = self.log_row_marginal()
        coupling_BRL = log_sinkhorn(logits_BRL, self.config.sinkhorn_iterations, log_a_R)
        routing_BRL = renormalise(coupling_BRL, log_a_R)
        return aggregation_weights(routing_BRL[:, : self.config.slots])

    def log_row_marginal(self) -> Tensor | None:
        """Log of the row marginal: alpha for the dustbin, (1 - alpha) / S for each slot; ``None`` is uniform."""
        if self.config.dustbin == "off":
            return None
        if self.config.dustbin == "learned":
            logit = self.dustbin_logit
        else:
            logit = self.queries.new_full((), _logit(self.config.dustbin_mass))
        # Not log(1 - alpha): from a logit of 17 on alpha is 1 in float32, and the gradient would be NaN.
        log_slot = F.logsigmoid(-logit) - math.log(self.config.slots)
        return torch.cat([log_slot.expand(self.config.slots), F.logsigmoid(logit).expand(1)])


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
