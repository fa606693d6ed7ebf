"""Every Wan family of ComfyUI at tiny size, with random weights, through its own conditioning node."""

import pytest
import torch


@pytest.fixture
def sampled(tiny, prompts, vae):
    """``sampled(model, module, node, ...)`` -> ``sample(patch)``: a core conditioning node into KSampler."""

    def function(model, module, node, **inputs):
        settings = {name: value for name, value in {**tiny.SIZE, **inputs}.items() if value is not None}
        positive, negative, latent, *_ = tiny.core_node(module, node)(
            positive=prompts["positive"], negative=prompts["negative"], vae=vae, **settings
        )
        return lambda patch: tiny.ksampler(patch(model), positive, negative, latent)

    return function


def test_wan21_t2v(shows_the_person, tiny, t2v, prompts):
    latent = tiny.video_latent()
    shows_the_person(lambda patch: tiny.ksampler(patch(t2v), prompts["positive"], prompts["negative"], latent))


@pytest.fixture
def i2v(load):
    return load(1, model_type="i2v", in_dim=36)


@pytest.fixture
def i2v_sample(sampled, tiny, i2v):
    return sampled(
        i2v, "nodes_wan", "WanImageToVideo", start_image=tiny.pictures(1), clip_vision_output=tiny.clip_vision(1)
    )


def test_wan21_i2v(shows_the_person, i2v_sample):
    shows_the_person(i2v_sample)


def test_wan21_i2v_image_tokens(run, i2v, i2v_sample):
    """CLIP's 257 image tokens stand before the text in the model's context; the prefix is in the text's last pads."""
    backbone, seen = i2v.model.diffusion_model, []

    def watch(module, args, kwargs):
        seen.append((kwargs["context"] if "context" in kwargs else args[1], kwargs.get("context_img_len")))

    def contexts(person):
        seen.clear()
        handle = backbone.blocks[0].register_forward_pre_hook(watch, with_kwargs=True)
        try:
            run(i2v_sample, person, lora=0.0)
        finally:
            handle.remove()
        return seen[0]

    (plain, length), (shown, _) = contexts(None), contexts(0)
    assert length == 257 and plain.shape == shown.shape == (2, 257 + 512, 256)
    changed = (plain != shown).any(dim=2)
    expected = torch.zeros_like(changed)
    expected[1, -8:] = True  # ComfyUI puts the negative first
    assert torch.equal(changed, expected)


def test_wan21_flf2v(shows_the_person, sampled, tiny, load):
    model = load(1, model_type="i2v", in_dim=36, flf_pos_embed_token_number=514)
    shows_the_person(
        sampled(
            model, "nodes_wan", "WanFirstLastFrameToVideo",
            start_image=tiny.pictures(1), end_image=tiny.pictures(2),
            clip_vision_start_image=tiny.clip_vision(1), clip_vision_end_image=tiny.clip_vision(2),
        )
    )  # fmt: skip


def test_wan21_fun_control(shows_the_person, sampled, tiny, load):
    model = load(1, model_type="i2v", in_dim=48)
    shows_the_person(
        sampled(
            model, "nodes_wan", "WanFunControlToVideo",
            control_video=tiny.pictures(1, frames=9), clip_vision_output=tiny.clip_vision(1),
        )
    )  # fmt: skip


def test_wan21_fun_inpaint(shows_the_person, sampled, tiny, i2v):
    shows_the_person(
        sampled(
            i2v, "nodes_wan", "WanFunInpaintToVideo",
            start_image=tiny.pictures(1), end_image=tiny.pictures(2), clip_vision_output=tiny.clip_vision(1),
        )
    )  # fmt: skip


def test_wan21_fun_camera(shows_the_person, sampled, tiny, load):
    model = load(1, "CameraWanModel", in_dim=32)
    *_, camera = tiny.core_node("nodes_camera_trajectory", "WanCameraEmbedding")(
        camera_pose="Pan Right", width=64, height=64, length=9, speed=1.0, fx=0.5, fy=0.5, cx=0.5, cy=0.5
    )[:1]
    shows_the_person(
        sampled(
            model, "nodes_wan", "WanCameraImageToVideo",
            start_image=tiny.pictures(1), clip_vision_output=tiny.clip_vision(1), camera_conditions=camera,
        )
    )  # fmt: skip


