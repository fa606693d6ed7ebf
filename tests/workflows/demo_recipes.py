"""The shipped workflows with the demo's small models, which run on any CPU."""

import notes
import parts
from flow import Flow, Group, Output
from parts import DEMO_OTHER_CLIP

# In the words of the captions that the small Wan was trained with (training/world/scenario.py).
_PROMPT = (
    "In front of a misty wall a smiling person turns leftwards, wearing a blue shirt, medium shot, cold morning light."
)
_IDENTITY = "slotid_demo_person"
_SMALL = (
    "The demo's models were trained on **drawn people who do not exist**, 80 pixels large; they know nothing else and "
    "say nothing about a Wan 14B."
)
_OWN_FILES = (
    "Choose `wan_2.1_vae.safetensors` and your Slot-ID weights in step 1. **No trained Slot-ID weights for it exist "
    "yet**; workflow `slotid_wan2.1_t2v_14b` has the links to all other files."
)
_WORDS = (
    "Prompts: *In front of* plain wall, a misty wall, a striped wall, a checked wall, glowing lamps, a brick wall, a "
    "spotted wall, dark leaves; *a* calm, smiling, frowning, surprised *person turns* leftwards or rightwards, looking "
    "up, looking down or while talking, *wearing a* red ... black *shirt*."
)


def _ordinary(
    group: Group, model: Output, positive: Output, negative: Output, latent: Output, loaded: parts.Models, cfg: float
) -> tuple[Output, Output]:
    """Frames and video of a KSampler, whose seed stays."""
    sampled = group.add(
        "KSampler",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent,
        steps=20,
        cfg=cfg,
        sampler_name="euler",
        scheduler="simple",
    )
    return parts.video(group, sampled.out("LATENT"), loaded.vae)


def _demo_video(flow: Flow, loaded: parts.Models, identity: Output, name: str, *, first: int, stack: int) -> Output:
    """Prompt, sampling and video of the small Wan. Returns the model that is sampled."""
    latent = parts.size(flow, f"Step {first} - Video size", 80, 80, 17)
    positive, negative = parts.prompts(flow, None, f"Step {first + 1} - Prompt", stack=stack - 1, positive=_PROMPT)
    group = flow.group(f"Step {first + 2} - Sampling", 380, stack=stack)
    model = parts.applied(group, parts.shifted(group, loaded.unet, 3.0), loaded, identity)
    _, made = _ordinary(group, model, positive, negative, latent, loaded, cfg=3)
    parts.saved(
        flow.group(f"Step {first + 3} - Video", 560, stack=stack + 1), made, name, taller=150
    )  # its video is square
    return model


def demo(flow: Flow) -> None:
    loaded = parts.demo_models(flow)
    group = flow.group("Step 2 - The person", 360, 420, stack=1)
    person = parts.demo_person(group, loaded)
    model = _demo_video(flow, loaded, person.identity, "SlotID_demo", first=3, stack=2)
    seeing = flow.group("Look inside", 380, 400, stack=1)
    seeing.add("SlotIDRoutingPreview", routing=person.encode.out("routing"))
    seeing.add(
        "SlotIDGatePreview",
        column=1,
        model=model,
        slotid_model=loaded.slotid,
        sampler_name="euler",
        scheduler="simple",
        steps=20,
    )
    notes.write_demo_note(
        flow,
        "Slot-ID demo: the whole path, on any CPU",
        f"A drawn person, a small Wan and trained Slot-ID weights: the same person in another place, doing something "
        f"else. {_SMALL} Every part of the way from the clip to the video is the one that a Wan 14B takes.",
        [
            "Change the prompt: the person stays. " + _WORDS,
            "Bypass *Apply Slot-ID to Wan*: the same prompt without the person.",
            "Set *gate* of *Apply Slot-ID to Wan* to `portrait only` and *strength* to 0.5, the portrait's share in "
            "these weights: what the clip adds is gone, the colour of the hair behind the ears first of all.",
            "*Routing Preview* shows what each identity slot reads of the clip, *Gate Preview* how portrait and clip "
            "share the steps of the sampler.",
            "*Slot-ID Demo Prompt* is for the small Wan alone, and so is the portrait from a file: for a clip of your "
            "own, *Extract Portrait* makes it. See the workflows for a real Wan.",
        ],
    )


def save(flow: Flow) -> None:
    loaded = parts.demo_models(flow, wan=False)
    group = flow.group("Step 2 - The person", 360, 420, stack=1)
    person = parts.demo_person(group, loaded)
    kept = flow.group("Step 3 - Keep it", 420, stack=2)
    kept.add(
        "SlotIDSaveIdentity",
        identity=person.identity,
        name=_IDENTITY,
        overwrite=True,
        note="A drawn person, who does not exist.",
    )
    seeing = flow.group("Look inside", 560, stack=3)
    seeing.add("SlotIDRoutingPreview", routing=person.encode.out("routing"))
    notes.write_demo_note(
        flow,
        "Save an identity: encode a person once, use them ever after",
        f"The identity goes into `models/slotid/identities/{_IDENTITY}.safetensors`: eight tokens, a thumbnail, what "
        f"the clip shows and lacks, and your note. The clip is not in it. {_SMALL}",
        [
            "Run this, press `R`, then open workflow `slotid_identity_load`.",
            "The note is kept in the file: who the person is, who agreed to what.",
        ],
        f"{_OWN_FILES} An identity belongs to the weights that encoded it.",
    )


