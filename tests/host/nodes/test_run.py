"""The nodes do their work, one after another, on clips; and refuse what does not fit."""

import os
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch

FRAMES, SIZE = 17, 64


@pytest.fixture(scope="module")
def demo_clip(folders) -> str:
    from training.demo_clip import demo_clip
    from training.media import write_mp4

    write_mp4(folders.input / "demo.mp4", demo_clip())
    return "demo.mp4"


@pytest.fixture(scope="module")
def read(run, demo_clip):
    """What Load Reference Clip gives for the demo clip."""
    return run("SlotIDLoadReferenceClip", video=demo_clip, frame_count=FRAMES, size=SIZE, faces="off")


@pytest.fixture(scope="module")
def portrait(run, read):
    return run("SlotIDExtractPortrait", frames=read.frames, size=2 * SIZE)


@pytest.fixture(scope="module")
def slotid_model(run, folders, weights_file):
    shutil.copy(weights_file, folders.slotid / "random.safetensors")
    return run("SlotIDLoadModel", model_name="random.safetensors").slotid_model


@pytest.fixture(scope="module")
def encoded(run, slotid_model, vae, read, portrait):
    return run("SlotIDEncode", slotid_model=slotid_model, vae=vae, clip=read.clip, portrait=portrait.portrait)


def test_the_demo_clip_becomes_a_square_clip_and_whole_frames(read):
    assert read.clip.shape == (FRAMES, SIZE, SIZE, 3) and read.clip.dtype == torch.float32
    assert read.frames.shape == (FRAMES, 256, 256, 3)
    assert 0 <= read.clip.min() < 0.2 and 0.8 < read.clip.max() <= 1
    assert read.info.startswith("demo.mp4") and f"{FRAMES} frames at 16 fps" in read.info
    assert read.ui == {"text": (read.info,)}


def test_box_start_and_fps_reach_the_clip(run, demo_clip, read):
    box = {"box_x": 60, "box_y": 40, "box_width": 100, "box_height": 100}
    boxed = run("SlotIDLoadReferenceClip", video=demo_clip, frame_count=FRAMES, size=SIZE, faces="off", **box)
    assert torch.equal(boxed.frames, read.frames) and not torch.equal(boxed.clip, read.clip)
    later = run("SlotIDLoadReferenceClip", video=demo_clip, frame_count=5, size=SIZE, faces="off", start=0.5)
    assert torch.equal(later.frames[0], read.frames[8])
    slower = run("SlotIDLoadReferenceClip", video=demo_clip, frame_count=5, size=SIZE, faces="off", fps=8.0)
    assert torch.equal(slower.frames, read.frames[:9:2])


def test_a_clip_that_is_too_short_is_an_error(run, demo_clip, core):
    with pytest.raises(core.errors.SlotIDError, match="65"):
        run("SlotIDLoadReferenceClip", video=demo_clip, frame_count=129)


def test_reading_can_be_interrupted(run, demo_clip, comfy):
    management = comfy.model_management
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        run("SlotIDLoadReferenceClip", video=demo_clip, frame_count=FRAMES)


