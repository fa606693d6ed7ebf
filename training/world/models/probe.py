"""What reads people and captions back from clips: a network of its own, trained on people whom nothing else sees.

    python -m training.world.models.probe PICTURES VAE.safetensors OUT.safetensors --minutes 30

It gives the traits of the three parts, the class of each slot of the caption, and an ArcFace-style embedding of the
face, which one frame is enough for. It is trained on the ``metric`` split alone, on clips that went through the VAE,
and is never a loss of anything.

Dynamics are read in two steps. Each frame says how the head is held and what the face does (its *state*), which every
drawn frame teaches; and the curves of the states say how fast and how lopsidedly, which is learned afterwards, from the
drawn clips and from as many curves besides as one likes (``manners.py``).

Letters: N clips, B rows, F frames, H W height and width, D width, I traits, S state, P people, E embedding width.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from slotid_core.errors import SlotIDError
from training.world.identity import DYNAMICS, FRONT, SIDE, TRAITS, Identity
from training.world.models.clips import round_trips
from training.world.models.device import best_device, half
from training.world.models.faces import EMBEDDING, FACE_SHARE, augmented, learn_faces, of_two_clips
from training.world.models.files import read_facts, write_model
from training.world.models.manners import MANNERS_SHARE, learn_manners
from training.world.models.states import STATE, states_of_clip
from training.world.models.truth import VIEWS, Truth
from training.world.pictures import FRAMES, clip_of_name
from training.world.scenario import SLOTS, labels

PARTS = {"front": FRONT, "side": SIDE, "dynamics": DYNAMICS}
_RATE = 1e-3


@dataclass(frozen=True)
class Measured:
    """What the probe says of clips."""

    traits_BI: Tensor
    """As :data:`TRAITS`, 0 to 1."""
    slots: dict[str, Tensor]
    """Logits ``[B, classes]`` of each slot of the caption."""
    face_BE: Tensor
    """Of length 1."""
    state_BFS: Tensor
    """As :data:`training.world.models.states.STATE`."""


class Probe(nn.Module):
    """Convolutions on each frame, then attention over the frames; the face is read before the frames meet, and dynamics
    from the curves of the states alone."""

    def __init__(self, width: int = 192):
        super().__init__()

        def block(into: int, out: int, kernel: int = 3) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(into, out, kernel, 2, kernel // 2), nn.GroupNorm(4, out), nn.SiLU(), _Residual(out)
            )

        self.frames = nn.Sequential(
            nn.Conv2d(3, 24, 5, 2, 2),
            nn.SiLU(),
            _Residual(24),
            block(24, 48),
            block(48, 96),
            block(96, 128),
            nn.Flatten(1),
        )
        self.squeeze = nn.Sequential(nn.Linear(128 * 25, width), nn.LayerNorm(width))
        self.place = nn.Parameter(0.02 * torch.randn(FRAMES, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.time = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.face = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, EMBEDDING))
        self.looks = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, len(FRONT + SIDE)))
        self.state = nn.Linear(width, len(STATE))
        self.dynamics = nn.Sequential(
            nn.Flatten(1), nn.Linear(FRAMES * len(STATE), 384), nn.SiLU(), nn.Linear(384, 192), nn.SiLU(),
            nn.Linear(192, len(DYNAMICS)),
        )  # fmt: skip
        self.slots = nn.ModuleDict({slot: nn.Linear(2 * width, len(known)) for slot, known in SLOTS.items()})

    def forward(self, clips_BFHW3: Tensor) -> Measured:
        """Clips in [0, 1], of 17 frames of 80x80."""
        seen_BFD = self.see(clips_BFHW3)
        joined_BFD = self.time(seen_BFD + self.place)
        both_BD = torch.cat([seen_BFD.mean(1), joined_BFD.mean(1)], -1)
        state_BFS = self.state(seen_BFD).float()
        # Frames learn what they show from the states alone, which are known of every frame.
        dynamics_BI = self.dynamics(state_BFS.detach())
        # Looks are learned from few people, whom they are not to know by single features.
        looks_BI = self.looks(functional.dropout(both_BD, 0.2, self.training))
        return Measured(
            torch.cat([looks_BI.float(), dynamics_BI.float()], -1),
            {slot: layer(both_BD).float() for slot, layer in self.slots.items()},
            self.face_of(seen_BFD),
            state_BFS,
        )

    def face_of(self, seen_BFD: Tensor) -> Tensor:
        """``[B, E]`` of length 1 from frames of width D. Half of all features are dropped in training: with two clips
        of each person, a head soon knows them by heart and nobody else."""

        def half_dropped(x: Tensor) -> Tensor:
            return functional.dropout(x, 0.5, self.training)

        embedding_BFE = self.face[2](half_dropped(self.face[:2](half_dropped(seen_BFD)))).float()
        return functional.normalize(embedding_BFE.mean(1), dim=-1)

    def see(self, clips_BFHW3: Tensor) -> Tensor:
        """What each frame shows by itself, ``[B, F, D]``, of clips in [0, 1]."""
        pictures = (2 * clips_BFHW3 - 1).flatten(0, 1).permute(0, 3, 1, 2)
        return self.squeeze(self.frames(pictures)).unflatten(0, clips_BFHW3.shape[:2])


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(4, width), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def traits_of(identity: Identity) -> Tensor:
    """``[I]`` in the order of :data:`TRAITS`."""
    return torch.tensor(identity.front_F + identity.side_S + identity.dynamics_D)


def train(
    pictures: Path, vae_file: Path, out: Path, *, minutes: float, held_back: int, batch: int, seed: int,
    start: Path | None, rate: float = 1.0,
) -> None:  # fmt: skip
    """Learn for so many minutes, then say how well it reads the first ``held_back`` people, who are not trained on.

    Args:
        rate: of learning at most, as a share of a new one's.

    Raises:
        SlotIDError: the probe to start from was trained on some of them, or nobody else has two clips.
    """
    if start is not None and held_back > (unseen := read_facts(start).get("held_back", 0)):
        raise SlotIDError(
            f"{held_back} people are to be held back, and {start} was trained on all but the first {unseen}: how well "
            f"it reads the others would be flattered. Use --held-back {unseen} or less, or train from the beginning."
        )
    names, clips = round_trips(pictures, "metric", vae_file, out.with_suffix(".trips"))
    known = [clip_of_name(name) for name in names]
    held = [i for i, clip in enumerate(known) if clip.index < held_back]
    used = [i for i, clip in enumerate(known) if clip.index >= held_back]
    twice = [used[i] for i in of_two_clips([known[i].person for i in used])]
    traits_NI = torch.stack([traits_of(clip.identity) for clip in known])
    said = [labels(clip.scenario) for clip in known]
    states_NFS = torch.stack([states_of_clip(clip) for clip in known])
    random, device = np.random.RandomState(seed), best_device()
    torch.manual_seed(seed)
    clips, truth, used_U = clips.to(device), Truth.of(traits_NI, said, states_NFS, device), np.array(used)
    # Each state counts by its own spread: what the corners of a mouth do apart is a tenth of what a head turns.
    spread_S = truth.states_4NFS[0].std((0, 1))
    probe = Probe()
    if start is not None:
        own = probe.state_dict()
        probe.load_state_dict(
            {**own, **{name: value for name, value in load_file(start).items() if value.shape == own[name].shape}}
        )
    probe.to(device).train()
    optimizer = torch.optim.AdamW(probe.parameters(), lr=_RATE, weight_decay=0.05)
    started, step = time.monotonic(), 0
    log = out.with_suffix(".log").open("a")
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        now = rate * _RATE * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = now
        clip_B, (mirrored_B, reversed_B) = random.choice(used_U, size=batch), random.uniform(size=(2, batch)) < 0.5
        index_B, traits_BI, words_BK, state_BFS = truth.at(mirrored_B, reversed_B, clip_B)
        with half(device):
            measured = probe(augmented(clips[index_B], random, mirrored_B, reversed_B))
        loss_state = ((measured.state_BFS - state_BFS) / spread_S).square().mean()
        loss_traits = (measured.traits_BI - traits_BI).square().mean()
        loss_slots = sum(
            functional.cross_entropy(measured.slots[slot], classes_B)
            for slot, classes_B in zip(SLOTS, words_BK.unbind(1), strict=True)
        )
        loss = 12 * loss_traits + loss_state + 0.1 * loss_slots
        if not bool(loss.isfinite()):
            raise FloatingPointError(f"loss {loss.item()} in step {step}")
        loss.backward()
        nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 100 == 0:
            told = {"step": step, "share": round(share, 3), "traits": round(loss_traits.item(), 4)}
            told |= {"state": round(loss_state.item(), 4), "slots": round(loss_slots.item(), 3)}
            if step % 500 == 0:
                told |= evaluate(probe, clips[held], traits_NI[held], [said[i] for i in held])
                write_model(out.with_suffix(".part.safetensors"), probe.state_dict(), {"steps": step})
            log.write(json.dumps(told) + "\n")
            log.flush()
    learn_manners(
        probe, clips[used], truth.only(used_U), minutes=MANNERS_SHARE * minutes, seed=seed, first=held_back
    )  # fmt: skip
    learn_faces(probe, clips[twice], [known[i].person for i in twice], minutes=FACE_SHARE * minutes, seed=seed)
    told = evaluate(probe, clips[held], traits_NI[held], [said[i] for i in held])
    facts = {"steps": step, "batch": batch, "minutes": minutes, "rate": rate, "seed": seed}
    facts |= {"people": len({known[i].person for i in used}), "held_back": held_back, **told}
    write_model(out, probe.state_dict(), facts)
    log.write(json.dumps(facts) + "\n")


def load_probe(path: Path) -> Probe:
    """In eval mode, without gradients."""
    probe = Probe()
    probe.load_state_dict(load_file(path))
    return probe.eval().requires_grad_(False)


@torch.no_grad()
def measure(probe: Probe, clips_NFHW3: Tensor, batch: int = 20) -> Measured:
    """All clips, uint8 or float in [0, 1], each looked at in four ways: the mean of what they say is surer than one."""
    parts, device = [], next(probe.parameters()).device
    for rows in clips_NFHW3.split(batch):
        rows = rows.to(device)
        rows = rows.float() / 255 if rows.dtype == torch.uint8 else rows
        with half(device):
            parts.append(_agreed([probe(view.clips(rows)) for view in VIEWS]))
    return Measured(
        torch.cat([part.traits_BI for part in parts]).cpu(),
        {slot: torch.cat([part.slots[slot] for part in parts]).cpu() for slot in SLOTS},
        torch.cat([part.face_BE for part in parts]).cpu(),
        torch.cat([part.state_BFS for part in parts]).cpu(),
    )


def _agreed(seen: list[Measured]) -> Measured:
    """What the :data:`VIEWS` of clips say of them as they are. In a mirror a face is somebody else's, and its frames'
    order does not matter to it."""
    both = list(zip(VIEWS, seen, strict=True))
    return Measured(
        torch.stack([view.traits(one.traits_BI) for view, one in both]).mean(0),
        {slot: torch.stack([one.slots[slot][:, view.classes(slot)] for view, one in both]).mean(0) for slot in SLOTS},
        seen[0].face_BE,
        torch.stack([view.states(one.state_BFS) for view, one in both]).mean(0),
    )


def r_squared(read_NI: Tensor, true_NI: Tensor) -> dict[str, float]:
    """Of each trait: the share of its spread over these people that is read; negative is worse than their mean."""
    lost_I = (read_NI - true_NI).square().mean(0)
    share_I = 1 - lost_I / true_NI.var(0, correction=0)
    return dict(zip(TRAITS, share_I.tolist(), strict=True))


def by_part(of_trait: dict[str, float]) -> dict[str, float]:
    """The mean of each part's traits."""
    return {part: sum(of_trait[name] for name in names) / len(names) for part, names in PARTS.items()}