def load(flow: Flow) -> None:
    loaded = parts.demo_models(flow)
    group = flow.group("Step 2 - The person", 420, stack=1)
    identity = group.add("SlotIDLoadIdentity", identity_name=f"{_IDENTITY}.safetensors", slotid_model=loaded.slotid)
    _demo_video(flow, loaded, identity.out("identity"), "SlotID_loaded", first=3, stack=2)
    notes.write_demo_note(
        flow,
        "Load an identity: no clip, nothing is encoded again",
        f"Run workflow `slotid_identity_save` first: it writes `{_IDENTITY}.safetensors`. Press `R`, and *Load "
        f"Identity* has it in its list. {_SMALL}",
        [
            "Choose another saved person: only the sampling runs again.",
            "*Blend Identities* between two *Load Identity* and *Apply* makes somebody between two people, *Merge "
            "Identities* one of several clips of one person.",
            "*Load Identity* refuses a file that was encoded with other Slot-ID weights.",
        ],
        f"{_OWN_FILES} Take a real Wan and CLIP Text Encode in place of *Slot-ID Demo Prompt*.",
    )


def merge(flow: Flow) -> None:
    loaded = parts.demo_models(flow)
    group = flow.group("Step 2 - Two clips of one person", 360, 420, 360, 420, stack=1)
    first, second = (
        parts.demo_person(group, loaded, first=2 * i, title=f"Load Reference Clip {i + 1}", video=video)
        for i, video in enumerate((parts.DEMO_CLIP, DEMO_OTHER_CLIP))
    )
    merging = flow.group("Step 3 - One identity", 420, stack=2)
    merged = merging.add(
        "SlotIDMergeIdentities", identity_1=first.identity, identity_2=second.identity, weighting="equal"
    ).out("identity")
    merging.add(
        "SlotIDSaveIdentity", identity=merged, name="slotid_demo_merged", overwrite=True, note="Two clips, merged."
    )
    _demo_video(flow, loaded, merged, "SlotID_merged", first=4, stack=3)
    notes.write_demo_note(
        flow,
        "Merge several clips of one person",
        "Two clips show more of a face than one: other angles, light, expressions. They are merged to one identity "
        f"that costs no more while sampling, and saved. {_SMALL}",
        [
            "Where a face backend has looked at the clips, *weighting* can be `quality`, and different people are "
            "refused.",
            "Up to eight clips: connect more *Encode Slot-ID* to *Merge Identities*, or *Load Identity* for people who "
            "are saved already.",
            "The text on *Merge Identities* says each clip's share, and whether they show one person.",
        ],
        f"{_OWN_FILES} Take a real Wan and CLIP Text Encode in place of *Slot-ID Demo Prompt*.",
    )


def guidance(flow: Flow) -> None:
    loaded = parts.demo_models(flow)
    person = parts.demo_person(flow.group("Step 2 - The person", 360, 420, stack=1), loaded)
    latent = parts.size(flow, "Step 3 - Video size", 80, 80, 17)
    positive, negative = parts.prompts(flow, None, "Step 4 - Prompt", stack=1, positive=_PROMPT)
    group = flow.group("Step 5 - One scale for both", 380, stack=2)
    model = parts.applied(group, parts.shifted(group, loaded.unet, 3.0), loaded, person.identity)
    _, ordinary = _ordinary(group, model, positive, negative, latent, loaded, cfg=2)
    group = flow.group("Step 6 - The identity with a scale of its own", 380, stack=3)
    guider = group.add(
        "SlotIDGuider", model=model, positive=positive, negative=negative, text_cfg=2.0, identity_cfg=5.0
    ).out("guider")
    sampled = parts.guided(group, guider, model, latent, steps=20, sampler_name="euler")
    _, apart = parts.video(group, sampled, loaded.vae)
    results = flow.group("Step 7 - Side by side", 400, 400, stack=4)
    for column, (title, made, name) in enumerate(
        (("cfg 2", ordinary, "SlotID_cfg"), ("text_cfg 2, identity_cfg 5", apart, "SlotID_guider"))
    ):
        parts.saved(results, made, name, column=column, title=title, taller=150)
    notes.write_demo_note(
        flow,
        "Guide by the text and by the identity apart",
        "One person, one noise, one prompt, sampled twice: *KSampler* strengthens text and identity by one scale, "
        f"*Slot-ID Guider* by a scale each, at half as much time again. {_SMALL}",
        [
            "Raise `identity_cfg`: more of the person. `text_cfg` alone is what the prompt gets; too much of it costs "
            "likeness.",
            "`identity_cfg` 2, the same as `text_cfg`, is *KSampler* again; 0 is the prompt without the person.",
            "In the small world 2 and 5 are what `python run.py demo` uses, chosen on 60 people. What suits a Wan 14B "
            "is not known: begin with your usual `cfg` for both.",
        ],
        f"{_OWN_FILES} Take a real Wan and CLIP Text Encode in place of *Slot-ID Demo Prompt*.",
    )


WORKFLOWS = {
    "slotid_demo": demo,
    "slotid_identity_guidance": guidance,
    "slotid_identity_save": save,
    "slotid_identity_load": load,
    "slotid_identity_merge": merge,
}
