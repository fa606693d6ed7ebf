"""A side loss on the slots: two clips of one person should fill them alike, two people's should not.

InfoNCE over all views of a micro-batch (Chen et al. 2020, *A Simple Framework for Contrastive Learning of Visual
Representations*, NT-Xent), without a projection head: what it teaches has to stand in the slots themselves.

Shape letters: B clips, R of them with a second view, N = B + R views, S slots, D their width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def contrast(
    first_BSD: Tensor, second_RSD: Tensor, rows: Sequence[int], people: Sequence[str], temperature: float
) -> Tensor:
    """How badly each clip's second view is found among all views by the first, and the other way round.

    Args:
        first_BSD: slot states of the references that are shown.
        second_RSD: slot states of other clips of the same people, for the rows that have one.
        rows: which rows those are, in the order of ``second_RSD``.
        people: name of each row's person. Other views of one's own person are no negatives and are left out.
        temperature: divides the cosines.

    Returns:
        ``[B]`` float32, in nats; 0 for rows without a second view.
    """
    index_R = torch.tensor(rows, device=first_BSD.device)
    views_NX = torch.cat([_directions(first_BSD), _directions(second_RSD)])
    owner = {name: i for i, name in enumerate(dict.fromkeys(people))}
    person_B = torch.tensor([owner[name] for name in people], device=first_BSD.device)
    person_N = torch.cat([person_B, person_B[index_R]])
    here_R, there_R = index_R, len(person_B) + torch.arange(len(rows), device=first_BSD.device)
    logits_NN = views_NX @ views_NX.T / temperature
    own_NN = person_N[:, None] == person_N[None, :]
    own_NN[here_R, there_R] = own_NN[there_R, here_R] = False
    logits_NN = logits_NN.masked_fill(own_NN, -torch.inf)
    both_R = F.cross_entropy(logits_NN[here_R], there_R, reduction="none")
    both_R = both_R + F.cross_entropy(logits_NN[there_R], here_R, reduction="none")
    return both_R.new_zeros(len(person_B)).index_put((index_R,), both_R / 2)


def _directions(slots_BSD: Tensor) -> Tensor:
    """All slots of a view as one unit vector. Each is normalised as the layer norm before the projections does it, so
    no slot can count for less by being short."""
    slots_BSD = slots_BSD.float()
    return F.normalize(F.layer_norm(slots_BSD, slots_BSD.shape[-1:]).flatten(1), dim=1)
