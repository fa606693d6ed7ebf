"""Save Identity."""

import logging

from comfy_api.latest import io

from ..slotid_core.identities import add_note, describe
from ..slotid_core.identity_file import save_identity, save_new_identity
from ..slotid_core.types import Identity
from .folders import new_identity_path
from .node_text import show_picture
from .sockets import CATEGORY, SlotIDIdentity

_log = logging.getLogger("slotid")


class SlotIDSaveIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SlotIDSaveIdentity",
            display_name="Save Identity",
            category=CATEGORY,
            description="Saves an identity as a file in models/slotid/identities, for Load Identity.",
            search_aliases=["save face", "save person", "identity file", "export identity"],
            inputs=[
                SlotIDIdentity.Input("identity", tooltip="From Encode Slot-ID, Merge Identities or Blend Identities."),
                io.String.Input(
                    "name",
                    default="person",
                    tooltip="Name of the file. Sub-folders are allowed: family/ann.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="Replace a file of this name. Off: a number is added to the name where there is one.",
                ),
                io.String.Input(
                    "note",
                    default="",
                    multiline=True,
                    tooltip="Kept in the file, up to 1000 letters: who the person is, who agreed to its use and for "
                    "what.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, identity: Identity, name: str, overwrite: bool, note: str) -> io.NodeOutput:
        identity = add_note(identity, note)
        path = new_identity_path(name)
        if overwrite:
            save_identity(path, identity)
        else:
            path = save_new_identity(path, identity)
        text = f"Saved as {path}.\n{describe(identity)}"
        _log.info("%s", text)
        return io.NodeOutput(ui=show_picture(cls, identity.thumbnail_HWC, text))
