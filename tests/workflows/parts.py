"""Pieces that several workflows have in common."""

from dataclasses import dataclass

from flow import Flow, Group, Node, Output

_WAN21 = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
_WAN22 = "https://huggingface.co/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"
_KIJAI = "https://huggingface.co/Kijai/WanVideo_comfy/resolve/main"

T2V = "wan2.1_t2v_14B_fp8_scaled.safetensors"
I2V = "wan2.1_i2v_480p_14B_fp8_scaled.safetensors"
HIGH, LOW = "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors", "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors"
PHANTOM = "Phantom-Wan-14B_fp16.safetensors"
LIGHTNING = "lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16.safetensors"
TEXT, VAE, VISION = (
    "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "wan_2.1_vae.safetensors",
    "clip_vision_h.safetensors",
)
_FOLDERS = {
    "diffusion_models": {T2V: _WAN21, I2V: _WAN21, HIGH: _WAN22, LOW: _WAN22, PHANTOM: _KIJAI},
    "loras": {LIGHTNING: f"{_KIJAI}/Lightx2v"},
    "text_encoders": {TEXT: _WAN21},
    "vae": {VAE: _WAN21},
    "clip_vision": {VISION: _WAN21},
}


def _where(base: str, folder: str, name: str) -> str:
    return f"{base}/{name}" if base.startswith(_KIJAI) else f"{base}/{folder}/{name}"


FILES = {
    name: {"name": name, "url": _where(base, folder, name), "directory": folder}
    for folder, names in _FOLDERS.items()
    for name, base in names.items()
}
"""Models to download, as ComfyUI's own templates name them; Phantom is not among those."""

DEMO_WAN, DEMO_VAE, DEMO_SLOTID = (
    "slotid_demo_wan.safetensors",
    "slotid_demo_vae.safetensors",
    "slotid_demo.safetensors",
)
DEMO_CLIP, DEMO_OTHER_CLIP = "slotid_demo_person.mp4", "slotid_demo_person_again.mp4"
DEMO_PORTRAIT = "slotid_demo_portrait.png"
UNTRAINED = "untrained (Wan 14B)"

PROMPT = (
    "a person walks through a sunny garden, turns to the camera, smiles and talks, natural light, handheld camera, "
    "medium close-up"
)
NEGATIVE = (
    "overexposed, static, blurry details, subtitles, painting, still picture, grey overall, worst quality, low "
    "quality, JPEG artifacts, ugly, deformed, extra fingers, badly drawn hands, badly drawn face, fused fingers, "
    "cluttered background, many people in the background"
)


@dataclass(frozen=True)
class Models:
    vae: Output
    slotid: Output | None = None
    clip: Output | None = None
    unet: Output | None = None


def models(flow: Flow, *wans: str, slotid: bool = True, stack: int = 0) -> tuple[Models, list[Output]]:
    """Group 1 for a real Wan: one loader for each of ``wans``, text encoder, VAE, and Slot-ID."""
    group = flow.group("Step 1 - Models", stack=stack)
    loaders = [group.add("UNETLoader", unet_name=wan, weight_dtype="default").out("MODEL") for wan in wans]
    clip = group.add("CLIPLoader", clip_name=TEXT, type="wan", device="default").out("CLIP")
    vae = group.add("VAELoader", vae_name=VAE).out("VAE")
    loaded = group.add("SlotIDLoadModel", model_name=UNTRAINED).out("slotid_model") if slotid else None
    return Models(vae, loaded, clip, loaders[0]), loaders


def demo_models(flow: Flow, *, wan: bool = True) -> Models:
    """Group 1 for the demo's small models."""
    group = flow.group("Step 1 - Models", stack=0)
    unet = group.add("UNETLoader", unet_name=DEMO_WAN, weight_dtype="default").out("MODEL") if wan else None
    vae = group.add("VAELoader", vae_name=DEMO_VAE).out("VAE")
    slotid = group.add("SlotIDLoadModel", model_name=DEMO_SLOTID).out("slotid_model")
    return Models(vae, slotid, None, unet)


@dataclass(frozen=True)
class Person:
    clip: Node
    encode: Node

    @property
    def identity(self) -> Output:
        return self.encode.out("identity")


def _encoded(group: Group, column: int, loaded: Models, reader: Node, portrait: Output, **reference: Output) -> Person:
    encode = group.add(
        "SlotIDEncode",
        column=column,
        slotid_model=loaded.slotid,
        vae=loaded.vae,
        clip=reader.out("clip"),
        portrait=portrait,
        **reference,
    )
    return Person(reader, encode)


