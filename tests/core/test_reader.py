"""Slot reader against a reference written from the paper, its symmetries, and what it does with order.

Shape letters: B batch, L tokens, D width, S slots, R rows (slots and dustbin).
"""

import itertools

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F

from slotid_core import reader as reader_module
from slotid_core.config import EncoderConfig, ReaderConfig
from slotid_core.encoder import VideoEncoder, VideoTokens
from slotid_core.reader import SlotReader
from slotid_core.rope import grid_positions
from slotid_core.sinkhorn import temperature
from slotid_core.types import Routing

GRID = (3, 4, 5)


def tokens_of(grid_THW=GRID, width=16, batch=2, dtype=torch.float32, seed=0) -> VideoTokens:
    """Tokens as the encoder's final norm leaves them."""
    generator = torch.Generator().manual_seed(seed)
    tokens_BLD = torch.randn(batch, int(np.prod(grid_THW)), width, generator=generator, dtype=dtype)
    return VideoTokens(F.layer_norm(tokens_BLD, (width,)), grid_THW)


def gru_cell(gru: torch.nn.GRUCell, x_SD: np.ndarray, h_SD: np.ndarray) -> np.ndarray:
    """The GRU cell's textbook equations."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    w_ih, w_hh, b_ih, b_hh = (
        getattr(gru, n).detach().numpy() for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    reset_x, update_x, new_x = np.split(x_SD @ w_ih.T + b_ih, 3, axis=1)
    reset_h, update_h, new_h = np.split(h_SD @ w_hh.T + b_hh, 3, axis=1)
    update = sigmoid(update_x + update_h)
    new = np.tanh(new_x + sigmoid(reset_x + reset_h) * new_h)
    return (1 - update) * new + update * h_SD


def reference_reading(reader: SlotReader, tokens_LD: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """One clip through the reader in numpy and POT: slot states ``[S, D]`` and what they read last, ``[S, L]``."""
    config, S = reader.config, reader.config.slots
    slots_SD = reader.queries.detach().numpy()
    L, D = tokens_LD.shape
    a_R = np.full(S, 1 / S)
    if config.dustbin == "fixed":
        a_R = np.append(np.full(S, (1 - config.dustbin_mass) / S), config.dustbin_mass)
    elif config.dustbin == "learned":
        mass = 1 / (1 + np.exp(-float(reader.dustbin_logit)))
        a_R = np.append(np.full(S, (1 - mass) / S), mass)
    for _ in range(config.iterations):
        rows_RD = slots_SD if config.dustbin == "off" else np.vstack([slots_SD, reader.dustbin_query.detach().numpy()])
        logits_RL = rows_RD @ tokens_LD.T / np.sqrt(D) / tau
        if config.routing == "softmax":
            routing_RL = np.exp(logits_RL - logits_RL.max(0))
            routing_RL /= routing_RL.sum(0)
        else:
            routing_RL = ot.sinkhorn(
                np.full(L, 1 / L),
                a_R,
                -logits_RL.T,
                reg=1.0,
                method="sinkhorn_log",
                numItermax=config.sinkhorn_iterations,
                stopThr=0,
                warn=False,
            ).T
            routing_RL = routing_RL / routing_RL.sum(1, keepdims=True) * a_R[:, None]
            routing_RL = routing_RL / routing_RL.sum(0)
        weights_SL = routing_RL[:S] / routing_RL[:S].sum(1, keepdims=True)
        slots_SD = gru_cell(reader.gru, weights_SL @ tokens_LD, slots_SD)
    return slots_SD, weights_SL


VARIANTS = {
    "sinkhorn": {},
    "cold": {"step": 3000},
    "softmax": {"routing": "softmax"},
    "softmax, cold": {"routing": "softmax", "step": 3000},
    "one slot": {"slots": 1},
    "many": {"slots": 16, "iterations": 5, "sinkhorn_iterations": 2},
    "dustbin": {"dustbin": "fixed", "dustbin_mass": 0.3, "step": 1000},
    "learned dustbin": {"dustbin": "learned", "dustbin_mass": 0.7},
}


def reader_of(width=16, step=0, **fields) -> SlotReader:
    reader = SlotReader(ReaderConfig(**fields), width)
    reader.step.fill_(step)
    return reader


@pytest.mark.parametrize("variant", list(VARIANTS))
@torch.no_grad()
def test_equals_the_reference(variant):
    reader = reader_of(**VARIANTS[variant]).double()
    tau = 1.0 - 0.9 * VARIANTS[variant].get("step", 0) / 3000
    video = tokens_of(dtype=torch.float64)
    reading = reader(video)
    for b, tokens_LD in enumerate(video.tokens_BLD.numpy()):
        slots_SD, weights_SL = reference_reading(reader, tokens_LD, tau)
        np.testing.assert_allclose(reading.slots_BSD[b].numpy(), slots_SD, atol=1e-9)
        np.testing.assert_allclose(reading.routing.weights_BSTHW[b].flatten(1).numpy(), weights_SL, atol=1e-9)


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("step", [0, 3000])
@torch.no_grad()
def test_every_slot_reads_a_convex_combination_even_of_a_long_clip(variant, step):
    grid_THW = (17, 32, 32)
    reader = reader_of(**{**VARIANTS[variant], "step": step})
    reading = reader(tokens_of(grid_THW, batch=1))
    weights_BSTHW = reading.routing.weights_BSTHW
    assert weights_BSTHW.shape == (1, reader.config.slots, *grid_THW)
    assert (weights_BSTHW >= 0).all()
    assert (weights_BSTHW.flatten(2).sum(-1) - 1).abs().max() <= 1e-5
    assert reading.slots_BSD.isfinite().all()


@pytest.mark.parametrize("routing", ["sinkhorn", "softmax"])
@torch.no_grad()
def test_a_slot_that_wins_no_token_reads_a_convex_combination_too(routing):
    reader = reader_of(width=64, step=3000, routing=routing)
    tokens_BLD = F.layer_norm(torch.randn(1, 60, 64) + 4 * reader.queries[1], (64,))
    weights_BSTHW = reader(VideoTokens(tokens_BLD, GRID)).routing.weights_BSTHW
    assert (weights_BSTHW.flatten(2).sum(-1) - 1).abs().max() <= 1e-5


@torch.no_grad()
def test_one_slot_is_mean_pooling():
    reader, video = reader_of(slots=1), tokens_of()
    reading = reader(video)
    L = video.tokens_BLD.shape[1]
    torch.testing.assert_close(reading.routing.weights_BSTHW, torch.full((2, 1, *GRID), 1 / L))
    for b in range(2):
        hidden_1D = reader.queries
        for _ in range(reader.config.iterations):
            hidden_1D = reader.gru(video.tokens_BLD[b].mean(0, keepdim=True), hidden_1D)
        torch.testing.assert_close(reading.slots_BSD[b], hidden_1D)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "one slot"])
@torch.no_grad()
def test_slots_carry_no_order_of_their_own(variant):
    reader, video = reader_of(**VARIANTS[variant]), tokens_of()
    before = reader(video)
    order = torch.randperm(reader.config.slots)
    reader.queries.copy_(reader.queries[order])
    after = reader(video)
    torch.testing.assert_close(after.slots_BSD, before.slots_BSD[:, order], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        after.routing.weights_BSTHW, before.routing.weights_BSTHW[:, order], rtol=1e-3, atol=1e-6
    )


def change_by_reversing_the_clip(**order: bool) -> float:
    """Largest change of a slot state when the latent frames come in reverse."""
    torch.manual_seed(1)
    encoder = VideoEncoder(EncoderConfig(width=32, heads=2, **order), 4).eval().double()
    reader = SlotReader(ReaderConfig(), 32).double()
    if encoder.place is not None:
        torch.nn.init.normal_(encoder.place.project.weight)
    latents_BCTHW = torch.randn(1, 4, 5, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        forth, back = reader(encoder(latents_BCTHW)), reader(encoder(latents_BCTHW.flip(2)))
    return float((forth.slots_BSD - back.slots_BSD).abs().max())


def test_frame_order_is_carried_by_the_temporal_difference_temporal_rope_and_absolute_positions_and_by_nothing_else():
    assert change_by_reversing_the_clip(temporal_difference=False, temporal_rope=True) > 1e-3
    assert change_by_reversing_the_clip(temporal_difference=True, temporal_rope=False) > 1e-3
    unordered = {"temporal_difference": False, "temporal_rope": False}
    assert change_by_reversing_the_clip(**unordered, absolute_positions=True) > 1e-3
    assert change_by_reversing_the_clip(**unordered) < 1e-12


def test_absolute_positions_start_as_none_and_place_a_clip_of_any_size_from_edge_to_edge():
    torch.manual_seed(1)
    encoder = VideoEncoder(EncoderConfig(width=32, heads=2, absolute_positions=True), 4).eval()
    latents_BCTHW = torch.randn(1, 4, 5, 4, 6)
    place, encoder.place = encoder.place, None
    without = encoder(latents_BCTHW).tokens_BLD
    encoder.place = place
    assert torch.equal(encoder(latents_BCTHW).tokens_BLD, without)
    torch.nn.init.normal_(place.project.weight)
    small, large = place((5, 2, 3)).unflatten(0, (5, 2, 3)), place((9, 5, 5)).unflatten(0, (9, 5, 5))
    torch.testing.assert_close(small[:, :, ::2], large[::2, ::4, ::4])
    assert torch.isfinite(place((1, 1, 1))).all()


@torch.no_grad()
def test_tokens_that_move_with_their_positions_change_nothing():
    torch.manual_seed(2)
    encoder = VideoEncoder(EncoderConfig(width=32, heads=2), 4).eval()
    reader = reader_of(width=32)
    tokens_BLD = torch.randn(2, int(np.prod(GRID)), 32)
    positions_L3 = grid_positions(GRID)
    order_L = torch.randperm(positions_L3.shape[0])

    def read(tokens_BLD, positions_L3):
        return reader(VideoTokens(encoder.contextualise(tokens_BLD, positions_L3), GRID))

    plain, moved = read(tokens_BLD, positions_L3), read(tokens_BLD[:, order_L], positions_L3[order_L])
    torch.testing.assert_close(moved.slots_BSD, plain.slots_BSD, rtol=0, atol=1e-5)
    plain_BSL, moved_BSL = (r.routing.weights_BSTHW.flatten(2) for r in (plain, moved))
    torch.testing.assert_close(moved_BSL, plain_BSL[..., order_L], rtol=1e-3, atol=1e-6)

    left_behind = read(tokens_BLD[:, order_L], positions_L3)
    assert (left_behind.slots_BSD - plain.slots_BSD).abs().max() > 1e-3


def share_of_saturated_gates(reader: SlotReader, video: VideoTokens) -> float:
    """Share of the GRU's gates within 1e-3 of 0 or 1, over all iterations."""
    gates = []

    def look(gru, inputs):
        x, h = inputs
        sums = F.linear(x, gru.weight_ih, gru.bias_ih) + F.linear(h, gru.weight_hh, gru.bias_hh)
        gates.append(sums[:, : 2 * h.shape[1]].sigmoid())

    handle = reader.gru.register_forward_pre_hook(look)
    with torch.no_grad():
        reader(video)
    handle.remove()
    gates = torch.cat(gates)
    return float(((gates < 1e-3) | (gates > 1 - 1e-3)).float().mean())


