"""A graph laid out as groups of nodes, written as ComfyUI's frontend saves it and as its API takes it."""

import json
import uuid
from dataclasses import dataclass, field

TITLE, ROW, WIDGET = 30, 20, 24
"""Pixels: a node's title, a socket, a widget; as the frontend draws them."""
GAP, BAND, EDGE = 28, 40, 20
"""Between nodes; a group's title; around a group's nodes."""
NOTE = (-600, 560)
"""Left edge and width of the note beside the graph."""
GROUP_COLOUR, TEXT_WIDGETS = "#3f789e", {"CLIPTextEncode", "SlotIDDemoPrompt", "SlotIDSaveIdentity"}
COLOURS = {"positive": ("#232", "#353"), "negative": ("#322", "#533")}
# What the frontend draws in a node besides sockets and widgets: a player, pictures, a text that comes with a run.
EXTRA = {
    "CLIPTextEncode": 100,
    "LoadImage": 260,
    "LoadVideo": 260,
    "SaveVideo": 420,
    "SlotIDApply": 60,
    "SlotIDDemoPrompt": 100,
    "SlotIDEncode": 150,
    "SlotIDExtractPortrait": 340,
    "SlotIDGatePreview": 330,
    "SlotIDIdentityScore": 520,
    "SlotIDLoadIdentity": 300,
    "SlotIDLoadModel": 140,
    "SlotIDLoadReferenceClip": 500,
    "SlotIDMergeIdentities": 330,
    "SlotIDReferenceReport": 480,
    "SlotIDRoutingPreview": 420,
    "SlotIDSaveIdentity": 420,
}
UPLOADS = ("image_upload", "video_upload")
_WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}


@dataclass(frozen=True)
class Output:
    """One output of a node, to be given as an input of another."""

    node: "Node"
    slot: int


@dataclass
class Node:
    """One node. ``inputs`` holds an :class:`Output` for a link, or a widget's value."""

    id: int
    type: str
    definition: dict
    inputs: dict
    width: int
    title: str | None = None
    colours: tuple[str, str] | None = None
    models: list[dict] = field(default_factory=list)
    taller: int = 0
    position: tuple[int, int] = (0, 0)

    def out(self, name: str) -> Output:
        """The output of this name, as the server lists it."""
        return Output(self, self.definition["output_name"].index(name))

    @property
    def height(self) -> int:
        rows = max(len(self.sockets()), len(self.definition["output"]))
        widgets = [name for name, _, options in self.widgets()]
        drawn = len(widgets) + sum(any(o.get(u) for u in UPLOADS) for _, _, o in self.widgets())
        drawn += sum(bool(o.get("control_after_generate")) for _, _, o in self.widgets())
        if self.type == "SaveVideo":
            drawn += 1  # the codec, which the format brings with it
        return ROW * rows + (WIDGET * drawn + 14 if drawn else 6) + EXTRA.get(self.type, 0) + self.taller

    def slots(self):
        """Name, type and options of every input, in the frontend's order, and whether it is optional."""
        for group in ("required", "optional"):
            for name, slot in self.definition["input"].get(group, {}).items():
                yield name, slot[0], (slot[1] if len(slot) > 1 else {}), group == "optional"

    def sockets(self) -> list[tuple[str, str, bool]]:
        return [(name, kind, optional) for name, kind, options, optional in self.slots() if not _is_widget(kind)]

    def widgets(self, hidden: bool = False):
        """Widgets that are drawn, or all: name, kind, options."""
        found = [(name, kind, options) for name, kind, options, _ in self.slots() if _is_widget(kind)]
        return [w for w in found if hidden or not w[2].get("hidden")]

    def value(self, name: str, kind, options: dict):
        """What the widget holds: what was given, or its default."""
        if name in self.inputs:
            found = self.inputs[name]
        elif "default" in options:
            found = options["default"]
        elif kind == "STRING":
            found = ""
        else:
            choices = kind if isinstance(kind, list) else options["options"]
            found = choices[0]["key"] if kind == "COMFY_DYNAMICCOMBO_V3" else choices[0]
        # As JavaScript writes numbers.
        return int(found) if isinstance(found, float) and found.is_integer() else found


