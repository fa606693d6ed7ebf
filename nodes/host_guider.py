"""Guidance by the text and by the identity apart, as a guider of ComfyUI's."""

import logging
from typing import Any

import comfy.samplers
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..slotid_core.errors import SlotIDError
from ..slotid_core.guidance import rescaled_positive
from .host_run import NEGATIVE, POSITIVE, WITHOUT
from .host_wan import applied_to

_log = logging.getLogger("slotid")


class IdentityGuider(comfy.samplers.CFGGuider):
    """Evaluates the positive prompt with and without identity, and the negative.

    It changes what ComfyUI takes for the positive's prediction, and leaves the rest to ComfyUI's own guidance: nodes
    that hook into that see an ordinary one.
    """

    def __init__(self, model: ModelPatcher, positive: list, negative: list, text_cfg: float, identity_cfg: float):
        """
        Raises:
            SlotIDError: no identity was applied to the model, or one that the negative has too.
        """
        super().__init__(model)
        applied = applied_to(model)
        if not applied:
            raise SlotIDError("The model has no identity to guide by: put Apply Slot-ID to Wan before Slot-ID Guider.")
        if any(a.negative == "same" for a in applied):
            raise SlotIDError(
                "Slot-ID Guider takes the difference that the identity makes to the positive prompt, so the negative "
                "must be without: set negative to none on Apply Slot-ID to Wan."
            )
        if identity_cfg != text_cfg and model.model_options.get("sampler_post_cfg_function"):
            _log.warning(
                "Slot-ID Guider: the model has nodes that act after guidance. Those that evaluate the prompt once more "
                "(skip-layer guidance, perturbed attention) see it with the whole identity, whatever identity_cfg is: "
                "set identity_cfg to text_cfg with them, or remove them."
            )
        self.identity_cfg = identity_cfg
        self.inner_set_conds({POSITIVE: positive, WITHOUT: positive, NEGATIVE: negative})
        self.set_cfg(text_cfg)

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        model_options = model_options or {}
        theirs = model_options.get("sampler_calc_cond_batch_function")

        def evaluate(args: dict[str, Any]) -> list[Tensor]:
            (positive, negative), without = args["conds"], self.conds[WITHOUT]
            if theirs is None:
                out, out_without, out_negative = _predict(args, [positive, without, negative])
            else:  # it knows of two conditionings
                (out, out_negative), (out_without,) = theirs(args), _predict(args, [without])
            return [rescaled_positive(out, out_without, self.identity_cfg / self.cfg), out_negative]

        options = {**model_options, "sampler_calc_cond_batch_function": evaluate}
        return super().predict_noise(x, timestep, options, seed)


def _predict(args: dict[str, Any], conds: list) -> list[Tensor]:
    return comfy.samplers.calc_cond_batch(args["model"], conds, args["input"], args["sigma"], args["model_options"])
