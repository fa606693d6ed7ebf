"""Text and pictures on a node in the graph."""

import html

from comfy_api.latest import io, ui
from torch import Tensor

from .pictures import from_bytes


def show_text(node: type[io.ComfyNode], text: str) -> ui.PreviewText:
    """Write ``text`` on the running node, and give what the run's history keeps of it.

    Both are needed: the frontend draws the history's text on a few core nodes only, and forgets the text it draws when
    the page is left. The node must ask for the hidden ``unique_id``; called without a server it has none. Only whoever
    queued the graph sees it, as with the results.
    """
    if node.hidden.unique_id:
        from server import PromptServer

        server = PromptServer.instance
        if server.client_id is not None:  # without, it would go to everybody who has the page open
            # The frontend takes it for HTML, older ones (1.38) run it: notes and names come with files from anywhere.
            server.send_progress_text(html.escape(text, quote=False), node.hidden.unique_id, server.client_id)
    return ui.PreviewText(text)


class _Picture(ui.PreviewImage):
    """One preview picture with a text."""

    def __init__(self, image_BHWC: Tensor, text: ui.PreviewText, node: type[io.ComfyNode]):
        super().__init__(image_BHWC, cls=node)
        self._text = text

    def as_dict(self) -> dict:
        return {**super().as_dict(), **self._text.as_dict()}


def show_picture(node: type[io.ComfyNode], pixels_HWC: Tensor, text: str) -> ui.PreviewImage:
    """Show one uint8 picture and write ``text`` on the running node, see :func:`show_text`."""
    return _Picture(from_bytes(pixels_HWC), show_text(node, text), node)