def _is_widget(kind) -> bool:
    return isinstance(kind, list) or kind in _WIDGETS


class Group:
    """Nodes in one or more columns under a title."""

    def __init__(self, flow: "Flow", title: str, widths: tuple[int, ...]):
        self.flow, self.title, self.widths = flow, title, widths
        self.columns: list[list[Node]] = [[] for _ in widths]
        self.wide: list[Node] = []

    def add(
        self, node_type: str, /, *, column: int | None = 0, title=None, role=None, after=None, taller=0, **inputs
    ) -> Node:
        """A node below the last one of the column; ``None`` is below all columns, as wide as the group.

        Args:
            role: ``positive`` or ``negative``, which colours a prompt.
            after: what happens to the seed after a run.
            taller: pixels more for what the node shows.
            inputs: links and widget values by input name; widgets that are not named keep their default.
        """
        width = self.width if column is None else self.widths[column]
        node = self.flow.make(node_type, width, inputs, title=title, after=after, taller=taller)
        node.colours = COLOURS.get(role)
        (self.wide if column is None else self.columns[column]).append(node)
        return node

    @property
    def width(self) -> int:
        return sum(self.widths) + 2 * EDGE * (len(self.widths) - 1)

    def place(self, x: int, y: int) -> tuple[int, int, int, int]:
        """Put the nodes below ``(x, y)``, and say where the group is."""
        left, lowest = x + EDGE, y + BAND
        for nodes, width in zip(self.columns, self.widths, strict=True):
            lowest = max(lowest, _stack(nodes, left, y + BAND))
            left += width + 2 * EDGE
        lowest = _stack(self.wide, x + EDGE, lowest)
        return x, y, self.width + 2 * EDGE, lowest - GAP + EDGE - y


def _stack(nodes: list[Node], x: int, top: int) -> int:
    for node in nodes:
        node.position = (x, top + TITLE)
        top += TITLE + node.height + GAP
    return top


