"""The command line of ``sample.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

# What differs between a real Wan and the demo's small one. Sides of clip and portrait are those of the training
# (paper, 4.1, for the portrait); the demo's words too are those that it was trained with (training/world/scenario.py).
# How the demo samples is how docs/results/world was measured.
REAL = {
    "prompt": "a person smiles and turns the head in a sunny garden",
    "size": (720, 480),
    "frames": 65,
    "steps": 30,
    "guidance": 5.0,
    "identity_guidance": None,
    "shift": 5.0,
    "clip_frames": 65,
    "clip_size": 256,
    "portrait_size": 512,
    "compare": False,
}
DEMO = {
    "prompt": "In front of a misty wall a smiling person turns leftwards, wearing a blue shirt, medium shot, cold "
    "morning light.",
    "size": (80, 80),
    "frames": 17,
    "steps": 20,
    "guidance": 2.0,
    "identity_guidance": 5.0,
    "shift": 3.0,
    "clip_frames": 17,
    "clip_size": 80,
    "portrait_size": 80,
    "compare": True,
}
# Of slotid_core.reference.BACKENDS those that need no ComfyUI; importing them here would load PyTorch for --help.
FACES = ("auto", "insightface", "dlib", "box")
ON_BREAK = ("refuse", "longest part")
BACKGROUND = ("built-in matte", "keep")


def parse(argv: list[str]) -> argparse.Namespace:
    """The options, with every default filled in.

    Raises:
        SystemExit: after ``--help``, or with status 2 and a message where the options make no sense.
    """
    parser = argparse.ArgumentParser(
        prog="sample.py",
        description="Reference clip + prompt -> identity -> video (.mp4), contact sheet (.png), identity file, and a "
        "report of the reference clip (two .png).",
        epilog="With --demo, whatever is not given comes built in: a drawn person's clip, and a small Wan, VAE and "
        "Slot-ID weights that were trained on such people (docs/world.md) and know nothing else; what is made of the "
        "drawn person is scored, and the exit status is 1 below the bounds. To find the person in a --clip of your "
        "own, a face backend is needed, which 'run.py demo' does not install: pip install the extra dlib or "
        "insightface, whose weights are not for every commercial use; or give --box, which needs nothing.",
    )
    add = parser.add_argument
    add("--demo", action="store_true", help="use the built-in clip and small models for what is not given")
    add("--clip", type=Path, metavar="FILE", help="reference video of one person")
    add("--prompt", metavar="TEXT", help="what happens in the video; of the demo: one of the captions in docs/world.md")
    add("--negative", default="", metavar="TEXT", help="what should not be in it")
    add("--out", type=Path, default=Path("outputs"), metavar="DIR", help="folder for the results (%(default)s)")
    add("--seed", type=int, default=0, help="of the noise (%(default)s)")
    add("--steps", type=int, help=f"sampling steps ({_defaults('steps')})")
    add("--frames", type=int, help=f"frames to make, 4n + 1, 16 a second ({_defaults('frames')})")
    add("--size", type=_size, metavar="WxH", help="of the video, multiples of 16 (720x480, demo 80x80)")
    add("--guidance", type=float, help=f"classifier-free guidance, 1 is off ({_defaults('guidance')})")
    add("--shift", type=float, help=f"timestep shift of the sampler ({_defaults('shift')})")

    add = parser.add_argument_group("reference clip").add_argument
    add("--start", type=float, default=0.0, metavar="SECONDS", help="where to begin in the clip (%(default)s)")
    add(
        "--clip-frames",
        type=int,
        metavar="N",
        help=f"frames to read, 4n + 1, 16 a second ({_defaults('clip_frames')})",
    )
    add("--clip-size", type=int, metavar="PIXELS", help=f"side of the square clip ({_defaults('clip_size')})")
    add("--portrait", type=Path, metavar="FILE", help="a square picture instead of the best frame of the clip")
    add("--portrait-size", type=int, metavar="PIXELS", help=f"side of the portrait ({_defaults('portrait_size')})")
    add(
        "--faces",
        choices=FACES,
        default="auto",
        help="how the person is found; auto: the box, else insightface, else dlib, whichever is at hand (%(default)s)",
    )
    add("--person", type=int, default=0, metavar="N", help="who is meant; 0: the one who dominates the clip")
    add("--box", type=_box, metavar="X,Y,W,H", help="where the face is in all frames, in pixels of the frames as read")
    add(
        "--on-break",
        choices=ON_BREAK,
        default=ON_BREAK[0],
        help="at a hard cut, or where the person is gone: stop, or take the longest part (%(default)s)",
    )
    add(
        "--background",
        choices=BACKGROUND,
        default=BACKGROUND[0],
        help="of the portrait: white by the matte, as in training, or kept (%(default)s)",
    )
    add(
        "--max-side",
        type=int,
        default=1280,
        metavar="PIXELS",
        help="larger frames are shrunk while they are read (%(default)s)",
    )

    add = parser.add_argument_group("identity").add_argument
    add("--strength", type=float, default=1.0, help="of the identity (%(default)s)")
    add("--film-strength", type=float, default=1.0, help="of its FiLM part on top (%(default)s)")
    add("--lora-strength", type=float, default=1.0, help="of the LoRA that belongs to the weights (%(default)s)")
    add(
        "--identity-guidance",
        type=float,
        help="a guidance scale of its own for the identity, at half as many evaluations again (as --guidance, demo "
        f"{DEMO['identity_guidance']:g})",
    )
    add("--identity-in-negative", action="store_true", help="give the negative branch the identity too")
    add(
        "--compare",
        action=argparse.BooleanOptionalAction,
        help="also sample from the portrait alone and without the identity, for the contact sheet (demo: yes)",
    )

    add = parser.add_argument_group("models").add_argument
    add(
        "--transformer",
        type=Path,
        metavar="PATH",
        help="Wan 2.1 text-to-video: .safetensors or diffusers folder; tiny: the random one of configs/tiny.yaml",
    )
    add("--vae", type=Path, metavar="PATH", help="Wan 2.1 VAE: .safetensors or diffusers folder, or tiny")
    add("--weights", type=Path, metavar="FILE", help="Slot-ID weights (.safetensors)")
    add(
        "--text-encoder",
        type=Path,
        metavar="PATH",
        help="folder with Wan's umT5 as text_encoder and tokenizer (diffusers' Wan 2.1 has them); or hashed, the words "
        "of the demo's small Wan (demo: hashed)",
    )
    add("--text-embeds", type=Path, metavar="FILE", help="or: safetensors with the prompt's umT5 tokens [1, L, 4096]")
    add("--negative-embeds", type=Path, metavar="FILE", help="the same for the negative prompt")
    add("--device", default="cpu", help="of backbone and VAE: cpu, cuda, mps (%(default)s)")
    add("--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="of the backbone (%(default)s)")

    args = parser.parse_args(argv)
    needed = ("clip", "transformer", "vae", "weights")
    missing = [f"--{name}" for name in needed if getattr(args, name) is None]
    if missing and not args.demo:
        parser.error(f"needed: {', '.join(missing)}; or --demo, which brings its own")
    plain, free = vars(parser.parse_args(["--demo"])), ("out", "compare", "device")
    if args.text_embeds and args.prompt is not None:
        parser.error("--text-embeds takes the place of --prompt; give one of them")
    if args.negative_embeds and (args.negative or not args.text_embeds):
        parser.error("--negative-embeds goes with --text-embeds, in place of --negative")
    args.all_built_in = all(getattr(args, name) == value for name, value in plain.items() if name not in free)
    defaults = dict(DEMO if args.demo else REAL)
    if args.identity_in_negative:
        if args.identity_guidance is not None:
            parser.error("--identity-guidance needs a negative without the identity; leave out --identity-in-negative")
        defaults["identity_guidance"] = None
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if not (args.demo or args.text_encoder or args.text_embeds or args.transformer == Path("tiny")):
        parser.error("--transformer needs words that it knows: give --text-encoder (or --text-embeds)")
    if args.text_embeds and args.text_encoder:
        parser.error("--text-encoder and --text-embeds: give one of them")
    if args.box and args.faces not in ("auto", "box"):
        parser.error(f"--box takes the place of --faces {args.faces}; give one of them")
    if args.faces == "box" and not args.box:
        parser.error("--faces box needs --box X,Y,W,H")
    if args.clip is None and (args.box or args.faces != "auto"):
        parser.error("--box and --faces are for --clip; where the drawn head is, is known")
    if args.dtype != "float32" and args.transformer is None:
        parser.error("--dtype is for --transformer; the demo's small Wan is run in float32")
    if args.text_embeds and not args.negative_embeds and args.guidance != 1.0:
        parser.error("--text-embeds: guidance needs --negative-embeds too (or --guidance 1)")
    return args


def _defaults(name: str) -> str:
    return f"{REAL[name]:g}, demo {DEMO[name]:g}"


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected width x height such as 720x480")
    return int(width), int(height)


def _box(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected left,top,width,height such as 80,40,320,320")
    return tuple(int(part) for part in parts)
