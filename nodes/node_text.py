"""Text on a node in the graph."""

from comfy_api.latest import io, ui


def show_text(node: type[io.ComfyNode], text: str) -> ui.PreviewText:
    """Write ``text`` on the running node, and give what the run's history keeps of it.

    Both are needed: the frontend draws the history's text on a few core nodes only, and forgets the text it draws when
    the page is left. The node must ask for the hidden ``unique_id``; called without a server it has none.
    """
    if node.hidden.unique_id:
        from server import PromptServer

        PromptServer.instance.send_progress_text(text, node.hidden.unique_id)
    return ui.PreviewText(text)
