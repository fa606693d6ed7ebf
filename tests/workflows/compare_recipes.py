"""The shipped workflows that measure, and those with Phantom: another method, from the same clip."""

import notes
import parts
from flow import Flow, Group, Output


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
    latent = conditions.out("latent")
    sampled = parts.guided(
        group, guider.out("GUIDER"), model, latent, steps=steps, sampler_name="uni_pc", column=1, after="randomize"
    )
    return parts.video(group, sampled, loaded.vae, column=1, fps=fps)


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
    sampled = parts.sampled(ours, model, *prompts, latent, steps=30, cfg=5, sampler_name="uni_pc")
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
    "slotid_phantom_day_one": phantom_day_one,
    "slotid_compare_phantom_14b": compare_with_phantom,
    "slotid_score_videos": score_videos,
}
