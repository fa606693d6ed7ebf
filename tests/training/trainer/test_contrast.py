"""The contrast of slots: against its definition written out, and in a run.

Shape letters: B clips, R of them with a second view, S slots, D their width.
"""

import json
import math
from dataclasses import replace

import pytest
import torch

from slotid_core.errors import SlotIDError
from training.trainer import run as running
from training.trainer.batches import BatchOrder, TrainingClips, micro_batches
from training.trainer.contrast import contrast
from training.trainer.draws import generator_of
from training.trainer.processes import Processes

PEOPLE = ["a", "b", "c", "a", "d"]
ROWS = [0, 2, 3]


def views(seed: int, rows: int) -> torch.Tensor:
    return torch.randn(rows, 3, 8, generator=torch.Generator().manual_seed(seed))


def written_out(first_BSD, second_RSD, rows, people, temperature) -> list[float]:
    """NT-Xent by loops in double precision."""
    every = [(people[b], x.double()) for b, x in enumerate(first_BSD)]
    every += [(people[b], x.double()) for b, x in zip(rows, second_RSD, strict=True)]

    def unit(x):
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        return x.flatten() / x.norm()

    def one_way(here, there):
        person, like = every[here][0], lambda i: float(unit(every[here][1]) @ unit(every[i][1])) / temperature
        others = [i for i in range(len(every)) if every[i][0] != person]
        return math.log(sum(math.exp(like(i)) for i in [there, *others])) - like(there)

    losses = [0.0] * len(first_BSD)
    for r, b in enumerate(rows):
        there = len(first_BSD) + r
        losses[b] = (one_way(b, there) + one_way(there, b)) / 2
    return losses


def test_it_is_its_definition_and_leaves_out_views_of_ones_own_person():
    first_BSD, second_RSD = views(0, 5), views(1, 3)
    got_B = contrast(first_BSD, second_RSD, ROWS, PEOPLE, 0.3)
    assert got_B.tolist() == pytest.approx(written_out(first_BSD, second_RSD, ROWS, PEOPLE, 0.3), abs=1e-5)
    assert got_B[1] == got_B[4] == 0, "no second view, no loss"


def test_alike_within_a_person_is_good_and_alike_across_people_is_bad():
    people, rows = list("abcdefgh"), list(range(8))
    of_person = views(2, 8)
    good = contrast(of_person, of_person + 0.01 * views(3, 8), rows, people, 0.1)
    everybody = views(4, 1).expand(8, -1, -1)
    bad = contrast(everybody, everybody, rows, people, 0.1)
    assert float(good.max()) < 0.05
    assert bad.tolist() == pytest.approx([math.log(15)] * 8, abs=1e-4), "as good as drawing one of 15 views"


def test_the_second_view_is_the_other_clip_of_the_person_that_is_shown(cache, make_settings):
    settings = make_settings("contrast.weight=0.1", "optim.steps=4")
    clips = TrainingClips(cache, settings)
    order = BatchOrder(clips.entries, 2, 0)
    items = [i for m in micro_batches(clips, order, settings, first_step=0, rank=0, processes=1) for i in m]
    assert len(items) == 8
    for item in items:
        own = [cache.reference(item.entry, v) for v in range(2)]
        assert any(torch.equal(item.second_CTHW, x) for x in own)
        assert not any(torch.equal(item.reference_CTHW, x) for x in own)


def test_a_person_with_one_clip_takes_part_without_a_loss(
    make_cache_in_memory, make_settings, make_adapter, take_batch
):
    cache = make_cache_in_memory(people=6, clips=2, held_out=2)
    cache.entries = tuple(e for e in cache.entries if e.id != "person03/clip1")
    settings = make_settings("contrast.weight=0.1", "optim.batch=7", "optim.micro_batch=7")
    items = take_batch(cache, settings, 7)
    alone = [item.entry.person == "person03" for item in items]
    _, contrast_B = make_adapter(settings).losses_and_contrast(items, 0.1)
    assert [bool(x == 0) for x in contrast_B] == alone and sum(alone) == 1


def test_each_clip_is_contrasted_with_its_own_second(cache, make_settings, make_adapter, take_batch):
    """Both are read in one pass; here each by itself."""
    settings = make_settings("contrast.weight=0.1", "optim.batch=6", "optim.micro_batch=6")
    adapter, items = make_adapter(settings), take_batch(cache, settings, 6)
    items[2] = replace(items[2], second_CTHW=None)
    rows = [row for row in range(6) if row != 2]
    _, contrast_B = adapter.losses_and_contrast(items, 0.1)

    def read(latents, generator):
        return adapter.slotid.read(latents[None], [generator])[0]

    first = [read(item.reference_CTHW, torch.Generator().manual_seed(item.draw.token_seed)) for item in items]
    second = [read(items[row].second_CTHW, generator_of(items[row].draw.token_seed, "second")) for row in rows]
    people = [item.entry.person for item in items]
    expected_B = contrast(torch.cat(first), torch.cat(second), rows, people, 0.1)
    torch.testing.assert_close(contrast_B, expected_B, rtol=1e-4, atol=1e-5)
    assert contrast_B[2] == 0 and len({round(x, 3) for x in contrast_B.tolist()}) > 3, "a mix-up would show"


def test_it_reaches_the_clip_stream_alone_and_leaves_the_loss_of_the_video(
    cache, make_settings, make_adapter, awake, take_batch
):
    settings = make_settings("contrast.weight=0.1", "optim.batch=8", "optim.micro_batch=8")
    adapter = awake(make_adapter(settings))
    items = take_batch(cache, settings, 8)
    flow_B, contrast_B = adapter.losses_and_contrast(items, 0.1)
    assert torch.equal(flow_B, adapter.losses(items))
    contrast_B.sum().backward()
    reached = {name for name, p in adapter.trainable().items() if p.grad is not None and bool(p.grad.any())}
    stream = {n for n in adapter.trainable() if n.startswith(("slotid.encoder.", "slotid.reader."))}
    assert reached == stream


def test_a_run_learns_to_tell_people_apart_and_says_so(cache, make_settings, monkeypatch):
    cache.apart = 0.1
    monkeypatch.setattr(running, "open_cache", lambda settings: cache)
    settings = make_settings(
        "contrast.weight=0.1", "optim.steps=30", "optim.batch=8", "optim.micro_batch=8", "optim.lr=1e-3",
        "optim.warmup=0", "validation.every=30", "validation.clips=2", "validation.sigmas=[0.5]",
    )  # fmt: skip
    running.train(settings, Processes("cpu"), "plain", show_progress=False)
    lines = [json.loads(line) for line in (settings.run.folder / "log.jsonl").read_text().splitlines()]
    told = [line["contrast"] for line in lines if line["kind"] == "train"]
    assert len(told) == 30 and sum(told[-5:]) < 0.5 * sum(told[:5])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.micro_batch=1", "optim.micro_batch of at least 2"),
        ("data.reference_from=the same clip", "another clip"),
        ("model.slotid.gate={start: 1.0, end: 1.0}", "nothing reads the slots"),
    ],
)
def test_settings_in_which_it_would_do_nothing_are_refused(make_settings, override, said):
    with pytest.raises(SlotIDError, match=said):
        make_settings("contrast.weight=0.1", override)
    make_settings(override)


def test_people_with_one_clip_each_are_refused(make_cache_in_memory, make_settings):
    cache = make_cache_in_memory(people=4, clips=1, held_out=2)
    with pytest.raises(SlotIDError, match="all 2 people of the cache have one alone"):
        TrainingClips(cache, make_settings("contrast.weight=0.1"))
