"""What a finished run leaves: the same in its files and in its checkpoints, and a LoRA that diffusers' loader takes."""

import json
import shutil

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file, save_file

from slotid_core.checkpoint import load_weights, untrained_weights_of
from slotid_core.config import SlotIDConfig
from slotid_core.errors import SlotIDError
from training.trainer.optim import AveragedWeights, make_optimizer
from training.trainer.run import shared_settings
from training.trainer.state import State, checkpoints, read_facts, save, sealed
from training.trainer.weights import (
    LORA_FILE,
    SLOTID_FILE,
    averaged_weights,
    merge_lora,
    weights_of_checkpoint,
    write_lora,
    write_weights,
)
from training.wan_diffusers import load_transformer, tiny_transformer
from training.wan_injection import inject
from training.wan_keys import transformer_to_diffusers, transformer_to_original

TOLERANCE = 1e-4


def relative(a, b):
    return float((a - b).norm() / b.norm())


def velocity(wan):
    generator = torch.Generator().manual_seed(4)
    latents = torch.randn(2, 16, 3, 8, 8, generator=generator)
    context = torch.randn(2, 20, 4096, generator=generator)
    with torch.no_grad():
        return wan(latents, torch.tensor([700.0, 250.0]), context, return_dict=False)[0]


def tensors_of(weights):
    """Everything trained, by name."""
    pairs = weights.lora.pairs.items()
    lora = {f"{name}.{part}": getattr(pair, part) for name, pair in pairs for part in ("down_RI", "up_OR")}
    return dict(weights.model.state_dict()) | lora