def test_wan21_vace(shows_the_person, sampled, tiny, load):
    model = load(1, "VaceWanModel", vace_layers=2, vace_in_dim=96)
    shows_the_person(
        sampled(
            model, "nodes_wan", "WanVaceToVideo",
            strength=1.0, control_video=tiny.pictures(1, frames=9), reference_image=tiny.pictures(2),
        )
    )  # fmt: skip


def test_wan21_phantom(shows_the_person, tiny, t2v, prompts, vae):
    """Phantom's reference latents are appended in time; its third conditioning goes into a guider for three."""
    positive, negative_text, negative_img_text, latent = tiny.core_node("nodes_wan", "WanPhantomSubjectToVideo")(
        positive=prompts["positive"], negative=prompts["negative"], vae=vae, images=tiny.pictures(1, 2), **tiny.SIZE
    )
    (guider_of, sigmas) = tiny.core_node("nodes_custom_sampler", "DualCFGGuider"), torch.tensor([1.0, 0.8, 0.0])

    def sample(patch):
        (guider,) = guider_of(
            model=patch(t2v), cond1=positive, cond2=negative_text, negative=negative_img_text,
            cfg_conds=5.0, cfg_cond2_negative=3.0, style="regular",
        )  # fmt: skip
        return tiny.advanced(guider, sigmas, latent)

    shows_the_person(sample)
    shows_the_person(lambda patch: tiny.ksampler(patch(t2v), positive, negative_text, latent))


def test_wan22_a14b_t2v(run, tiny, load, prompts, people):
    """Two experts, one identity, one Slot-ID model: high noise to half of the steps, then low noise."""
    high, low, latent = load(1), load(2), tiny.video_latent()

    def pass_(model, latent, start, end):
        return tiny.ksampler(
            model, prompts["positive"], prompts["negative"], latent, steps=4, start_at_step=start, end_at_step=end
        )

    def both(patch_high, patch_low):
        return pass_(patch_low(low), {"samples": pass_(patch_high(high), latent, 0, 2)}, 2, 4)

    nobody = both(lambda m: m, lambda m: m)
    shown = {person: run(lambda patch: both(patch, patch), person) for person in (0, 1)}
    for got in shown.values():
        assert got.counts == [(2, 2, 4), (2, 2, 4)], "two calls a pass, the positive row of each, two blocks each"
    results = [nobody, *(got.latents for got in shown.values())]
    results.append(run(lambda patch: both(patch, lambda m: m)).latents)
    results.append(run(lambda patch: both(lambda m: m, patch)).latents)
    for i, left in enumerate(results):
        for right in results[:i]:
            assert tiny.relative(left, right) > 1e-3
    assert torch.equal(both(lambda m: m, lambda m: m), nobody)


def test_wan22_a14b_i2v(shows_the_person, sampled, tiny, load):
    """Without CLIP vision: the first frame comes as latent channels alone."""
    shows_the_person(sampled(load(1, in_dim=36), "nodes_wan", "WanImageToVideo", start_image=tiny.pictures(1)))


def test_wan22_fun_control(shows_the_person, sampled, tiny, load):
    model = load(1, in_dim=52, in_dim_ref_conv=16)
    shows_the_person(
        sampled(
            model, "nodes_wan", "Wan22FunControlToVideo",
            ref_image=tiny.pictures(1), control_video=tiny.pictures(2, frames=9),
        )
    )  # fmt: skip


def test_wan22_fun_camera(shows_the_person, sampled, tiny, load):
    model = load(1, "CameraWanModel", in_dim=36, model_type="camera_2.2")
    shows_the_person(sampled(model, "nodes_wan", "WanCameraImageToVideo", start_image=tiny.pictures(1)))


def test_wan22_5b(load, apply, people, core):
    """Its VAE has 48 channels: weights for 16 do not fit, whatever its width."""
    model = load(1, in_dim=48, out_dim=48)
    with pytest.raises(core.errors.SlotIDError, match="4 blocks, 48 latent channels; these Slot-ID weights are for"):
        apply(model, people[0])


def test_wan22_s2v(shows_the_person, sampled, tiny, load):
    model = load(1, "WanModel_S2V")
    audio = torch.randn(1, 25, 30, 1024, generator=torch.Generator().manual_seed(1))
    shows_the_person(
        sampled(
            model, "nodes_wan", "WanSoundImageToVideo",
            ref_image=tiny.pictures(1), audio_encoder_output={"encoded_audio_all_layers": list(audio.unbind(1))},
        )
    )  # fmt: skip


