"""The shipped workflows with real models: what each consists of, and what its note says."""

import notes
import parts
from flow import Flow

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
    sampled = parts.sampled(group, model, positive, negative, latent, steps=30, cfg=5, sampler_name="uni_pc")
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
    sampled = parts.sampled(group, model, positive, negative, latent, steps=4, cfg=1, sampler_name="lcm")
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
    sampled = parts.sampled(group, model, positive, negative, latent, steps=20, cfg=6, sampler_name="uni_pc")
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
    sampled = parts.sampled(group, model, positive, negative, latent, steps=30, cfg=5, sampler_name="uni_pc")
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


WORKFLOWS = {
    "slotid_wan2.1_t2v_14b": text_to_video,
    "slotid_wan2.1_t2v_14b_lightning": lightning,
    "slotid_wan2.2_t2v_14b": two_experts,
    "slotid_wan2.1_i2v_14b": image_to_video,
    "slotid_two_people_14b": two_people,
}
