"""export.py from its command line, and the weights that a run wrote in sample.py."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from slotid_core.checkpoint import load_weights, save_weights, untrained_weights, untrained_weights_of
from slotid_core.config import SlotIDConfig
from training import export, media, sample
from training.trainer.state import checkpoints
from training.trainer.weights import LORA_FILE, SLOTID_FILE
from training.wan_diffusers import load_transformer
from training.wan_injection import inject
from training.wan_keys import transformer_to_original, vae_to_original


@pytest.fixture(scope="module")
def last(trained_run):
    return checkpoints(trained_run / "checkpoints")[-1]


@pytest.fixture(scope="module")
def slotid_file(trained_run):
    return trained_run / "weights" / SLOTID_FILE


@pytest.fixture(scope="module")
def models(tmp_path_factory, transformer, vae):
    """A folder with the tiny Wan and VAE under ComfyUI's names."""
    root = tmp_path_factory.mktemp("models")
    for name, model, to_original in (("wan", transformer, transformer_to_original), ("vae", vae, vae_to_original)):
        tensors = {to_original(key): tensor.contiguous() for key, tensor in model.state_dict().items()}
        save_file(tensors, root / f"{name}.safetensors", metadata={"format": "pt"})
    return root


@pytest.fixture(scope="module")
def wan_file(models):
    return models / "wan.safetensors"


def run(*arguments) -> int:
    return export.main([str(argument) for argument in arguments])


def same_tensors(a, b) -> bool:
    """Name for name and byte for byte."""

    def content(path):
        stored = load_file(path).items()
        return {name: (t.dtype, t.shape, t.reshape(-1).view(torch.uint8).numpy().tobytes()) for name, t in stored}

    return content(a) == content(b)


def test_a_checkpoint_gives_the_files_that_the_run_wrote(last, slotid_file, tmp_path, capsys):
    ours, lora = tmp_path / "ours.safetensors", tmp_path / "lora.safetensors"
    assert run(last, "--slotid", ours, "--lora", lora) == 0
    assert capsys.readouterr().out.split() == [str(ours), str(lora)]
    assert same_tensors(ours, slotid_file)
    assert load_weights(ours).sha256 == load_weights(slotid_file).sha256
    assert lora.read_bytes() == (slotid_file.parent / LORA_FILE).read_bytes()


def test_raw_gives_the_last_weights(last, slotid_file, tmp_path):
    raw = tmp_path / "raw.safetensors"
    assert run(last, "--raw", "--slotid", raw) == 0
    assert not same_tensors(raw, slotid_file)
    stored, got = load_file(last / "state.safetensors"), load_file(raw)
    for name in ("clip_tokens.1.weight", "film.up"):
        assert torch.equal(got[f"model.{name}"], stored[f"weights.slotid.{name}"])
    assert load_weights(raw).facts["trained_steps"] == 12


def test_half_the_size_and_nearly_the_same_identity(slotid_file, tmp_path, capsys):
    half = tmp_path / "half.safetensors"
    assert run(slotid_file, "--slotid", half, "--half") == 0
    assert half.stat().st_size < 0.55 * slotid_file.stat().st_size
    whole, halved = load_weights(slotid_file), load_weights(half)
    assert whole.sha256 != halved.sha256 == load_weights(half).sha256 and dict(halved.facts) == dict(whole.facts)
    for a, b in zip(whole.model.state_dict().values(), halved.model.state_dict().values(), strict=True):
        assert a.dtype == b.dtype and torch.allclose(a.float(), b.float(), rtol=2**-10, atol=2**-24)
    assert {name: pair.alpha for name, pair in halved.lora.pairs.items()} == {
        name: pair.alpha for name, pair in whole.lora.pairs.items()
    }
    generator = torch.Generator().manual_seed(0)
    clip, portrait = torch.randn(1, 16, 3, 8, 8, generator=generator), torch.randn(1, 16, 1, 8, 8, generator=generator)
    one, other = (vars(weights.model.encode(clip, portrait).embedding) for weights in (whole, halved))
    assert one.keys() == other.keys() and all((one[n] - other[n]).norm() < 0.01 * one[n].norm() for n in one)
    with pytest.raises(SystemExit):
        run(slotid_file, "--lora", tmp_path / "lora.safetensors", "--half")
    assert "--half is for --slotid" in capsys.readouterr().err


def test_what_float16_cannot_hold_is_not_written(slotid_file, tmp_path, capsys):
    weights = load_weights(slotid_file)
    weights.model.clip_tokens[1].weight[0, 0] = 1e6
    large = tmp_path / "large.safetensors"
    save_weights(large, weights)
    assert run(large, "--slotid", tmp_path / "half.safetensors", "--half") == 1
    assert "model.clip_tokens.1.weight holds 1e+06, which is more than torch.float16 can" in capsys.readouterr().err
    assert not (tmp_path / "half.safetensors").exists()


