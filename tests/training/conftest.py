"""The tiny models, built once, and a dataset of drawn people with its cache: all of it but the search for faces."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slotid_core.reference import Box
from slotid_core.reference.faces.box import BoxFaces
from training.data.clip import Bench
from training.data.make import make_cache
from training.demo_clip import demo_clip
from training.media import write_mp4
from training.settings_file import from_dict
from training.wan_diffusers import tiny_transformer, tiny_vae

SIDE, FRAMES = 128, 12
BOX = (38, 34, 50, 54)


@pytest.fixture(scope="session")
def transformer():
    return tiny_transformer()


@pytest.fixture(scope="session")
def vae():
    return tiny_vae()


@pytest.fixture(scope="session")
def drawn_clips(tmp_path_factory):
    """Video files of two drawn people, 5 frames of 160 x 160 each; the face is in the box 46,59,61,54."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / "a.mp4", folder / "b.mp4"]
    for seed, path in enumerate(paths):
        write_mp4(path, demo_clip(seed, frames=5, size=160))
    return paths


def settings_of(source: Path, cache: Path, **data):
    """Settings of the smallest cache there is; ``data`` changes its section."""
    return from_dict(
        {
            "run": {"folder": str(cache.parent / "run")},
            "model": {
                "preset": "tiny", "transformer": "tiny", "vae": "tiny", "text_encoder": "hashed",
                "slotid": data.pop("slotid", {}),
            },
            "data": {
                "layout": "folder", "source": str(source), "cache": str(cache), "sizes": [[64, 64]], "lengths": [5],
                "reference_frames": 5, "reference_side": 64, "portrait_side": 64, "held_out": 0.5,
                "clips_per_shard": 1, "augment": {"variants": 2}, **data,
            },
            "optim": {"steps": 1, "batch": 1},
        },
        "test",
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_settings():
    """``settings_of``."""
    return settings_of


@pytest.fixture(scope="session")
def drawn_dataset(tmp_path_factory):
    """Videos with captions of four people in folders of their own."""
    folder = tmp_path_factory.mktemp("drawn")
    for seed in range(4):
        person = folder / f"person{seed}"
        person.mkdir()
        write_mp4(person / "clip.mp4", demo_clip(seed, frames=FRAMES, size=SIDE))
        (person / "clip.txt").write_text(f"A drawn head turns, number {seed}.", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def make_bench(vae):
    """A bench whose faces are where the box is, with the session's VAE."""

    def make(settings, box=BOX):
        bench = Bench(settings, faces=BoxFaces(Box(*box), frames=1), device=torch.device("cpu"))
        bench.vae = vae
        return bench

    return make


@pytest.fixture(scope="session")
def drawn_cache(drawn_dataset, make_bench, tmp_path_factory):
    """Settings of a finished cache; tests only read it."""
    settings = settings_of(drawn_dataset, tmp_path_factory.mktemp("cache") / "cache")
    make_cache(settings, bench=make_bench(settings), say=lambda line: None)
    return settings


@pytest.fixture(scope="session")
def files_of():
    """Every file of a folder by its name, as bytes; the memory of hashes is no part of a cache."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "hashes.json"
        }

    return read


@pytest.fixture(scope="session")
def make_umt5(tmp_path_factory):
    """``make_umt5(width)``: a folder with ``text_encoder`` and ``tokenizer``, as diffusers lays them out; a tiny umT5
    with random weights and a few words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    words = ["<pad>", "</s>", "<unk>", "a", "head", "turns", "and", "smiles"]

    def make(width: int) -> Path:
        folder = tmp_path_factory.mktemp("umt5")
        tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder / "tokenizer")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = UMT5Config(vocab_size=len(words), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
            UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
        return folder

    return make


_HOLD = """
import sys
from pathlib import Path
from training.lock import alone_in
with alone_in(Path(sys.argv[1]), "thing", "", print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def held_elsewhere():
    """``with held_elsewhere(folder):`` another process holds the folder's lock."""

    @contextlib.contextmanager
    def hold(folder: Path):
        command = [sys.executable, "-c", _HOLD, folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout.readline() == "held\n"
            yield
            holder.stdin.close()

    return hold
