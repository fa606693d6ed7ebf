"""The probe: its face is learned on frames that stay as they are, and it knows whom and what it was made from.

People are coloured bands here; what the shipped probe says of people whom it never saw is in ``test_world_score.py``.
"""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from slotid_core.errors import SlotIDError
from training.reproduce import SHIPPED
from training.world.identity import TRAITS, sample_identity
from training.world.models import probe as probing
from training.world.models.clips import round_trips
from training.world.models.faces import augmented, learn_faces, moved, of_two_clips
from training.world.models.files import read_facts, weights_id, write_model
from training.world.models.probe import Probe, measure, traits_of
from training.world.models.states import STATE, mirrored_states, states_of, undrawn
from training.world.models.truth import VIEWS, Truth
from training.world.pictures import WorldClip, draw_missing, people, picture_path
from training.world.scenario import SLOTS, Scenario, labels, sample_scenarios


def clips_of(people: int, seed: int) -> torch.Tensor:
    """Two clips a person, side by side: the lowest of four bands has the person's colour, the others the clip's."""
    generator = torch.Generator().manual_seed(seed)
    bands = torch.rand(2 * people, 1, 4, 1, 3, generator=generator)
    bands[:, :, 3] = torch.rand(people, 1, 1, 3, generator=generator).repeat_interleave(2, 0)
    clips = bands.repeat_interleave(20, 2).expand(-1, 17, -1, 80, -1)
    return (clips * 255).to(torch.uint8)


def auc(probe: Probe, clips: torch.Tensor) -> float:
    with torch.no_grad():
        face_BE = torch.cat([probe.eval()(some.float() / 255).face_BE for some in clips.split(16)])
    alike = face_BE[::2] @ face_BE[1::2].T
    others = alike[~torch.eye(len(alike), dtype=torch.bool)]
    return float((alike.diag()[:, None] > others[None]).float().mean())


def test_faces_are_learned_without_touching_anything_else():
    torch.manual_seed(0)
    probe, clips = Probe(), clips_of(24, seed=1)
    before = {name: value.clone() for name, value in probe.state_dict().items()}
    assert auc(probe, clips) < 0.8
    learn_faces(probe, clips, [f"person{i // 2}" for i in range(48)], minutes=0.2, seed=0)
    changed = {name for name, value in probe.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("face.")}
    assert auc(probe, clips) > 0.9


def test_faces_are_learned_of_people_with_two_clips(metric_pictures, tmp_path, monkeypatch):
    assert of_two_clips(["a", "b", "a", "c", "d", "c"]) == [0, 2, 3, 5]
    learned = []
    monkeypatch.setattr(probing, "learn_faces", lambda probe, clips, who, **_: learned.append((len(clips), who)))
    folder = tmp_path / "metric"
    shutil.copytree(metric_pictures, folder)
    more = WorldClip(split="metric", index=2, clip=0)
    draw_missing(folder, [more])

    def learn(out):
        probing.train(
            folder, SHIPPED / "world_vae.safetensors", tmp_path / out,
            minutes=0.01, held_back=1, batch=2, seed=0, start=None,
        )  # fmt: skip

    learn("probe.safetensors")
    assert learned == [(2, ["metric0-00001", "metric0-00001"])]
    # At once, not after an hour of frames.
    picture_path(folder, WorldClip(split="metric", index=1, clip=1)).unlink()
    monkeypatch.setattr(probing, "Probe", None)
    with pytest.raises(SlotIDError, match="2 clips to learn from, all of different people.*without --clips 1"):
        learn("other.safetensors")


def test_a_batch_is_moved_as_its_clips_would_be_one_by_one():
    random = np.random.RandomState(0)
    clips_BFHW3 = torch.from_numpy(random.randint(256, size=(51, 3, 10, 12, 3), dtype=np.uint8))
    grid = [(y, x) for y in range(-3, 4) for x in range(-3, 4)] + [(0, 0), (3, -3)]
    brightness_B, (mirrored_B, reversed_B) = random.uniform(0.9, 1.1, size=51), random.uniform(size=(2, 51)) < 0.5
    seen_BFHW3 = moved(clips_BFHW3, np.array(grid), brightness_B, mirrored_B, reversed_B)
    for clip, (dy, dx), brightness, mirrored, turned, seen in zip(
        clips_BFHW3, grid, brightness_B, mirrored_B, reversed_B, seen_BFHW3, strict=True
    ):
        clip = clip.flip(0) if turned else clip
        pictures = (clip.flip(2) if mirrored else clip).permute(0, 3, 1, 2).float() / 255
        padded = functional.pad(pictures, (3, 3, 3, 3), mode="replicate")
        cut = padded[:, :, 3 + dy : 13 + dy, 3 + dx : 15 + dx].permute(0, 2, 3, 1)
        assert torch.equal(seen, (cut * brightness).clamp(0, 1))


