"""The pre-flight: what it counts, what it chooses, how it refuses, and its command line."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from slotid_core.errors import SlotIDError
from training import plan as command
from training.planner import plan
from training.planner.cost_page import renew
from training.planner.decide import UTILISATION, ingredients, predict
from training.planner.machine import COMMON, GIB, Machine
from training.planner.memory import need
from training.planner.parts import base_parts, trainable_parts
from training.planner.shapes import KNOWN, read_shape
from training.settings_file import load
from training.trainer.memory import PLANS

CONFIGS = Path(command.__file__).parent / "configs"
NO_FILES = ("model.transformer=nowhere/transformer",)


def settings(name: str, *changes: str):
    return load(CONFIGS / f"{name}.yaml", changes)


@pytest.fixture(scope="module")
def big():
    return ingredients(settings("wan2.1_14b", *NO_FILES))


def changed(of, *changes: str):
    """The same ingredients under other settings of memory, optimizer or validation, which no trace depends on."""
    return replace(of, settings=settings("wan2.1_14b", *NO_FILES, *changes))


def test_the_14b_has_the_parameters_that_it_is_known_for(big):
    assert big.base.parameters == 14_288_491_584
    assert big.base.block_parameters == 351_394_304
    assert len(big.base.linears) == 10
    trained = trainable_parts(big.config)
    assert trained["LoRA"] == 26_214_400
    assert sum(trained.values()) - trained["LoRA"] == pytest.approx(48.5e6, rel=0.002)


def test_float32_parts_of_a_bfloat16_base_are_counted_as_such():
    half, full = (base_parts(KNOWN["wan-1.3b"], precision) for precision in ("bf16", "fp32"))
    assert full.bytes == 4 * full.parameters
    assert full.bytes / 2 < half.bytes < full.bytes / 2 * 1.01


def test_a_part_that_the_config_does_not_use_is_not_trained():
    config = settings("tiny").model.slotid_config()
    assert trainable_parts(config.replace(film={"fraction": 0.0}))["FiLM"] == 0
    assert trainable_parts(config.replace(gate={"start": 1.0, "end": 1.0}))["encoder"] == 0
    assert trainable_parts(config.replace(lora={"rank": 0}))["LoRA"] == 0


def test_each_plan_takes_less_of_the_card_than_the_one_before(big):
    needs = [need(big, name, 1, on_cpu=False) for name in PLANS]
    totals = [n.card_total for n in needs]
    assert totals == sorted(totals, reverse=True) and len(set(totals)) == len(totals)
    offloaded, streamed = needs[PLANS.index("offloaded")], needs[PLANS.index("streamed")]
    assert offloaded.host["block boundaries"] >= big.shape.blocks * big.block.boundary
    linears = big.shape.blocks * sum(rows * columns for rows, columns in big.base.linears)
    assert linears <= streamed.host["pinned base"] < 2 * linears
    assert streamed.card["base weights"] < 0.6 * GIB


@pytest.mark.parametrize(("name", "chosen"), [("1x24", "streamed"), ("1x80", "checkpointed"), ("8x80", "checkpointed")])
def test_auto_takes_the_first_plan_that_fits(big, name, chosen):
    planned = predict(big, COMMON[name], COMMON[name].cards)
    assert planned.memory_plan == chosen and planned.fits
    planned.refuse_if_too_large()
    assert [c.plan for c in planned.choices] == list(PLANS[: PLANS.index(chosen) + 1])
    assert all(c.problems for c in planned.choices[:-1])
    text = planned.describe()
    assert text.startswith("PREDICTED") and f"{chosen}" in text and "fits: taken" in text


def test_seconds_follow_from_the_work_and_the_cards(big):
    one, eight = (predict(big, COMMON[name], COMMON[name].cards) for name in ("1x80", "8x80"))
    work = sum(part.total for part in one.work.values())
    assert one.seconds_a_step == pytest.approx(8 * work / (989e12 * UTILISATION))
    assert eight.seconds_a_step == pytest.approx(one.seconds_a_step / 8)
    assert one.hours > 20_000 * one.seconds_a_step / 3600 > 0.9 * one.hours
    streamed = predict(changed(big, "memory.plan=streamed"), COMMON["1x80"])
    assert streamed.seconds_a_step > one.seconds_a_step
    plain = predict(changed(big, "memory.plan=plain"), COMMON["1x80"])
    assert plain.seconds_a_step < one.seconds_a_step and not plain.fits


def test_shorter_clips_have_less_work_to_measure_against(big):
    """wan2.1_14b.yaml has 65 and 49 frames of 480 x 720."""
    ideal = predict(big, COMMON["1x80"]).ideal_seconds
    long, short = (ideal[frames * 60 * 90] for frames in (17, 13))
    assert 0.6 < short / long < 13 / 17


def test_an_unknown_card_gets_no_seconds_and_is_told_so(big):
    planned = predict(big, Machine(name="a machine", device="Some Card", vram=60 * GIB))
    assert planned.seconds_a_step is None and planned.hours is None
    assert any("Some Card" in note for note in planned.notes)


def test_nothing_fits_and_the_refusal_says_what_is_large_and_what_to_change(big):
    planned = predict(big, Machine(name="a small machine", device="Some Card", vram=8 * GIB))
    with pytest.raises(SlotIDError, match="inside one block.*fewer frames.*predicted") as refused:
        planned.refuse_if_too_large()
    assert "8.0 GiB are there" in str(refused.value) and "streamed" in str(refused.value)
    asked = predict(changed(big, "memory.plan=checkpointed"), COMMON["1x24"])
    with pytest.raises(SlotIDError, match="'base weights'.*memory.plan=streamed"):
        asked.refuse_if_too_large()


def test_too_little_host_memory_or_disk_is_refused_too(big):
    card = COMMON["1x24"]
    with pytest.raises(SlotIDError, match="GiB of host memory and 20.0 GiB are there"):
        predict(big, replace(card, ram=20 * GIB)).refuse_if_too_large()
    with pytest.raises(SlotIDError, match="GiB of disk.*'checkpoints'.*checkpoint.keep"):
        predict(big, replace(card, disk=GIB)).refuse_if_too_large()


def test_a_run_that_goes_on_needs_no_room_for_the_checkpoints_it_has(big, tmp_path):
    of = changed(big, f"run.folder={tmp_path}", "checkpoint.keep=3")
    beginning = predict(of, COMMON["1x80"]).disk["checkpoints"]
    for count, left in ((1, 3), (3, 1), (4, 1)):
        for step in range(count):
            (tmp_path / "checkpoints" / f"step_{step:06d}").mkdir(parents=True, exist_ok=True)
        assert predict(of, COMMON["1x80"]).disk["checkpoints"] == left * beginning // 4


def test_a_warm_up_that_does_not_end_is_told(big):
    for steps, told in ((199, True), (200, False)):  # the config's own warm-up is 200
        notes = predict(changed(big, f"optim.steps={steps}"), COMMON["1x80"]).notes
        assert any("optim.lr is never reached: optim.warmup is 200" in note for note in notes) == told


def test_sharding_divides_the_base_and_needs_several_processes(big):
    sharing = changed(big, "memory.shard=true")
    alone = predict(big, COMMON["8x80"], 8).choice.need.card["base weights"]
    shared = predict(sharing, COMMON["8x80"], 8).choice.need.card["base weights"]
    assert alone / 8 < shared < alone / 6
    with pytest.raises(SlotIDError, match="memory.shard needs more than one process"):
        predict(sharing, COMMON["1x80"]).refuse_if_too_large()


def test_the_optimizer_and_the_averages_count(big):
    def card(*changes: str) -> dict:
        return need(changed(big, *changes), "checkpointed", 1, on_cpu=False).card

    assert card("optim.optimizer=adamw8bit")["optimizer states"] < card()["optimizer states"] / 3
    assert card("optim.ema=0")["averaged weights (EMA)"] == 0


def test_a_cpu_is_planned_by_its_host_memory():
    cpu = Machine(name="this machine", device="CPU", ram=8 * GIB)
    tiny = ingredients(settings("tiny"))
    planned = predict(tiny, cpu)
    assert (planned.memory_plan, planned.seconds_a_step) == ("plain", None)
    assert planned.choice.need.together < 8 * GIB
    with pytest.raises(SlotIDError, match="host memory and 0.1 GiB are there"):
        predict(tiny, replace(cpu, ram=GIB // 10)).refuse_if_too_large()
    twice = predict(tiny, cpu, 2).choice.need
    assert twice.together == 2 * planned.choice.need.together


def test_shapes_are_read_from_the_models_own_files(tmp_path, transformer):
    folder, file = tmp_path / "transformer", tmp_path / "wan.safetensors"
    transformer.save_config(folder)
    save_file({name: t.to(torch.bfloat16).contiguous() for name, t in transformer.state_dict().items()}, file)
    built_in = read_shape(settings("tiny"))
    for place in (folder, file):
        shape = read_shape(settings("tiny", f"model.transformer={place}"))
        assert place.name in shape.found
        assert replace(shape, found="") == replace(built_in, found="")


def test_files_that_are_not_there_or_do_not_belong(tmp_path, transformer):
    assert "known shapes" in read_shape(settings("wan2.1_14b", *NO_FILES)).found
    with pytest.raises(SlotIDError, match="no known Wan"):
        read_shape(settings("tiny", *NO_FILES))
    with pytest.raises(SlotIDError, match=r"no readable config\.json"):
        read_shape(settings("tiny", f"model.transformer={tmp_path}"))
    transformer.save_config(tmp_path)
    with pytest.raises(SlotIDError, match="width 256, 4 blocks.*width 5120, 40 blocks"):
        read_shape(settings("wan2.1_14b", f"model.transformer={tmp_path}"))
    file = tmp_path / "cut.safetensors"
    file.write_bytes(b"\x10\x00")
    with pytest.raises(SlotIDError, match="cut.safetensors is not a whole"):
        read_shape(settings("tiny", f"model.transformer={file}"))


def test_the_command_line(tmp_path, capsys):
    out = tmp_path / "plan.json"
    arguments = [str(CONFIGS / "tiny.yaml"), "--machine", "1x24", "--json", str(out)]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("PREDICTED") == 2 and all(machine.name in printed for machine in COMMON.values())
    data = json.loads(out.read_text(encoding="utf-8"))
    assert data["machine"]["fits"] and data["machine"]["figures"].startswith("PREDICTED")
    assert sorted(data["common"]) == sorted(COMMON)

    too_large = ["data.sizes=[[1024, 1024]]", "data.lengths=[81]", "memory.plan=plain"]
    assert command.main([*arguments, *too_large]) == 1
    assert "Too large for 1 x 24 GB" in capsys.readouterr().out
    assert command.main([str(CONFIGS / "tiny.yaml"), "optim.stepz=1"]) == 1
    assert "stepz" in capsys.readouterr().err
    assert command.main([*arguments[:-1], str(out / "below a file.json")]) == 1
    assert "Can't write below a file.json" in capsys.readouterr().err
    for processes in ("2", "0"):
        assert command.main([*arguments, "--processes", processes]) == 1
        assert f"Got --processes {processes}, expected 1 to 1" in capsys.readouterr().err


def test_the_trainers_door_plans_for_this_very_machine(tmp_path):
    planned = plan(settings("tiny", f"run.folder={tmp_path / 'run'}"))
    assert planned.machine.name == "this machine" and planned.machine.ram and planned.machine.disk
    assert planned.memory_plan in PLANS and "PREDICTED" in planned.describe()


@pytest.mark.parametrize("name", ["wan2.1_14b_24gb", "wan2.1_1.3b"])
def test_the_configs_for_24_gb_fit_there(name, big):
    shipped = settings(name, *NO_FILES)
    of = replace(big, settings=shipped) if "14b" in name else ingredients(shipped)
    planned = predict(of, COMMON["1x24"])
    planned.refuse_if_too_large()
    assert planned.tokens == 22_950


def test_the_page_on_cost_is_up_to_date(big, repo_root):
    page = (repo_root / "docs" / "cost.md").read_text(encoding="utf-8")
    section = page.partition("T2V-14B (`")[2]
    for machine in COMMON.values():
        planned = predict(big, machine, machine.cards)
        row = re.search(rf"\| {machine.name} \|.*\| {planned.memory_plan} \| ([\d.]+) of .*\| ([\d.,]+) \|", section)
        card, hours = float(row[1]), float(row[2].replace(",", ""))
        assert card == pytest.approx(planned.choice.need.card_total / GIB, rel=0.05), "run training.planner.cost_page"
        assert math.isclose(hours, planned.hours, rel_tol=0.05), "run training.planner.cost_page"


def test_a_page_without_marks_is_refused():
    with pytest.raises(SlotIDError, match="lacks the marks"):
        renew("# A page\n")


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA A40", 150e12), ("NVIDIA RTX A4000", None), ("NVIDIA RTX A6000", 155e12), ("NVIDIA H200", 989e12),
        ("NVIDIA H20", 148e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165e12), ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ],
)  # fmt: skip
def test_a_card_has_its_own_peak_or_none(card, peak):
    assert Machine(name="here", device=card, vram=24 * GIB).peak_flops == peak
