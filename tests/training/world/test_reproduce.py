"""The whole experiment at the smallest size: nothing is learned, and everything is run."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from slotid_core.checkpoint import load_weights
from slotid_core.errors import SlotIDError
from slotid_core.reference import read_clip
from training import prepare, reproduce
from training.settings_file import load
from training.world.experiment import evaluate, finished, readable, report
from training.world.experiment.intervals import r2
from training.world.experiment.origin import check_weights
from training.world.experiment.report import write_report
from training.world.experiment.results import Bench
from training.world.experiment.sheet import in_motion, show, side_by_side
from training.world.identity import TRAITS
from training.world.models.files import read_facts
from training.world.models.probe import PARTS
from training.world.pictures import FRAMES, SIZE, WorldClip, draw_missing, people
from training.world.scenario import SLOTS

SMALL = [
    "--from-scratch", "--workers", "1", "--people", "4", "--metric-people", "4", "--held-out", "2",
    # The backbone starts at zero: after the few updates of a busy machine's two seconds hardly any pixel is reached.
    "--vae-minutes", "0.03", "--backbone-minutes", "0.1", "--probe-minutes", "0.03", "--variants", "slotid",
    "conv_pool", "--seeds", "0", "--set", "optim.steps=3", "optim.batch=2", "optim.micro_batch=2", "optim.warmup=1",
    "validation.clips=2", "validation.sigmas=[0.5]", "validation.samples=0", "log.tensorboard=false",
    "data.held_out=0.4", "optim.lr=0.05", "optim.ema=0",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """Of the sampler; every result says how many it had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(evaluate.SAMPLING, "steps", 4)
        yield


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    arguments = ["--folder", str(folder), "--results", str(folder / "results"), *SMALL]
    assert reproduce.main(arguments) == 0
    return folder, arguments


def result(folder, name):
    return json.loads((folder / "results" / f"{name}.json").read_text())


def test_every_variant_leaves_figures_of_everybody(reproduced):
    folder, _ = reproduced
    for name in ("slotid-0", "conv_pool-0"):
        found = result(folder, name)
        assert found["trained_steps"] == 3 and found["people"] == 2
        assert np.array(found["videos"]["traits"]).shape == (2, len(TRAITS))
        assert len(found["videos"]["face"]) == len(found["videos"]["follows"]) == 2
        assert found["sampling"] == {**evaluate.SAMPLING, "steps": 4}
    assert "routing" in result(folder, "slotid-0") and "routing" not in result(folder, "conv_pool-0")


def test_the_identity_reaches_the_videos(reproduced):
    """Same noise, same caption: what differs is the identity, and with it whose portrait it is."""
    folder, _ = reproduced
    plain = result(folder, "bounds")["none"]["sha256"]
    found = result(folder, "slotid-0")
    assert all(a != b for a, b in zip(plain, found["videos"]["sha256"], strict=True))
    assert all(a != b for a, b in zip(found["crossed"]["sha256"], found["videos"]["sha256"], strict=True))


def test_the_ceiling_is_the_persons_other_clip(reproduced):
    folder, _ = reproduced
    bounds = result(folder, "bounds")
    assert bounds["real"]["sha256"] != bounds["none"]["sha256"] and len(bounds["stranger_face"]) == 2


def test_the_command_goes_on_where_it_ended(reproduced, capfd):
    folder, arguments = reproduced
    before = {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".md", ".png", ".mp4")  # the report is written again
    }
    assert reproduce.main(arguments) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["optim.steps=3", "optim.steps=4"], "slotid-0.json was made from.*settings.optim.steps is 3 there and 4 here"),
        (["2", "3"], "people is 2 there and 3 here"),
    ],
)
def test_results_of_another_experiment_are_not_taken_for_this_ones(reproduced, capfd, changed, said):
    _, arguments = reproduced
    at = arguments.index("--held-out" if len(changed[0]) == 1 else "--set") + 1
    other = [*arguments[:at], *(changed[1] if a == changed[0] else a for a in arguments[at:])]
    assert reproduce.main(other) == 1
    assert re.search(said, capfd.readouterr().err)


def test_results_that_were_sampled_otherwise_are_not_taken_for_this_ones(reproduced, monkeypatch, capfd):
    monkeypatch.setitem(evaluate.SAMPLING, "identity_guidance", 7.0)
    assert reproduce.main(reproduced[1]) == 1
    assert "slotid-0.json was made from something else than what is here: sampling.identity_guidance is" in (
        capfd.readouterr().err
    )