def test_humo(shows_the_person, sampled, tiny, load):
    model = load(1, "HumoWanModel", in_dim=36)
    audio = torch.randn(33, 1, 60, 1280, generator=torch.Generator().manual_seed(1))
    shows_the_person(
        sampled(
            model, "nodes_wan", "WanHuMoImageToVideo", ref_image=tiny.pictures(1),
            audio_encoder_output={"encoded_audio_all_layers": list(audio), "audio_samples": 60 * 320},
        )
    )  # fmt: skip


def test_wan22_animate(shows_the_person, sampled, tiny, load, of_five_blocks, monkeypatch):
    """Its face adapter sits behind every fifth block, so the smallest has five. What encodes the face video's pictures
    has one size, 512 pixels, and takes a minute here: random numbers stand in for what it gives."""
    model = load(1, "AnimateWanModel", "model_animate", in_dim=36, num_layers=5)

    def motion(pictures):
        return torch.randn(len(pictures), 512, generator=torch.Generator().manual_seed(1))

    monkeypatch.setattr(model.model.diffusion_model.motion_encoder, "get_motion", motion)
    sample = sampled(
        model, "nodes_wan", "WanAnimateToVideo", continue_motion_max_frames=5, video_frame_offset=0,
        reference_image=tiny.pictures(1), clip_vision_output=tiny.clip_vision(1), length=5,
        face_video=tiny.pictures(2, frames=5), pose_video=tiny.pictures(3, frames=5),
    )  # fmt: skip
    shows_the_person(sample, slotid=of_five_blocks)


def test_wan_animate2(shows_the_person, sampled, tiny, load):
    model = load(1, "WanAnimate2Model", "model_animate2", in_dim=36, variant={"model_type": "animate2"})
    shows_the_person(
        sampled(
            model, "nodes_wan", "WanAnimate2ToVideo", video_frame_offset=0,
            reference_image=tiny.pictures(1), clip_vision_output=tiny.clip_vision(1),
            pose_video=tiny.pictures(3, frames=9),
        )
    )  # fmt: skip


def test_wan_move(shows_the_person, sampled, tiny, i2v):
    (tracks, *_) = tiny.core_node("nodes_wanmove", "GenerateTracks")(
        width=64, height=64, start_x=0.1, start_y=0.1, mid_x=0.5, mid_y=0.5, end_x=0.9, end_y=0.9,
        num_frames=9, num_tracks=3, track_spread=0.1,
    )  # fmt: skip
    shows_the_person(
        sampled(
            i2v, "nodes_wanmove", "WanMoveTrackToVideo", strength=1.0,
            tracks=tracks, start_image=tiny.pictures(1), clip_vision_output=tiny.clip_vision(1),
        )
    )  # fmt: skip


def test_bernini(shows_the_person, sampled, tiny, t2v):
    """References as streams of their own behind the video's tokens."""
    shows_the_person(
        sampled(
            t2v, "nodes_bernini", "BerniniConditioning",
            source_video=tiny.pictures(1, frames=9), reference_images={"reference_image_0": tiny.pictures(2)},
            ref_max_size=64,
        )
    )  # fmt: skip


def test_scail(shows_the_person, sampled, tiny, load):
    model = load(1, "SCAILWanModel", in_dim=20)
    shows_the_person(
        sampled(
            model, "nodes_scail", "WanSCAILToVideo",
            pose_strength=1.0, pose_start=0.0, pose_end=1.0, video_frame_offset=0, previous_frame_count=5,
            reference_image=tiny.pictures(1), clip_vision_output=tiny.clip_vision(1),
            pose_video=tiny.pictures(2, frames=9),
        )
    )  # fmt: skip


def test_wandancer(shows_the_person, sampled, tiny, load):
    model = load(1, "WanDancerModel", "model_wandancer", in_dim=36)
    music = {"audio_feature": torch.randn(1, 9, 35, generator=torch.Generator().manual_seed(1)), "fps": 30}
    shows_the_person(
        sampled(
            model, "nodes_wandancer", "WanDancerVideo", batch_size=None, start_image=tiny.pictures(1),
            clip_vision_output=tiny.clip_vision(1), clip_vision_output_ref=tiny.clip_vision(2),
            audio_encoder_output=music,
        )
    )  # fmt: skip


def test_wan21_causal_ar(load, apply, people, core):
    model = load(1, "CausalWanModel", "ar_model", variant={"causal_ar": True})
    with pytest.raises(core.errors.SlotIDError, match="autoregressive variant .CausalWanModel."):
        apply(model, people[0])
