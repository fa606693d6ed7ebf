"""Eight rendered clips on a backbone that was trained: four people of the world, prepared with its VAE.

Unlike ``test_overfit.py`` these are pictures, and the reference is the person's other clip: another action, background,
shirt and light. Who somebody is, is decided in noise (docs/world.md), so the gap is stated by level.
"""

import pytest

from training.data.make import make_cache
from training.settings_file import load
from training.trainer import run as running
from training.trainer.processes import Processes
from training.trainer.validate import HeldOut, validate
from training.world.pictures import draw_missing, people

UPDATES = 160
MODELS = {"transformer": "world_backbone", "vae": "world_vae"}
pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def world(repo_root, tmp_path_factory):
    """``world(seed)``: world.yaml with what is trained on shortened; a cache of six people, two of them held out."""
    folder, models = tmp_path_factory.mktemp("world"), repo_root / "demo"
    draw_missing(folder, list(people("train", 6)))

    def settings(seed):
        changes = [f"data.source={folder / 'train'}", f"data.cache={folder / 'cache'}", f"run.folder={folder / 'run'}"]
        changes += [f"model.{name}={models / file}.safetensors" for name, file in MODELS.items()]
        changes += [f"run.seed={seed}", f"optim.steps={UPDATES}", "optim.batch=8", "optim.micro_batch=8", "optim.ema=0"]
        changes += ["optim.warmup=10", "optim.schedule=constant", "model.slotid.reader.tau_decay_steps=72"]
        return load(repo_root / "training" / "configs" / "world.yaml", [*changes, "validation.clips=8"])

    make_cache(settings(0), say=print)
    return settings


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_eight_rendered_clips_are_told_apart(seed, world):
    settings = world(seed)
    run = running.Run(settings, Processes("cpu"), "plain", print)
    shown = HeldOut(run.cache, settings, trained=True)
    assert len(shown.clips) == 8 and {e.id for e in shown.clips} == {e.id for e in run.clips.entries}
    assert all(shown.references(clip)[0].id != clip.id for clip in shown.clips), "shown the clip itself"
    before = validate(run.adapter, shown).figures()
    batches = running.micro_batches(run.clips, run.order, settings, first_step=0, rank=0, processes=1)
    for _ in range(UPDATES):
        running.update(run.adapter, run.state, batches, settings, run.processes, run.reached)
    after = validate(run.adapter, shown).figures()
    print(seed, {name: round(figure, 3) for name, figure in after.items() if name.startswith(("gap", "loss/"))})
    assert before["gap"] == 0 and before["loss/right"] == before["loss/none"]
    assert after["loss/right"] < after["loss/none"] and after["loss/right"] < before["loss/right"]
    assert after["gap"] >= 5 and after["gap_low"] > 0
    assert after["gap_at_0.95"] > after["gap_at_0.2"]
