"""The one seam to ComfyUI's Wan: the only file that touches ``ModelPatcher`` and ``transformer_options``.

Shape letters: B rows of one backbone call, L context tokens, E text-token width, P prefix tokens.

How an identity reaches the backbone:

* :func:`apply_identity` clones the MODEL, adds the LoRA as ordinary weight patches and notes the identity in the
  clone's options. The MODEL that came in is never changed, so removing the node leaves nothing behind.
* :func:`_around_sampling` runs once a sampling run. Only then is it known which noise levels start and end percent
  mean (a model-sampling node may come after ours) and which conditioning plays which role in the guider.
* :func:`_around_backbone` runs at every backbone call: it gives each row of the batch its identity or the null
  identity. It chains other nodes' block patches at call time, because they may be set before or after ours.

The functions hold no state: whatever a run needs to remember lies in its :class:`_Run`.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, Literal

import comfy.ldm.wan.model
import comfy.lora
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..slotid_core.checkpoint import SlotIDWeights
from ..slotid_core.errors import SlotIDError
from ..slotid_core.film import apply_film
from ..slotid_core.identities import check_weights
from ..slotid_core.injection import BlockFilm, Injection, condition
from ..slotid_core.lora import to_tensors
from ..slotid_core.prefix import missing_slots, place_prefix
from ..slotid_core.types import Identity

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
) -> ModelPatcher:
    """A clone of ``model`` that shows the person. See the *Apply Slot-ID to Wan* node for what the arguments mean.

    Raises:
        SlotIDError: not a Wan model, a Wan that the weights are not for, an identity of other weights, an empty window,
            or a LoRA that another Apply node has put on at another strength.
    """
    _check_backbone(model, weights)
    check_weights(identity, weights)
    if not 0.0 <= start_percent < end_percent <= 1.0:
        raise SlotIDError(f"start is {start_percent} and end is {end_percent}, expected 0 <= start < end <= 1.")
    applied = Applied(injection, weights.sha256, lora_strength, start_percent, end_percent, negative)
    patched = model.clone()
    options = patched.model_options["transformer_options"]
    earlier: tuple[Applied, ...] = options.get(_APPLIED, ())
    _add_lora(patched, weights, lora_strength, earlier)
    options[_APPLIED] = (*earlier, applied)
    if not earlier:
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, _APPLIED, _around_sampling)
        patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, _APPLIED, _around_backbone)
    return patched


def sampler_sigmas(
    model: ModelPatcher, weights: SlotIDWeights, *, sampler: str, scheduler: str, steps: int, denoise: float
) -> Tensor:
    """The noise levels that KSampler takes with this model and its shift, ``[N + 1]``, on the CPU.

    Raises:
        SlotIDError: not the Wan that the weights are for.
    """
    _check_backbone(model, weights)
    return comfy.samplers.KSampler(
        model, steps=steps, device=torch.device("cpu"), sampler=sampler, scheduler=scheduler, denoise=denoise
    ).sigmas


def noise_window(model: ModelPatcher, start_percent: float, end_percent: float) -> tuple[float, float]:
    """The noise levels that start and end mean with this model and its shift."""
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    return float(to_sigma(start_percent)), float(to_sigma(end_percent))


def _check_backbone(model: ModelPatcher, weights: SlotIDWeights) -> None:
    wanted = weights.model.config.backbone
    backbone = model.get_model_object("diffusion_model")
    found = type(backbone).__name__
    # By module name: the oldest supported ComfyUI does not have that module yet.
    if any(cls.__module__ == "comfy.ldm.wan.ar_model" for cls in type(backbone).__mro__):
        raise SlotIDError(
            f"The model is Wan's autoregressive variant ({found}), which calls no hooks, so nothing could be applied. "
            "Load an ordinary Wan text-to-video or image-to-video model."
        )
    if not isinstance(backbone, comfy.ldm.wan.model.WanModel):
        raise SlotIDError(f"The model is {found}, which is not a Wan model; these weights are for {wanted}.")
    channels = model.model.latent_format.latent_channels
    got = (backbone.dim, len(backbone.blocks), channels, backbone.text_dim)
    if got != (wanted.dim, wanted.blocks, wanted.latent_channels, wanted.text_dim):
        raise SlotIDError(
            f"The model is {found} with width {got[0]}, {got[1]} blocks, {got[2]} latent channels; these Slot-ID "
            f"weights are for {wanted}. Load that Wan, or the Slot-ID weights that were trained for this one."
        )


def _add_lora(patched: ModelPatcher, weights: SlotIDWeights, strength: float, earlier: tuple[Applied, ...]) -> None:
    """The LoRA belongs to the weights, not to a person: once a weights file, however many people share it."""
    for applied in earlier:
        if applied.weights_hash == weights.sha256:
            if applied.lora_strength != strength:
                raise SlotIDError(
                    f"Two Apply nodes with the same Slot-ID weights ask for LoRA strengths {applied.lora_strength} and "
                    f"{strength}. The LoRA is applied once: set the same lora_strength on both."
                )
            return
    if strength == 0 or weights.lora.is_zero():
        return
    names = {f"diffusion_model.{name}": f"diffusion_model.{name}.weight" for name in weights.lora.pairs}
    patches = comfy.lora.load_lora(to_tensors(weights.lora), names)
    done = patched.add_patches(patches, strength)
    if len(done) != len(names):
        raise SlotIDError(
            f"The Slot-ID LoRA fits {len(done)} of {len(names)} layers of "
            f"{type(patched.model.diffusion_model).__name__}: {sorted(set(names.values()) - set(done))[0]} is not "
            "there. The model's layers were renamed or replaced."
        )
    _log.info("Slot-ID LoRA: %d layers patched at strength %g", len(done), strength)


@dataclass
class _Run:
    """One sampling run: what percents and conditionings mean in it, and what was done."""

    parts: tuple[tuple[Injection, bool], ...]
    """Injections with their noise windows, and whether every row gets them or only the positive ones."""
    positives: dict[uuid.UUID, bool]
    """For each conditioning of the guider whether it is a positive one."""
    calls: int = 0
    identity_rows: int = 0
    modulations_wanted: int = 0
    modulations: int = 0
    lock: Lock = field(default_factory=Lock)

    @torch.compiler.disable
    def count(self, **what: int) -> None:
        with self.lock:  # multi-GPU runs call the backbone from threads
            for name, n in what.items():
                setattr(self, name, getattr(self, name) + n)

    def rows(self, options: dict[str, Any], batch: int) -> tuple[Tensor, Tensor]:
        """Which rows of this call are positive, and the noise level of each row. Shapes ``[B]``, on the CPU.

        ``cond_or_uncond`` would give positions in the guider's own list, which mean something else in every guider.
        """
        unknown = [u for u in options["uuids"] if u not in self.positives]
        if unknown:
            raise SlotIDError(
                "A node made a conditioning of its own during sampling, so Slot-ID can't tell whether it is a positive "
                "or a negative one. Remove that node, or bypass Apply Slot-ID to Wan."
            )
        chunks = len(options["uuids"])
        size = batch // chunks
        positive_B = torch.tensor([self.positives[u] for u in options["uuids"]]).repeat_interleave(size)
        sigma_B = options["sigmas"].float().cpu().expand(size).repeat(chunks)
        return positive_B, sigma_B

    def check(self, sigmas: Tensor) -> None:
        """What was asked for has happened.

        Raises:
            SlotIDError: identity was to be seen and nothing was injected.
        """
        if self.calls == 0:
            raise SlotIDError(
                "Slot-ID was applied, but the model was sampled without calling it, so no identity was injected. "
                "Another node has replaced the model's forward pass: remove that node."
            )
        steps = sigmas[:-1].float().cpu()
        if not any(bool(injection.is_active(steps).any()) for injection, _ in self.parts):
            _log.warning("Slot-ID: no step of this sampler lies between start and end; no identity was injected.")
        elif self.identity_rows == 0:
            raise SlotIDError(
                f"Slot-ID was called {self.calls} times and no row was to show the person: the guider has no "
                "conditioning named 'positive', or another node skipped every step between start and end."
            )
        _log.info(
            "Slot-ID: %d backbone calls, %d rows with identity, %d blocks modulated",
            self.calls, self.identity_rows, self.modulations,
        )  # fmt: skip


def _name_roles(conds_by_name: dict[str, list[dict[str, Any]]]) -> dict[uuid.UUID, bool]:
    """Whether each conditioning of this run is a positive one, by uuid.

    ComfyUI fills an area that only the positive has into the negative by copying the positive's entry, uuid and all;
    such a copy is given a uuid of its own. The entries are this run's copies.
    """
    roles: dict[uuid.UUID, bool] = {}
    for name, conds in conds_by_name.items():
        for cond in conds:
            if cond["uuid"] in roles:
                cond["uuid"] = uuid.uuid4()
            roles[cond["uuid"]] = name == "positive"
    return roles


def _around_sampling(executor, guider, sigmas, extra_args, *args, **kwargs):
    options = extra_args["model_options"]["transformer_options"]  # this run's own copy
    to_sigma = guider.inner_model.model_sampling.percent_to_sigma
    parts = tuple(
        (
            replace(
                a.injection, sigma_start=float(to_sigma(a.start_percent)), sigma_end=float(to_sigma(a.end_percent))
            ),
            a.negative == "same",
        )
        for a in options[_APPLIED]
    )
    run = options[_RUN] = _Run(parts, _name_roles(guider.conds))
    result = executor(guider, sigmas, extra_args, *args, **kwargs)
    run.check(sigmas)
    return result


# Nothing here is traced by torch.compile, only what the executor calls: ComfyUI's compile node drops all guards on what
# comes through transformer_options, so a graph would keep the first call's rows, roles and noise level for good.
@torch.compiler.disable(recursive=False)
def _around_backbone(executor, x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs):
    run: _Run | None = transformer_options.get(_RUN)
    if run is None:
        raise SlotIDError(
            "The model was called outside a sampler, so Slot-ID can't tell positive rows from negative ones. Sample "
            "with KSampler, SamplerCustom or a guider."
        )
    calls = _prepare(run, (x, timestep, context, clip_fea, time_dim_concat), transformer_options, kwargs)
    out = None
    for call in calls:
        result = executor(*call.inputs, call.options, **call.kwargs)
        run.count(modulations=len(call.modulated))
        if run.modulations_wanted and not run.modulations:
            raise SlotIDError(
                f"Slot-ID patched {run.modulations_wanted} blocks and the model called none of the patches. Another "
                "node has replaced the model's forward pass: remove that node, or set film_strength to 0."
            )
        if len(calls) == 1:
            return result
        if out is None:
            out = result.new_empty(x.shape[0], *result.shape[1:])
        out[call.rows] = result
    return out


@dataclass
class _Call:
    """One call of the backbone with some of the rows."""

    rows: list[int]
    inputs: list[Any]
    options: dict[str, Any]
    kwargs: dict[str, Any]
    modulated: list[int]
    """Blocks whose FiLM was applied, filled while the backbone runs."""


@torch.compiler.disable
def _prepare(run: _Run, inputs: tuple, transformer_options: dict[str, Any], kwargs: dict[str, Any]) -> list[_Call]:
    """The rows with their prefix and FiLM. Rows that need a longer context than others run apart."""
    x, context = inputs[0], inputs[2]
    batch = x.shape[0]
    positive_B, sigma_B = run.rows(transformer_options, batch)
    masks = [(injection, positive_B | everyone) for injection, everyone in run.parts]
    # On the CPU, in float32: it is a few thousand numbers, and the backbone may be anywhere, in any precision.
    conditioning = condition(masks, sigma_B)
    prefix_BPE = conditioning.prefix_BPE.to(context.device)
    run.count(calls=1, identity_rows=sum(int((rows & part.is_active(sigma_B)).sum()) for part, rows in masks))

    groups: dict[int, list[int]] = {}
    for row, missing in enumerate(missing_slots(context, prefix_BPE).tolist()):
        groups.setdefault(missing, []).append(row)
    calls = []
    for rows in groups.values():
        part = [_take(value, rows, batch) for value in inputs]
        part[2] = place_prefix(part[2], prefix_BPE[rows])
        call = _Call(rows, part, _take_chunks(transformer_options, rows, batch), _take(kwargs, rows, batch), [])
        wanted = _add_film(call, conditioning.film, x.device)
        run.count(modulations_wanted=wanted)
        calls.append(call)
    return calls


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


def _add_film(call: _Call, film: dict[int, BlockFilm], device: torch.device) -> int:
    """Options whose block patches end in FiLM; how many do. ``patches_replace`` has one callable a block: others are
    chained."""
    patches_replace = dict(call.options.get("patches_replace", {}))
    dit = patches_replace["dit"] = dict(patches_replace.get("dit", {}))
    wanted = 0
    for block, modulation in film.items():
        gamma_BD, beta_BD = (part[call.rows].to(device) for part in (modulation.gamma_BD, modulation.beta_BD))
        if not (gamma_BD.any() or beta_BD.any()):
            continue
        wanted += 1
        dit["double_block", block] = _film_after(dit.get(("double_block", block)), gamma_BD, beta_BD, call.modulated)
    call.options = {**call.options, "patches_replace": patches_replace}
    return wanted


def _film_after(earlier: Callable | None, gamma_BD: Tensor, beta_BD: Tensor, modulated: list[int]) -> Callable:
    # torch.compile traces this: a list that is new in every call costs neither a graph break nor a new graph.
    def block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        out = extra["original_block"](args) if earlier is None else earlier(args, extra)
        modulated.append(1)
        return {**out, "img": apply_film(out["img"], gamma_BD, beta_BD)}

    return block