def test_chance_moves_each_clip_apart_and_all_of_its_frames_alike():
    clip_FHW3 = torch.from_numpy(np.random.RandomState(0).randint(256, size=(10, 12, 3), dtype=np.uint8)).repeat(
        2, 1, 1, 1
    )
    clips_BFHW3 = clip_FHW3.repeat(40, 1, 1, 1, 1)
    seen_BFHW3 = augmented(clips_BFHW3, np.random.RandomState(1))
    assert seen_BFHW3.shape == clips_BFHW3.shape and seen_BFHW3.dtype == torch.float32
    assert torch.equal(seen_BFHW3[:, 0], seen_BFHW3[:, 1])
    assert len({tuple(row) for row in seen_BFHW3.flatten(1).tolist()}) == 40
    assert torch.equal(seen_BFHW3, augmented(clips_BFHW3, np.random.RandomState(1), np.zeros(40, bool)))


def test_what_is_true_of_a_clip_in_a_mirror():
    random = np.random.RandomState(0)
    said = [{slot: int(random.randint(len(known))) for slot, known in SLOTS.items()} for _ in range(60)]
    traits_NI, states_NFS = torch.rand(60, len(TRAITS)), torch.randn(60, 17, len(STATE))
    truth = Truth.of(traits_NI, said, states_NFS, torch.device("cpu"))
    clip_B, mirrored_B = random.randint(60, size=200), random.uniform(size=200) < 0.5
    index_B, traits_BI, words_BK, states_BFS = truth.at(mirrored_B, np.zeros(200, bool), clip_B)
    assert index_B.tolist() == clip_B.tolist()
    for row, (i, mirrored) in enumerate(zip(clip_B, mirrored_B, strict=True)):
        traits_I, words, states_FS = traits_NI[i].clone(), dict(said[i]), states_NFS[i]
        if mirrored:
            for name in ("mark", "smile_lead"):
                traits_I[TRAITS.index(name)] = 1 - traits_I[TRAITS.index(name)]
            for slot, a, b in (("action", "rightwards", "leftwards"), ("light", "from the left", "from the right")):
                value = SLOTS[slot][words[slot]]
                words[slot] = SLOTS[slot].index(value.replace(a, b) if a in value else value.replace(b, a))
            states_FS = mirrored_states(states_FS)
        assert torch.equal(traits_BI[row], traits_I) and torch.equal(states_BFS[row], states_FS)
        assert dict(zip(SLOTS, words_BK[row].tolist(), strict=True)) == words


def test_what_is_true_of_a_clip_from_its_last_frame_to_its_first():
    """Whoever performs what is said of it moves as it does."""
    seeds = range(30)
    people, scenarios = [sample_identity(seed) for seed in seeds], [sample_scenarios(seed, 1)[0] for seed in seeds]
    states_NFS = torch.stack([states_of(*one) for one in zip(people, scenarios, seeds, strict=True)])
    traits_NI = torch.stack([traits_of(person) for person in people])
    truth = Truth.of(traits_NI, [labels(said) for said in scenarios], states_NFS, torch.device("cpu"))
    every, yes = np.arange(30), np.ones(30, bool)
    _, traits_BI, words_BK, states_BFS = truth.at(~yes, yes, every)
    for person, traits_I, words_K, theirs_FS, seed in zip(people, traits_BI, words_BK, states_BFS, seeds, strict=True):
        for name, value in zip(TRAITS, traits_I.tolist(), strict=True):
            person = person.with_trait(name, value)
        said = {slot: SLOTS[slot][word] for slot, word in zip(SLOTS, words_K.tolist(), strict=True)}
        performed_FS = states_of(person, Scenario(**said), seed)
        assert torch.allclose(performed_FS, theirs_FS, atol=1e-5)
        assert not torch.allclose(performed_FS.flip(0), theirs_FS, atol=0.7)
    assert torch.equal(truth.at(yes, yes, every)[3], mirrored_states(states_NFS.flip(1)))
    lead = TRAITS.index("smile_lead")
    assert torch.allclose(truth.at(yes, yes, every)[1][:, lead], traits_NI[:, lead])


