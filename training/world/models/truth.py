"""What is true of clips, as they were drawn, in a mirror, and from the last frame to the first.

A person seen in a mirror has their mark and the lead of their smile on the other side. Somebody who turns hastily
rightwards is, from the last frame to the first, somebody who turns lingeringly leftwards (``performance.py``). So one
drawn clip shows four people, and says of each who it is.

Letters: N clips, B rows, F frames, I traits, K slots of the caption, S state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.world.identity import TRAITS
from training.world.models.states import mirrored_states
from training.world.scenario import SLOTS

_What = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Truth:
    """The first of four is true of the clips as they are, the second in a mirror, the others of the same reversed."""

    traits_4NI: Tensor
    """As ``TRAITS``."""
    words_4NK: Tensor
    """Classes in the order of :data:`training.world.scenario.SLOTS`."""
    states_4NFS: Tensor
    """As :data:`training.world.models.states.STATE`."""

    @classmethod
    def of(cls, traits_NI: Tensor, said: list[dict[str, int]], states_NFS: Tensor, device: torch.device) -> Truth:
        """Of clips as they were drawn."""
        drawn = (traits_NI, torch.tensor([[words[slot] for slot in SLOTS] for words in said]), states_NFS)
        both = [drawn, _mirrored(*drawn)]
        both += [_reversed(*what) for what in both]
        return cls(*(torch.stack(four).to(device) for four in zip(*both, strict=True)))

    def at(
        self, mirrored_B: np.ndarray, reversed_B: np.ndarray, clip_B: np.ndarray
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of these clips: their indices on the device, traits, words and states."""
        device = self.traits_4NI.device
        way_B, index_B = torch.from_numpy(np.stack([mirrored_B + 2 * reversed_B, clip_B])).to(device)
        return index_B, *(x[way_B, index_B] for x in (self.traits_4NI, self.words_4NK, self.states_4NFS))


def _mirrored(traits_NI: Tensor, words_NK: Tensor, states_NFS: Tensor) -> _What:
    words_NK = _swapped(words_NK, "action", "rightwards", "leftwards")
    words_NK = _swapped(words_NK, "light", "from the left", "from the right")
    return _opposite(traits_NI, "mark", "smile_lead"), words_NK, mirrored_states(states_NFS)


def _reversed(traits_NI: Tensor, words_NK: Tensor, states_NFS: Tensor) -> _What:
    words_NK = _swapped(words_NK, "action", "rightwards", "leftwards")
    words_NK = _swapped(words_NK, "camera", "closer", "away")
    return _opposite(traits_NI, "turn_pace", "smile_onset", "smile_lead"), words_NK, states_NFS.flip(1)


def _opposite(traits_NI: Tensor, *names: str) -> Tensor:
    traits_NI = traits_NI.clone()
    for name in names:
        traits_NI[:, TRAITS.index(name)] = 1 - traits_NI[:, TRAITS.index(name)]
    return traits_NI


def _swapped(words_NK: Tensor, slot: str, a: str, b: str) -> Tensor:
    """With one word for the other in all classes of a slot."""
    others = [value.replace(a, b) if a in value else value.replace(b, a) for value in SLOTS[slot]]
    place, words_NK = list(SLOTS).index(slot), words_NK.clone()
    words_NK[:, place] = torch.tensor([SLOTS[slot].index(other) for other in others])[words_NK[:, place]]
    return words_NK
