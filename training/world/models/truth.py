"""What is true of clips, as they were drawn, in a mirror, and from the last frame to the first.

A person seen in a mirror has their mark and the lead of their smile on the other side. Somebody who turns hastily
rightwards is, from the last frame to the first, somebody who turns lingeringly leftwards (``performance.py``). So one
drawn clip shows four people, and says of each who it is; and what is read of the four says four times who one is.

Letters: N clips, B rows, F frames, H W height and width, I traits, K slots of the caption, S state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.world.identity import TRAITS
from training.world.models.states import mirrored_states
from training.world.scenario import SLOTS

# Traits that are 1 less what they were, and words that stand for each other.
_IN_A_MIRROR = (
    ("mark", "smile_lead"),
    {"action": ("rightwards", "leftwards"), "light": ("from the left", "from the right")},
)
_REVERSED = (
    ("turn_pace", "smile_onset", "smile_lead"),
    {"action": ("rightwards", "leftwards"), "camera": ("closer", "away")},
)


@dataclass(frozen=True)
class View:
    """A way to look at a clip. Whatever is looked at so twice is as it was."""

    mirrored: bool
    reversed: bool

    def clips(self, clips_NFHW3: Tensor) -> Tensor:
        """The pixels."""
        clips_NFHW3 = clips_NFHW3.flip(3) if self.mirrored else clips_NFHW3
        return clips_NFHW3.flip(1) if self.reversed else clips_NFHW3

    def traits(self, traits_NI: Tensor, names: tuple[str, ...] = TRAITS) -> Tensor:
        """Of those names."""
        traits_NI = traits_NI.clone()
        for changed, _ in self._changes():
            for i in (names.index(name) for name in changed if name in names):
                traits_NI[:, i] = 1 - traits_NI[:, i]
        return traits_NI

    def classes(self, slot: str) -> Tensor:
        """What each class of a slot of the caption becomes."""
        values = SLOTS[slot]
        for _, words in self._changes():
            a, b = words.get(slot, ("", ""))
            values = [value.replace(a, b) if a and a in value else value.replace(b, a) for value in values]
        return torch.tensor([SLOTS[slot].index(value) for value in values])

    def states(self, states_NFS: Tensor) -> Tensor:
        """As :data:`training.world.models.states.STATE`."""
        states_NFS = mirrored_states(states_NFS) if self.mirrored else states_NFS
        return states_NFS.flip(1) if self.reversed else states_NFS

    def _changes(self) -> list[tuple[tuple[str, ...], dict[str, tuple[str, str]]]]:
        return [_IN_A_MIRROR] * self.mirrored + [_REVERSED] * self.reversed


VIEWS = tuple(View(mirrored, backwards) for backwards in (False, True) for mirrored in (False, True))
"""As drawn, in a mirror, and both from the last frame to the first."""


@dataclass(frozen=True)
class Truth:
    """What is true of all clips, in each of the :data:`VIEWS`."""

    traits_4NI: Tensor
    """As ``TRAITS``."""
    words_4NK: Tensor
    """Classes in the order of :data:`training.world.scenario.SLOTS`."""
    states_4NFS: Tensor
    """As :data:`training.world.models.states.STATE`."""

    @classmethod
    def of(cls, traits_NI: Tensor, said: list[dict[str, int]], states_NFS: Tensor, device: torch.device) -> Truth:
        """Of clips as they were drawn."""
        words_NK = torch.tensor([[words[slot] for slot in SLOTS] for words in said])
        seen = [
            torch.stack([view.classes(slot)[word_N] for slot, word_N in zip(SLOTS, words_NK.unbind(1), strict=True)], 1)
            for view in VIEWS
        ]
        return cls(
            torch.stack([view.traits(traits_NI) for view in VIEWS]).to(device),
            torch.stack(seen).to(device),
            torch.stack([view.states(states_NFS) for view in VIEWS]).to(device),
        )

    def only(self, clips_B: np.ndarray) -> Truth:
        """Of these clips alone."""
        clips_B = torch.from_numpy(clips_B).to(self.traits_4NI.device)
        return Truth(*(x[:, clips_B] for x in (self.traits_4NI, self.words_4NK, self.states_4NFS)))

    def at(
        self, mirrored_B: np.ndarray, reversed_B: np.ndarray, clip_B: np.ndarray
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of these clips: their indices on the device, traits, words and states."""
        device = self.traits_4NI.device
        view_B, index_B = torch.from_numpy(np.stack([mirrored_B + 2 * reversed_B, clip_B])).to(device)
        return index_B, *(x[view_B, index_B] for x in (self.traits_4NI, self.words_4NK, self.states_4NFS))
