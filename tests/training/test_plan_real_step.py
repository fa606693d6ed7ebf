"""The planner's FLOPs and bytes against those of a real step of the tiny Wan with Slot-ID on it."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from slotid_core.config import SlotIDConfig
from slotid_core.film import modulated_blocks
from slotid_core.model import SlotID
from training.planner.flops import step_flops
from training.planner.live_bytes import LiveBytes
from training.planner.shapes import CONTEXT, KNOWN, WanShape
from training.planner.trace import EncoderTrace, trace_block, trace_decoder, trace_encoder
from training.wan_diffusers import WanTransformer3DModel, tiny_vae
from training.wan_injection import ADAPTER

NO_ENCODER = EncoderTrace(saved=0, linear_forward=0, linear_backward=0, attention_forward=0, attention_backward=0)

# The fused attention that a CPU runs, which torch's counter knows from 2.15 on; the formulas are its own.
ATTENTION_ON_THE_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def step_parts(config: SlotIDConfig, shape: WanShape, recompute: bool, grid_Thw=(2, 16, 12)):
    """A fresh small Wan with a LoRA, and a function that runs one forward as the trainer does; returns the output."""
    from peft import LoraConfig

    with torch.random.fork_rng():
        model = WanTransformer3DModel(**shape.config()).requires_grad_(False)
    if config.lora.rank:
        names = {"q": "to_q", "k": "to_k", "v": "to_v", "o": r"to_out\.0"}
        targets = "|".join(names[t] for t in config.lora.targets)
        model.add_adapter(LoraConfig(r=config.lora.rank, target_modules=rf".*attn2\.({targets})"), ADAPTER)
    film = {
        i: torch.full([1, shape.dim], 0.1, requires_grad=True) for i in modulated_blocks(config.film, config.backbone)
    }
    for i, gamma_BD in film.items():
        model.blocks[i].register_forward_hook(lambda m, a, out, g=gamma_BD: out + torch.addcmul(g[None], g[None], out))
    if recompute:
        model.enable_gradient_checkpointing(lambda block, *args: checkpoint(block.__call__, *args, use_reentrant=False))
    latents = torch.randn(1, shape.in_channels, *grid_Thw)
    context = torch.randn(1, CONTEXT, shape.text_dim, requires_grad=True)

    def forward():
        return model(latents, torch.tensor([500.0]), context, return_dict=False)[0]

    return model, film, latents, context, forward


def tiny_shape(transformer) -> WanShape:
    config = transformer.config
    return WanShape(heads=config.num_attention_heads, ffn=config.ffn_dim, blocks=config.num_layers, found="test")


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("changes", [{}, {"film": {"fraction": 0.0}}, {"lora": {"targets": ("q", "k", "v", "o")}}])
def test_flops_are_those_that_torch_counts(transformer, changes, recompute):
    config = SlotIDConfig.preset("tiny").replace(**changes)
    shape = tiny_shape(transformer)
    _, _, latents, _, forward = step_parts(config, shape, recompute)
    counter = FlopCounterMode(display=False, custom_mapping=ATTENTION_ON_THE_CPU)
    with counter:
        out = forward()
        counted_forward = counter.get_total_flops()
        out.square().mean().backward()
    counted = counter.get_total_flops()

    work = step_flops(shape, config, shape.tokens(latents.shape[2:]), 1, NO_ENCODER, recompute)
    assert sum(w.forward for w in work.values()) == pytest.approx(counted_forward, rel=0.001)
    assert sum(w.total for w in work.values()) == pytest.approx(counted, rel=0.002)


@pytest.mark.parametrize("kind", ["stsa", "conv_pool"])
def test_the_encoders_flops_are_those_that_torch_counts(kind):
    config = SlotIDConfig.preset("tiny").replace(encoder={"kind": kind})
    clip_Thw, portrait_hw = (5, 12, 12), (12, 12)
    trace = trace_encoder(config, clip_Thw, portrait_hw, 1, "fp32")
    model = SlotID(config).train()
    counter = FlopCounterMode(display=False, custom_mapping=ATTENTION_ON_THE_CPU)
    with counter:
        embedding = model.encode(torch.randn(1, 16, *clip_Thw), torch.randn(1, 16, 1, *portrait_hw)).embedding
        films = model.film(embedding.clip_global_BG + embedding.portrait_global_BG)
        counted_forward = counter.get_total_flops()
        outputs = [embedding.clip_tokens_BSE, embedding.portrait_tokens_BKE, *films]
        torch.autograd.backward(outputs, [torch.ones_like(x) for x in outputs])
    assert trace.linear_forward + trace.attention_forward == pytest.approx(counted_forward, rel=0.001)
    backward = trace.linear_backward + trace.attention_backward
    assert backward == pytest.approx(counter.get_total_flops() - counted_forward, rel=0.002)


def test_the_14b_at_65_frames_of_480_by_720():
    """Figures that were worked out by hand: linear 549, self-attention 431, 3.6 PFLOP a clip altogether."""
    shape = KNOWN["wan-14b"]
    work = step_flops(shape, SlotIDConfig.preset("wan-14b"), 22_950, 1, NO_ENCODER, recompute=True)
    assert work["linear"].forward == pytest.approx(549e12, rel=0.01)
    assert work["self-attention"].forward == pytest.approx(431e12, rel=0.01)
    assert sum(w.total for w in work.values()) == pytest.approx(3.64e15, rel=0.04)


GRID_Thw = (4, 32, 32)


def measure(config, shape, recompute):
    """Bytes that wait for backward, and the most that there were."""
    model, film, latents, context, forward = step_parts(config, shape, recompute, GRID_Thw)
    with LiveBytes([*model.parameters(), *model.buffers(), *film.values(), latents, context]) as live:
        out = forward()
        waiting = live.now
        out.square().mean().backward()
    return waiting, live.peak


@pytest.mark.parametrize("changes", [{}, {"film": {"fraction": 0.0}}, {"lora": {"targets": ("q", "k", "v", "o")}}])
def test_the_peak_of_a_real_step(transformer, changes):
    config, shape = SlotIDConfig.preset("tiny").replace(**changes), tiny_shape(transformer)
    block = trace_block(shape, config, GRID_Thw, 1, "fp32")
    assert block.boundary == 4 * shape.tokens(GRID_Thw) * shape.dim
    text = CONTEXT * 5 * shape.dim * 4

    waiting, peak = measure(config, shape, recompute=True)
    assert shape.blocks * block.boundary < waiting < peak
    assert shape.blocks * block.boundary + block.peak + text == pytest.approx(peak, rel=0.06)

    waiting, peak = measure(config, shape, recompute=False)
    assert 1.0 <= (shape.blocks * block.saved + text) / waiting <= 1.2
    assert 1.0 <= ((shape.blocks - 1) * block.saved + block.peak + text) / peak <= 1.2


def test_the_trace_never_holds_an_attention_matrix(transformer):
    """Twice the tokens take twice the memory, not four times."""
    config, shape = SlotIDConfig.preset("tiny"), tiny_shape(transformer)
    one, two = (trace_block(shape, config, (frames, 64, 64), 1, "bf16") for frames in (8, 16))
    assert two.peak / one.peak == pytest.approx(2.0, rel=0.1)


def test_half_precision_keeps_half_the_boundaries_and_norms_in_float32(transformer):
    config, shape = SlotIDConfig.preset("tiny"), tiny_shape(transformer)
    full, half = (trace_block(shape, config, GRID_Thw, 1, precision) for precision in ("fp32", "bf16"))
    assert half.boundary * 2 == full.boundary
    assert 0.5 < half.saved / full.saved < 1.0


def test_the_peak_of_a_real_decoding(transformer):
    """Seven latent frames, of which the planner traces three."""
    grid_Thw = (7, 16, 12)
    vae = tiny_vae()
    with LiveBytes(vae.parameters()) as live, torch.no_grad():
        vae.decode(torch.randn(1, 16, *grid_Thw))
    weights, predicted = trace_decoder(tiny_shape(transformer), grid_Thw, "fp32", base_dim=4)
    assert weights == 4 * sum(p.numel() for p in vae.parameters())
    assert predicted == pytest.approx(live.peak, rel=0.05)


def test_live_bytes_counts_storages_once_and_forgets_the_dead():
    known = torch.zeros(1000)
    with LiveBytes([known]) as live:
        a = torch.zeros(10)
        views = [a[:5], known[:3]]
        assert live.now == 40
        b = torch.zeros(5)
        assert (live.now, live.peak) == (60, 60)
        del a, views, b
        assert (live.now, live.peak) == (0, 60)
        for _ in range(5):  # never two of them at once
            torch.zeros(8)
        assert (live.now, live.peak) == (0, 60)
