"""What the experiment's command would run, without running it."""

from pathlib import Path

import pytest

from slotid_core.errors import SlotIDError
from training import reproduce
from training.settings_file import load
from training.world import pictures
from training.world.experiment import origin
from training.world.experiment.results import Bench
from training.world.experiment.variants import VARIANTS


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """Runs the command line in a folder of its own; returns the programs with their arguments, in order."""
    called = []

    def call(main, *arguments):
        called.append((main.__module__.split(".")[-1], [str(argument) for argument in arguments]))

    monkeypatch.setattr(reproduce, "_call", call)
    monkeypatch.setattr(
        pictures, "draw_missing", lambda _, clips, __: called.append(("draw", {c.split for c in clips}))
    )
    monkeypatch.setattr(origin, "check_weights", lambda *_: None)
    monkeypatch.setattr(Bench, "write_bounds", lambda *_: called.append(("bounds", [])))
    monkeypatch.setattr(Bench, "write_result", lambda *_, **__: called.append(("result", [])))

    def run(*arguments: str) -> list[tuple]:
        called.clear()
        reproduce.main(["--folder", str(tmp_path), "--people", "1", "--metric-people", "1", *arguments])
        return list(called)

    return run


def test_what_is_set_for_all_leaves_a_variant_what_makes_it_one(plan):
    common = ["model.slotid.gate.start=0.3", "contrast.weight=0.05", "run.seed=9", "optim.steps=7"]
    called = plan("--variants", "slotid", "portrait_only", "--seeds", "2", "--set", *common)
    trained = [arguments for name, arguments in called if name == "train"]
    slotid, portrait_only = (load(Path(config), changes) for config, *changes in trained)
    assert (slotid.model.slotid_config().gate.start, portrait_only.model.slotid_config().gate.start) == (0.3, 1.0)
    assert (slotid.contrast.weight, portrait_only.contrast.weight) == (0.05, 0.0)
    assert all(found.run.seed == 2 and found.optim.steps == 7 for found in (slotid, portrait_only))


@pytest.mark.parametrize("flag", ["--further", "--from-scratch"])
def test_models_of_ones_own_are_not_promised_where_the_shipped_ones_lie(plan, capfd, flag):
    plan("--variants", "slotid")
    assert not plan("--variants", "slotid", flag)
    assert "vae.safetensors is the one of" in capfd.readouterr().err


def test_nobody_is_drawn_for_a_probe_that_is_there(plan):
    assert ("draw", {"metric"}) not in plan("--variants", "slotid")


def test_a_probe_of_its_own_is_trained_on_people_who_are_drawn(plan):
    called = plan("--variants", "slotid", "--from-scratch")
    assert ("draw", {"metric"}) in called and "probe" in [name for name, _ in called]


def test_what_results_are_held_against_is_made_or_checked_before_anything_is_trained(plan):
    called = [name for name, _ in plan("--variants", "slotid", "portrait_only", "--seeds", "0")]
    assert called[-5:] == ["bounds", "train", "result", "train", "result"]


def test_one_person_to_report_on_is_too_few(plan, capfd):
    assert not plan("--held-out", "1")
    assert "Got --held-out 1, expected at least 2" in capfd.readouterr().err


def test_a_command_that_is_stopped_says_how_to_go_on(plan, monkeypatch, capfd):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "draw_missing", stop)
    plan()
    assert "Stopped; the same command goes on from here." in capfd.readouterr().err


def test_what_makes_a_variant_is_compared_between_all_others():
    """The first of these is the one whose gate is its own; the other two should have the same."""

    def learned(name, *changes):
        settings = load(reproduce.CONFIG, [*changes, *VARIANTS[name].changes])
        return {"settings": origin.learned_from(settings.to_dict())}

    found = {(name, 0): learned(name) for name in ("clip_only", "no_film", "slotid")}
    origin.check_alike(found)
    found["slotid", 0] = learned("slotid", "model.slotid.gate.start=0.3")
    with pytest.raises(SlotIDError, match="no_film-0 and slotid-0 can't be compared: model.slotid.gate.start is 0.5"):
        origin.check_alike(found)


def test_variants_of_one_cache_are_compared_with_no_other():
    """B's clips are its own, of one cache for all its seeds."""
    settings = {
        name: origin.learned_from(load(reproduce.CONFIG, VARIANTS[name].changes).to_dict()) for name in VARIANTS
    }

    def of(cache, name):
        return {"settings": settings[name], "cache": cache}

    found = {("slotid", 0): of("a", "slotid"), ("no_film", 0): of("a", "no_film")}
    found |= {("orderless", seed): of("b", "orderless") for seed in (0, 1)}
    origin.check_alike(found)
    for other in (("no_film", 0), ("orderless", 1)):
        with pytest.raises(
            SlotIDError, match=f"and {other[0]}-{other[1]} can't be compared: cache is '.' there and 'c'"
        ):
            origin.check_alike(found | {other: of("c", other[0])})


def test_a_cache_of_a_variants_own_is_prepared_also_where_its_result_is_there(plan, tmp_path):
    """Else the result would be held against an older one, or against none."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "orderless-0.json").write_text("{}", encoding="utf-8")
    prepared = [arguments for name, arguments in plan("--variants", "orderless", "--seeds", "0") if name == "prepare"]
    assert f"data.cache={tmp_path / 'cache-orderless'}" in prepared[-1] and len(prepared) == 2