class Flow:
    """A workflow: stacks of groups from left to right, and a note beside them."""

    def __init__(self, name: str, info: dict, files: dict[str, dict]):
        self.name, self.info, self.files = name, info, files
        self.nodes: list[Node] = []
        self.stacks: list[list[Group]] = []
        self.after: dict[int, str] = {}
        self.note = ""

    def group(self, title: str, *widths: int, stack: int) -> Group:
        while len(self.stacks) <= stack:
            self.stacks.append([])
        group = Group(self, title, widths or (400,))
        self.stacks[stack].append(group)
        return group

    def make(self, type: str, width: int, inputs: dict, *, title, after, taller) -> Node:
        definition = self.info[type]
        unknown = (
            set(inputs) - set(definition["input"].get("required", {})) - set(definition["input"].get("optional", {}))
        )
        assert not unknown, f"{type} has no input {unknown}"
        models = [self.files[v] for v in inputs.values() if isinstance(v, str) and v in self.files]
        node = Node(len(self.nodes) + 2, type, definition, inputs, width, title, None, models, taller)
        self.nodes.append(node)
        self.after[node.id] = after or "fixed"
        return node

    def models(self) -> list[dict]:
        """Files that have to be downloaded, once each."""
        found = [model for node in self.nodes for model in node.models]
        return [model for i, model in enumerate(found) if model not in found[:i]]

    def _groups(self) -> list[dict]:
        groups, x = [], -EDGE
        for stack in self.stacks:
            y = -BAND - TITLE
            for group in stack:
                bounding = group.place(x, y)
                y += bounding[3] + EDGE
                groups.append((group.title, bounding))
            x += max(group.width for group in stack) + 3 * EDGE
        return [
            {"id": i, "title": title, "bounding": list(box), "color": GROUP_COLOUR, "font_size": 24, "flags": {}}
            for i, (title, box) in enumerate(groups, start=1)
        ]

    def workflow(self) -> dict:
        """As the frontend saves it."""
        groups, links = self._groups(), []
        targets: dict[tuple[int, int], list[int]] = {}
        sockets: dict[int, list[dict]] = {}
        for node in self.nodes:
            sockets[node.id] = []
            for position, (name, kind, optional) in enumerate(node.sockets()):
                source, link = node.inputs.get(name), None
                if source is not None:
                    link = len(links) + 1
                    links.append([link, source.node.id, source.slot, node.id, position, kind])
                    targets.setdefault((source.node.id, source.slot), []).append(link)
                shape = {"shape": 7} if optional else {}
                sockets[node.id].append({"name": name, **shape, "type": kind, "link": link})
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, self.name)),
            "revision": 0,
            "last_node_id": len(self.nodes) + 1,
            "last_link_id": len(links),
            "nodes": [self._note(), *(self._saved(node, sockets[node.id], targets) for node in self.nodes)],
            "links": links,
            "groups": groups,
            "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [700, 200]}, "workflowRendererVersion": "LG"},
            "version": 0.4,
        }

    def _note(self) -> dict:
        x, width = NOTE
        return {
            "id": 1,
            "type": "MarkdownNote",
            "pos": [x, 0],
            "size": [width, note_height(self.note, width)],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "title": "Read me",
            "properties": {},
            "widgets_values": [self.note],
            "color": "#222",
            "bgcolor": "#000",
        }

    def _saved(self, node: Node, sockets: list[dict], targets: dict) -> dict:
        outputs = zip(node.definition["output_name"], node.definition["output"], strict=True)
        pack = "slot-id" if node.type.startswith("SlotID") else "comfy-core"
        saved = {
            "id": node.id,
            "type": node.type,
            "pos": list(node.position),
            "size": [node.width, node.height],
            "flags": {},
            "order": node.id - 1,
            "mode": 0,
            "inputs": sockets,
            "outputs": [
                {"name": name, "type": kind, "links": targets.get((node.id, slot))}
                for slot, (name, kind) in enumerate(outputs)
            ],
        }
        if node.title:
            saved["title"] = node.title
        saved["properties"] = {"cnr_id": pack, "Node name for S&R": node.type}
        if node.models:
            saved["properties"]["models"] = node.models
        values = self._values(node)
        if values:
            saved["widgets_values"] = values
        if node.colours:
            saved["color"], saved["bgcolor"] = node.colours
        return saved

    def _values(self, node: Node) -> list:
        values = []
        for name, kind, options in node.widgets():
            if node.type == "CreateVideo" and name == "bit_depth":
                continue  # an input of newer versions alone, which keeps its default
            values.append(node.value(name, kind, options))
            if options.get("control_after_generate"):
                values.append(self.after[node.id])
        if node.type == "SaveVideo":
            values.append("auto")  # the codec, which the format brings with it
        if any(options.get(upload) for _, _, options in node.widgets() for upload in UPLOADS):
            values.append("image")  # the upload button
        return values

    def graph(self) -> dict:
        """In API format, as the frontend makes it of the workflow."""
        graph = {}
        for node in self.nodes:
            inputs = {name: node.value(name, kind, options) for name, kind, options in node.widgets(hidden=True)}
            if node.type == "SaveVideo":
                inputs["format.codec"] = "auto"
            for name, _, _ in node.sockets():
                if name in node.inputs:
                    inputs[name] = [str(node.inputs[name].node.id), node.inputs[name].slot]
            graph[str(node.id)] = {"class_type": node.type, "inputs": inputs}
        return graph


def note_height(text: str, width: int) -> int:
    """Enough for the note to be read without scrolling."""
    letters, height, code = int((width - 50) / 5.4), 60, False
    for line in text.splitlines():
        if line.startswith("```"):
            code, height = not code, height + 12
        elif code:
            height += 13
        elif line.startswith("#"):
            height += 32
        elif line:
            shown = line.split("](")[0]  # of a link, its text
            height += 14 * max(1, -(-len(shown) // letters))
        else:
            height += 12
    return round(height / 10) * 10


def as_text(graph: dict) -> str:
    """As the files in the repository are written."""
    return json.dumps(graph, indent=2, ensure_ascii=False) + "\n"
