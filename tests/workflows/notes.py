"""The note beside each graph: what it does, what to download where, how to use it."""

from flow import Flow
from parts import DEMO_CLIP, DEMO_OTHER_CLIP, DEMO_PORTRAIT, DEMO_SLOTID, DEMO_VAE, DEMO_WAN, FILES

_KINDS = {
    "diffusion_models": "Diffusion model",
    "loras": "LoRA",
    "text_encoders": "Text encoder",
    "vae": "VAE",
    "clip_vision": "CLIP vision",
}
NO_WEIGHTS = (
    "**No trained Slot-ID weights exist yet.** *Load Slot-ID Model* stands on `untrained (Wan 14B)`, which changes "
    "nothing at all: **no identity will appear**. The graph shows how everything is wired; once there are weights, "
    "put them into `models/slotid` and choose them there."
)
CLIP = (
    "*Load Reference Clip*: upload 4 seconds or more of **one person** who turns, smiles and talks, and who agreed to "
    "it. The face is found and followed by InsightFace or dlib, whichever is installed; else set the face box "
    "(`box_x` ... `box_height`: right-click the node, *Show Advanced*)."
)
PORTRAIT = (
    "*Reference Report* says what the clip lacks; that is kept with the identity. *Extract Portrait* takes the best "
    "frame, on white as in training; a mask from any matting node may do it better."
)
PROMPTS = "Write what happens in the video. The prompt tells the scene, the clip tells the person."


def write_note(flow: Flow, title: str, about: str, use: list[str], *, slotid: bool = True, clips: int = 1) -> None:
    """A note for a graph with real models. ``clips``: how many files of the user's lie in ``input``."""
    steps = "\n".join(f"{i}. {step}" for i, step in enumerate(use, start=1))
    flow.note = f"## {title}\n\n{about}\n\n{_downloads(flow, slotid, clips)}\n\n### Use\n\n{steps}\n"


def write_demo_note(flow: Flow, title: str, about: str, use: list[str], own: str | None = None) -> None:
    """A note for a graph with the demo's small models. ``own``: how to use it with a real Wan."""
    used = {value for node in flow.nodes for value in node.inputs.values() if isinstance(value, str)}
    folders = {DEMO_WAN: "diffusion_models", DEMO_VAE: "vae", DEMO_SLOTID: "slotid"}
    inputs = [name for name in (DEMO_CLIP, DEMO_OTHER_CLIP, DEMO_PORTRAIT) if name in used]
    tree = _tree({folder: [name] for name, folder in folders.items() if name in used}, inputs)
    steps = "\n".join(f"- {step}" for step in use)
    real = f"\n### With a real Wan\n\n{own}\n" if own else ""
    flow.note = (
        f"## {title}\n\n{about}\n\n### Get the files\n\nIn the folder `ComfyUI/custom_nodes/slot-id` (wherever this "
        "pack is):\n\n```\npython run.py demo --install-demo PATH_TO_COMFYUI\n```\n\nPress `R` in ComfyUI afterwards, "
        f"and its lists have them:\n\n{tree}\n\n### Try\n\n{steps}\n{real}"
    )


def _downloads(flow: Flow, slotid: bool, clips: int) -> str:
    parts, folders = ["### Models"], {}
    for folder, kind in _KINDS.items():
        names = [model["name"] for model in flow.models() if model["directory"] == folder]
        if names:
            folders[folder] = names
            parts += ["", f"**{kind}**", *(f"- [{name}]({FILES[name]['url']})" for name in names)]
    if slotid:
        folders["slotid"] = ["(Slot-ID weights for Wan 14B)"]
    mine = ["(your reference clip)"] if clips == 1 else ["(your clips)"]
    return "\n".join([*parts, "", _tree(folders, mine)])


def _tree(folders: dict[str, list[str]], inputs: list[str]) -> str:
    lines = ["```", "ComfyUI/"]
    if folders:
        lines.append("├── models/" if inputs else "└── models/")
        stem = "│   " if inputs else "    "
        for i, (folder, names) in enumerate(folders.items()):
            last = i == len(folders) - 1
            lines.append(f"{stem}{'└' if last else '├'}── {folder}/")
            for j, name in enumerate(names):
                branch = "└" if j == len(names) - 1 else "├"
                lines.append(f"{stem}{' ' if last else '│'}   {branch}── {name}")
    if inputs:
        lines.append("└── input/")
        lines += [f"    {'└' if i == len(inputs) - 1 else '├'}── {name}" for i, name in enumerate(inputs)]
    return "\n".join([*lines, "```"])
