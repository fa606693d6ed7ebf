"""The probe's face is learned on frames that stay as they are.

People are coloured bands here; what the shipped probe says of people whom it never saw is in ``test_world_score.py``.
"""

import torch

from training.world.models.faces import learn_faces
from training.world.models.probe import Probe, measure


def clips_of(people: int, seed: int) -> torch.Tensor:
    """Two clips a person, side by side: the lowest of four bands has the person's colour, the others the clip's."""
    generator = torch.Generator().manual_seed(seed)
    bands = torch.rand(2 * people, 1, 4, 1, 3, generator=generator)
    bands[:, :, 3] = torch.rand(people, 1, 1, 3, generator=generator).repeat_interleave(2, 0)
    clips = bands.repeat_interleave(20, 2).expand(-1, 17, -1, 80, -1)
    return (clips * 255).to(torch.uint8)


def auc(probe: Probe, clips: torch.Tensor) -> float:
    faces = measure(probe.eval(), clips).face_BE
    alike = faces[::2] @ faces[1::2].T
    others = alike[~torch.eye(len(alike), dtype=torch.bool)]
    return float((alike.diag()[:, None] > others[None]).float().mean())


def test_faces_are_learned_without_touching_anything_else():
    torch.manual_seed(0)
    probe, people = Probe(), clips_of(24, seed=1)
    before = {name: value.clone() for name, value in probe.state_dict().items()}
    assert auc(probe, people) < 0.8
    learn_faces(probe, people, [f"person{i // 2}" for i in range(48)], minutes=0.08, seed=0)
    changed = {name for name, value in probe.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("face.")}
    assert auc(probe, people) > 0.9
