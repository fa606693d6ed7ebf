"""Captions say what happens and never to whom."""

import math
import re

import numpy as np
import pytest

from slotid_core.errors import SlotIDError
from training.world.identity import DYNAMICS, FRONT, SIDE, sample_identity
from training.world.scenario import NEVER_SHARED, SLOTS, Scenario, caption, labels, sample_scenarios


def test_clips_of_one_person_share_neither_action_nor_background_nor_clothing_nor_light():
    for seed in range(300):
        pair = sample_scenarios(seed)
        assert len(pair) == 2
        for slot in NEVER_SHARED:
            assert getattr(pair[0], slot) != getattr(pair[1], slot), slot
    five = sample_scenarios(3, 5)
    assert all(len({getattr(scenario, slot) for scenario in five}) == 5 for slot in NEVER_SHARED)
    assert sample_scenarios(3, 5) == five
    with pytest.raises(SlotIDError, match="6 scenarios"):
        sample_scenarios(0, 6)


def test_every_choice_of_every_slot_is_as_likely_as_the_others_in_both_clips_of_a_pair():
    pairs = [sample_scenarios(seed) for seed in range(2000)]
    for member in range(2):
        for slot, known in SLOTS.items():
            counts = np.bincount([labels(pair[member])[slot] for pair in pairs], minlength=len(known))
            expected = len(pairs) / len(known)
            assert (np.abs(counts - expected) < 5 * math.sqrt(expected)).all(), slot


def test_a_caption_says_every_slot_in_every_wording():
    for wording in range(3):
        for seed in range(20):
            scenario = Scenario(**{**vars(sample_scenarios(seed)[0]), "wording": wording})
            said = caption(scenario).lower()
            assert all(getattr(scenario, slot) in said for slot in SLOTS)
            assert said.endswith(".") and said.count(".") == 1
    assert len({caption(Scenario(**{**vars(scenario), "wording": wording})) for wording in range(3)}) == 3


def test_labels_are_places_in_the_lists_and_other_words_are_refused():
    scenario = sample_scenarios(5)[0]
    assert {slot: SLOTS[slot][index] for slot, index in labels(scenario).items()} == {
        slot: getattr(scenario, slot) for slot in SLOTS
    }
    with pytest.raises(SlotIDError, match="clothing 'pink'.*red"):
        Scenario(**{**vars(scenario), "clothing": "pink"})
    with pytest.raises(SlotIDError, match="wording 3"):
        Scenario(**{**vars(scenario), "wording": 3})


def _words(scenarios, vocabulary):
    found = [set(re.findall(r"[a-z-]+", caption(scenario).lower())) for scenario in scenarios]
    return np.array([[word in said for word in vocabulary] for said in found])


def _vocabulary():
    said = (caption(scenario).lower() for seed in range(200) for scenario in sample_scenarios(seed))
    return sorted({word for sentence in said for word in re.findall(r"[a-z-]+", sentence)})


def _naive_bayes(train, train_labels, test, classes):
    """The most likely class of each row, from words that are there or not."""
    scores = []
    for label in range(classes):
        share = (train[train_labels == label].sum(0) + 1) / ((train_labels == label).sum() + 2)
        scores.append(test @ np.log(share) + (~test) @ np.log(1 - share))
    return np.argmax(scores, 0)


def test_a_classifier_of_captions_can_not_tell_traits_above_chance():
    seeds, half = range(3000), 2000
    said = _words([sample_scenarios(seed)[0] for seed in seeds], _vocabulary())
    people = [sample_identity(seed) for seed in seeds]
    right = []
    for name in FRONT + SIDE + DYNAMICS:
        values = np.array([person.trait(name) for person in people])
        high = (values > np.median(values)).astype(int)
        guessed = _naive_bayes(said[:half], high[:half], said[half:], 2)
        chance = max(high[half:].mean(), 1 - high[half:].mean())
        right.append((guessed == high[half:]).mean() - chance)
    # Three standard deviations for one trait are 0.047; for the mean of 32 much less.
    assert max(right) < 0.055 and np.mean(right) < 0.01


def test_a_classifier_of_captions_can_not_tell_people_above_chance():
    people, each = 60, 40
    # Clips of one person over many pairs: who they are has no way into the draw.
    scenarios = [sample_scenarios(1000 * clip + person)[0] for clip in range(each) for person in range(people)]
    labelled = np.tile(np.arange(people), each)
    said = _words(scenarios, _vocabulary())
    half = len(said) // 2
    right = (_naive_bayes(said[:half], labelled[:half], said[half:], people) == labelled[half:]).mean()
    assert right < 1 / people + 4 * math.sqrt(1 / people / (len(said) - half))


def test_a_classifier_of_words_without_their_order_tells_all_that_the_caption_says():
    scenarios = [sample_scenarios(seed)[0] for seed in range(2000)]
    said, half = _words(scenarios, _vocabulary()), 1000
    for slot, known in SLOTS.items():
        meant = np.array([labels(scenario)[slot] for scenario in scenarios])
        guessed = _naive_bayes(said[:half], meant[:half], said[half:], len(known))
        assert (guessed == meant[half:]).mean() > 0.99, slot
