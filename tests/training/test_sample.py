"""sample.py from its command line, with tiny settings."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from slotid_core.checkpoint import bundle, load_weights, save_weights, untrained_weights_of
from slotid_core.config import SlotIDConfig
from slotid_core.identity_file import load_identity
from slotid_core.lora import untrained_lora
from slotid_core.model import SlotID
from slotid_core.reference import BACKENDS, read_clip
from slotid_core.reference.faces import dlib_faces, insightface_faces
from training import media, sample, sample_args
from training.demo_clip import demo_clip
from training.demo_models import INSTALLED, SLOTID, VAE, WAN, install_demo_models
from training.world.scenario import SLOTS
from training.world.score import Score

TINY = ["--size", "32x48", "--frames", "5", "--steps", "2", "--clip-frames", "5", "--clip-size", "64"]
TINY += ["--portrait-size", "64", "--no-compare"]
BOX = ["--box", "46,59,61,54"]


@pytest.fixture(scope="module")
def comfy_folder(tmp_path_factory):
    """A folder that looks like ComfyUI's, with the demo's models in it."""
    root = tmp_path_factory.mktemp("ComfyUI")
    (root / "models").mkdir()
    assert install_demo_models(root) == [root / file.folder / file.installed for file in INSTALLED]
    return root


@pytest.fixture(scope="module")
def files(comfy_folder):
    """``--transformer``, ``--vae`` and ``--weights`` of the demo, as files in ComfyUI's folders."""
    options = {"--transformer": WAN, "--vae": VAE, "--weights": SLOTID}
    return {option: comfy_folder / file.folder / file.installed for option, file in options.items()}


def flat(options):
    return [str(part) for pair in options.items() for part in pair]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """``demo(name, *options)`` -> the video's frames before compression. Files go to ``demo.root / name``."""
    root, videos, write_mp4 = tmp_path_factory.mktemp("demo"), [], media.write_mp4

    def record(path, frames_FHWC, fps):
        videos.append(frames_FHWC.astype(float))
        write_mp4(path, frames_FHWC, fps)

    def run(name, *options):
        assert sample.main(["--demo", *TINY, "--out", str(root / name), *map(str, options)]) == 0
        return videos[-1]

    run.root = root
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media, "write_mp4", record)
        yield run


@pytest.fixture(scope="module")
def base(demo, drawn_clips):
    """The video of person A."""
    return demo("base", "--clip", drawn_clips[0], *BOX)


def difference(a, b):
    """Mean distance in grey levels."""
    return float(np.abs(a - b).mean())


# Matrix products differ in their last bits with where in memory their operands lie, and then a few pixels round
# differently.
SAME = 0.01


