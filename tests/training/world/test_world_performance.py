"""Manners: told by frames in their order, and by no single frame."""

from dataclasses import replace

import numpy as np
import pytest

from slotid_core.errors import SlotIDError
from training.world.identity import DYNAMICS, Identity, sample_identity
from training.world.performance import TEMPOS, perform
from training.world.scenario import ACTIONS, sample_scenarios

FRAMES, FPS = 17, 16.0
CURVES = ("pitch", "roll", "mouth_open", "eyes_open", "left", "right", "yaw", "brow_raise", "zoom")


def clip(seed, frames=FRAMES):
    return perform(sample_identity(seed), sample_scenarios(seed)[0], frames, FPS, seed)


def curves(scenes):
    """``[frames, len(CURVES)]``: everything that moves in a clip."""
    rows = []
    for scene in scenes:
        face = scene.expression
        left, right = face.smile - face.smile_skew, face.smile + face.smile_skew
        rows.append(
            (scene.pose.pitch, scene.pose.roll, face.mouth_open, face.eyes_open, left, right)
            + (scene.pose.yaw, face.brow_raise, scene.camera.zoom)
        )
    return np.array(rows)


@pytest.fixture(scope="module")
def population():
    """Curves ``[people, frames, curves]`` of one clip each, and the dynamics behind them ``[people, traits]``."""
    seeds = range(1200)
    return np.stack([curves(clip(seed)) for seed in seeds]), np.array([sample_identity(s).dynamics_D for s in seeds])


def test_a_performance_is_a_function_of_its_arguments():
    assert clip(3) == clip(3)
    person, scenario = sample_identity(3), sample_scenarios(3)[0]
    assert perform(person, scenario, FRAMES, seed=4) != perform(person, scenario, FRAMES, seed=5)
    head_only = Identity(front_F=sample_identity(9).front_F, side_S=person.side_S, dynamics_D=person.dynamics_D)
    assert perform(head_only, scenario, FRAMES, seed=4) == perform(person, scenario, FRAMES, seed=4)
    with pytest.raises(SlotIDError, match="1 frames"):
        perform(person, scenario, 1)


def test_every_clip_shows_the_front_and_both_sides_and_goes_where_it_says(population):
    yaw = population[0][..., CURVES.index("yaw")]
    assert (yaw.max(1) > 60).all() and (yaw.min(1) < -60).all() and (np.abs(yaw).min(1) < 9).all()
    for seed in range(40):
        first, last = clip(seed)[0].pose.yaw, clip(seed)[-1].pose.yaw
        assert (first < last) == sample_scenarios(seed)[0].action.startswith("turns rightwards")


def test_actions_expressions_and_cameras_are_told_apart_by_what_moves(population):
    moved, _ = population
    scenarios = [sample_scenarios(seed)[0] for seed in range(len(moved))]

    def mean(name, chosen):
        return moved[[chosen(scenario) for scenario in scenarios]][..., CURVES.index(name)].mean()

    assert len(ACTIONS) == 8
    up, down = (mean("pitch", lambda s, way=way: way in s.action) for way in ("up", "down"))
    assert up > 10 and down < -10
    talks, silent = (mean("mouth_open", lambda s, does=does: ("talking" in s.action) == does) for does in (True, False))
    assert talks > silent + 0.1
    # A smile shows in the mouth and, as surprise and frowns do, in the brows.
    for curve, more in (("left", 0.2), ("brow_raise", 0.25)):
        smiling, calm = (mean(curve, lambda s, name=name: s.expression == name) for name in ("smiling", "calm"))
        assert smiling > calm + more, curve
    assert mean("brow_raise", lambda s: s.expression == "surprised") == 1
    closer = [moved[i, -1, -1] - moved[i, 0, -1] for i, s in enumerate(scenarios) if s.camera == "camera moving closer"]
    assert min(closer) > 0.25


def _tempo(wave_NT, slowest, fastest, harmonics):
    """The frequency of the waves that fit each curve best, in hertz."""
    seconds = np.arange(wave_NT.shape[1]) / FPS
    grid = np.linspace(0.9 * slowest, 1.1 * fastest, 80)
    left = []
    for hertz in grid:
        angle = 2 * np.pi * hertz * seconds[:, None] * np.arange(1, harmonics + 1)
        basis = np.concatenate([np.ones((len(seconds), 1)), np.sin(angle), np.cos(angle)], 1)
        explained = basis @ np.linalg.pinv(basis)
        left.append(((wave_NT - wave_NT @ explained.T) ** 2).sum(1))
    return grid[np.argmin(left, 0)]