def slot_accuracy(measured: Measured, said: list[dict[str, int]]) -> dict[str, float]:
    """Share of clips in which each slot of the caption is what it says."""
    return {
        slot: (logits.argmax(-1) == torch.tensor([words[slot] for words in said])).float().mean().item()
        for slot, logits in measured.slots.items()
    }


def evaluate(probe: Probe, clips: Tensor, traits_NI: Tensor, said: list[dict[str, int]]) -> dict:
    """R² by trait and part, accuracies, and the embedding's likeness of the same and of different people."""
    was_training = probe.training
    measured = measure(probe.eval(), clips)
    probe.train(was_training)
    of_trait = r_squared(measured.traits_BI, traits_NI)
    same_N = torch.tensor([(a == b).all() for a, b in zip(traits_NI[::2], traits_NI[1::2], strict=True)])
    assert bool(same_N.all()), "clips of one person stand side by side"
    alike = measured.face_BE[::2] @ measured.face_BE[1::2].T
    others = alike[~torch.eye(len(alike), dtype=torch.bool)]
    return {
        "r2": {name: round(value, 3) for name, value in by_part(of_trait).items()},
        "r2_traits": {name: round(value, 3) for name, value in of_trait.items()},
        "accuracy": {name: round(value, 3) for name, value in slot_accuracy(measured, said).items()},
        "face": {
            "same": round(alike.diag().mean().item(), 3),
            "other": round(others.mean().item(), 3),
            "auc": round((alike.diag()[:, None] > others[None]).float().mean().item(), 4),
        },
    }


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("vae", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--held-back", type=int, default=100, help="people to test it on")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1.0, help="of learning, as a share of a new one's (1)")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--start", type=Path, help="an earlier probe; layers of another shape are made anew")
    args = parser.parse_args(argv)
    train(
        args.pictures, args.vae, args.out, minutes=args.minutes, held_back=args.held_back, batch=args.batch,
        seed=args.seed, start=args.start, rate=args.rate,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