def test_the_gru_is_not_saturated_as_it_would_be_by_the_renormalised_coupling_itself(monkeypatch):
    reader, video = reader_of(width=64), tokens_of((17, 16, 16), width=64, batch=1)
    # A clip has something in common everywhere: its background, its light.
    video = VideoTokens(F.layer_norm(video.tokens_BLD + torch.randn(64), (64,)), video.grid_THW)
    assert share_of_saturated_gates(reader, video) < 0.01
    monkeypatch.setattr(reader_module, "aggregation_weights", lambda routing: routing)
    assert share_of_saturated_gates(reader, video) > 0.5


def test_step_is_stored_and_sets_the_temperature():
    reader, later = reader_of(), reader_of(step=1500)
    for step, tau in ((0, 1.0), (1500, 0.55), (3000, 0.1), (9000, 0.1)):
        reader.step.fill_(step)
        assert reader.temperature == pytest.approx(tau)
    reader.load_state_dict(later.state_dict())
    assert int(reader.step) == 1500 and reader.temperature == pytest.approx(0.55)


def test_the_step_is_read_once_a_forward_for_a_gpu_is_waited_for_each_time(monkeypatch):
    asked = []

    def counted(step, *ends):
        asked.append(step)
        return temperature(step, *ends)

    monkeypatch.setattr(reader_module, "temperature", counted)
    reader_of(step=1500)(tokens_of())
    assert asked == [1500]