def test_results_that_cannot_be_compared_are_no_report(reproduced, tmp_path):
    folder, _ = reproduced

    def changed(change) -> Path:
        shutil.copytree(folder / "results", tmp_path, dirs_exist_ok=True)
        path = tmp_path / "conv_pool-0.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
        return tmp_path

    with pytest.raises(SlotIDError, match="optim.lr is 0.5 there and 0.05 here|optim.lr is 0.05 there and 0.5 here"):
        write_report(changed(lambda data: data["settings"]["optim"].update(lr=0.5)))
    with pytest.raises(SlotIDError, match="conv_pool-0.json was made from something else.*models.vae"):
        write_report(changed(lambda data: data["models"].update(vae="0" * 64)))
    with pytest.raises(SlotIDError, match="conv_pool-0.json was made from something else.*sampling.guidance is 9"):
        write_report(changed(lambda data: data["sampling"].update(guidance=9.0)))
    with pytest.raises(SlotIDError, match="tau_decay_steps is (9 there and 1060|1060 there and 9) here"):
        write_report(changed(lambda data: data["settings"]["model"]["slotid"].update(reader={"tau_decay_steps": 9})))
    write_report(changed(lambda data: None))


def test_a_cache_of_fewer_people_is_gone_on_with(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(prepare, "main", lambda argv: made.append(argv) or 0)
    (tmp_path / "manifest.json").write_text(json.dumps({"entries": [{}, {}], "rejects": [{}]}))
    for clips, times in ((3, 0), (4, 1)):
        for clip in range(clips):
            (tmp_path / f"{clip}.safetensors").touch()
        (tmp_path / f".half-{clips}.safetensors").touch()
        reproduce._prepare(tmp_path, tmp_path, "config.yaml")
        assert len(made) == times and (tmp_path / "manifest.json").is_file()


def test_weights_of_other_settings_are_not_measured_as_these(reproduced, tmp_path, capfd):
    _, arguments = reproduced
    other = ["optim.steps=4" if a == "optim.steps=3" else a for a in arguments]
    other[arguments.index("--results") + 1] = str(tmp_path)
    assert reproduce.main(other) == 1
    assert "was trained otherwise: settings.optim.steps is 3 there and 4 here" in capfd.readouterr().err


def test_weights_of_another_cache_or_backbone_are_not_measured_as_these(reproduced, tmp_path):
    folder, _ = reproduced
    weights, settings = folder / "runs/slotid-0/weights/slotid.safetensors", folder / "runs/slotid-0/settings.yaml"
    check_weights(weights, load(settings))
    backbone = load_file(folder / "backbone.safetensors")
    save_file(backbone | {"head.head.bias": backbone["head.head.bias"] + 1}, tmp_path / "backbone.safetensors")
    with pytest.raises(SlotIDError, match="was trained otherwise: backbone is '.*' there and '.*' here. Give"):
        check_weights(weights, load(settings, [f"model.transformer={tmp_path / 'backbone.safetensors'}"]))
    shutil.copytree(folder / "cache", tmp_path / "cache")
    manifest = tmp_path / "cache" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(SlotIDError, match="was trained otherwise: cache is '.*' there and '.*' here. Give"):
        check_weights(weights, load(settings, [f"data.cache={tmp_path / 'cache'}"]))


def test_results_of_another_cache_are_not_taken_for_this_ones(reproduced, tmp_path, capfd):
    folder, arguments = reproduced
    shutil.copytree(folder / "results", tmp_path, dirs_exist_ok=True)
    changed = tmp_path / "slotid-0.json"
    changed.write_text(json.dumps(json.loads(changed.read_text()) | {"cache": "0" * 64}))
    assert reproduce.main([*arguments, "--results", str(tmp_path)]) == 1
    assert re.search("slotid-0.json was made from something else.*cache is '0*' there", capfd.readouterr().err)


def test_real_clips_are_finished_from_any_level_of_noise(reproduced, capsys):
    """Without noise the clip is there as it was; from all of it nothing is left, and the identity is what differs."""
    folder, _ = reproduced
    run = folder / "runs/slotid-0"
    weights, levels = run / "weights/slotid.safetensors", ["1e-4", "1"]
    finished.main(
        [str(run / "settings.yaml"), str(folder / "probe.safetensors"), "--weights", str(weights), "--levels", *levels]
    )
    (told, *lines) = map(json.loads, capsys.readouterr().out.splitlines())
    assert told == {"people": 2}
    found = {name: figures for line in lines for name, figures in line.items()}
    assert list(found) == ["real", "0.0001", "0.0001 with the identity", "1", "1 with the identity"]
    assert found["0.0001"]["face"] == pytest.approx(found["real"]["face"], abs=0.02)
    assert found["1"] != found["1 with the identity"] and found["1"] != found["real"]


def test_what_a_linear_reader_finds(reproduced, capsys):
    torch.manual_seed(0)
    traits_NI = torch.rand(300, len(TRAITS))
    there = traits_NI @ torch.randn(len(TRAITS), 400) + 0.1 * torch.randn(300, 400)
    assert min(readable.linear(there, traits_NI, 250).values()) > 0.9
    assert max(readable.linear(there.roll(100, 0), traits_NI, 250).values()) < 0.3
    run = reproduced[0] / "runs/slotid-0"
    readable.main([str(run / "settings.yaml"), "--weights", str(run / "weights/slotid.safetensors")])
    told = json.loads(capsys.readouterr().out)
    tokens = ["clip_tokens_BSE", "portrait_tokens_BKE", "clip_global_BG", "portrait_global_BG"]
    assert list(told) == ["clips", "fitted", "portrait", "clip", *tokens] and (told["clips"], told["fitted"]) == (8, 4)
    assert all(set(told[name]["traits"]) == set(TRAITS) and set(PARTS) < set(told[name]) for name in tokens)


def test_a_report_of_nothing_is_an_error(tmp_path, capfd):
    assert reproduce.main(["--report", "--folder", str(tmp_path)]) == 1
    assert "There are no results in" in capfd.readouterr().err


@pytest.mark.full
def test_trainings_beside_each_other_and_one_that_fails(reproduced, capfd):
    folder, arguments = reproduced
    variants = ["portrait_only", "no_film"]
    (folder / "runs" / "no_film-0").write_text("in the way of the run's folder")
    at = arguments.index("--variants")
    assert reproduce.main([*arguments[: at + 1], *variants, *arguments[at + 3 :], "--together", "2"]) == 1
    assert result(folder, "portrait_only-0")["trained_steps"] == 3
    assert "Not done: no_film-0; their logs are in" in capfd.readouterr().err
    assert (folder / "logs" / "no_film-0.log").stat().st_size and not (folder / "results" / "no_film-0.json").exists()


@pytest.mark.full
def test_the_shipped_models_are_taken_further(reproduced, tmp_path, monkeypatch):
    folder, arguments = reproduced
    shutil.copytree(folder / "pictures", tmp_path / "pictures")
    monkeypatch.setattr(Bench, "write_result", lambda *_, **__: None)  # the models alone are asked for
    changed = ["--folder", str(tmp_path), "--results", str(tmp_path / "results"), "--further"]
    assert reproduce.main([*changed, *(a for a in arguments[4:] if a != "--from-scratch")]) == 0
    assert read_facts(tmp_path / "probe.safetensors")["held_back"] == 2
    for name in ("vae", "backbone", "probe"):
        shipped, further = (
            torch.cat([tensor.flatten().float() for _, tensor in sorted(load_file(path).items())])
            for path in (reproduce.SHIPPED / f"world_{name}.safetensors", tmp_path / f"{name}.safetensors")
        )
        assert 0.9 < torch.cosine_similarity(shipped, further, dim=0) and not torch.equal(shipped, further)


def test_the_report_names_every_result(reproduced):
    folder, _ = reproduced
    page = (folder / "results" / "README.md").read_text()
    for wanted in ("Slot-ID, seed 0", "A: 3DConv-Pool, seed 0", "real other clip", "no identity", "2 held-out people"):
        assert wanted in page
    assert all(f"`{trait}`" in page for trait in TRAITS)
    for picture in ("figures.png", "side_by_side.png"):
        assert f"]({picture})" in page and (folder / "results" / picture).is_file()


@pytest.mark.parametrize("folder", ["outputs/world/results", "docs/results/world"])
def test_the_report_leads_to_what_is_said_about_it(folder, tmp_path):
    project = Path(report.__file__).parents[3]
    link = re.fullmatch(r"\[world\.md\]\((.*)\)", report._about(project / folder))[1]
    assert (project / folder).joinpath(link).resolve() == project / "docs" / "world.md"
    assert report._about(tmp_path) == "docs/world.md"


def test_people_in_motion_side_by_side(tmp_path):
    """A row for each of two people; reference, real other clip and one kind of video beside each other."""
    draw_missing(tmp_path, list(people("held_out", 2)))
    grey = np.full((2, FRAMES, SIZE, SIZE, 3), 128, np.uint8)
    in_motion(tmp_path / "m.mp4", tmp_path, {"grey": grey}, people=2, world=0)
    frames = read_clip(tmp_path / "m.mp4", frames=FRAMES).frames_FHWC.numpy().astype(float)
    side = 2 * SIZE
    assert frames.shape == (FRAMES, 28 + 2 * side, 3 * side, 3)
    cells = frames[4, 28:].reshape(2, side, 3, side, 3).swapaxes(1, 2)[:, :, ::2, ::2]
    for person in range(2):
        for clip in range(2):
            drawn = WorldClip(split="held_out", index=person, clip=clip).draw()["clip"][4].numpy()
            apart = np.abs(cells - drawn).mean((2, 3, 4))
            assert apart.argmin() == 3 * person + clip and apart.min() < 8
    assert np.abs(cells[:, 2] - 128).mean() < 3


def test_models_are_files_that_hosts_load(reproduced):
    folder, _ = reproduced
    assert "decoder.head.2.weight" in load_file(folder / "vae.safetensors")
    assert "blocks.5.cross_attn.k.weight" in load_file(folder / "backbone.safetensors")
    weights = load_weights(folder / "runs" / "slotid-0" / "weights" / "slotid.safetensors")
    assert not weights.untrained and weights.model.config.backbone.blocks == 6


def test_people_side_by_side(reproduced, tmp_path):
    from PIL import Image

    folder, _ = reproduced
    files = {name: folder / "videos" / f"{name}.safetensors" for name in ("none", "slotid-0")}
    videos = {name: load_file(path)["videos"].numpy() for name, path in files.items()}
    heights = []
    for count in (1, 2):
        side_by_side(tmp_path / "sheet.png", folder / "pictures", videos, people=count, world=0, captions=[])
        heights.append(Image.open(tmp_path / "sheet.png").height)
    assert heights[1] > 1.8 * heights[0]


def test_videos_of_other_results_are_not_shown_beside_these(reproduced, tmp_path):
    """Where ``--results`` says another folder than the videos were made for."""
    folder, _ = reproduced
    shutil.copytree(folder / "results", tmp_path, dirs_exist_ok=True)
    (tmp_path / "side_by_side.png").unlink()
    path = tmp_path / "slotid-0.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "videos": {**data["videos"], "sha256": ["0" * 12, "1" * 12]}}))
    show(folder, tmp_path, world=0)
    assert not (tmp_path / "side_by_side.png").exists()


def test_r2_of_the_truth_and_of_the_mean():
    true = np.random.RandomState(0).uniform(size=(40, len(TRAITS)))
    for names in PARTS.values():
        assert r2(true, true, names) == 1.0
        assert r2(np.broadcast_to(true.mean(0), true.shape), true, names) == pytest.approx(0.0, abs=1e-12)


def test_the_report_says_what_the_clip_adds_to_the_portrait(tmp_path):
    """Slot-ID that knows one trait of the side, and a portrait that knows none."""
    true = np.random.RandomState(0).uniform(size=(40, len(TRAITS)))
    knows = np.broadcast_to(true.mean(0), true.shape).copy()
    said = dict.fromkeys(SLOTS, True)

    def videos(read):
        return {"traits": read.tolist(), "face": [0.5] * 40, "follows": [said] * 40, "jitter": [0.1] * 40}

    facts = {"people": 40, "identity_seed": 0, "models": {}, "sampling": evaluate.SAMPLING, "traits": TRAITS}
    bounds = {**facts, "true": true.tolist(), "real": videos(true), "none": videos(knows), "stranger_face": [0.0] * 40}
    (tmp_path / "bounds.json").write_text(json.dumps(bounds))
    for name in ("portrait_only", "slotid"):
        if name == "slotid":
            knows[:, TRAITS.index("dye_hue")] = true[:, TRAITS.index("dye_hue")]
        run = {**facts, "variant": name, "seed": 0, "trained_steps": 1, "settings": {}, "videos": videos(knows)}
        (tmp_path / f"{name}-0.json").write_text(json.dumps(run))
        (tmp_path / f"{name}-1.json").write_text(json.dumps({**run, "seed": 1, "videos": bounds["none"]}))
    write_report(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "Videos: 4 steps, shift 3, guided by the text with 2 and by the identity with 5.\n" in page
    (dye,) = (row.split(" | ") for row in page.splitlines() if row.startswith("| `dye_hue` | 1.000 ["))
    assert dye[2].startswith(("0.000", "-0.000")) and dye[3].startswith("1.000 [")
    (nod,) = (row.split(" | ") for row in page.splitlines() if row.startswith("| `nod_tempo` |") and "[" in row)
    assert nod[3].startswith("0.000 [0.000, 0.000]")
    # One trait of the side with one seed of two; the other knows nothing.
    means = "| portrait only (w = 1), mean of seeds 0, 1"
    (ahead,) = (row.split(" | ") for row in page.splitlines() if row.startswith(means))
    assert ahead[1:3] == ["0.000 [0.000, 0.000]", "0.000 [0.000, 0.000]"]
    assert float(ahead[3].split()[0]) == pytest.approx(0.5 / len(PARTS["side"]), abs=6e-4)
    assert "**Seed 0: the clip adds `dye_hue` (R² 1.00, the portrait alone " in page and "`nod_tempo` (" not in page


def test_the_report_says_first_that_the_clip_adds_nothing(tmp_path):
    true = np.random.RandomState(0).uniform(size=(40, len(TRAITS)))
    mean = np.broadcast_to(true.mean(0), true.shape)
    read = {"traits": mean.tolist(), "face": [0.5] * 40, "follows": [dict.fromkeys(SLOTS, True)] * 40}
    read["jitter"] = [0.1] * 40
    facts = {"people": 40, "identity_seed": 0, "models": {}, "sampling": evaluate.SAMPLING, "traits": TRAITS}
    bounds = {**facts, "true": true.tolist(), "real": read, "none": read, "stranger_face": [0.0] * 40}
    (tmp_path / "bounds.json").write_text(json.dumps(bounds))
    (tmp_path / ".slotid-0-0123456789ab.json").write_text('{"half')  # of a run that was killed
    for name in ("portrait_only", "slotid"):
        run = {**facts, "variant": name, "seed": 0, "trained_steps": 1, "settings": {}, "videos": read}
        run["routing"] = {"entropy": 1.0}  # of a single slot, which overlaps with none
        if name == "slotid":
            # The portrait's person is the next one.
            crossed = mean.copy()
            crossed[:, TRAITS.index("skin_depth")] = np.roll(true, -1, 0)[:, TRAITS.index("skin_depth")]
            run["crossed"] = {**read, "traits": crossed.tolist()}
        (tmp_path / f"{name}-0.json").write_text(json.dumps(run))
    write_report(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert page.index("**Seed 0: the clip adds nothing to the portrait**") < page.index("| face |")
    (skin,) = (row.split(" | ") for row in page.splitlines() if row.startswith("| `skin_depth` |") and "[" in row)
    assert not skin[1].startswith("1.000") and skin[2].startswith("1.000 [1.000")
    assert "| Slot-ID, seed 0 | 1.000 |  |" in page and "| portrait only (w = 1), seed 0 | 1.000" not in page


def test_an_empty_folder_of_results_is_a_page_without_figures(tmp_path):
    write_report(tmp_path)
    assert "held-out people" not in (tmp_path / "README.md").read_text()


def test_results_about_other_traits_are_no_report(tmp_path):
    """Of people who were drawn otherwise: each trait's figures would stand under another's name."""
    facts = {"people": 2, "identity_seed": 0, "models": {}, "traits": [*TRAITS[1:], TRAITS[0]]}
    (tmp_path / "bounds.json").write_text(json.dumps(facts))
    with pytest.raises(SlotIDError, match="bounds.json was made from something else.*traits is"):
        write_report(tmp_path)
