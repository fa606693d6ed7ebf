"""Load Identity."""

import hashlib
import math

from comfy_api.latest import io

from ..slotid_core.checkpoint import SlotIDWeights
from ..slotid_core.errors import SlotIDError
from ..slotid_core.identities import check_weights, describe
from ..slotid_core.identity_file import load_identity
from .folders import identity_files, identity_path
from .node_text import show_picture
from .sockets import CATEGORY, SlotIDIdentity, SlotIDModel


class SlotIDLoadIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDLoadIdentity",
            display_name="Load Identity",
            category=CATEGORY,
            description="Loads a person that Save Identity has saved. Nothing is encoded again.",
            search_aliases=["load face", "load person", "identity file", "saved identity"],
            inputs=[
                io.Combo.Input(
                    "identity_name",
                    options=identity_files(),
                    tooltip="A file in models/slotid/identities.",
                ),
                SlotIDModel.Input(
                    "slotid_model",
                    optional=True,
                    tooltip="Checks here that the identity fits these weights. Apply Slot-ID to Wan checks it anyway.",
                ),
            ],
            outputs=[
                SlotIDIdentity.Output("identity", tooltip="For Apply Slot-ID to Wan, Merge and Blend Identities."),
                io.String.Output("info", tooltip="What the file holds, and its notes."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, identity_name: str, slotid_model: SlotIDWeights | None = None) -> io.NodeOutput:
        identity = load_identity(identity_path(identity_name))
        if slotid_model is not None:
            check_weights(identity, slotid_model)
        info = f"{identity_name}\n{describe(identity)}"
        return io.NodeOutput(identity, info, ui=show_picture(cls, identity.thumbnail_HWC, info))

    @classmethod
    def fingerprint_inputs(cls, identity_name: str | None, **_: object) -> str | float:
        if identity_name is None:  # linked: not equal to itself, so it runs anew
            return math.nan
        return hashlib.sha256(identity_path(identity_name).read_bytes()).hexdigest()

    @classmethod
    def validate_inputs(cls, identity_name: str | None) -> bool | str:
        # With this method the server does not insist on the list, and an empty list gets an answer that helps.
        if identity_name is None:  # linked: known only when it runs
            return True
        try:
            identity_path(identity_name)
        except SlotIDError as error:
            return str(error)
        return True
