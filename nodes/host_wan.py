"""The seam to ComfyUI's Wan: how an identity is noted in a MODEL and reaches the backbone.

Shape letters: B rows of one backbone call, L context tokens, E text-token width, P prefix tokens.

How an identity reaches the backbone:

* :func:`apply_identity` clones the MODEL, adds the LoRA as ordinary weight patches and notes the identity in the
  clone's options. The MODEL that came in is never changed, so removing the node leaves nothing behind.
* :func:`_around_sampling` runs once a sampling run. Only then is it known which noise levels start and end percent
  mean (a model-sampling node may come after ours) and which conditioning plays which role in the guider.
* :func:`_around_backbone` runs at every backbone call: it gives each row of the batch its identity or the null
  identity. It chains other nodes' block patches at call time, because they may be set before or after ours.

Where an identity is bound to a region or to some blocks, ``host_regions`` does the last step for cross-attention.

The functions hold no state: whatever a run needs to remember lies in its :class:`.host_run.Run`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..slotid_core.checkpoint import SlotIDWeights
from ..slotid_core.errors import SlotIDError
from ..slotid_core.film import film_change, modulated_blocks
from ..slotid_core.identities import check_weights
from ..slotid_core.injection import BlockFilm, Injection, condition
from ..slotid_core.prefix import missing_slots, place_prefix
from ..slotid_core.region import EVERYWHERE, Reach, token_weights
from ..slotid_core.types import Identity, IdentityEmbedding
from .host_model import add_lora, check_backbone, check_window
from .host_regions import Placed, video_tokens, video_weights, with_cross_attention
from .host_run import NEGATIVE, POSITIVE, Part, Run, name_roles

_APPLIED = "slotid"
_RUN = "slotid_run"
_log = logging.getLogger("slotid")


@dataclass(frozen=True)
class Applied:
    """One Apply node's request, noted in the patched model's options."""

    injection: Injection
    weights_hash: str
    lora_strength: float
    start_percent: float
    end_percent: float
    negative: Literal["none", "same"]
    negative_embedding: IdentityEmbedding | None
    reach: Reach

    def __deepcopy__(self, memo: dict) -> "Applied":
        return self  # nothing of it ever changes, and packs copy a model's options with all that is in them


def apply_identity(
    model: ModelPatcher,
    weights: SlotIDWeights,
    identity: Identity,
    *,
    injection: Injection,
    lora_strength: float,
    start_percent: float,
    end_percent: float,
    negative: Literal["none", "same"],
    negative_identity: Identity | None = None,
    reach: Reach = EVERYWHERE,
) -> ModelPatcher:
    """A clone of ``model`` that shows the person. See the *Apply Slot-ID to Wan* node for what the arguments mean.

    Raises:
        SlotIDError: not a Wan model, a Wan that the weights are not for, an identity of other weights, an empty window,
            strengths and blocks that leave nothing of the identity, two identities for the negative, or a LoRA that
            another Apply node has put on at another strength.
    """
    check_backbone(model, weights)
    check_weights(identity, weights)
    if negative_identity is not None:
        check_weights(negative_identity, weights)
        if negative == "same":
            raise SlotIDError(
                "The negative is to get the same identity and another one: set negative to none, or disconnect "
                "negative_identity."
            )
    check_window(start_percent, end_percent)
    _check_heard(injection, reach, weights, lora_strength)
    applied = Applied(
        injection,
        weights.sha256,
        lora_strength,
        start_percent,
        end_percent,
        negative,
        negative_identity and negative_identity.embedding,
        reach,
    )
    patched = model.clone()
    options = patched.model_options["transformer_options"]
    earlier: tuple[Applied, ...] = options.get(_APPLIED, ())
    same_weights = [other.lora_strength for other in earlier if other.weights_hash == weights.sha256]
    add_lora(patched, weights, lora_strength, same_weights)
    options[_APPLIED] = (*earlier, applied)
    if not earlier:
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, _APPLIED, _around_sampling)
        patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, _APPLIED, _around_backbone)
    return patched


def _check_heard(injection: Injection, reach: Reach, weights: SlotIDWeights, lora_strength: float) -> None:
    """A strength of 0 is a way to switch the person off; nothing else may do so unsaid.

    Raises:
        SlotIDError: neither prefix, FiLM nor LoRA would act.
    """
    if injection.strength == 0 or injection.prefix_strength > 0 or (lora_strength and weights.lora.pairs):
        return
    config = weights.model.config
    modulated = modulated_blocks(config.film, config.backbone)
    if injection.film_strength > 0 and any(reach.blocks is None or block in reach.blocks for block in modulated):
        return
    where = f"acts in blocks {modulated[0]} to {modulated[-1]}" if len(modulated) else "is not part of these weights"
    raise SlotIDError(
        f"Nothing of the identity would be left: prefix_strength is 0, film_strength is {injection.film_strength:g} "
        f"(FiLM {where}), and no LoRA is on. Raise one of them, widen the block range, or set strength to 0."
    )


def applied_to(model: ModelPatcher) -> tuple[Applied, ...]:
    """What Apply nodes have noted in that MODEL."""
    return model.model_options["transformer_options"].get(_APPLIED, ())


def _around_sampling(executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
    options = extra_args["model_options"]["transformer_options"]  # this run's own copy
    model = guider.inner_model
    to_sigma = model.model_sampling.percent_to_sigma

    def part(a: Applied) -> Part:
        start, end = float(to_sigma(a.start_percent)), float(to_sigma(a.end_percent))
        mask_FHW, weights_THW = a.reach.mask_FHW, None
        if mask_FHW is not None:
            weights_THW = token_weights(mask_FHW, tuple(noise.shape[2:]), model.diffusion_model.patch_size)
            if not weights_THW.any():
                raise SlotIDError(
                    "A mask of Apply Slot-ID to Wan is empty, so its person would not appear. Draw a region (1 is "
                    "inside), or disconnect the mask."
                )
        injection = replace(a.injection, sigma_start=start, sigma_end=end)
        return Part(injection, a.negative == "same", a.negative_embedding, a.reach.blocks, weights_THW)

    run = options[_RUN] = Run(tuple(map(part, options[_APPLIED])), name_roles(guider.conds))
    run.check_names(list(guider.conds))
    result = executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)
    run.check(sigmas, guider.conds.get(POSITIVE, []))
    return result


# Nothing here is traced by torch.compile, only what the executor calls: ComfyUI's compile node drops all guards on what
# comes through transformer_options, so a graph would keep the first call's rows, roles and noise level for good.
@torch.compiler.disable(recursive=False)
def _around_backbone(executor, x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs):
    run: Run | None = transformer_options.get(_RUN)
    if run is None:
        raise SlotIDError(
            "The model was called outside a sampler, so Slot-ID can't tell positive rows from negative ones. Sample "
            "with KSampler, SamplerCustom or a guider."
        )
    inputs = (x, timestep, context, clip_fea, time_dim_concat)
    calls = _prepare(run, executor.class_obj, inputs, transformer_options, kwargs)
    out = None
    for call in calls:
        result = executor(*call.inputs, call.options, **call.kwargs)
        run.called(
            call.options["uuids"],
            modulations_wanted=call.modulations_wanted,
            modulations=len(call.modulations),
            attentions_wanted=call.attentions_wanted,
            attentions=len(call.attentions),
        )
        if len(calls) == 1:
            return result
        if out is None:
            out = result.new_empty(x.shape[0], *result.shape[1:])
        out[call.rows] = result
    return out


@dataclass
class _Call:
    """One call of the backbone with some of the rows, and what is hooked into it."""

    rows: list[int]
    inputs: list[Any]
    options: dict[str, Any]
    kwargs: dict[str, Any]
    modulations_wanted: int = 0
    attentions_wanted: int = 0
    # Lists that are new in every call: torch.compile traces what fills them, and neither breaks the graph nor makes a
    # new one for each count.
    modulations: list[int] = field(default_factory=list)
    attentions: list[int] = field(default_factory=list)


@torch.compiler.disable
def _prepare(run: Run, backbone: Any, inputs: tuple, options: dict[str, Any], kwargs: dict[str, Any]) -> list[_Call]:
    """The rows with their prefix and FiLM. Rows that need a longer context than others run apart."""
    x, context = inputs[0], inputs[2]
    batch = x.shape[0]
    roles_B, sigma_B = run.rows(options, batch)
    parts = [part.at(roles_B) for part in run.parts]
    shown = [part.shown(roles_B) & part.injection.is_active(sigma_B) for part in run.parts if part.injection.speaks]
    has_negative = any(part.negative is not None for part in run.parts)
    run.count(
        calls=1,
        identity_rows=sum(int(rows_B.sum()) for rows_B in shown),
        negative_rows=roles_B.count(NEGATIVE) if has_negative else 0,
    )
    if any(part.blocks is not None or part.weights_THW is not None for part in run.parts):
        call = _Call(list(range(batch)), list(inputs), options, kwargs)
        _add_regions(call, backbone, run.parts, parts, sigma_B)
        return [call]

    # On the CPU, in float32: it is a few thousand numbers, and the backbone may be anywhere, in any precision.
    conditioning = condition(parts, sigma_B)
    prefix_BPE = conditioning.prefix_BPE.to(context.device)
    film = {block: [(modulation, None)] for block, modulation in conditioning.film.items()}
    # Rows whose prompt leaves too few pads need a longer context than the others, so they run apart.
    groups: dict[int, list[int]] = {}
    for row, missing in enumerate(missing_slots(context, prefix_BPE).tolist()):
        groups.setdefault(missing, []).append(row)
    calls = []
    for rows in groups.values():
        part = [_take(value, rows, batch) for value in inputs]
        part[2] = place_prefix(part[2], prefix_BPE[rows], run.empty_like(context))
        call = _Call(rows, part, _take_chunks(options, rows, batch), _take(kwargs, rows, batch))
        _add_film(call, film)
        calls.append(call)
    return calls


def _add_regions(
    call: _Call, backbone: Any, wanted: tuple[Part, ...], parts: list[tuple[Injection, Tensor]], sigma_B: Tensor
) -> None:
    """For a call in which some identity acts in a part of the frame or in some blocks only.

    All rows run together: where an identity has nothing to say, the bias hides its tokens.
    """
    x, _, context, clip_fea, time_dim_concat = call.inputs
    tokens = video_tokens(backbone, x, time_dim_concat, call.kwargs)
    placed = []
    for (injection, rows_B), part in zip(parts, wanted, strict=True):
        weights_Q = part.weights_THW
        if weights_Q is not None:
            weights_Q = video_weights(backbone, tokens, weights_Q, call.options).to(x.device)
        placed.append(Placed(condition([(injection, rows_B)], sigma_B), part.blocks, weights_Q))

    film: dict[int, list[tuple[BlockFilm, Tensor | None]]] = {}
    for p in placed:
        for block, modulation in p.conditioning.film.items():
            if p.acts_in(block):
                film.setdefault(block, []).append((modulation, p.weights_Q))
    _add_film(call, film)
    if any(p.conditioning.prefix_BPE.any() for p in placed):
        call.attentions_wanted = 1
        call.options, call.inputs[2] = with_cross_attention(
            call.options,
            context,
            placed,
            other_lengths={tokens.total, *(() if clip_fea is None else clip_fea.shape[-2:-1])},
            count=lambda: call.attentions.append(1),
        )


def _take(value: Any, rows: list[int], batch: int) -> Any:
    """The given rows of every batched tensor in nested arguments. ComfyUI concatenates all of them along the batch."""
    if len(rows) == batch:
        return value
    if isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == batch:
        return value[rows]
    if isinstance(value, (list, tuple)):
        return type(value)(_take(v, rows, batch) for v in value)
    if isinstance(value, dict):
        return {k: _take(v, rows, batch) for k, v in value.items()}
    return value


def _take_chunks(options: dict[str, Any], rows: list[int], batch: int) -> dict[str, Any]:
    """A copy of the options for the given rows: one entry of ``uuids`` and ``cond_or_uncond`` is one chunk of rows."""
    size = batch // len(options["uuids"])
    chunks = sorted({row // size for row in rows})
    if rows != [chunk * size + i for chunk in chunks for i in range(size)]:
        raise SlotIDError(
            f"The prompts of one batch differ in how many of the last tokens are free, and one of them leaves too "
            f"few for the identity. Got rows {rows} of {batch}; shorten the longest prompt."
        )
    return {
        **options,
        "uuids": [options["uuids"][chunk] for chunk in chunks],
        "cond_or_uncond": [options["cond_or_uncond"][chunk] for chunk in chunks],
    }


def _add_film(call: _Call, film: dict[int, list[tuple[BlockFilm, Tensor | None]]]) -> None:
    """Block patches that end in FiLM. ``patches_replace`` has one callable a block: others are chained."""
    rows, device = call.rows, call.inputs[0].device
    patches_replace = dict(call.options.get("patches_replace", {}))
    dit = patches_replace["dit"] = dict(patches_replace.get("dit", {}))
    for block, modulations in film.items():
        placed = [(m.gamma_BD[rows].to(device), m.beta_BD[rows].to(device), weights) for m, weights in modulations]
        placed = [
            (gamma_BD, beta_BD, weights) for gamma_BD, beta_BD, weights in placed if gamma_BD.any() or beta_BD.any()
        ]
        if placed:
            call.modulations_wanted += 1
            dit["double_block", block] = _film_after(dit.get(("double_block", block)), placed, call.modulations)
    call.options = {**call.options, "patches_replace": patches_replace}


def _film_after(
    earlier: Callable | None, modulations: list[tuple[Tensor, Tensor, Tensor | None]], done: list[int]
) -> Callable:
    def block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        out = extra["original_block"](args) if earlier is None else earlier(args, extra)
        done.append(1)
        hidden_BLD = out["img"]
        changed_BLD = hidden_BLD
        for modulation in modulations:
            changed_BLD = changed_BLD + film_change(hidden_BLD, *modulation)
        return {**out, "img": changed_BLD}

    return block