def test_a_clip_says_the_same_however_it_is_looked_at():
    torch.manual_seed(0)
    probe, clips = Probe().eval(), torch.rand(3, 17, 80, 80, 3)
    drawn = measure(probe, clips)
    for view in VIEWS:
        seen = measure(probe, view.clips(clips))
        assert torch.allclose(seen.traits_BI, view.traits(drawn.traits_BI), atol=0.02)
        assert torch.allclose(seen.state_BFS, view.states(drawn.state_BFS), atol=0.02)
        for slot, logits in drawn.slots.items():
            assert torch.allclose(seen.slots[slot], logits[:, view.classes(slot)], atol=0.02)
    # Which is the mean's doing: by itself a network says something else of a clip in a mirror.
    alone = [probe(view.clips(clips)).traits_BI for view in VIEWS[:2]]
    assert not torch.allclose(alone[1], VIEWS[1].traits(alone[0]), atol=0.05)


@pytest.fixture(scope="module")
def metric_pictures(tmp_path_factory):
    """Two people of the metric split."""
    folder = tmp_path_factory.mktemp("metric")
    draw_missing(folder, list(people("metric", 2)))
    return folder


def test_a_probe_that_is_not_finished_is_not_there(metric_pictures, tmp_path, monkeypatch):
    """Whoever starts the same command again must not find one whose face was never learned."""

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(probing, "learn_faces", killed)
    out = tmp_path / "probe.safetensors"
    with pytest.raises(KeyboardInterrupt):
        probing.train(
            metric_pictures,
            SHIPPED / "world_vae.safetensors",
            out,
            minutes=0.01,
            held_back=1,
            batch=2,
            seed=0,
            start=None,
        )
    assert not out.exists()


def test_a_rate_is_a_share_of_a_new_ones_and_is_written_down(metric_pictures, tmp_path):
    start, changed = load_file(SHIPPED / "world_probe.safetensors"), {}
    for rate in (0.0, 1.0):
        out = tmp_path / f"probe{rate:g}.safetensors"
        probing.train(
            metric_pictures, SHIPPED / "world_vae.safetensors", out,
            minutes=0.02, held_back=1, batch=2, seed=0, start=SHIPPED / "world_probe.safetensors", rate=rate,
        )  # fmt: skip
        assert read_facts(out)["rate"] == rate
        changed[rate] = {name for name, tensor in load_file(out).items() if not torch.equal(tensor, start[name])}
    # Face and manners are learned afterwards, at rates of their own.
    assert all(name.startswith(("face.", "dynamics.")) for name in changed[0.0])
    assert any(name.startswith("frames.") for name in changed[1.0])


def test_round_trips_are_those_of_the_vae_that_is_asked(metric_pictures, tmp_path):
    kept, vae = tmp_path / "kept.trips", SHIPPED / "world_vae.safetensors"
    names, clips = round_trips(metric_pictures, "metric", vae, kept)
    assert names == [f"metric0-{person:05d}-{clip}" for person in range(2) for clip in range(2)]
    tensors = load_file(vae)
    tensors["decoder.head.2.bias"] = tensors["decoder.head.2.bias"] + 0.5
    write_model(tmp_path / "other.safetensors", tensors, {})
    _, brighter = round_trips(metric_pictures, "metric", tmp_path / "other.safetensors", kept)
    assert float(brighter.float().mean() - clips.float().mean()) > 20
    again = round_trips(metric_pictures, "metric", tmp_path / "other.safetensors", kept)[1]
    assert torch.equal(again, brighter)


def test_people_whom_a_probe_has_seen_do_not_test_it(metric_pictures, tmp_path):
    with pytest.raises(SlotIDError, match="trained on all but the first 250.*--held-back 250 or less"):
        probing.train(
            metric_pictures, SHIPPED / "world_vae.safetensors", tmp_path / "probe.safetensors",
            minutes=0.01, held_back=251, batch=2, seed=0, start=SHIPPED / "world_probe.safetensors",
        )  # fmt: skip
    curves = [undrawn(50, np.random.RandomState(0), first)[1] for first in (0, 19_990)]
    assert len(set(map(tuple, curves[0].tolist()))) > 40 and len(set(map(tuple, curves[1].tolist()))) <= 10


def test_the_same_weights_with_more_digits_are_the_same(tmp_path):
    half = {name: tensor.half() for name, tensor in load_file(SHIPPED / "world_probe.safetensors").items()}
    more = {name: tensor.float() for name, tensor in half.items()}
    for name, tensors in (("half", half), ("more", more)):
        write_model(tmp_path / name, tensors, {"steps": 1})
    assert weights_id(tmp_path / "half") == weights_id(tmp_path / "more")
    assert weights_id(tmp_path / "half") == weights_id(SHIPPED / "world_probe.safetensors")
    more["face.2.bias"][0] += 1
    write_model(tmp_path / "more", more, {})
    assert weights_id(tmp_path / "half") != weights_id(tmp_path / "more") and read_facts(tmp_path / "half") == {
        "steps": 1
    }