def test_a_video_outside_the_folders_is_refused(nodes, folders):
    """By ComfyUI or by the pack, whichever comes first; in both ways a ValueError before the file is touched."""
    (folders.input.parent / "outside.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="outside.mp4"):
        nodes["SlotIDLoadReferenceClip"].validate_inputs("../outside.mp4")
    assert "upload it" in nodes["SlotIDLoadReferenceClip"].validate_inputs("nowhere.mp4")
    assert "upload it" in nodes["SlotIDLoadReferenceClip"].validate_inputs("")


@pytest.mark.parametrize(
    "name, widget", [("SlotIDLoadReferenceClip", "video"), ("SlotIDLoadIdentity", "identity_name")]
)
def test_a_name_from_another_node_is_known_only_when_it_runs(nodes, name, widget):
    """ComfyUI asks with None then. What is asked whether it changed is not equal to itself, so it is never cached."""
    assert nodes[name].validate_inputs(**{widget: None}) is True
    asked = nodes[name].fingerprint_inputs(**{widget: None})
    assert asked != asked


def test_a_changed_file_is_read_again(nodes, folders, demo_clip, weights_file):
    load = nodes["SlotIDLoadReferenceClip"]
    copy = folders.input / "copy.mp4"
    shutil.copy(folders.input / demo_clip, copy)
    before = load.fingerprint_inputs(video="copy.mp4", start=0.0, frame_count=65)
    assert load.fingerprint_inputs(video="copy.mp4", start=1.0, frame_count=65) == before
    os.utime(copy, (1, 1))
    assert load.fingerprint_inputs(video="copy.mp4", start=0.0, frame_count=65) != before

    model = nodes["SlotIDLoadModel"]
    path = folders.slotid / "changing.safetensors"
    shutil.copy(weights_file, path)
    before = model.fingerprint_inputs("changing.safetensors")
    os.utime(path, (1, 1))
    assert model.fingerprint_inputs("changing.safetensors") != before
    assert model.fingerprint_inputs("untrained (Wan 14B)") == model.fingerprint_inputs("untrained (Wan 14B)")


def test_the_portrait_is_one_of_the_frames(portrait, read):
    assert portrait.portrait.shape == (1, 2 * SIZE, 2 * SIZE, 3)
    assert 0 <= portrait.frame_index < FRAMES
    assert f"Frame {portrait.frame_index} of {FRAMES}" in portrait.info
    (picture,) = portrait.ui["images"]
    assert picture["type"] == "temp"
    half = torch.nn.functional.interpolate(
        read.frames[portrait.frame_index].permute(2, 0, 1)[None], size=(2 * SIZE, 2 * SIZE), mode="area"
    )
    assert float((half[0].permute(1, 2, 0) - portrait.portrait[0]).abs().mean()) < 0.01


def test_a_mask_turns_the_background_white(run, read):
    mask = torch.zeros(1, 256, 256)
    mask[:, 60:200, 80:180] = 1
    masked = run("SlotIDExtractPortrait", frames=read.frames, mask=mask, size=SIZE)
    assert torch.equal(masked.portrait[0, 0, 0], torch.ones(3))
    assert masked.portrait[0, SIZE // 2, SIZE // 2].min() < 0.9


def test_frames_with_an_alpha_channel_are_taken(run, read, portrait):
    alpha = torch.ones_like(read.frames[..., :1])
    again = run("SlotIDExtractPortrait", frames=torch.cat([read.frames, alpha], -1), size=2 * SIZE)
    assert torch.equal(again.portrait, portrait.portrait)
    gone = run("SlotIDExtractPortrait", frames=torch.cat([read.frames, 0 * alpha], -1), size=2 * SIZE)
    assert torch.equal(gone.portrait, torch.ones_like(gone.portrait))


def test_untrained_weights_say_so(run):
    loaded = run("SlotIDLoadModel", model_name="untrained (Wan 1.3B)")
    assert loaded.slotid_model.untrained
    assert "NO IDENTITY WILL APPEAR" in loaded.ui["text"][0]


def test_weights_are_listed_and_described(run, nodes, slotid_model):
    (slot,) = nodes["SlotIDLoadModel"].define_schema().inputs
    assert "random.safetensors" in slot.options and slot.options[-2:] == ["untrained (Wan 14B)", "untrained (Wan 1.3B)"]
    text = run("SlotIDLoadModel", model_name="random.safetensors").ui["text"][0]
    assert slotid_model.sha256[:12] in text and "NO IDENTITY" not in text


@pytest.mark.parametrize("steps", ["500", None, [1], 2.5])
def test_weights_whose_facts_are_of_another_kind_load_all_the_same(run, folders, core, slotid_model, steps):
    """Facts are anybody's words; what counts is checked."""
    path = folders.slotid / "odd.safetensors"
    core.checkpoint.save_weights(path, replace(slotid_model, facts={"trained_steps": steps, "validation": steps}))
    assert "updates" not in run("SlotIDLoadModel", model_name="odd.safetensors").ui["text"][0]
    path.unlink()


def test_an_identity_is_made_and_described(encoded, slotid_model, portrait):
    identity = encoded.identity
    assert identity.weights_hash == slotid_model.sha256
    assert identity.embedding.clip_tokens_BSE.shape == (1, 6, 4096)
    assert identity.embedding.portrait_tokens_BKE.shape == (1, 2, 4096)
    assert identity.thumbnail_HWC.dtype == torch.uint8
    mean = portrait.portrait[0].mean(dim=(0, 1)) * 255
    assert torch.allclose(identity.thumbnail_HWC.float().mean(dim=(0, 1)), mean, atol=1.0)
    assert f"6 tokens from {FRAMES} frames" in encoded.ui["text"][0]


def test_latents_are_normalised_exactly_once(comfy, encoded, slotid_model, vae, read, portrait):
    """By what ComfyUI itself does between a VAE and Wan."""
    import comfy.latent_formats

    to_model = comfy.latent_formats.Wan21().process_in
    clip, picture = (to_model(vae.encode(pixels)) for pixels in (read.clip, portrait.portrait))
    assert clip.shape == (1, 16, 5, SIZE // 8, SIZE // 8)
    expected = slotid_model.model.encode(clip, picture).embedding
    for name, tensor in vars(expected).items():
        torch.testing.assert_close(getattr(encoded.identity.embedding, name), tensor, rtol=1e-4, atol=1e-5)
    raw = slotid_model.model.encode(vae.encode(read.clip), vae.encode(portrait.portrait)).embedding
    assert not torch.allclose(raw.clip_tokens_BSE, expected.clip_tokens_BSE, rtol=1e-2, atol=1e-2)


def test_both_hosts_encode_the_same_identity(encoded, tiny_vae, weights_file, read, portrait):
    """The same VAE weights in diffusers, the same pixels, the same Slot-ID file."""
    from slotid_core.checkpoint import load_weights
    from slotid_core.identify import identify
    from training.wan_diffusers import encode_frames

    weights = load_weights(weights_file)
    theirs = identify(
        weights, weights.model, partial(encode_frames, tiny_vae), read.clip, portrait.portrait[0]
    ).identity
    for name, tensor in vars(theirs.embedding).items():
        torch.testing.assert_close(getattr(encoded.identity.embedding, name), tensor, rtol=1e-3, atol=1e-4)
    assert theirs.clip_hash == encoded.identity.clip_hash
    assert theirs.portrait_hash == encoded.identity.portrait_hash
    assert theirs.weights_hash == encoded.identity.weights_hash
    difference = theirs.thumbnail_HWC.int() - encoded.identity.thumbnail_HWC.int()
    assert difference.abs().max() <= 1


def test_the_shuffled_ablation_shuffles_pixels(run, core, slotid_model, encoded, vae, read, portrait):
    """Shuffled latents would still hold the order inside each group of four frames."""
    config = slotid_model.model.config.replace(clip_order="shuffled")
    model = core.model.SlotID(config).eval().requires_grad_(False)
    model.load_state_dict(slotid_model.model.state_dict())
    shuffled = core.checkpoint.bundle(model, slotid_model.lora, {})
    got = run("SlotIDEncode", slotid_model=shuffled, vae=vae, clip=read.clip, portrait=portrait.portrait).identity

    order = core.latents.shuffled_order(read.clip)
    by_hand = run(
        "SlotIDEncode", slotid_model=slotid_model, vae=vae, clip=read.clip[order], portrait=portrait.portrait
    ).identity
    assert torch.equal(got.embedding.clip_tokens_BSE, by_hand.embedding.clip_tokens_BSE)
    assert not torch.allclose(got.embedding.clip_tokens_BSE, encoded.identity.embedding.clip_tokens_BSE, rtol=1e-2)
    assert got.clip_hash == encoded.identity.clip_hash, "the clip itself is the same"


def test_what_is_transparent_is_laid_over_white(run, slotid_model, vae, read, portrait, encoded, core):
    """A cut-out picture may hold anything where it is transparent."""
    inside = torch.zeros_like(portrait.portrait[..., :1])
    inside[:, 16:48, 16:48] = 1
    settings = {"slotid_model": slotid_model, "vae": vae, "clip": read.clip}
    on_white = run("SlotIDEncode", **settings, portrait=1 - inside * (1 - portrait.portrait)).identity
    for hidden in (0.0, 0.7):
        pixels = torch.where(inside > 0, portrait.portrait, hidden)
        got = run("SlotIDEncode", **settings, portrait=torch.cat([pixels, inside], -1)).identity
        assert got.portrait_hash == on_white.portrait_hash != encoded.identity.portrait_hash
    opaque = torch.cat([portrait.portrait, torch.ones_like(inside)], -1)
    assert run("SlotIDEncode", **settings, portrait=opaque).identity.portrait_hash == encoded.identity.portrait_hash
    with pytest.raises(core.errors.SlotIDError, match="1 channels, expected RGB"):
        run("SlotIDEncode", **settings, portrait=portrait.portrait[..., :1])


@pytest.mark.parametrize("broken", ["clip", "portrait", "vae"])
def test_numbers_that_are_none_are_refused(run, slotid_model, vae, read, portrait, core, monkeypatch, broken):
    given = {"clip": read.clip.clone(), "portrait": portrait.portrait.clone()}
    said = {"clip": "frame 3 of the clip are NaN", "portrait": "pixels of the portrait are NaN", "vae": "VAE made NaN"}
    if broken == "vae":
        encode = vae.encode
        monkeypatch.setattr(vae, "encode", lambda pixels: encode(pixels) * torch.inf)
    else:
        given[broken][3 if broken == "clip" else 0, 5, 5, 1] = torch.nan
    with pytest.raises(core.errors.SlotIDError, match=said[broken]):
        run("SlotIDEncode", slotid_model=slotid_model, vae=vae, **given)


def test_half_precision_images_are_taken(run, slotid_model, vae, read, portrait, encoded):
    """ComfyUI makes them where it is started with --fp16-intermediates."""
    got = run(
        "SlotIDEncode", slotid_model=slotid_model, vae=vae, clip=read.clip.half(), portrait=portrait.portrait.half()
    )
    tokens = encoded.identity.embedding.clip_tokens_BSE
    torch.testing.assert_close(got.identity.embedding.clip_tokens_BSE, tokens, atol=0.02, rtol=0.05)
    assert run("SlotIDExtractPortrait", frames=read.clip.half()).portrait.dtype == torch.float32


def test_weights_that_make_no_numbers_are_refused(run, slotid_model, vae, read, portrait, core, monkeypatch):
    """Each of them is finite, and what they make is not."""
    encode = core.model.SlotID.encode

    def broken(self, *latents):
        encoding = encode(self, *latents)
        encoding.embedding.clip_tokens_BSE.mul_(torch.inf)
        return encoding

    monkeypatch.setattr(core.model.SlotID, "encode", broken)
    with pytest.raises(core.errors.SlotIDError, match="weights .* made NaN or infinity"):
        run("SlotIDEncode", slotid_model=slotid_model, vae=vae, clip=read.clip, portrait=portrait.portrait)


@pytest.mark.parametrize("side", [56, 72])
def test_sides_that_are_no_multiples_of_16_are_refused_in_pixels(run, slotid_model, vae, read, portrait, core, side):
    square = torch.rand(1, side, side, 3)
    with pytest.raises(
        core.errors.SlotIDError, match=f"portrait is {side}x{side} pixels.*such as {side - 8}x{side - 8}"
    ):
        run("SlotIDEncode", slotid_model=slotid_model, vae=vae, clip=read.clip, portrait=square)


def test_nodes_that_need_a_reference_say_where_it_went(run, core, read):
    said = "There is no reference: faces is off on Load Reference Clip"
    with pytest.raises(core.errors.SlotIDError, match=said):
        run("SlotIDReferenceReport", reference=None)
    with pytest.raises(core.errors.SlotIDError, match=said):
        run("SlotIDIdentityScore", frames=read.clip, reference=None)


@pytest.mark.parametrize("frames, near", [(1, "5 or 9"), (4, "5 or 9"), (8, "5 or 9"), (16, "13 or 17")])
def test_a_frame_count_that_does_not_fit(run, slotid_model, vae, read, portrait, core, frames, near):
    with pytest.raises(core.errors.SlotIDError, match=f"{frames} frames.*{near}"):
        run("SlotIDEncode", slotid_model=slotid_model, vae=vae, clip=read.clip[:frames], portrait=portrait.portrait)


def test_several_portraits_are_refused(run, slotid_model, vae, read, core):
    with pytest.raises(core.errors.SlotIDError, match="Got 17 portraits, expected one"):
        run("SlotIDEncode", slotid_model=slotid_model, vae=vae, clip=read.clip, portrait=read.clip)


def test_encoding_leaves_the_weights_where_they_are(slotid_model, encoded):
    assert {parameter.device.type for parameter in slotid_model.model.parameters()} == {"cpu"}


def test_apply_patches_a_clone(run, tools, wan, slotid_model, encoded):
    settings = {"slotid_model": slotid_model, "identity": encoded.identity}
    before = tools.evaluate(wan)
    patched = run("SlotIDApply", model=wan, **settings)
    assert patched.ui is None
    shown = tools.evaluate(patched.model)
    assert float((shown - before).norm() / before.norm()) > 1e-2
    assert torch.equal(tools.evaluate(wan), before)
    weaker = run("SlotIDApply", model=wan, **settings, strength=0.5)
    for other in (
        run("SlotIDApply", model=wan, **settings, strength=0.5, gate="portrait only"),
        run("SlotIDApply", model=wan, **settings, strength=0.5, gate="clip only"),
        run("SlotIDApply", model=wan, **settings, strength=0.5, film_strength=0.0),
        run("SlotIDApply", model=wan, **settings, strength=0.5, lora_strength=0.0),
        run("SlotIDApply", model=wan, **settings, strength=0.5, negative="same"),
        run("SlotIDApply", model=wan, **settings, strength=0.5, start=0.99),
    ):
        assert not torch.allclose(tools.evaluate(other.model), tools.evaluate(weaker.model), rtol=1e-3)


def test_applying_untrained_weights_says_so_and_changes_nothing(run, tools, wan, core, vae, read, portrait, caplog):
    untrained = core.checkpoint.untrained_weights("tiny")
    identity = run("SlotIDEncode", slotid_model=untrained, vae=vae, clip=read.clip, portrait=portrait.portrait)
    assert "NO IDENTITY WILL APPEAR" in identity.ui["text"][0]
    with caplog.at_level("WARNING", logger="slotid"):
        applied = run("SlotIDApply", model=wan, slotid_model=untrained, identity=identity.identity)
    assert "NO IDENTITY WILL APPEAR" in applied.ui["text"][0] and "NO IDENTITY WILL APPEAR" in caplog.text
    assert torch.equal(tools.evaluate(applied.model), tools.evaluate(wan))


def test_an_identity_of_other_weights_is_refused(run, wan, slotid_model, encoded, core):
    foreign = replace(encoded.identity, weights_hash="f" * 64)
    with pytest.raises(core.errors.SlotIDError, match="other Slot-ID weights"):
        run("SlotIDApply", model=wan, slotid_model=slotid_model, identity=foreign)


def test_the_demo_prompt_is_the_cores(run, core):
    ((context, extra),) = run("SlotIDDemoPrompt", text="a red car").conditioning
    assert torch.equal(context, core.demo_text.embed_prompt("a red car")) and extra == {}
    ((empty, _),) = run("SlotIDDemoPrompt", text="").conditioning
    assert empty.shape == (1, 64, 4096) and not empty.any()


def test_real_clips_show_different_people(run, folders, shared_clips, slotid_model, vae):
    identities = []
    for path in shared_clips[:2]:
        shutil.copy(path, folders.input / path.name)
        clip = run("SlotIDLoadReferenceClip", video=path.name, frame_count=FRAMES, size=SIZE)
        picture = run("SlotIDExtractPortrait", frames=clip.frames, size=SIZE)
        encoding = run("SlotIDEncode", slotid_model=slotid_model, vae=vae, clip=clip.clip, portrait=picture.portrait)
        identities.append(encoding.identity)
    a, b = (identity.embedding.clip_tokens_BSE for identity in identities)
    assert a.isfinite().all() and b.isfinite().all()
    assert not torch.allclose(a, b, rtol=1e-2) and identities[0].clip_hash != identities[1].clip_hash
