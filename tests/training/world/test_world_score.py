"""What the shipped probe says of real clips: it has to know a person again, and what a caption says."""

import numpy as np
import pytest

from training.demo_models import PROBE
from training.sample_args import DEMO
from training.world.pictures import WorldClip
from training.world.scenario import SLOTS
from training.world.score import named, score


def test_a_prompt_names_what_the_captions_say():
    assert named("a red car") == {"clothing": "red"}
    assert named("She turns rightwards looking up, light from above") == {
        "action": "turns rightwards looking up",
        "light": "light from above",
    }
    assert named("") == {}


def test_every_caption_names_all_slots():
    for index in range(40):
        clip = WorldClip(split="held_out", index=index, clip=0)
        assert named(clip.caption) == {slot: getattr(clip.scenario, slot) for slot in SLOTS}
    assert set(named(DEMO["prompt"])) == set(SLOTS), "the demo's own prompt can be scored whole"


@pytest.fixture(scope="module")
def real_clips():
    """A held-out person in two clips, and somebody else, as drawn."""
    clips = [WorldClip(split="held_out", index=index, clip=clip) for index, clip in ((8, 0), (8, 1), (4, 1))]
    return clips, [clip.draw()["clip"].numpy() for clip in clips]


def test_real_clips(real_clips):
    (_, again, _), (reference, same, other) = real_clips
    of_same, of_other = score(PROBE.path, [same, other], reference, again.caption)
    assert of_same.share > 0.6 > 0.4 > of_other.share
    assert of_same.followed >= 5 > of_other.followed
    assert f"{of_same.followed} of 6 attributes" in str(of_same)


def test_real_clips_tell_what_only_a_clip_tells(real_clips):
    """As drawn, not as read: the reading itself is compared with the person's own numbers."""
    (clip, _, stranger), (reference, same, other) = real_clips
    of_same, of_other = score(PROBE.path, [same, other], reference, "")
    for scored, person in ((of_same, clip.identity), (of_other, stranger.identity)):
        for name, (read, its) in scored.told.items():
            assert read == pytest.approx(person.trait(name), abs=0.15)
            assert its == pytest.approx(clip.identity.trait(name), abs=0.15)
    assert of_same.astray < 0.15
    assert of_other.astray > abs(stranger.identity.trait("turn_pace") - clip.identity.trait("turn_pace")) - 0.3 > 0.2


def test_noise_is_nobody(real_clips):
    noise = np.random.RandomState(0).randint(0, 256, real_clips[1][0].shape).astype(np.uint8)
    (of_noise,) = score(PROBE.path, [noise], real_clips[1][0], "")
    assert of_noise.share < 0.4 and of_noise.asked == {}