def test_from_a_shell_in_another_folder(repo_root, slotid_file, wan_file, tmp_path):
    command = [sys.executable, str(repo_root / "training" / "export.py"), str(slotid_file)]
    options = ["--lora", "out/lora.safetensors", "--merge", str(wan_file), "--out-wan", "out/merged.safetensors"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["lora.safetensors", "merged.safetensors"]
    assert (tmp_path / "out" / "lora.safetensors").read_bytes() == (slotid_file.parent / LORA_FILE).read_bytes()

    generator = torch.Generator().manual_seed(4)
    latents, context = torch.randn(1, 16, 3, 8, 8, generator=generator), torch.randn(1, 9, 4096, generator=generator)
    call = {"timestep": torch.tensor([600.0]), "encoder_hidden_states": context, "return_dict": False}
    wan = load_transformer(wan_file)
    plain = wan(latents, **call)[0]
    with inject(wan, [], load_weights(slotid_file).lora):
        expected = wan(latents, **call)[0]
    got = load_transformer(tmp_path / "out" / "merged.safetensors")(latents, **call)[0]
    assert (got - expected).norm() / expected.norm() < 1e-4 < 1e-2 < (plain - expected).norm() / expected.norm()


def test_help_says_what_merging_needs(repo_root, tmp_path):
    command = [sys.executable, str(repo_root / "training" / "export.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    said = " ".join(done.stdout.split())
    assert done.returncode == 0 and all(name in said for name in ("--slotid", "--lora", "--merge", "--raw"))
    assert "in memory" in said and "LoRA strength of Slot-ID to 0" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to write"),
        (["--merge", "wan.safetensors"], "--merge and --out-wan belong together"),
        (["--out-wan", "wan.safetensors"], "--merge and --out-wan belong together"),
        (["--raw", "--slotid", "x.safetensors"], "--raw is for a checkpoint folder"),
    ],
    ids=str,
)
def test_a_wrong_command_line(capsys, slotid_file, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run(slotid_file, *arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


@pytest.fixture
def wrong(trained_run, slotid_file, last, wan_file, tmp_path):
    """Sources that are none, by name."""
    save_weights(tmp_path / "untrained.safetensors", untrained_weights("tiny"))
    without = untrained_weights_of(SlotIDConfig.preset("tiny").replace(lora={"rank": 0}), 0)
    save_weights(tmp_path / "no_lora.safetensors", without)
    (tmp_path / "cut.safetensors").write_bytes(slotid_file.read_bytes()[:-1000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "step_000007").mkdir()
    cut = shutil.copytree(last, tmp_path / "step_000012") / "state.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1000])
    ours = {"run": trained_run, "wan": wan_file, "lora": slotid_file.parent / LORA_FILE}
    return lambda name: ours.get(name, tmp_path / name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.safetensors", "There is no file"),
        ("nothing", "There is no file"),
        ("cut.safetensors", "cut.safetensors"),
        ("lora", "it has no Slot-ID metadata"),
        ("wan", "it has no Slot-ID metadata"),
        ("empty", "is not a checkpoint of a run. Give a folder such as RUN/checkpoints/step_"),
        ("run", "step_000012."),
        ("step_000007", "step_000007 can't be read"),
        ("step_000012", "step_000012 can't be read"),
        ("untrained.safetensors", "no LoRA that changes anything (it is untrained)"),
        ("no_lora.safetensors", "no LoRA that changes anything (lora.rank is 0)"),
    ],
)
def test_a_wrong_source_says_what_it_is(capsys, wrong, tmp_path, source, message):
    outputs = [tmp_path / "out" / "slotid.safetensors", tmp_path / "out" / "lora.safetensors"]
    assert run(wrong(source), "--slotid", outputs[0], "--lora", outputs[1]) == 1
    said = capsys.readouterr()
    assert message in said.err and "Traceback" not in said.err and said.out == ""
    assert "same command again" not in said.err, "what to do of a run, not of an export"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wan", "message"),
    [
        ("nothing.safetensors", "There is no file"),
        ("slotid", "not a Wan 2.1 transformer"),
        ("vae", "not a Wan 2.1 transformer"),
        ("folder", "is a folder, and merging takes one .safetensors file"),
        ("quantised", "expected float32, float16 or bfloat16"),
    ],
)
def test_a_wrong_wan_says_what_it_is(capsys, slotid_file, models, wan_file, tmp_path, wan, message):
    quantised = tmp_path / "quantised.safetensors"
    save_file({name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(wan_file).items()}, quantised)
    wans = {"slotid": slotid_file, "vae": models / "vae.safetensors", "folder": models, "quantised": quantised}
    out = tmp_path / "merged.safetensors"
    assert run(slotid_file, "--merge", wans.get(wan, tmp_path / wan), "--out-wan", out) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_sample_takes_what_a_run_wrote(slotid_file, models, wan_file, drawn_clips, tmp_path, capsys, monkeypatch):
    """No word of untrained weights, and the person is seen: other people, other pictures."""
    videos, write_mp4 = [], media.write_mp4
    monkeypatch.setattr(
        media, "write_mp4", lambda path, v, fps: videos.append(v.astype(float)) or write_mp4(path, v, fps)
    )
    arguments = ["--transformer", wan_file, "--vae", models / "vae.safetensors", "--weights", slotid_file]
    arguments += ["--box", "46,59,61,54", "--size", "32x48", "--frames", "5", "--steps", "2", "--clip-frames", "5"]
    arguments += ["--clip-size", "64", "--portrait-size", "64", "--text-encoder", "hashed"]
    for clip in drawn_clips:
        assert sample.main([str(a) for a in (*arguments, "--clip", clip, "--out", tmp_path / clip.stem)]) == 0
    said = capsys.readouterr().out
    assert "Done in" in said
    assert not any(word in said.lower() for word in ("random weights", "untrained", "no identity"))
    assert float(np.abs(videos[0] - videos[1]).mean()) > 0.1
