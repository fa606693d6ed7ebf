"""The pack's own socket types, and inputs that several nodes share."""

from comfy_api.latest import io

from ..slotid_core.errors import SlotIDError
from ..slotid_core.reference import Box, Reference

SlotIDModel = io.Custom("SLOTID_MODEL")
"""A ``SlotIDWeights``: encoder, FiLM and LoRA of one weights file."""

SlotIDIdentity = io.Custom("SLOTID_IDENTITY")
"""An ``Identity``: un-gated tokens and global vectors of one person."""

SlotIDReference = io.Custom("SLOTID_REFERENCE")
"""A ``Reference``: frames of a clip and what is known of the person in it."""

SlotIDRouting = io.Custom("SLOTID_ROUTING")
"""A ``ClipRouting``: what each slot read of a clip, and the clip."""

SlotIDGateCurve = io.Custom("SLOTID_GATE")
"""A ``GateEnds``: portrait against clip at the noisy and at the clean end."""

CATEGORY = "SlotID"


def need_reference(reference: Reference | None) -> Reference:
    """The reference, where a node can do nothing without one.

    Raises:
        SlotIDError: there is none.
    """
    if reference is None:
        raise SlotIDError(
            "There is no reference: faces is off on Load Reference Clip. Set it to auto there, so that the person is "
            "looked for."
        )
    return reference


def box_inputs(purpose: str, without: str) -> list[io.Input]:
    """Four advanced integers, ``box_x`` to ``box_height``, in pixels of the frames.

    Args:
        purpose: what the box is for.
        without: what happens where there is none.
    """

    def side(name: str, tooltip: str) -> io.Input:
        return io.Int.Input(f"box_{name}", default=0, min=0, max=16384, advanced=True, tooltip=f"{tooltip} {purpose}")

    return [
        side("x", "Left edge of the face box in pixels."),
        side("y", "Top edge of the face box in pixels."),
        side("width", f"Width of the face box in pixels. 0 means no box: {without}."),
        side("height", f"Height of the face box in pixels. 0 means no box: {without}."),
    ]


def box_from(x: int, y: int, width: int, height: int) -> Box | None:
    """The box that the four widgets describe; ``None`` when width and height are both 0."""
    return Box(x, y, width, height) if width or height else None


def download_input() -> io.Boolean.Input:
    """Whether a face backend may fetch its models."""
    return io.Boolean.Input(
        "download",
        default=False,
        tooltip="Let InsightFace fetch its model pack if it is missing. Its weights are for non-commercial "
        "research only. Nothing is fetched unless this is on.",
    )