def test_the_demo_from_a_shell_in_another_folder(repo_root, tmp_path):
    command = [sys.executable, str(repo_root / "training" / "sample.py"), "--demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "drawn people who do not exist" in done.stdout
    scores = re.findall(r"face (-?[\d.]+), (-?\d+) % of the way .*; (\d) of 6 attributes", done.stdout)
    assert len(scores) == 3, "the person, the portrait alone, nobody"
    shares = [int(share) for _, share, _ in scores]
    assert shares[0] >= 50 and shares[0] > shares[2] + 20, "this person, and not anybody"
    assert int(scores[0][2]) >= 4
    pattern = r"hue behind the ears (-?[\d.]+) for ([\d.]+), pace of the turn (-?[\d.]+) for ([\d.]+)"
    told = np.array(re.findall(pattern, done.stdout), dtype=float).reshape(3, 2, 2)
    off = np.abs(told[..., 0] - told[..., 1])
    assert off[0].max() <= 0.25 < off[1:].min(), "the clip tells both, neither the portrait nor chance does"
    assert "Sampling: 100%" in done.stderr

    out = tmp_path / "outputs"
    video, sheet, person = (out / f"slotid_demo_seed0{suffix}" for suffix in (".mp4", ".png", ".safetensors"))
    report = [out / f"slotid_demo_seed0_{what}.png" for what in ("reference", "coverage")]
    assert sorted(out.iterdir()) == sorted([video, sheet, person, *report])
    for path in (video, sheet, person, *report):
        assert str(path.relative_to(tmp_path)) in done.stdout
    clip = read_clip(video, frames=17)
    assert (clip.source.width, clip.source.height, clip.source.source_fps) == (80, 80, 16)
    assert Image.open(sheet).width > 1000
    identity = load_identity(person)
    assert identity.embedding.clip_tokens_BSE.shape == (1, 6, 4096)
    assert (identity.coverage.backend, identity.coverage.frames) == ("box", 17)
    assert "not known" in identity.coverage.missing[0], "a box tells neither angles nor expression"
    assert all(f"Missing: {sentence}." in done.stdout for sentence in identity.coverage.missing)
    assert min(*Image.open(report[0]).size, *Image.open(report[1]).size) > 200


def test_another_person_gives_another_video(demo, base, drawn_clips):
    assert difference(base, demo("person", "--clip", drawn_clips[1], *BOX)) > 2


def test_another_prompt_gives_another_video(demo, base, drawn_clips):
    assert difference(base, demo("prompt", "--clip", drawn_clips[0], *BOX, "--prompt", "a dog sleeps")) > 2


def test_without_strength_the_person_does_not_matter(demo, base, drawn_clips):
    a, b = (demo(path.stem, "--clip", path, *BOX, "--strength", 0) for path in drawn_clips)
    assert difference(a, b) < SAME
    assert difference(a, base) > 2
    without_lora = demo("lora", "--clip", drawn_clips[0], *BOX, "--strength", 0, "--lora-strength", 0)
    assert difference(a, without_lora) > 1  # the LoRA stays on at strength 0


def test_the_identity_is_guided_by_apart(demo, base, drawn_clips):
    a, b = (demo(f"{path.stem}-0", "--clip", path, *BOX, "--identity-guidance", 0) for path in drawn_clips)
    assert difference(a, b) < SAME, "at 0 it is the prompt without the person"
    ordinary = demo("ordinary", "--clip", drawn_clips[0], *BOX, "--identity-guidance", 2)
    assert min(difference(base, a), difference(base, ordinary), difference(ordinary, a)) > 1


def test_models_from_files_are_the_demos_own(demo, base, files, drawn_clips):
    """Same weights through --transformer, --vae and --weights: the same video."""
    assert difference(base, demo("files", "--clip", drawn_clips[0], *BOX, *flat(files))) < SAME


def test_a_portrait_of_ones_own(demo, base, tmp_path, drawn_clips, capsys):
    own, wide = tmp_path / "own.png", tmp_path / "wide.png"
    Image.fromarray(255 - demo_clip(1, frames=1, size=96)[0]).save(own)
    Image.new("RGB", (90, 60)).save(wide)
    options = ["--clip", drawn_clips[0], *BOX, "--portrait"]
    assert difference(base, demo("portrait", *options, own)) > 1
    for file, message in ((wide, "is 90 x 60"), (drawn_clips[0], "can't be read as a portrait")):
        assert sample.main(["--demo", *TINY, "--out", str(tmp_path / "out"), *map(str, [*options, file])]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("face", "right", "pace", "message"),
    [
        (0.9, 6, 0.8, None),
        (0.5, 4, 0.56, None),
        (0.3, 6, 0.8, "got face 0.30, 33 % of the way"),
        (0.9, 3, 0.8, "3 of 6 attributes"),
        (0.9, 6, 0.5, "hue behind the ears 0.20 for 0.25, pace of the turn 0.50 for 0.80"),
    ],
)
def test_a_demo_below_its_bounds_says_so(face, right, pace, message):
    said = {slot: known[0] for slot, known in SLOTS.items()}
    seen = {slot: known[0] if i < right else known[1] for i, (slot, known) in enumerate(SLOTS.items())}
    told = {"dye_hue": (0.2, 0.25), "turn_pace": (pace, 0.8)}
    below = sample._below(Score(face=face, floor=0.0, ceiling=0.9, asked=said, seen=seen, told=told))
    assert below is None if message is None else message in below


def test_text_tokens_from_a_file(demo, base, tmp_path, drawn_clips):
    paths = [tmp_path / name for name in ("positive.safetensors", "negative.safetensors")]
    for path in paths:
        save_file({"tokens": torch.randn(1, 6, 4096)}, path)
    options = ["--text-embeds", paths[0], "--negative-embeds", paths[1]]
    assert difference(base, demo("text", "--clip", drawn_clips[0], *BOX, *options)) > 2


def test_words_by_umt5(demo, base, make_umt5, drawn_clips, capsys, tmp_path):
    """A tiny umT5 of the right width: its words arrive, and other words make another video."""
    options = ["--clip", drawn_clips[0], *BOX, "--text-encoder", make_umt5(4096)]
    first, again = (demo(f"umt5-{n}", *options, "--prompt", "a head turns") for n in range(2))
    assert difference(first, again) < SAME < 2 < difference(base, first)
    assert difference(first, demo("umt5-other", *options, "--prompt", "turns turns turns a a head")) > SAME
    long = ["--demo", *TINY, "--out", str(tmp_path), *map(str, options), "--prompt", "head " * 600]
    assert sample.main(long) == 1
    assert "more than 512 tokens" in capsys.readouterr().err


def test_the_box_chooses_what_is_read(demo, base, drawn_clips):
    assert (
        difference(base, demo("part", "--clip", drawn_clips[0], "--box", "20,80,50,50", "--background", "keep")) > 0.5
    )


def test_without_a_face_backend_it_says_what_to_install(capsys, tmp_path, drawn_clips, monkeypatch):
    for backend in (dlib_faces, insightface_faces):
        monkeypatch.setattr(backend, "missing_packages", lambda: "not installed")
    arguments = ["--demo", "--clip", str(drawn_clips[0]), *TINY, "--out", str(tmp_path)]
    assert sample.main(arguments) == 1
    said = capsys.readouterr().err
    assert "No face backend is at hand" in said and "[dlib]" in said and "--box X,Y,W,H" in said
    assert list(tmp_path.iterdir()) == []


def test_the_backends_are_the_cores():
    assert set(sample_args.FACES) == set(BACKENDS) - {"mediapipe"}, "its landmarks come from a ComfyUI node"


@pytest.fixture(scope="module")
def two_heads():
    """Two rendered heads side by side, ``[F, H, 2H, 3]``."""
    pytest.importorskip("dlib", reason="needs the face backend dlib")
    from slotid_core.reference.faces import Pose
    from training.world.clips import Motion, head_clip, move
    from training.world.scene import sample_scene
    from training.world.traits import sample_traits

    scene = sample_scene(3, pose=Pose(yaw=0.0, pitch=0.0, roll=0.0))
    clips = [
        head_clip(sample_traits(seed), move(scene, Motion(yaw=15.0), frames=5), height=256, width=256).frames_FHWC
        for seed in (3, 4)
    ]
    return np.concatenate(clips, axis=2)


def test_the_person_is_found_and_several_are_asked_about(capsys, demo, two_heads, tmp_path):
    alone, both = tmp_path / "alone.mp4", tmp_path / "both.mp4"
    media.write_mp4(alone, two_heads[:, :, :256], 16)
    media.write_mp4(both, two_heads, 16)
    found = demo("found", "--clip", alone)
    assert "Faces by dlib. Person 1 of 1" in capsys.readouterr().out

    assert sample.main(["--demo", "--clip", str(both), *TINY, "--out", str(tmp_path / "both")]) == 1
    said = capsys.readouterr().err
    (picture,) = (tmp_path / "both").iterdir()
    assert "2 people could be meant" in said and f"--person; {picture} shows" in said
    assert Image.open(picture).width > 200
    persons = [demo(f"person {n}", "--clip", both, "--person", n) for n in (1, 2)]
    assert difference(*persons) > 2
    assert min(difference(found, person) for person in persons) < difference(*persons), "one of them is who was alone"


def test_a_cut_is_refused_until_the_longest_part_is_asked_for(capsys, demo, tmp_path):
    cut = tmp_path / "cut.mp4"
    media.write_mp4(cut, np.concatenate([demo_clip(0, 9, 160), 255 - demo_clip(1, 8, 160)]), 16)
    options = ["--clip", cut, "--clip-frames", 17, *BOX]
    assert sample.main(["--demo", *TINY, "--out", str(tmp_path / "out"), *map(str, options)]) == 1
    assert "Hard cut at frame 9" in capsys.readouterr().err
    demo("cut", *options, "--on-break", "longest part")
    coverage = load_identity(demo.root / "cut" / "slotid_demo_seed0.safetensors").coverage
    assert (coverage.first_frame, coverage.frames) == (0, 9)


def test_large_frames_are_shrunk_while_they_are_read(capsys, demo, drawn_clips):
    demo("small", "--clip", drawn_clips[0], "--max-side", 144, "--box", "41,53,55,49")
    assert "144x144" in capsys.readouterr().out


def test_the_identity_file_names_its_weights(demo, base, files):
    weights = load_weights(files["--weights"])
    person = load_identity(demo.root / "base" / "slotid_demo_seed0.safetensors")
    assert person.weights_hash == weights.sha256
    assert person.thumbnail_HWC.shape == (128, 128, 3)


def test_untrained_weights_say_so(capsys, demo, tmp_path, files, drawn_clips):
    path = tmp_path / "untrained.safetensors"
    save_weights(path, untrained_weights_of(load_weights(files["--weights"]).model.config, seed=0))
    arguments = [*flat({**files, "--weights": path}), "--clip", drawn_clips[0], *BOX, "--out", tmp_path, *TINY]
    assert sample.main([*map(str, arguments), "--text-encoder", "hashed"]) == 0
    assert "NO IDENTITY WILL APPEAR" in capsys.readouterr().out


def test_weights_for_another_wan(capsys, tmp_path, drawn_clips):
    config = SlotIDConfig.preset("tiny").replace(backbone={"blocks": 5})
    lora = untrained_lora(config.lora, config.backbone, None)
    save_weights(tmp_path / "five.safetensors", bundle(SlotID(config), lora, {}))
    arguments = [
        "--demo",
        "--clip",
        drawn_clips[0],
        "--weights",
        tmp_path / "five.safetensors",
        "--out",
        tmp_path,
        *BOX,
    ]
    assert sample.main([*map(str, arguments), *TINY]) == 1
    said = capsys.readouterr()
    assert "5 blocks" in said.err and "6 blocks" in said.err
    assert not list(tmp_path.glob("*.mp4"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clip", "nothing.mp4"], "nothing.mp4"),
        (["--frames", "6"], "6 frames"),
        (["--size", "30x30"], "30 x 30"),
        (["--steps", "0"], "steps = 0"),
        (["--weights", "nothing.safetensors"], "nothing.safetensors"),
        (["--transformer", "nothing"], "no file or folder nothing"),
        (["--device", "warp"], "'warp' can't be used"),
        (["--box", "150,150,60,60"], "150"),
        (["--box", "60,60,20,20"], "The face is 20 pixels large"),
        (["--person", "2"], "Person 2 was asked for"),
        (["--clip-frames", "9"], "too short"),
        (["--background", "built-in matte", "--box", "0,0,160,160"], "keep the background"),
    ],
)
def test_input_that_cannot_be_used(capsys, tmp_path, drawn_clips, options, message):
    arguments = ["--demo", "--clip", str(drawn_clips[0]), *TINY, *BOX, "--out", str(tmp_path), *options]
    assert sample.main(arguments) == 1
    said = capsys.readouterr()
    assert message in said.err and "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needed: --clip, --transformer, --vae, --weights; or --demo"),
        (["--demo", "--size", "big"], "got 'big'"),
        (["--demo", "--box", "1,2,3"], "got '1,2,3'"),
        (["--demo", "--box", "1,2,3,4"], "--box and --faces are for --clip"),
        (["--demo", "--faces", "dlib"], "--box and --faces are for --clip"),
        (["--demo", "--clip", "x", "--faces", "box"], "--faces box needs --box"),
        (["--demo", "--clip", "x", "--faces", "dlib", *BOX], "takes the place of --faces dlib"),
        (["--demo", "--clip", "x", "--faces", "mediapipe"], "invalid choice"),
        (["--demo", "--text-embeds", "x"], "--negative-embeds"),
        (["--demo", "--dtype", "bfloat16"], "float32"),
        (["--demo", "--identity-guidance", "4", "--identity-in-negative"], "leave out --identity-in-negative"),
        (
            ["--clip", "c", "--transformer", "t", "--vae", "v", "--weights", "w"],
            "give --text-encoder (or --text-embeds)",
        ),
        (["--demo", "--text-encoder", "t", "--text-embeds", "x", "--negative-embeds", "y"], "give one of them"),
        (["--demo", "--text-embeds", "x", "--guidance", "1", "--prompt", "a dog"], "takes the place of --prompt"),
        (["--demo", "--text-encoder", "t", "--negative-embeds", "y"], "--negative-embeds goes with --text-embeds"),
        (["--demo", "--text-embeds", "x", "--negative-embeds", "y", "--negative", "blur"], "in place of --negative"),
    ],
)
def test_options_that_make_no_sense(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        sample.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_defaults_follow_the_models():
    demo = sample_args.parse(["--demo"])
    assert (demo.frames, demo.clip_size, demo.compare, demo.all_built_in) == (17, 80, True, True)
    assert sample_args.parse(["--demo", "--no-compare", "--out", "elsewhere"]).all_built_in
    embeds = ["--text-embeds", "a", "--negative-embeds", "b"]
    for own in (["--prompt", "a person"], ["--strength", "0"], ["--seed", "1"], embeds):
        assert not sample_args.parse(["--demo", *own]).all_built_in, "no bound holds for it"
    files = ["--clip", "c", "--transformer", "t", "--vae", "v", "--weights", "w", "--text-encoder", "e"]
    real = sample_args.parse(files)
    assert (real.size, real.frames, real.steps) == ((720, 480), 65, 30)
    assert (real.clip_size, real.portrait_size) == (256, 512)
    assert not real.compare and not real.all_built_in
    assert sample_args.parse([*files, "--steps", "7"]).steps == 7
    assert (demo.identity_guidance, real.identity_guidance) == (5.0, None)
    assert sample_args.parse(["--demo", "--identity-in-negative"]).identity_guidance is None


def test_install_demo_needs_a_comfyui_and_nothing_installed(repo_root, tmp_path):
    command = [sys.executable, "-S", repo_root / "training" / "demo_models.py", "--install-demo"]  # -S: no packages
    done = subprocess.run([*command, tmp_path / "elsewhere"], capture_output=True, text=True)
    assert done.returncode == 1 and "not a ComfyUI folder" in done.stderr
    comfy_folder = tmp_path / "ComfyUI"
    (comfy_folder / "models").mkdir(parents=True)
    done = subprocess.run([*command, comfy_folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    for file in INSTALLED:
        path = comfy_folder / file.folder / file.installed
        assert str(path) in said and path.read_bytes() == file.path.read_bytes()


def test_the_tiny_wan_has_the_kind_of_numbers_that_is_asked_for():
    tiny = ["--demo", "--transformer", "tiny", "--vae", "tiny", "--dtype", "bfloat16"]
    assert sample._load_models(sample_args.parse(tiny)).transformer.dtype == torch.bfloat16


@pytest.mark.full
def test_what_tiny_yaml_makes_is_sampled_with(demo, drawn_clips, tiny_run, repo_root, tmp_path):
    weights = tiny_run / "weights" / "slotid.safetensors"
    tiny, untrained = ["--transformer", "tiny", "--vae", "tiny"], tmp_path / "untrained.safetensors"
    save_weights(untrained, untrained_weights_of(load_weights(weights).model.config, seed=0))
    own, off, other = (
        demo(name, "--clip", drawn_clips[0], *BOX, *options)
        for name, options in (
            ("tiny_yaml", [*tiny, "--weights", weights]),
            ("tiny_yaml_off", [*tiny, "--weights", weights, "--strength", 0]),
            ("untrained_slotid", [*tiny, "--weights", untrained]),
        )
    )
    assert difference(own, off) > 1 and difference(own, other) > 1
    command = [sys.executable, str(repo_root / "training" / "sample.py"), "--demo", *TINY, *tiny]
    command += ["--weights", str(weights)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (person,) = (tmp_path / "outputs").glob("slotid_demo*.safetensors")
    assert load_identity(person).weights_hash == load_weights(weights).sha256
