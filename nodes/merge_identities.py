"""Merge Identities."""

import logging

from comfy_api.latest import io

from ..slotid_core.identities import MOST_PARTS, describe, merge, parse_weights
from ..slotid_core.types import Identity
from .node_text import show_picture
from .sockets import CATEGORY, SlotIDIdentity

_log = logging.getLogger("slotid")


class SlotIDMergeIdentities(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDMergeIdentities",
            display_name="Merge Identities",
            category=CATEGORY,
            description="Makes one identity of several clips of one person. Different people are refused where the "
            "face embeddings tell.",
            search_aliases=["combine identities", "average face", "several clips", "identity mean"],
            inputs=[
                SlotIDIdentity.Input("identity_1", tooltip="One clip of the person."),
                SlotIDIdentity.Input("identity_2", tooltip="Another clip of the same person."),
                io.Combo.Input(
                    "weighting",
                    options=["quality", "equal", "given"],
                    tooltip="How much each clip counts. quality: by views, sharpness and size of the face, which are "
                    "known of identities that were encoded with a reference. given: by weights.",
                ),
                io.String.Input(
                    "weights",
                    default="",
                    tooltip="With the weighting given: a number for each connected identity in their order, such as "
                    "2, 1. Only their ratios count.",
                ),
                io.Boolean.Input(
                    "allow_different_people",
                    default=False,
                    tooltip="Merge also where the face embeddings say that these are different people.",
                ),
                *(
                    SlotIDIdentity.Input(f"identity_{n}", optional=True, tooltip="One more clip of the same person.")
                    for n in range(3, MOST_PARTS + 1)
                ),
            ],
            outputs=[
                SlotIDIdentity.Output("identity", tooltip="For Apply Slot-ID to Wan and Save Identity."),
                io.String.Output("info", tooltip="Each clip's share, and whether the clips show one person."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        identity_1: Identity,
        identity_2: Identity,
        weighting: str,
        weights: str,
        allow_different_people: bool,
        identity_3: Identity | None = None,
        identity_4: Identity | None = None,
        identity_5: Identity | None = None,
        identity_6: Identity | None = None,
        identity_7: Identity | None = None,
        identity_8: Identity | None = None,
    ) -> io.NodeOutput:
        more = (identity_3, identity_4, identity_5, identity_6, identity_7, identity_8)
        merged = merge(
            [identity_1, identity_2, *(identity for identity in more if identity is not None)],
            weighting=weighting,
            weights=parse_weights(weights) if weighting == "given" else (),
            allow_different_people=allow_different_people,
        )
        info = f"{merged.person}\n{describe(merged.identity)}"
        _log.info("%s", info)
        return io.NodeOutput(merged.identity, info, ui=show_picture(cls, merged.identity.thumbnail_HWC, info))
