"""The probe's manners: learned from curves as it reads them, drawn or not.

What frames show is put in the place of the probe's convolutions: its reading is known here, motions at two thirds of
their size and errors that last. The network that is trained is the probe's own.
"""

import numpy as np
import pytest
import torch

from training.world.identity import DYNAMICS, TRAITS
from training.world.models import manners
from training.world.models.manners import Reading, learn_manners
from training.world.models.probe import Probe, r_squared
from training.world.models.states import undrawn
from training.world.models.truth import VIEWS, Truth
from training.world.pictures import FRAMES
from training.world.scenario import labels, sample_scenarios


def read(states_NFS, generator):
    noise_NFS = torch.randn(states_NFS.shape, generator=generator)
    for frame in range(1, FRAMES):
        noise_NFS[:, frame] = 0.7 * noise_NFS[:, frame - 1] + 0.5 * noise_NFS[:, frame]
    return 0.66 * states_NFS + 0.1 + 0.1 * noise_NFS


def test_performances_are_read_as_clips_were():
    generator = torch.Generator().manual_seed(0)
    performed_NFS = undrawn(600, np.random.RandomState(0))[0]
    reading = Reading.of(performed_NFS, read(performed_NFS, generator))
    others_NFS = undrawn(300, np.random.RandomState(1))[0]
    torch.manual_seed(0)
    errors_NFS = reading(others_NFS) - (0.66 * others_NFS + 0.1)
    # Somewhat more than they were, for frames are read better by whom they taught.
    assert 0.08 < float(errors_NFS.std()) < 0.14 and abs(float(errors_NFS.mean())) < 0.02
    lasting = (errors_NFS[:, 1:] * errors_NFS[:, :-1]).mean() / errors_NFS.square().mean()
    assert 0.5 < float(lasting) < 0.8


def test_manners_are_learned_without_touching_anything_else(monkeypatch):
    states_NFS, dynamics_NI = undrawn(400, np.random.RandomState(2))
    traits_NI = torch.cat([torch.rand(400, len(TRAITS) - len(DYNAMICS)), dynamics_NI], 1)
    said = [labels(sample_scenarios(seed, 1)[0]) for seed in range(400)]
    truth = Truth.of(traits_NI, said, states_NFS, torch.device("cpu"))
    generator, known = torch.Generator().manual_seed(0), iter(VIEWS)
    monkeypatch.setattr(manners, "_read", lambda *_: read(next(known).states(states_NFS), generator))
    torch.manual_seed(0)
    probe = Probe()
    before = {name: value.clone() for name, value in probe.state_dict().items()}
    others_NFS, theirs_NI = undrawn(300, np.random.RandomState(3))

    def known_of(view):
        with torch.no_grad():
            read_NI = probe.dynamics(read(view.states(others_NFS), generator))
        pad = torch.rand(300, len(TRAITS) - len(DYNAMICS))
        told = r_squared(*(torch.cat([pad, x], 1) for x in (read_NI, view.traits(theirs_NI, DYNAMICS))))
        return {name: told[name] for name in DYNAMICS}

    assert max(known_of(VIEWS[0]).values()) < 0.1
    learn_manners(probe, torch.zeros(400, 1, 1, 1, 1), truth, minutes=0.12, seed=0, first=0)
    changed = {name for name, value in probe.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("dynamics.")}
    for view in VIEWS:
        told = known_of(view)
        assert told["turn_pace"] > 0.8 and told["tilt_tempo"] > 0.5 and told["nod_tempo"] > 0.5


@pytest.mark.parametrize("view", VIEWS[1:])
def test_dynamics_by_themselves_change_with_the_view_as_among_all_traits(view):
    traits_NI = torch.rand(20, len(TRAITS))
    alone_NI = view.traits(traits_NI[:, -len(DYNAMICS) :], DYNAMICS)
    assert torch.equal(alone_NI, view.traits(traits_NI)[:, -len(DYNAMICS) :])
    assert not torch.equal(alone_NI, traits_NI[:, -len(DYNAMICS) :])