@torch.no_grad()
def test_a_lower_temperature_makes_sharper_routing():
    video = tokens_of()
    entropies = []
    for step in (0, 1500, 3000):
        torch.manual_seed(3)
        weights_BSL = reader_of(step=step, iterations=1)(video).routing.weights_BSTHW.flatten(2)
        entropies.append(float(-(weights_BSL * weights_BSL.clamp_min(1e-30).log()).sum(-1).mean()))
    assert entropies[0] > entropies[1] + 0.1 > entropies[2] + 0.2, entropies


@pytest.mark.parametrize("dustbin", ["fixed", "learned"])
def test_the_dustbin_takes_its_share_and_is_never_read_out(dustbin):
    reader, video = reader_of(dustbin=dustbin, dustbin_mass=0.4, step=1000), tokens_of()
    torch.testing.assert_close(reader.log_row_marginal().exp(), torch.tensor([0.1] * 6 + [0.4]))
    reading = reader(video)
    assert reading.slots_BSD.shape == (2, 6, 16)
    assert reading.routing.weights_BSTHW.shape == (2, 6, *GRID)
    assert ("dustbin_logit" in dict(reader.named_parameters())) == (dustbin == "learned")

    (reading.slots_BSD * torch.randn(16)).sum().backward()
    for name, parameter in reader.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("logit", [18.0, -110.0])
