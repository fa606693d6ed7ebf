"""The shipped workflows against the running server: every node, widget value and link; and their API twins."""

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

WORKFLOWS = sorted(path.stem for path in (Path(__file__).resolve().parents[3] / "workflows").glob("*.json"))
# Known to the frontend alone.
NOTES = {"MarkdownNote"}
BUILT_ON = "0.33.0"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
TITLE_HEIGHT = 30
LARGEST_PICTURE = 60_000


@pytest.fixture(scope="module")
def info(server) -> dict:
    return server.json("/object_info")


@pytest.fixture(params=WORKFLOWS)
def name(request) -> str:
    return request.param


@pytest.fixture
def workflow(name, repo_root) -> dict:
    return json.loads((repo_root / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def nodes_of(workflow: dict) -> list[dict]:
    return [node for node in workflow["nodes"] if node["type"] not in NOTES]


def is_widget(kind) -> bool:
    return isinstance(kind, list) or kind in WIDGETS


def inputs_of(definition: dict):
    """Name, type, options of every input, in the frontend's order."""
    for group in ("required", "optional"):
        for name, slot in definition["input"].get(group, {}).items():
            yield name, slot[0], (slot[1] if len(slot) > 1 else {})


def choices(kind, options) -> list:
    return kind if isinstance(kind, list) else options["options"]


def widget_values(node: dict, definition: dict) -> dict:
    """The widgets' values by input name, as the frontend reads the list of a saved node."""
    values, found = iter(node.get("widgets_values", [])), {}

    def read(prefix, slots):
        for name, kind, options in slots:
            if not is_widget(kind) or options.get("forceInput"):
                continue
            value = next(values, None)
            if value is None:
                continue  # an optional widget of a newer ComfyUI, which keeps its default
            found[prefix + name] = value
            if options.get("control_after_generate"):
                next(values)
            if kind == "COMFY_DYNAMICCOMBO_V3" and not options.get("hidden"):
                (chosen,) = (option for option in options["options"] if option["key"] == value)
                read(f"{prefix}{name}.", inputs_of({"input": chosen["inputs"]}))

    read("", inputs_of(definition))
    # An upload button stands at the end and has the kind of file as its value.
    assert [left for left in values if left not in ("image", "video")] == []
    return found


def to_api(workflow: dict, info: dict) -> dict:
    """The graph that the frontend sends, but for widgets that are not in the file."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph = {}
    for node in nodes_of(workflow):
        inputs = widget_values(node, info[node["type"]])
        inputs |= {slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def test_every_node_exists(workflow, info):
    assert [node["type"] for node in nodes_of(workflow) if node["type"] not in info] == []


def test_the_pack_that_a_node_comes_from_is_named(workflow):
    """So that the frontend can offer to install what is missing."""
    for node in nodes_of(workflow):
        assert node["properties"]["cnr_id"] == ("slot-id" if node["type"].startswith("SlotID") else "comfy-core")


@pytest.fixture(scope="module")
def saved_identities(twins) -> list[str]:
    """What the shipped workflows save."""
    saves = [node for twin in twins.values() for node in twin.values() if node["class_type"] == "SlotIDSaveIdentity"]
    return [f"{node['inputs']['name']}.safetensors" for node in saves]


def test_every_widget_value_is_valid(workflow, info, saved_identities):
    for node in nodes_of(workflow):
        values = widget_values(node, info[node["type"]])
        downloads = [model["name"] for model in node["properties"].get("models", [])]
        for name, kind, options in inputs_of(info[node["type"]]):
            if name not in values or kind == "COMFY_DYNAMICCOMBO_V3":
                continue
            where, value = f"{node['type']}.{name}", values[name]
            if kind in ("INT", "FLOAT"):
                assert options["min"] <= value <= options["max"], where
            elif kind == "STRING":
                assert isinstance(value, str), where
            elif kind == "COMBO" or isinstance(kind, list):
                # Where the file is the user's own, the widget waits for an upload; identities are saved by a graph.
                upload = [""] if options.get("video_upload") else []
                made = saved_identities if name == "identity_name" else []
                assert value in [*choices(kind, options), *downloads, *upload, *made], where


def test_every_required_input_is_connected_and_every_link_fits(workflow, info):
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: link for link in workflow["links"]}
    assert len(links) == len(workflow["links"]) and len(nodes) == len(workflow["nodes"])
    assert workflow["last_link_id"] >= max(links) and workflow["last_node_id"] >= max(nodes)
    used = set()
    for node in nodes_of(workflow):
        sockets = {slot["name"]: slot for slot in node["inputs"]}
        for name, kind, _ in inputs_of(info[node["type"]]):
            if name in info[node["type"]]["input"].get("required", {}) and not is_widget(kind):
                assert sockets[name]["link"] in links, f"{node['type']}.{name} is not connected"
        for index, slot in enumerate(node["inputs"]):
            if slot["link"] is None:
                continue
            _, source, output, target, position, kind = links[slot["link"]]
            used.add(slot["link"])
            assert (target, position) == (node["id"], index)
            assert slot["link"] in nodes[source]["outputs"][output]["links"]
            assert kind == slot["type"] == info[nodes[source]["type"]]["output"][output]
    assert used == set(links)


def test_the_twin_is_the_same_graph(workflow, name, assert_is_twin, info):
    assert_is_twin(name, to_api(workflow, info))


def test_every_twin_has_a_workflow(twins, repo_root):
    assert sorted(twins) == sorted(path.stem for path in (repo_root / "workflows").glob("*.json")) == WORKFLOWS


def test_nothing_overlaps(workflow):
    def box(node):
        (x, y), (width, height) = node["pos"], node["size"]
        return x, y - TITLE_HEIGHT, x + width, y + height

    for one, other in combinations(workflow["nodes"], 2):
        a, b = box(one), box(other)
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one['type']} and {other['type']}"
    for node in nodes_of(workflow):
        left, top, right, bottom = box(node)
        inside = [
            group
            for group in workflow["groups"]
            for x, y, width, height in [group["bounding"]]
            if x <= left and y <= top and right <= x + width and bottom <= y + height
        ]
        assert len(inside) == 1, f"{node['type']} is not in one group"


def test_the_picture_is_small(name, repo_root):
    from PIL import Image

    path = repo_root / "workflows" / f"{name}.jpg"
    assert path.stat().st_size < LARGEST_PICTURE
    with Image.open(path) as picture:
        assert picture.format == "JPEG" and min(picture.size) >= 256


def note_of(workflow: dict) -> str:
    (note,) = (node for node in workflow["nodes"] if node["type"] in NOTES)
    return note["widgets_values"][0]


def test_the_notes_say_what_to_expect_of_an_identity(workflow):
    text = note_of(workflow)
    if all(node["type"] != "SlotIDLoadModel" for node in workflow["nodes"]):
        assert "no Slot-ID weights" in text or "No model of this pack" in text.replace("*", "")
        return
    assert "No trained Slot-ID weights exist yet" in text or "drawn people who do not exist" in text


def test_the_notes_name_every_file(workflow):
    text = note_of(workflow)
    for node in nodes_of(workflow):
        for value in node.get("widgets_values", []):
            if isinstance(value, str) and value.endswith((".safetensors", ".mp4", "_portrait.png")):
                assert value in text


def test_downloads_are_links_to_the_files_that_the_graph_names(workflow):
    text = note_of(workflow)
    for node in nodes_of(workflow):
        for model in node["properties"].get("models", []):
            assert model["name"] in node["widgets_values"] and model["url"].endswith(f"/{model['name']}")
            assert f"[{model['name']}]({model['url']})" in text
            assert f"── {model['directory']}/" in text


def test_the_files_are_what_the_builder_makes(server, info, repo_root, tmp_path):
    """``tests/workflows/build.py`` writes them; nobody edits them by hand."""
    if server.json("/system_stats")["system"]["comfyui_version"] != BUILT_ON:
        pytest.skip(f"the workflows are built on the nodes of ComfyUI {BUILT_ON}")
    asked = tmp_path / "object_info.json"
    asked.write_text(json.dumps(info), encoding="utf-8")
    build = [sys.executable, str(repo_root / "tests/workflows/build.py"), "--info", str(asked), "--out", str(tmp_path)]
    subprocess.run(build, check=True, timeout=120)
    for folder in ("workflows", "tests/host/server/graphs"):
        made, kept = (
            {p.name: p.read_text("utf-8") for p in (r / folder).glob("*.json")} for r in (tmp_path, repo_root)
        )
        assert made == kept, folder


def test_the_demo_notes_command_writes_the_files_that_the_graph_names(repo_root, tmp_path, twins):
    """The server's base folder was filled by that command's function; here it is the command that counts."""
    workflow = json.loads((repo_root / "workflows" / "slotid_demo.json").read_text(encoding="utf-8"))
    (line,) = (line for line in note_of(workflow).splitlines() if line.startswith("python run.py"))
    (tmp_path / "models").mkdir()
    command = [sys.executable, *line.replace("PATH_TO_COMFYUI", str(tmp_path)).split()[1:]]
    subprocess.run(command, cwd=repo_root, check=True, timeout=120)
    for node in twins["slotid_demo"].values():
        for value in node["inputs"].values():
            if isinstance(value, str) and value.endswith((".safetensors", ".mp4", ".png")):
                assert list(tmp_path.rglob(value)), value
