"""Identities saved by one graph and loaded by the next, through the HTTP API."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture
def saved_latents(server):
    """``saved_latents(run, node)``: what a Save Latent node of a run has written."""

    def function(run, node: str) -> torch.Tensor:
        assert run.error is None, run.error
        (file,) = run.outputs[node]["latents"]
        return load_file(server.base / "output" / file["subfolder"] / file["filename"])["latent_tensor"]

    return function


@pytest.fixture
def loading(demo_graph):
    """``loading(name)``: the demo graph with a saved person in place of clip and encoder."""
    demo_graph = copy.deepcopy(demo_graph)

    def function(name: str):
        graph = copy.deepcopy(demo_graph)
        graph.save_latent()
        graph.set("SlotIDApply", identity=[graph.add("SlotIDLoadIdentity", identity_name=name), 0])
        for class_type in ("SlotIDEncode", "LoadImage", "SlotIDLoadReferenceClip"):
            del graph[graph.id(class_type)]
        return graph

    return function


def test_save_load_apply_is_as_without_the_file(server, demo_graph, loading, saved_latents):
    demo_graph.save_latent()
    save = demo_graph.add(
        "SlotIDSaveIdentity", identity=[demo_graph.id("SlotIDEncode"), 0], name="demo/ann", overwrite=True, note="drawn"
    )
    run = server.run(demo_graph)
    direct = saved_latents(run, demo_graph.id("SaveLatent"))
    assert "drawn" in run.outputs[save]["text"][0] and len(run.outputs[save]["images"]) == 1

    options = server.json("/object_info/SlotIDLoadIdentity")["SlotIDLoadIdentity"]["input"]["required"]["identity_name"]
    assert "demo/ann.safetensors" in str(options)
    graph = loading("demo/ann.safetensors")
    graph.set("SlotIDLoadIdentity", slotid_model=[graph.id("SlotIDLoadModel"), 0])
    run = server.run(graph)
    assert torch.equal(saved_latents(run, graph.id("SaveLatent")), direct)
    assert "Note: drawn" in run.outputs[graph.id("SlotIDLoadIdentity")]["text"][0]


def test_a_file_that_changed_is_read_again(server, demo_graph, loading, saved_latents):
    def save(start: float) -> None:
        graph = copy.deepcopy(demo_graph).set("SlotIDLoadReferenceClip", start=start)
        graph.add(
            "SlotIDSaveIdentity", identity=[graph.id("SlotIDEncode"), 0], name="changing", overwrite=True, note=""
        )
        for class_type in ("SaveVideo", "CreateVideo", "VAEDecode", "KSampler", "SlotIDApply"):
            del graph[graph.id(class_type)]
        assert server.run(graph).error is None

    made = []
    for start in (0.0, 0.0, 1.0):
        save(start)
        graph = loading("changing.safetensors")
        made.append(saved_latents(server.run(graph), graph.id("SaveLatent")))
    assert torch.equal(made[0], made[1])
    assert not torch.allclose(made[2], made[0], rtol=1e-3)


def test_merge_and_blend_in_a_graph(server, demo_graph, saved_latents):
    demo_graph.save_latent()
    reader = demo_graph.id("SlotIDLoadReferenceClip")
    later = demo_graph.add("SlotIDLoadReferenceClip", **{**demo_graph[reader]["inputs"], "start": 1.0})
    encode = demo_graph.id("SlotIDEncode")
    other = demo_graph.add("SlotIDEncode", **{**demo_graph[encode]["inputs"], "clip": [later, 0]})
    two = {"identity_1": [encode, 0], "identity_2": [other, 0]}
    merge = {"weighting": "equal", "weights": "", "allow_different_people": False}
    makers = {
        "first": [encode, 0],
        "merged": [demo_graph.add("SlotIDMergeIdentities", **two, **merge), 0],
        "blended": [demo_graph.add("SlotIDBlendIdentities", **two, blend=0.5), 0],
        "end": [demo_graph.add("SlotIDBlendIdentities", **two, blend=0.0), 0],
    }
    apply, sampler = (demo_graph[demo_graph.id(name)]["inputs"] for name in ("SlotIDApply", "KSampler"))
    apply, sampler = dict(apply), dict(sampler)
    saves = {}
    for name, identity in makers.items():
        model = demo_graph.add("SlotIDApply", **{**apply, "identity": identity})
        latent = demo_graph.add("KSampler", **{**sampler, "model": [model, 0]})
        saves[name] = demo_graph.add("SaveLatent", samples=[latent, 0], filename_prefix="identities")
    run = server.run(demo_graph)
    made = {name: saved_latents(run, node) for name, node in saves.items()}
    assert torch.equal(made["end"], made["first"])
    assert torch.equal(made["merged"], made["blended"]), "the half of two is their mean"
    assert not torch.allclose(made["merged"], made["first"], rtol=1e-3)
    assert "NOT CHECKED" in run.outputs[makers["merged"][0]]["text"][0]


def test_what_is_no_identity_is_refused(server, loading):
    refused = server.submit(loading("../slotid_demo.safetensors"))
    assert "Make one with Save Identity" in str(refused["node_errors"])
    path = server.base / "models" / "slotid" / "identities" / "foreign.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file({"x": torch.zeros(1)}, path)
    run = server.run(loading("foreign.safetensors"))
    assert (
        "foreign.safetensors" in run.error["exception_message"]
        and "no Slot-ID metadata" in run.error["exception_message"]
    )
    path.unlink()