def test_a_learned_dustbin_that_takes_nearly_all_or_nothing_still_learns(logit):
    reader = reader_of(dustbin="learned")
    with torch.no_grad():
        reader.dustbin_logit.fill_(logit)
    reading = reader(tokens_of())
    assert (reading.routing.weights_BSTHW.flatten(2).sum(-1) - 1).abs().max() <= 1e-3
    (reading.slots_BSD * torch.randn(16)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in reader.parameters())


@torch.no_grad()
def test_slots_read_less_of_what_lies_in_the_dustbin_the_larger_it_is():
    """Half of the tokens look like the dustbin's query: background."""
    shares = []
    for mass in (0.1, 0.5, 0.9):
        torch.manual_seed(4)
        reader = reader_of(dustbin="fixed", dustbin_mass=mass, iterations=1)
        foreground_LD, noise_LD = torch.randn(30, 16), 0.3 * torch.randn(30, 16)
        tokens_BLD = torch.cat([foreground_LD, reader.dustbin_query + noise_LD])[None]
        weights_BSL = reader(VideoTokens(tokens_BLD, (1, 6, 10))).routing.weights_BSTHW.flatten(2)
        shares.append(float(weights_BSL[..., 30:].sum(-1).mean()))
    assert shares[0] > shares[1] + 0.05 > shares[2] + 0.1, shares


def test_autocast_keeps_the_reader_in_float32():
    reader, video = reader_of(), tokens_of()
    plain = reader(video)
    with torch.autocast("cpu", torch.bfloat16):
        inside = reader(video)
        halved = reader(VideoTokens(video.tokens_BLD.bfloat16(), GRID))
    assert torch.equal(inside.slots_BSD, plain.slots_BSD)
    assert torch.equal(inside.routing.weights_BSTHW, plain.routing.weights_BSTHW)
    assert halved.slots_BSD.dtype == halved.routing.weights_BSTHW.dtype == torch.float32


def test_overlap_is_the_mean_bhattacharyya_coefficient_of_slot_pairs():
    weights_BSL = torch.rand(2, 4, 30, dtype=torch.float64).softmax(-1)
    expected = [
        np.mean([np.sqrt(w[i] * w[j]).sum() for i, j in itertools.combinations(range(4), 2)])
        for w in weights_BSL.numpy()
    ]
    np.testing.assert_allclose(Routing(weights_BSL.unflatten(-1, (2, 3, 5))).overlap().numpy(), expected, rtol=1e-12)

    same = Routing(torch.full((1, 3, 1, 2, 2), 0.25))
    disjoint = Routing(torch.eye(4).view(1, 4, 1, 2, 2))
    alone = Routing(torch.full((1, 1, 1, 2, 2), 0.25))
    assert [float(r.overlap()) for r in (same, disjoint, alone)] == [1.0, 0.0, 0.0]
