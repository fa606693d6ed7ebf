"""Graphs through the HTTP API: real clips in, videos out; next to other nodes; and errors that say what is wrong."""

import asyncio
import io
import shutil
import struct

import pytest
import torch

OTHER_PORTRAIT = "other_portrait.png"
NO_IDENTITY = "NO IDENTITY WILL APPEAR"


def frames_of(server, run, graph) -> list:
    """The frames of the video that a graph has saved, fetched from the server as a browser does."""
    import av

    (saved,) = run.outputs[graph.id("SaveVideo")]["images"]
    path = f"/view?filename={saved['filename']}&subfolder={saved['subfolder']}&type={saved['type']}"
    with av.open(io.BytesIO(server.get(path))) as container:
        assert container.streams.video[0].average_rate == 16
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_the_demo_clip_becomes_a_video(server, demo_graph):
    run = server.run(demo_graph)
    assert run.error is None, run.error
    frames = frames_of(server, run, demo_graph)
    assert len(frames) == 17 and frames[0].shape == (64, 64, 3)
    assert all(frame.std() > 5 for frame in frames), "a flat frame"
    clip, encode = (run.outputs[demo_graph.id(name)]["text"][0] for name in ("SlotIDLoadReferenceClip", "SlotIDEncode"))
    assert "17 frames at 16 fps" in clip and "6 tokens from 17 frames" in encode
    assert "rows with identity" in server.log()


def test_a_real_clip_becomes_a_video(server, demo_graph, shared_clips):
    clip = shared_clips[0]
    shutil.copy(clip, server.base / "input" / clip.name)
    run = server.run(demo_graph.set("SlotIDLoadReferenceClip", video=clip.name))
    assert run.error is None, run.error
    assert len(frames_of(server, run, demo_graph)) == 17
    assert run.outputs[demo_graph.id("SlotIDLoadReferenceClip")]["text"][0].startswith(clip.name)


@pytest.fixture
def variant(demo_graph):
    """A fresh copy of the demo graph, as often as needed."""

    def function():
        import copy

        return copy.deepcopy(demo_graph)

    return function


def test_the_person_and_the_seed_decide(latents, variant):
    a = latents(variant())
    assert a.shape == (1, 16, 5, 8, 8) and a.isfinite().all()
    assert torch.equal(a, latents(variant().set("SlotIDLoadReferenceClip", max_side=1279)))
    other_portrait = latents(variant().set("LoadImage", image=OTHER_PORTRAIT))
    assert relative(other_portrait, a) > 1e-2
    # These weights hardly listen to the clip (docs/world.md), but it is not lost on the way.
    other_clip = latents(variant().set("SlotIDLoadReferenceClip", start=1.0))
    assert relative(other_clip, a) > 1e-5
    assert relative(latents(variant().set("KSampler", seed=1)), a) > 1e-1


def test_a_lora_loader_before_and_after(latents, variant):
    theirs = {"lora_name": "somebodys.safetensors", "strength_model": 1.0}
    before, after = variant(), variant()
    before.insert("SlotIDApply", "LoraLoaderModelOnly", **theirs)
    after.insert("KSampler", "LoraLoaderModelOnly", **theirs)
    before, after, without = latents(before), latents(after), latents(variant())
    assert relative(before, after) < 1e-5
    assert relative(before, without) > 1e-3


def test_another_node_that_patched_the_same_block(latents, variant):
    before, after, alone = variant(), variant(), variant()
    before.insert("SlotIDApply", "OtherHalveBlock")
    after.insert("KSampler", "OtherHalveBlock")
    alone.insert("KSampler", "OtherHalveBlock")
    alone.bypass("SlotIDApply")
    before, after, alone, without = latents(before), latents(after), latents(alone), latents(variant())
    assert torch.equal(before, after)
    assert relative(before, without) > 1e-3, "theirs is lost"
    assert relative(before, alone) > 1e-3, "ours is lost"


def test_a_bypassed_node_leaves_nothing_behind(server, variant):
    """One model: sampled bare, then with the person, then bare again; bit for bit the same."""
    from safetensors.torch import load_file

    graph = variant()
    sampler = graph.id("KSampler")
    person = graph[sampler]["inputs"]
    bare = graph[graph.id("SlotIDApply")]["inputs"]["model"]
    graph.save_latent()
    first = graph.add("KSampler", **{**person, "model": bare})
    person["model"] = [graph.id("SlotIDApply"), 0]
    graph.insert("SlotIDApply", "OtherAfter", latent=[first, 0])
    again = graph.add("OtherAfter", model=bare, latent=[sampler, 0])
    last = graph.add("KSampler", **{**person, "model": [again, 0]})
    untrained = graph.add("SlotIDLoadModel", model_name="untrained.safetensors")
    encode = graph.add("SlotIDEncode", **{**graph[graph.id("SlotIDEncode")]["inputs"], "slotid_model": [untrained, 0]})
    settings = {**graph[graph.id("SlotIDApply")]["inputs"], "slotid_model": [untrained, 0], "identity": [encode, 0]}
    no_one = graph.add("SlotIDApply", **{**settings, "model": bare})
    nobody = graph.add("KSampler", **{**person, "model": [no_one, 0]})
    saves = {sampler: graph.id("SaveLatent")}
    for key in (first, last, nobody):
        saves[key] = graph.add("SaveLatent", samples=[key, 0], filename_prefix="latents")

    run = server.run(graph)
    assert run.error is None, run.error
    made = {}
    for key, save in saves.items():
        (file,) = run.outputs[save]["latents"]
        made[key] = load_file(server.base / "output" / file["subfolder"] / file["filename"])["latent_tensor"]
    assert torch.equal(made[first], made[last])
    assert relative(made[sampler], made[first]) > 1e-2
    assert torch.equal(made[nobody], made[first]), "untrained weights change nothing"
    for node in (untrained, encode, no_one):
        assert NO_IDENTITY in run.outputs[node]["text"][0]


