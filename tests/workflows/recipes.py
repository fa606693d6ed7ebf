"""The shipped workflows with real models: what each consists of, and what its note says."""

import notes
import parts
from flow import Flow, Group, Output

_BYPASS = "Bypass *Apply Slot-ID to Wan* to see the same video without the person."
_OWN = [notes.CLIP, notes.PORTRAIT, notes.PROMPTS]


def text_to_video(flow: Flow) -> None:
    loaded, (wan,) = parts.models(flow, parts.T2V)
    person = parts.real_person(flow, loaded)
    latent = parts.size(flow, "Step 3 - Video size", 720, 480, 65)
    positive, negative = parts.prompts(flow, loaded.clip, "Step 4 - Prompt")
    parts.report(flow, person.clip.out("reference"))
    group = flow.group("Step 5 - Sampling", 380, stack=2)
    model = parts.applied(group, parts.shifted(group, wan), loaded, person.identity)
    sampled = _sampled(group, model, positive, negative, latent, steps=30, cfg=5, sampler_name="uni_pc")
    _, made = parts.video(group, sampled, loaded.vae)
    parts.saved(flow.group("Step 6 - Video", 560, stack=3), made, "SlotID")
    notes.write_note(flow, "Slot-ID: one person in Wan 2.1 text-to-video 14B", notes.NO_WEIGHTS, [*_OWN, _BYPASS])


def lightning(flow: Flow) -> None:
    loaded, (wan,) = parts.models(flow, parts.T2V)
    person = parts.real_person(flow, loaded)
    latent = parts.size(flow, "Step 3 - Video size", 720, 480, 65)
    positive, negative = parts.prompts(flow, loaded.clip, "Step 4 - Prompt")
    parts.report(flow, person.clip.out("reference"))
    group = flow.group("Step 5 - Four steps", 480, stack=2)
    fast = group.add("LoraLoaderModelOnly", model=wan, lora_name=parts.LIGHTNING, strength_model=1.0).out("MODEL")
    model = parts.applied(group, parts.shifted(group, fast), loaded, person.identity)
    sampled = _sampled(group, model, positive, negative, latent, steps=4, cfg=1, sampler_name="lcm")
    _, made = parts.video(group, sampled, loaded.vae)
    parts.saved(flow.group("Step 6 - Video", 560, stack=3), made, "SlotID_lightning")
    notes.write_note(
        flow,
        "Slot-ID in four steps: Wan 2.1 14B with the lightx2v LoRA",
        notes.NO_WEIGHTS,
        [
            *_OWN,
            "The LoRA is distilled for 4 steps at `cfg` 1. There the negative prompt counts for nothing, and nothing "
            "amplifies the identity: *strength* of *Apply Slot-ID to Wan* is what is left to turn.",
            "The order of LoRA and Apply does not matter. How much of a person four steps keep has not been measured.",
        ],
    )


def two_experts(flow: Flow) -> None:
    loaded, (high, low) = parts.models(flow, parts.HIGH, parts.LOW)
    person = parts.real_person(flow, loaded)
    latent = parts.size(flow, "Step 3 - Video size", 720, 480, 65)
    positive, negative = parts.prompts(flow, loaded.clip, "Step 4 - Prompt")
    parts.report(flow, person.clip.out("reference"))
    group = flow.group("Step 5 - High noise, then low noise", 360, 360, stack=2)
    halves = [
        parts.applied(group, parts.shifted(group, wan, column=i), loaded, person.identity, column=i)
        for i, wan in enumerate((high, low))
    ]
    common = dict(positive=positive, negative=negative, steps=20, cfg=3.5, sampler_name="euler", scheduler="simple")
    first = group.add(
        "KSamplerAdvanced",
        title="KSampler (Advanced) - high noise",
        after="randomize",
        model=halves[0],
        latent_image=latent,
        **common,
        add_noise="enable",
        start_at_step=0,
        end_at_step=10,
        return_with_leftover_noise="enable",
    )
    second = group.add(
        "KSamplerAdvanced",
        column=1,
        title="KSampler (Advanced) - low noise",
        model=halves[1],
        latent_image=first.out("LATENT"),
        **common,
        add_noise="disable",
        start_at_step=10,
        end_at_step=10000,
        return_with_leftover_noise="disable",
    )
    _, made = parts.video(group, second.out("LATENT"), loaded.vae, column=1)
    parts.saved(flow.group("Step 6 - Video", 560, stack=3), made, "SlotID_wan2.2")
    notes.write_note(
        flow,
        "Slot-ID in Wan 2.2 A14B: two experts, one identity",
        notes.NO_WEIGHTS,
        [
            *_OWN,
            "Both experts get the same identity and the same weights. The gate follows the noise level, so it goes on "
            "in the second half where the first one ended: portrait early, clip late.",
            "`end_at_step` of the first sampler and `start_at_step` of the second have to be the same.",
        ],
    )