def person(group: Group, loaded: Models, *, first: int = 0, title: str | None = None, **clip) -> Person:
    """Clip, portrait and encoder in two columns of a group. ``clip`` are widgets of Load Reference Clip."""
    reader = group.add("SlotIDLoadReferenceClip", column=first, title=title, **clip)
    reference = reader.out("reference")
    portrait = group.add("SlotIDExtractPortrait", column=first + 1, frames=reader.out("frames"), reference=reference)
    return _encoded(group, first + 1, loaded, reader, portrait.out("portrait"), reference=reference)


def demo_person(
    group: Group, loaded: Models, *, first: int = 0, title: str | None = None, video: str = DEMO_CLIP
) -> Person:
    """Clip, portrait file and encoder; sizes are those that the demo's small models were trained with."""
    reader = group.add(
        "SlotIDLoadReferenceClip", column=first, title=title, video=video, faces="off", frame_count=17, size=80
    )
    portrait = group.add("LoadImage", column=first + 1, title="Load Image (portrait)", image=DEMO_PORTRAIT)
    return _encoded(group, first + 1, loaded, reader, portrait.out("IMAGE"))


def real_person(flow: Flow, loaded: Models) -> Person:
    """Group 2 with the user's own clip."""
    return person(flow.group("Step 2 - The person", 360, 420, stack=1), loaded, video="")


def report(flow: Flow, reference: Output, stack: int = 1) -> None:
    """What the clip gives, in pictures."""
    group = flow.group("What the clip shows", 820, stack=stack)
    group.add("SlotIDReferenceReport", reference=reference)


def prompts(flow: Flow, clip: Output | None, title: str, *, stack: int = 1, positive: str = PROMPT) -> list[Output]:
    """A group with the positive and the negative prompt; without ``clip`` for the demo's small Wan."""
    group = flow.group(title, 380, 400, stack=stack)
    if clip is None:
        texts = (("positive", positive), ("negative", ""))
        named = [(f"Slot-ID Demo Prompt ({role.title()})", role, text) for role, text in texts]
        return [
            group.add("SlotIDDemoPrompt", column=i, title=name, role=role, text=text).out("conditioning")
            for i, (name, role, text) in enumerate(named)
        ]
    texts = (("positive", positive), ("negative", NEGATIVE))
    return [
        group.add(
            "CLIPTextEncode",
            column=i,
            title=f"CLIP Text Encode ({role.title()} Prompt)",
            role=role,
            clip=clip,
            text=text,
        ).out("CONDITIONING")
        for i, (role, text) in enumerate(texts)
    ]


def size(flow: Flow, title: str, width: int, height: int, length: int, stack: int = 0) -> Output:
    group = flow.group(title, stack=stack)
    return group.add("EmptyHunyuanLatentVideo", width=width, height=height, length=length).out("LATENT")


def shifted(group: Group, model: Output, shift: float = 5.0, column: int = 0) -> Output:
    return group.add("ModelSamplingSD3", column=column, model=model, shift=shift).out("MODEL")


def applied(group: Group, model: Output, loaded: Models, identity: Output, column: int = 0, **widgets) -> Output:
    node = group.add(
        "SlotIDApply", column=column, model=model, slotid_model=loaded.slotid, identity=identity, **widgets
    )
    return node.out("model")


def video(group: Group, latent: Output, vae: Output, column: int = 0, fps: float = 16.0) -> tuple[Output, Output]:
    """Frames and video of a latent."""
    frames = group.add("VAEDecode", column=column, samples=latent, vae=vae).out("IMAGE")
    return frames, group.add("CreateVideo", column=column, images=frames, fps=fps).out("VIDEO")


def saved(group: Group, made: Output, name: str, **options) -> Node:
    """Show and save a video."""
    return group.add("SaveVideo", video=made, filename_prefix=f"video/{name}", format="auto", **options)


def sampled(group: Group, model: Output, positive: Output, negative: Output, latent: Output, **widgets) -> Output:
    """A KSampler's latent."""
    node = group.add(
        "KSampler",
        after="randomize",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent,
        scheduler="simple",
        **widgets,
    )
    return node.out("LATENT")


def guided(
    group: Group, guider: Output, model: Output, latent: Output, *, steps: int, sampler_name: str, column: int = 0,
    after: str | None = None,
) -> Output:  # fmt: skip
    """A latent of SamplerCustomAdvanced, for guiders other than KSampler's own."""
    noise = group.add("RandomNoise", column=column, noise_seed=0, after=after)
    sampler = group.add("KSamplerSelect", column=column, sampler_name=sampler_name)
    sigmas = group.add("BasicScheduler", column=column, model=model, scheduler="simple", steps=steps)
    node = group.add(
        "SamplerCustomAdvanced",
        column=column,
        noise=noise.out("NOISE"),
        guider=guider,
        sampler=sampler.out("SAMPLER"),
        sigmas=sigmas.out("SIGMAS"),
        latent_image=latent,
    )
    return node.out("output")