def test_bypass_is_as_if_the_node_were_not_there(latents, variant):
    bypassed, shown = variant(), variant()
    bypassed.bypass("SlotIDApply")
    without = variant()
    for class_type in ("SlotIDApply", "SlotIDEncode", "LoadImage", "SlotIDLoadReferenceClip"):
        if class_type == "SlotIDApply":
            without.bypass(class_type)
        else:
            del without[without.id(class_type)]
    bypassed, without = latents(bypassed), latents(without)
    assert torch.equal(bypassed, without)
    assert relative(latents(shown), bypassed) > 1e-2


def test_untrained_weights_say_so_on_the_nodes(server, variant):
    """The frontend shows, on the node, texts that come over the socket; the history's text it ignores."""
    import aiohttp

    graph = variant().set("SlotIDLoadModel", model_name="untrained.safetensors").set("KSampler", seed=77)
    graph.save_latent()

    async def listen() -> dict[str, str]:
        texts = {}
        address = f"127.0.0.1:{server.port}"
        async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://{address}/ws?clientId=test") as socket:
            async with session.post(f"http://{address}/prompt", json={"prompt": graph, "client_id": "test"}) as answer:
                assert answer.status == 200
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    kind, length = struct.unpack(">II", message.data[:8])
                    if kind == 3:
                        texts[message.data[8 : 8 + length].decode()] = message.data[8 + length :].decode()
                elif message.json()["type"] in ("execution_success", "execution_error"):
                    return texts
        raise AssertionError("the socket was closed")

    texts = asyncio.run(asyncio.wait_for(listen(), 120))
    for class_type in ("SlotIDLoadModel", "SlotIDEncode", "SlotIDApply"):
        assert NO_IDENTITY in texts[graph.id(class_type)]
    assert NO_IDENTITY in server.log()


@pytest.mark.parametrize(
    "class_type, change, message",
    [
        ("SlotIDLoadReferenceClip", {"frame_count": 1025}, "65"),
        ("SlotIDLoadReferenceClip", {"frame_count": 18}, "4n"),
        ("SlotIDApply", {"start": 0.8, "end": 0.2}, "start is 0.8 and end is 0.2"),
    ],
)
def test_a_setting_that_does_not_fit(server, variant, class_type, change, message):
    graph = variant().set(class_type, **change)
    error = server.run(graph).error
    assert error["node_id"] == graph.id(class_type)
    assert error["exception_type"].endswith("SlotIDError") and message in error["exception_message"]


def test_another_vae(server, variant):
    graph = variant()
    graph[graph.id("SlotIDEncode")]["inputs"]["vae"] = [graph.add("VAELoader", vae_name="pixel_space"), 0]
    error = server.run(graph).error
    assert error["node_id"] == graph.id("SlotIDEncode")
    assert "expected the Wan 2.1 VAE" in error["exception_message"]


def test_weights_for_another_wan(server, variant):
    graph = variant()
    larger = graph.add("SlotIDLoadModel", model_name="untrained (Wan 1.3B)")
    graph.set("SlotIDApply", slotid_model=[larger, 0])
    error = server.run(graph).error
    assert error["node_id"] == graph.id("SlotIDApply")
    assert "width 256, 6 blocks" in error["exception_message"]
    assert "width 1536, 30 blocks" in error["exception_message"]


@pytest.mark.parametrize("video", ["../models/slotid/slotid_demo.safetensors", "../server.log", "nowhere.mp4", ""])
def test_a_video_that_is_not_in_the_input_folder(server, variant, video):
    graph = variant().set("SlotIDLoadReferenceClip", video=video)
    answer = server.submit(graph)
    assert "prompt_id" not in answer
    (problem,) = answer["node_errors"][graph.id("SlotIDLoadReferenceClip")]["errors"]
    assert video in problem["details"] + problem["message"]


@pytest.mark.parametrize("name", ["../vae/slotid_demo_vae.safetensors", "nothing.safetensors"])
def test_weights_that_are_not_listed(server, variant, name):
    graph = variant().set("SlotIDLoadModel", model_name=name)
    answer = server.submit(graph)
    assert "prompt_id" not in answer and graph.id("SlotIDLoadModel") in answer["node_errors"]


def test_a_file_uploaded_a_moment_ago_is_taken(server, variant):
    shutil.copy(server.base / "input" / "slotid_demo_person.mp4", server.base / "input" / "new.mp4")
    graph = variant().set("SlotIDLoadReferenceClip", video="new.mp4")
    graph.save_latent()
    assert server.run(graph).error is None
