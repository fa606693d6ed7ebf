"""The demo: models that were trained on people who do not exist (``training/world``), and two clips of one of them.

    python training/demo_models.py --install-demo COMFYUI

needs the standard library only, as ``run.py`` does: ComfyUI's own Python may be unable to install anything.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # nothing is installed then
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from slotid_core.errors import SlotIDError
from training.atomic import atomic

FOLDER = Path(__file__).resolve().parent.parent / "demo"


@dataclass(frozen=True)
class DemoFile:
    """A file of the repository's ``demo/``, and where ComfyUI wants it."""

    name: str
    folder: str
    installed: str

    @property
    def path(self) -> Path:
        """
        Raises:
            SlotIDError: it is not there.
        """
        path = FOLDER / self.name
        if not path.is_file():
            raise SlotIDError(f"The demo's {self.name} is not in {FOLDER}. Fetch the whole repository again.")
        return path


WAN = DemoFile("world_backbone.safetensors", "models/diffusion_models", "slotid_demo_wan.safetensors")
VAE = DemoFile("world_vae.safetensors", "models/vae", "slotid_demo_vae.safetensors")
SLOTID = DemoFile("world_slotid.safetensors", "models/slotid", "slotid_demo.safetensors")
CLIP = DemoFile("person.mp4", "input", "slotid_demo_person.mp4")
OTHER_CLIP = DemoFile("person_again.mp4", "input", "slotid_demo_person_again.mp4")
PORTRAIT = DemoFile("person.png", "input", "slotid_demo_portrait.png")
FACE_BOX = (36, 36, 88, 88)
"""Where the face is in the clips, left, top, width, height in pixels: the square around it is the whole picture."""
INSTALLED = (WAN, VAE, SLOTID, CLIP, OTHER_CLIP, PORTRAIT)
PROBE = DemoFile("world_probe.safetensors", "", "")
"""What scores the demo's video; ComfyUI has no use for it."""


def install_demo_models(comfy_root: Path) -> list[Path]:
    """Put what the demo workflows need into a ComfyUI folder, 32 MB.

    ``models/diffusion_models``, ``models/vae`` and ``models/slotid`` get a file each, ``input`` two clips and a
    portrait; files of the same names are replaced.

    Returns:
        The files written.

    Raises:
        SlotIDError: the folder is no ComfyUI, or can't be written, or a file of the demo is missing.
    """
    if not (comfy_root / "models").is_dir():
        raise SlotIDError(
            f"{comfy_root} is not a ComfyUI folder: it has no folder 'models'. Give the folder that ComfyUI is started "
            "from, or its --base-directory."
        )
    written = []
    for file in INSTALLED:
        path = comfy_root / file.folder / file.installed
        with atomic(path) as temporary:
            shutil.copyfile(file.path, temporary)
        written.append(path)
    return written


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=install_demo_models.__doc__.split("\n\n")[0])
    parser.add_argument("--install-demo", type=Path, required=True, metavar="COMFYUI")
    try:
        for path in install_demo_models(parser.parse_args(argv).install_demo):
            print(path)
    except SlotIDError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