def _read(moved):
    """A number for each manner, in the order of ``DYNAMICS``, ``[people, 7]``."""
    middle = (moved[..., 4] + moved[..., 5]) / 2
    step = np.diff(middle, axis=1)
    onset = (step**3).mean(1) / (step**2).mean(1) ** 1.5
    left, right = (moved[..., i] - moved[..., i].mean(1, keepdims=True) for i in (4, 5))
    # The way around that the two corners go through their plane: which of them is first.
    lead = (left[:, :-1] * right[:, 1:] - left[:, 1:] * right[:, :-1]).sum(1) / (left.std(1) * right.std(1))
    tempos = [
        _tempo(moved[..., CURVES.index(curve)], *TEMPOS[name], harmonics)
        for curve, name, harmonics in (
            ("pitch", "nod_tempo", 1),
            ("roll", "tilt_tempo", 1),
            ("mouth_open", "talk_tempo", 1),
            ("eyes_open", "blink_tempo", 2),
        )
    ]
    yaw = moved[..., CURVES.index("yaw")]
    # Who is past the front early has looked more to where the turn goes.
    pace = yaw.mean(1) * np.sign(yaw[:, -1] - yaw[:, 0])
    return np.stack([onset, lead, *tempos, pace], 1)


def _r2(features, target):
    """Of a linear regression, on the people that it was not fitted to."""
    half = len(target) // 2
    table = np.concatenate([np.ones((len(features), 1)), features], 1)
    weights = np.linalg.lstsq(table[:half], target[:half], rcond=None)[0]
    rest = target[half:]
    return 1 - ((rest - table[half:] @ weights) ** 2).mean() / rest.var()


def test_the_order_of_seventeen_frames_tells_every_manner(population):
    moved, dynamics = population
    read = _read(moved)
    read = (read - read.mean(0)) / read.std(0)
    for index, name in enumerate(DYNAMICS):
        own = read[:, index : index + 1]
        assert _r2(np.concatenate([own, own**2, own**3], 1), dynamics[:, index]) >= 0.9, name


def test_one_frame_tells_no_manner(population):
    moved, dynamics = population
    random = np.random.RandomState(0)
    frame = moved[np.arange(len(moved)), random.randint(FRAMES, size=len(moved))]
    frame = (frame - frame.mean(0)) / frame.std(0)
    products = np.stack([frame[:, i] * frame[:, j] for i in range(6) for j in range(i, 6)], 1)
    # Nearest neighbours find what no polynomial does.
    half = len(frame) // 2
    away = ((frame[half:, None, :6] - frame[None, :half, :6]) ** 2).sum(-1)
    near = np.argsort(away, 1)[:, :40]
    # All clips are laid out around the same place of blinks and talk, so that one second holds more or less of them.
    hints = {"blink_tempo": 0.15, "talk_tempo": 0.1}
    for index, name in enumerate(DYNAMICS):
        target, most = dynamics[:, index], hints.get(name, 0.03)
        assert _r2(frame, target) <= most, name
        assert _r2(np.concatenate([frame, products], 1), target) <= most, name
        guessed = target[:half][near].mean(1)
        assert 1 - ((target[half:] - guessed) ** 2).mean() / target[half:].var() <= most, name


def test_frames_out_of_order_do_not_tell_onset_lead_and_pace(population):
    """The same frames, in the other order, are somebody else's who goes the other way."""
    hidden = [DYNAMICS.index(name) for name in ("smile_onset", "smile_lead", "turn_pace")]
    other_way = {"rightwards": "leftwards", "leftwards": "rightwards", "closer": "away", "away": "closer"}
    for seed in range(20):
        person, scenario = sample_identity(seed), sample_scenarios(seed)[0]
        dynamics = [1 - value if i in hidden else value for i, value in enumerate(person.dynamics_D)]
        action, camera = (
            " ".join(other_way.get(word, word) for word in said.split(" "))
            for said in (scenario.action, scenario.camera)
        )
        somebody = replace(person, dynamics_D=tuple(dynamics))
        theirs = perform(somebody, replace(scenario, action=action, camera=camera), FRAMES, FPS, seed)
        ours = perform(person, scenario, FRAMES, FPS, seed)
        assert np.allclose(curves(theirs)[::-1], curves(ours), atol=1e-9)
        assert not np.allclose(curves(theirs), curves(ours), atol=0.1)
