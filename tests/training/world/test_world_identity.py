"""People of the world: the same for the same seed, each in range, and none in two splits."""

import numpy as np
import pytest

from slotid_core.errors import SlotIDError
from training.world.identity import DYNAMICS, FRONT, SIDE, Identity, head_traits, sample_identity
from training.world.population import SPLITS, person_seed, world_portrait
from training.world.scenario import sample_scenarios


def test_a_person_is_a_function_of_the_seed():
    # Values written down: the population must not change from one machine or version to another.
    person = sample_identity(7)
    assert person == sample_identity(7)
    assert person.front_F[0] == pytest.approx(0.9566384, abs=1e-6)
    assert person.side_S[0] == pytest.approx(0.2255089, abs=1e-6)
    assert person.dynamics_D[0] == pytest.approx(0.7042964, abs=1e-6)
    assert len({sample_identity(seed) for seed in range(200)}) == 200


def test_traits_have_names_and_are_spread_over_their_range_independently():
    names = FRONT + SIDE + DYNAMICS
    assert len(set(names)) == len(names)
    people = [sample_identity(seed) for seed in range(800)]
    table = np.array([person.front_F + person.side_S + person.dynamics_D for person in people])
    assert all(people[0].trait(name) == value for name, value in zip(names, table[0], strict=True))
    assert table.min() >= 0 and table.max() <= 1
    spread = [name for name in names if name != "beard"]
    for name in spread:
        assert abs(table[:, names.index(name)].mean() - 0.5) < 0.05, name
    assert 0.4 < (table[:, names.index("beard")] == 0).mean() < 0.6
    correlation = np.corrcoef(table.T) - np.eye(len(names))
    assert np.abs(correlation).max() < 0.16
    with pytest.raises(SlotIDError, match="nose_job.*face_width"):
        sample_identity(0).trait("nose_job")


def test_every_person_can_be_drawn_and_the_dynamics_are_not_in_the_head():
    heads = [head_traits(sample_identity(seed)) for seed in range(300)]
    assert len(set(heads)) == 300
    ends = [
        Identity(front_F=(v,) * len(FRONT), side_S=(v,) * len(SIDE), dynamics_D=(v,) * len(DYNAMICS)) for v in (0, 1)
    ]
    assert head_traits(ends[0]) != head_traits(ends[1])
    one, other = sample_identity(1), sample_identity(2)
    mixed = Identity(front_F=one.front_F, side_S=one.side_S, dynamics_D=other.dynamics_D)
    assert head_traits(mixed) == head_traits(one)


@pytest.mark.parametrize("part, values", [("front_F", (0.5,)), ("side_S", (1.5,) * len(SIDE)), ("dynamics_D", ())])
def test_vectors_of_another_length_or_range_are_refused(part, values):
    person = {name: getattr(sample_identity(0), name) for name in ("front_F", "side_S", "dynamics_D")}
    with pytest.raises(SlotIDError, match=part):
        Identity(**{**person, part: values})


def test_no_two_people_of_any_split_or_world_share_a_seed():
    assert SPLITS["train"] >= 5_000 and SPLITS["held_out"] >= 200
    seeds = [person_seed(split, i, world) for world in (0, 1) for split, n in SPLITS.items() for i in range(n)]
    assert len(set(seeds)) == len(seeds)
    # numpy takes seeds below 2**32.
    assert person_seed("metric", SPLITS["metric"] - 1, 9_999) < 2**32
    for asked, said in (("test", 0, 0), "split"), (("train", 20_000, 0), "person"), (("train", 0, -1), "world"):
        with pytest.raises(SlotIDError, match=said):
            person_seed(*asked)


def test_no_portrait_tells_the_side():
    """From one end of a trait to the other, a portrait changes by less than a step of 8-bit colour, and a nose by
    nothing: a long one once pushed the forehead through the hair."""
    for seed in (3, 11):
        person, scenario = sample_identity(seed), sample_scenarios(seed, 1)[0]
        for name in SIDE:
            ends = [world_portrait(person.with_trait(name, value), scenario, 64).astype(float) for value in (0.0, 1.0)]
            changed = np.abs(ends[0] - ends[1])
            assert changed.mean() < 0.8, name
            if name == "nose_projection":
                assert changed.mean() < 0.05 and changed.max() < 12
