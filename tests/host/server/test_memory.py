"""Queue after queue in a real server, with the node changed, bypassed and put back: nothing piles up."""

import copy


def test_fifty_runs_leave_nothing_behind(server, demo_graph):
    """Tensors alive and resident memory after 10 runs of the demo, and after 50 more."""
    demo_graph.set("EmptyHunyuanLatentVideo", width=32, height=32, length=5).set("KSampler", steps=1)
    for class_type in ("VAEDecode", "CreateVideo", "SaveVideo"):
        del demo_graph[demo_graph.id(class_type)]
    demo_graph.add("SaveLatent", samples=[demo_graph.id("KSampler"), 0], filename_prefix="memory/latent")

    def queue(i: int) -> None:
        graph = copy.deepcopy(demo_graph)
        graph.set("KSampler", seed=i).set("SlotIDApply", strength=0.5 + i / 100, lora_strength=1 - i % 3)
        if i % 5 == 4:
            graph.bypass("SlotIDApply")
        run = server.run(graph)
        assert run.error is None, run.error

    def measured(when: int) -> tuple[int, int]:
        run = server.run({"1": {"class_type": "OtherMemory", "inputs": {"when": when}}})
        tensors, rss = map(int, run.outputs["1"]["text"])
        return tensors, rss

    for i in range(10):
        queue(i)
    # The graph that asks drops the demo's nodes from the cache, so both times the same things are alive.
    tensors, rss = measured(10)
    for i in range(10, 60):
        queue(i)
    tensors_after, rss_after = measured(60)
    print(f"tensors {tensors} -> {tensors_after}, RSS {rss >> 20} -> {rss_after >> 20} MiB")
    assert tensors_after <= tensors
    # What the allocator keeps. 50 models would be 850 MiB, 50 sets of LoRA patches 20 MiB.
    assert rss_after - rss < 16 << 20