def image_to_video(flow: Flow) -> None:
    loaded, (wan,) = parts.models(flow, parts.I2V)
    person = parts.real_person(flow, loaded)
    start = flow.group("Step 3 - First picture", stack=0)
    picture = start.add("LoadImage", image="example.png").out("IMAGE")
    vision = start.add("CLIPVisionLoader", clip_name=parts.VISION).out("CLIP_VISION")
    seen = start.add("CLIPVisionEncode", clip_vision=vision, image=picture, crop="none").out("CLIP_VISION_OUTPUT")
    positive, negative = parts.prompts(flow, loaded.clip, "Step 4 - Prompt")
    parts.report(flow, person.clip.out("reference"))
    group = flow.group("Step 5 - Sampling", 380, stack=2)
    conditions = group.add(
        "WanImageToVideo",
        positive=positive,
        negative=negative,
        vae=loaded.vae,
        clip_vision_output=seen,
        start_image=picture,
        width=720,
        height=480,
        length=65,
    )
    positive, negative, latent = (conditions.out(name) for name in ("positive", "negative", "latent"))
    model = parts.applied(group, parts.shifted(group, wan), loaded, person.identity)
    sampled = _sampled(group, model, positive, negative, latent, steps=20, cfg=6, sampler_name="uni_pc")
    _, made = parts.video(group, sampled, loaded.vae)
    parts.saved(flow.group("Step 6 - Video", 560, stack=3), made, "SlotID_i2v")
    notes.write_note(
        flow,
        "Slot-ID in Wan 2.1 image-to-video 14B",
        f"{notes.NO_WEIGHTS} A picture shows one view of a face; the clip knows the others, for when the head turns.",
        [
            *_OWN,
            "*Load Image*: in place of ComfyUI's example, the first picture of the video, with the person of the clip "
            "in it. It is cut to the size in *WanImageToVideo*.",
            _BYPASS,
        ],
        clips=2,
    )


