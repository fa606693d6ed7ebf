"""The tiny models, built once."""

import pytest

from training.demo_clip import demo_clip
from training.media import write_mp4
from training.wan_diffusers import tiny_transformer, tiny_vae


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