def same(a, b):
    a, b = tensors_of(a), tensors_of(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def slotid(trained_run):
    return load_weights(trained_run / "weights" / SLOTID_FILE)


@pytest.fixture(scope="module")
def last(trained_run):
    return checkpoints(trained_run / "checkpoints")[-1]


@pytest.fixture(scope="module")
def plain():
    return velocity(tiny_transformer())


@pytest.fixture(scope="module")
def merged_by_hand(slotid):
    """The velocity of a Wan with ``alpha / rank * up @ down`` in its weights; ``merged_by_hand(scale)`` of others."""

    def make(scale=None):
        wan = tiny_transformer()
        for name, pair in slotid.lora.pairs.items():
            used = pair.alpha / len(pair.down_RI) if scale is None else scale
            wan.get_submodule(transformer_to_diffusers(name)).weight.add_(used * (pair.up_OR @ pair.down_RI))
        return velocity(wan)

    return make


@pytest.fixture(scope="module")
def wan_file(tmp_path_factory):
    """The tiny Wan under the names of ComfyUI's checkpoints."""
    path = tmp_path_factory.mktemp("wan") / "wan.safetensors"
    named = {transformer_to_original(name): tensor for name, tensor in tiny_transformer().state_dict().items()}
    save_file({f"model.diffusion_model.{name}": tensor for name, tensor in named.items()}, path)
    return path


def test_the_checkpoint_at_the_end_holds_what_the_run_wrote(slotid, last):
    assert same(weights_of_checkpoint(last), slotid)
    assert weights_of_checkpoint(last).sha256 == slotid.sha256
    assert weights_of_checkpoint(last).facts["trained_steps"] == slotid.facts["trained_steps"] == 12


@pytest.mark.parametrize(
    "change",
    [
        "model.slotid={gate: {start: 1, end: 1}}",
        "model.slotid={gate: {start: 0, end: 0}}",
        "model.slotid={encoder: {kind: conv_pool}}",
        "model.slotid={reader: {dustbin: learned}, clip_order: shuffled}",
        "model.slotid={film: {fraction: 0}}",
        "model.slotid={lora: {rank: 0}}",
        "model.slotid={lora: {targets: [k, v, o], rank: 3}}",
        "optim.ema=0",
    ],
)
def test_every_ablations_checkpoint_holds_its_weights(make_settings, make_adapter, tmp_path, change):
    """Whatever part of the model a config leaves as it was."""
    settings = make_settings(change, "run.seed=5")
    adapter = make_adapter(settings, seed=5)
    adapter.set_step(3)
    trainable = adapter.trainable()
    with torch.no_grad():
        for parameter in trainable.values():
            parameter.add_(0.1)
    averaged = AveragedWeights(settings.optim.ema, trainable)
    state = State(trainable, averaged, make_optimizer(settings.optim, trainable), step=3)
    facts = {"settings": shared_settings(settings), "cache": ""}
    checkpoint = save(tmp_path / "checkpoints", state, facts, keep=1)
    assert weights_of_checkpoint(checkpoint).sha256 == averaged_weights(adapter, state, facts).sha256


def test_the_last_weights_and_an_earlier_checkpoint_are_others(slotid, last):
    raw, earlier = weights_of_checkpoint(last, averaged=False), weights_of_checkpoint(last.parent / "step_000006")
    assert not same(raw, slotid) and not same(earlier, slotid)
    stored = load_file(last / "state.safetensors")
    name, pair = next(iter(raw.lora.pairs.items()))
    assert torch.equal(pair.up_OR, stored[f"weights.lora.{transformer_to_diffusers(name)}.lora_B.weight"])
    assert (int(raw.model.reader.step), int(earlier.model.reader.step)) == (12, 6)


def test_the_lora_alone_is_the_one_in_the_slotid_file(trained_run, slotid):
    alone = load_file(trained_run / "weights" / LORA_FILE)
    whole = load_file(trained_run / "weights" / SLOTID_FILE)
    assert alone.keys() == {name.removeprefix("lora.") for name in whole if name.startswith("lora.")}
    assert all(torch.equal(tensor, whole[f"lora.{name}"]) for name, tensor in alone.items())
    assert len(alone) == 3 * len(slotid.lora.pairs) == 3 * 8
    assert {float(alone[name]) for name in alone if name.endswith(".alpha")} == {4.0}


def test_others_may_read_the_lora_where_they_may_read_the_weights(trained_run):
    folder = trained_run / "weights"
    assert (folder / LORA_FILE).stat().st_mode == (folder / SLOTID_FILE).stat().st_mode


def test_diffusers_own_loader_takes_the_lora_at_its_strength(trained_run, slotid, plain, merged_by_hand):
    """As users call it. What is left over, diffusers raises; that every module got its LoRA is looked at here."""
    pipeline = WanPipeline(None, None, None, FlowMatchEulerDiscreteScheduler(), transformer=tiny_transformer())
    pipeline.load_lora_weights(str(trained_run / "weights" / LORA_FILE))
    patched = {name for name, module in pipeline.transformer.named_modules() if hasattr(module, "lora_A")}
    assert patched == {transformer_to_diffusers(name) for name in slotid.lora.pairs}
    got = velocity(pipeline.transformer)
    assert relative(got, merged_by_hand()) < TOLERANCE
    with inject(tiny_transformer(), [], slotid.lora) as injected:
        assert relative(got, velocity(injected.transformer)) < TOLERANCE
    assert relative(got, plain) > 100 * TOLERANCE
    assert relative(got, merged_by_hand(scale=1.0)) > 100 * TOLERANCE, "alpha is not the rank, or this shows nothing"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_merged_wan_is_wan_with_the_lora(slotid, wan_file, tmp_path, merged_by_hand, plain, dtype):
    source, out = tmp_path / "wan.safetensors", tmp_path / "merged.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(wan_file).items()}, source)
    merge_lora(source, slotid, out)
    before, after = load_file(source), load_file(out)
    assert {f"model.diffusion_model.{name}" for name in after} == before.keys()
    changed = {n for n, tensor in after.items() if not torch.equal(tensor, before[f"model.diffusion_model.{n}"])}
    assert changed == {f"{name}.weight" for name in slotid.lora.pairs}
    assert {tensor.dtype for tensor in after.values()} == {dtype}
    got = velocity(load_transformer(out))
    if dtype == torch.float32:
        assert relative(got, merged_by_hand()) < TOLERANCE
    assert relative(got, merged_by_hand()) < relative(got, plain) / 5


@pytest.mark.parametrize("change", [{"num_layers": 5}, {"num_attention_heads": 3}, {"out_channels": 36}])
def test_another_wan_is_refused_by_name(slotid, tmp_path, change):
    sizes = {"num_attention_heads": 2, "num_layers": 4, "attention_head_dim": 128, "ffn_dim": 64, "out_channels": 16}
    WanTransformer3DModel(**{**sizes, **change}).save_pretrained(tmp_path)
    other = (tmp_path / "diffusion_pytorch_model.safetensors").rename(tmp_path / "other_wan.safetensors")
    with pytest.raises(SlotIDError, match=r"other_wan.safetensors is a Wan with .*is for Wan with width 256, 4 blocks"):
        merge_lora(other, slotid, tmp_path / "merged.safetensors")
    assert not (tmp_path / "merged.safetensors").exists()


def test_a_part_of_a_wan_is_refused(slotid, wan_file, tmp_path):
    whole = load_file(wan_file)
    part = tmp_path / "part.safetensors"
    save_file({name: tensor for name, tensor in whole.items() if "blocks.2.cross_attn.v" not in name}, part)
    with pytest.raises(SlotIDError, match="part.safetensors is not a whole Wan: blocks.2.cross_attn.v"):
        merge_lora(part, slotid, tmp_path / "merged.safetensors")
    save_file({name: tensor for name, tensor in whole.items() if "patch_embedding" not in name}, part)
    with pytest.raises(SlotIDError, match=r"not a whole Wan: patch_embedding.weight"):
        merge_lora(part, slotid, tmp_path / "merged.safetensors")


def test_the_wan_is_never_overwritten(slotid, wan_file):
    before = wan_file.read_bytes()
    with pytest.raises(SlotIDError, match="is the Wan itself"):
        merge_lora(wan_file, slotid, wan_file)
    assert wan_file.read_bytes() == before


def test_a_full_disk_leaves_nothing_and_says_so(slotid, tmp_path):
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(SlotIDError, match=r"Can't write lora.safetensors .*Make room"):
            write_lora(tmp_path / "lora.safetensors", slotid.lora)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_other_file_names_are_refused(slotid, tmp_path):
    with pytest.raises(SlotIDError, match=r"lora.bin.*\.safetensors"):
        write_lora(tmp_path / "lora.bin", slotid.lora)


@pytest.fixture
def spoilt(last, tmp_path):
    """A copy of the checkpoint: ``spoilt(tensors=..., facts=...)`` changes its parts."""

    def make(tensors=lambda held: None, facts=lambda held: None):
        folder = shutil.copytree(last, tmp_path / last.name)
        held = load_file(folder / "state.safetensors")
        tensors(held)
        save_file(held, folder / "state.safetensors")
        told = read_facts(last)
        facts(told)
        (folder / "state.json").write_text(json.dumps(sealed(told, held)), encoding="utf-8")
        return folder

    return make


@pytest.mark.parametrize("name", ["slotid.clip_tokens.1.weight", "lora.blocks.1.attn2.to_v.lora_A.weight"])
def test_a_checkpoint_that_lacks_a_tensor_is_refused(spoilt, last, name):
    """Nothing may stay as it was before training."""
    assert f"averaged.{name}" in load_file(last / "state.safetensors")
    folder = spoilt(lambda held: held.pop(f"averaged.{name}"))
    with pytest.raises(SlotIDError, match=f"1 tensors differ, the first is {name} .got none"):
        weights_of_checkpoint(folder)


def test_a_checkpoint_with_other_settings_is_refused(spoilt):
    folder = spoilt(facts=lambda told: told["settings"]["model"].update(slotid={"lora": {"rank": 4}}))
    with pytest.raises(SlotIDError, match="16 tensors differ"):
        weights_of_checkpoint(folder)


def test_a_checkpoint_of_another_version_is_refused(spoilt):
    folder = spoilt(facts=lambda told: told["settings"]["model"].update(backbone="wan"))
    with pytest.raises(SlotIDError, match=r"another version.*model.backbone"):
        weights_of_checkpoint(folder)


def test_without_a_lora_no_lora_file_is_written(tmp_path):
    config = SlotIDConfig.preset("tiny").replace(lora={"rank": 0})
    written = write_weights(tmp_path, untrained_weights_of(config, 0))
    assert [path.name for path in written] == [SLOTID_FILE]