def two_people(flow: Flow) -> None:
    width, height = 720, 480
    loaded, (wan,) = parts.models(flow, parts.T2V)
    people = [
        parts.person(flow.group(f"Step {step} - The person on the {side}", 360, 420, stack=1), loaded, video="")
        for step, side in ((2, "left"), (3, "right"))
    ]
    latent = parts.size(flow, "Step 4 - Video size", width, height, 65)
    regions = flow.group("Step 5 - Who is where", stack=0)
    black = regions.add("SolidMask", title="Solid Mask (the picture)", value=0.0, width=width, height=height)
    white = regions.add("SolidMask", title="Solid Mask (the left half)", value=1.0, width=width // 2, height=height)
    left = regions.add(
        "MaskComposite", destination=black.out("MASK"), source=white.out("MASK"), x=0, y=0, operation="add"
    ).out("MASK")
    right = regions.add("InvertMask", title="Invert Mask (the right half)", mask=left).out("MASK")
    positive, negative = parts.prompts(
        flow,
        loaded.clip,
        "Step 6 - Prompt",
        positive="two people sit side by side at a small table in a cafe, the one on the left talks and gestures, the "
        "one on the right listens and smiles, both face the camera, natural light, medium shot",
    )
    group = flow.group("Step 7 - Sampling", 380, stack=2)
    model = parts.shifted(group, wan)
    for person, side, mask in zip(people, ("left", "right"), (left, right), strict=True):
        title = f"Apply Slot-ID to Wan ({side})"
        model = parts.applied(group, model, loaded, person.identity, title=title, mask=mask)
    sampled = _sampled(group, model, positive, negative, latent, steps=30, cfg=5, sampler_name="uni_pc")
    _, made = parts.video(group, sampled, loaded.vae)
    parts.saved(flow.group("Step 8 - Video", 560, stack=3), made, "SlotID_two_people")
    notes.write_note(
        flow,
        "Slot-ID for two people in one picture",
        f"{notes.NO_WEIGHTS} Regions keep the faces apart: each person's tokens are seen, and FiLM acts, only "
        "where that mask is white. No model was trained with two people, so this is **untested on trained weights**.",
        [
            f"{notes.CLIP} One clip for each of the two.",
            "The masks: left half and right half. Any other masks do, one for the whole video or one a frame, in the "
            "video's proportions. Outside of all masks there is no identity.",
            "The prompt has to put the people where their masks are: *on the left*, *on the right*.",
            "Both *Apply* nodes need the same Slot-ID weights and the same `lora_strength`. A third person is one more "
            "*Apply* in the row.",
        ],
        clips=2,
    )


def _phantom(
    flow: Flow,
    group: Group,
    wan: Output,
    loaded: parts.Models,
    prompts: tuple[Output, Output],
    portraits: Output,
    *,
    length: int,
    fps: float,
    steps: int,
) -> tuple[Output, Output]:
    """Phantom as ComfyUI's core has it, in two columns: frames and video."""
    padded = group.add(
        "ResizeAndPadImage",
        image=portraits,
        target_width=832,
        target_height=480,
        padding_color="white",
        interpolation="lanczos",
    )
    conditions = group.add(
        "WanPhantomSubjectToVideo",
        positive=prompts[0],
        negative=prompts[1],
        vae=loaded.vae,
        images=padded.out("IMAGE"),
        width=832,
        height=480,
        length=length,
    )
    model = parts.shifted(group, wan)
    guider = group.add(
        "DualCFGGuider",
        model=model,
        cond1=conditions.out("positive"),
        cond2=conditions.out("negative_text"),
        negative=conditions.out("negative_img_text"),
        cfg_conds=7.5,
        cfg_cond2_negative=5.0,
    )
    noise = group.add("RandomNoise", column=1, noise_seed=0, after="randomize")
    sampler = group.add("KSamplerSelect", column=1, sampler_name="uni_pc")
    sigmas = group.add("BasicScheduler", column=1, model=model, scheduler="simple", steps=steps)
    sampled = group.add(
        "SamplerCustomAdvanced",
        column=1,
        noise=noise.out("NOISE"),
        guider=guider.out("GUIDER"),
        sampler=sampler.out("SAMPLER"),
        sigmas=sigmas.out("SIGMAS"),
        latent_image=conditions.out("latent"),
    )
    return parts.video(group, sampled.out("output"), loaded.vae, column=1, fps=fps)


_ABOUT_PHANTOM = (
    "Phantom is not among ComfyUI's own repackaged files; this one is Kijai's. With less memory take "
    "`Phantom-Wan-1_3B_fp16.safetensors` from the same place, with `length` 81 and 16 frames a second."
)


def phantom_day_one(flow: Flow) -> None:
    loaded, (wan,) = parts.models(flow, parts.PHANTOM, slotid=False)
    group = flow.group("Step 2 - The person", 360, 420, stack=1)
    reader = group.add("SlotIDLoadReferenceClip", video="")
    reference = reader.out("reference")
    portraits = group.add("SlotIDExtractPortrait", column=1, reference=reference, count=4, taller=160)
    prompts = parts.prompts(flow, loaded.clip, "Step 3 - Prompt")
    parts.report(flow, reference)
    sampling = flow.group("Step 4 - Phantom", 320, 320, stack=2)
    frames, made = _phantom(
        flow, sampling, wan, loaded, prompts, portraits.out("portrait"), length=121, fps=24, steps=50
    )
    parts.saved(flow.group("Step 5 - Video", 560, stack=3), made, "Phantom")
    score = flow.group("Step 6 - Is it the person?", 560, stack=3)
    score.add("SlotIDIdentityScore", frames=frames, reference=reference, every=4)
    notes.write_note(
        flow,
        "Day one: a clip's best portraits for Phantom",
        "Needs **no Slot-ID weights**: public weights, ComfyUI's own Phantom node, and this pack's reference tools "
        "before and after. The clip is searched for four portraits that differ in where the face looks and in its "
        f"expression; the score says how much of the person the video has. {_ABOUT_PHANTOM}",
        [
            notes.CLIP,
            "*Extract Portrait*: `count` is how many; Phantom was made for up to 4. Each costs as much time as 4 more "
            "frames of video. *Reference Report* says what the clip lacks.",
            "Describe the person in the prompt as well: Phantom's authors advise it. It was trained at 24 frames a "
            "second and on wide pictures.",
            "*Identity Score* compares the video with the clip: 0 is as another person, 1 as the clip itself.",
        ],
        slotid=False,
    )


def compare_with_phantom(flow: Flow) -> None:
    loaded, (wan, phantom) = parts.models(flow, parts.T2V, parts.PHANTOM)
    group = flow.group("Step 2 - The person", 360, 420, stack=1)
    person = parts.person(group, loaded, video="")
    reference = person.clip.out("reference")
    portraits = group.add(
        "SlotIDExtractPortrait", column=None, title="Extract Portrait (four, for Phantom)", reference=reference, count=4
    )
    latent = parts.size(flow, "Step 3 - Video size of Slot-ID", 832, 480, 65)
    prompts = parts.prompts(flow, loaded.clip, "Step 4 - Prompt")
    ours = flow.group("Step 5 - Slot-ID", 680, stack=2)
    model = parts.applied(ours, parts.shifted(ours, wan), loaded, person.identity)
    sampled = _sampled(ours, model, *prompts, latent, steps=30, cfg=5, sampler_name="uni_pc")
    our_frames, our_video = parts.video(ours, sampled, loaded.vae)
    theirs = flow.group("Step 6 - Phantom", 320, 320, stack=2)
    their_frames, their_video = _phantom(
        flow, theirs, phantom, loaded, prompts, portraits.out("portrait"), length=65, fps=16, steps=30
    )
    results = flow.group("Step 7 - Side by side", 560, 560, stack=3)
    for column, (name, frames, made) in enumerate(
        (("Slot-ID", our_frames, our_video), ("Phantom", their_frames, their_video))
    ):
        parts.saved(results, made, f"compare_{name}", column=column, title=f"{name}: video")
        results.add(
            "SlotIDIdentityScore",
            column=column,
            title=f"{name}: Identity Score",
            frames=frames,
            reference=reference,
            every=2,
        )
    notes.write_note(
        flow,
        "Score and compare: Slot-ID and Phantom on one clip",
        f"{notes.NO_WEIGHTS} So today this measures a Wan without a person against Phantom. {_ABOUT_PHANTOM}",
        [
            notes.CLIP,
            "Both methods get the same clip, prompt, size and number of frames. Any other method fits in: its frames "
            "go into *Identity Score* with the same reference.",
            "Scores of one face backend against one reference compare; others do not. Look at the worst frames and "
            "at the bins too, a mean hides them.",
            "One video of each is no result: change the seed some ten times.",
        ],
    )


def _sampled(group: Group, model: Output, positive: Output, negative: Output, latent: Output, **widgets) -> Output:
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


def score_videos(flow: Flow) -> None:
    group = flow.group("Step 1 - The person", 360, stack=0)
    reference = group.add("SlotIDLoadReferenceClip", video="").out("reference")
    videos = flow.group("Step 2 - Videos of two methods", 400, 380, stack=1)
    parts.report(flow, reference)
    results = flow.group("Step 3 - Scores", 560, 560, stack=2)
    for column, name in enumerate(("Method A", "Method B")):
        loaded = videos.add("LoadVideo", column=column, title=f"{name}: Load Video", file="").out("VIDEO")
        frames = videos.add("GetVideoComponents", column=column, video=loaded).out("images")
        results.add(
            "SlotIDIdentityScore",
            column=column,
            title=f"{name}: Identity Score",
            frames=frames,
            reference=reference,
        )
    flow.note = (
        "## Score the videos of any two methods\n\n"
        "How much of a person do two videos show? Made by Phantom, Stand-In, a LoRA, another program: it does not "
        "matter. **No model of this pack is needed**, only a face backend: InsightFace or dlib.\n\n"
        "### Files\n\nYour own, uploaded at the nodes:\n\n```\nComfyUI/\n└── input/\n    ├── (your reference clip)\n"
        "    ├── (a video of method A)\n    └── (a video of method B)\n```\n\n### Use\n\n"
        "1. *Load Reference Clip*: a real video of the person, who agreed to it.\n"
        "2. *Load Video*: the two videos.\n"
        "3. Run. The score is 0 for another person and 1 for held-out frames of the clip itself. The plot has the "
        "similarity frame by frame and in bins of yaw and expression; below it are the worst frames.\n"
        "4. Connect frames of other people to `other_people`, the more the better: what they reach becomes the 0. "
        "Without them it is what two people usually have with this backend.\n\n"
        "Scores of one backend against one reference compare; others do not. Videos must show a face that the "
        "backend finds: dlib loses it beyond some 40 degrees.\n"
    )


WORKFLOWS = {
    "slotid_wan2.1_t2v_14b": text_to_video,
    "slotid_wan2.1_t2v_14b_lightning": lightning,
    "slotid_wan2.2_t2v_14b": two_experts,
    "slotid_wan2.1_i2v_14b": image_to_video,
    "slotid_two_people_14b": two_people,
    "slotid_phantom_day_one": phantom_day_one,
    "slotid_compare_phantom_14b": compare_with_phantom,
    "slotid_score_videos": score_videos,
}
