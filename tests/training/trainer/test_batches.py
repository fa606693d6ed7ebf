"""Which clips make a batch."""

from collections import Counter
from dataclasses import replace

import pytest

from slotid_core.errors import SlotIDError
from training.trainer.batches import BatchOrder, TrainingClips, micro_batches


def keys(cache, settings, processes=1, first_step=0):
    """(update, position, clip, noise level) of every item that each process gets."""
    clips = TrainingClips(cache, settings)
    order = BatchOrder(clips.entries, settings.optim.batch, settings.run.seed)
    return [
        [
            [(item.entry.id, item.draw.sigma) for item in micro]
            for micro in micro_batches(clips, order, settings, first_step=first_step, rank=rank, processes=processes)
        ]
        for rank in range(processes)
    ]


def test_an_epoch_shows_every_training_clip_once_and_no_held_out_person(cache, make_settings):
    (micros,) = keys(cache, make_settings("optim.steps=8", "optim.batch=2"))
    first, second = micros[:4], micros[4:]
    expected = Counter(entry.id for entry in cache.entries if not entry.held_out)
    for epoch in (first, second):
        assert Counter(clip for micro in epoch for clip, _ in micro) == expected
    assert [[c for c, _ in m] for m in first] != [[c for c, _ in m] for m in second], "epochs are shuffled apart"


def test_a_batch_that_is_not_full_is_filled_up(cache, make_settings):
    settings = make_settings("optim.steps=2", "optim.batch=6", "optim.micro_batch=6")
    (micros,) = keys(cache, settings)
    assert [len(micro) for micro in micros] == [6, 6]
    assert len({clip for micro in micros for clip, _ in micro}) == 8, "every clip is there"


def test_processes_share_out_what_one_would_see(cache, make_settings):
    settings = make_settings("optim.steps=3", "optim.batch=4", "optim.micro_batch=1")
    (alone,) = keys(cache, settings)
    first, second = keys(cache, settings, processes=2)
    assert alone[0::2] == first and alone[1::2] == second


def test_a_run_that_goes_on_sees_what_it_would_have_seen(cache, make_settings):
    settings = make_settings("optim.steps=7")
    (whole,), (rest,) = keys(cache, settings), keys(cache, settings, first_step=4)
    assert whole[4:] == rest and len(rest) == 3


def test_shapes_are_never_mixed(cache, make_settings):
    cache.entries = tuple(replace(e, target_shape=(3, 4, 4)) if e.id.endswith("clip1") else e for e in cache.entries)
    settings = make_settings("optim.steps=4", "optim.batch=2")
    clips = TrainingClips(cache, settings)
    shapes = [
        {item.target_CTHW.shape for item in micro}
        for micro in micro_batches(clips, BatchOrder(clips.entries, 2, 0), settings, first_step=0, rank=0, processes=1)
    ]
    assert all(len(s) == 1 for s in shapes) and len(set.union(*shapes)) == 2


def test_the_reference_is_another_clip_of_the_person(cache, make_settings):
    clips = TrainingClips(cache, make_settings())
    entry = clips.entries[0]
    assert [e.id for e in clips.references(entry)] == [entry.id.replace("clip0", "clip1")]
    same = TrainingClips(cache, make_settings("data.reference_from=the same clip"))
    assert same.references(entry) == [entry]


def test_a_batch_that_can_not_be_shared_is_an_error_that_names_what_can(cache, make_settings):
    with pytest.raises(SlotIDError, match="3 processes.*multiple of 6"):
        keys(cache, make_settings("optim.batch=4"), processes=3)


def test_reading_ahead_in_worker_processes_changes_nothing(cache, make_settings):
    assert keys(cache, make_settings("optim.steps=4")) == keys(cache, make_settings("optim.steps=4", "data.workers=2"))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_wrong_with_a_clip_is_said_without_a_workers_traceback(cache, make_settings, monkeypatch, workers):
    def damaged(self, entry, **how):
        raise SlotIDError(f"{entry.id} is damaged. Prepare it again.")

    monkeypatch.setattr(type(cache), "load", damaged)
    with pytest.raises(SlotIDError, match="^person0.* is damaged. Prepare it again.$"):
        keys(cache, make_settings("optim.steps=4", f"data.workers={workers}"))
