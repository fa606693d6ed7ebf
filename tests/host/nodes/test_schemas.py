"""What the frontend is told about the nodes: ids, inputs, texts, help pages and translations agree."""

import inspect
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "web" / "docs"
LARGEST_PICTURE = 60_000
TEXTS = ROOT / "locales" / "en" / "nodeDefs.json"


@pytest.fixture(params=json.loads(TEXTS.read_text(encoding="utf-8")))
def node(nodes, request):
    return nodes[request.param]


def test_every_node_has_a_help_page_and_every_page_a_node(nodes):
    assert sorted(nodes) == sorted(path.stem for path in DOCS.glob("*.md"))


def test_the_pictures_of_the_help_pages_are_there_and_small():
    """Relative paths: the frontend looks for them beside the page."""
    named = {
        name for page in DOCS.glob("*.md") for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text("utf-8"))
    }
    kept = {path.relative_to(DOCS).as_posix(): path.stat().st_size for path in (DOCS / "images").iterdir()}
    assert named == set(kept)
    assert max(kept.values()) < LARGEST_PICTURE


def test_the_id_is_the_class_name(node):
    schema = node.GET_SCHEMA()
    assert schema.node_id == node.__name__
    assert schema.category == "SlotID"
    assert schema.display_name and schema.description and schema.search_aliases


def test_inputs_are_the_parameters_of_execute(node):
    parameters = inspect.signature(node.execute).parameters
    inputs = {slot.id: slot for slot in node.GET_SCHEMA().inputs}
    assert set(inputs) == set(parameters)
    for name, slot in inputs.items():
        default = parameters[name].default
        assert slot.optional == (default is not inspect.Parameter.empty), name
        assert default in (inspect.Parameter.empty, getattr(slot, "default", None)), name


def test_every_input_and_output_has_a_tooltip(node):
    schema = node.GET_SCHEMA()
    for slot in (*schema.inputs, *schema.outputs):
        assert slot.tooltip and slot.tooltip.endswith("."), slot.id


def test_every_number_has_a_range_that_holds_its_default(node):
    for slot in node.GET_SCHEMA().inputs:
        if slot.io_type in ("INT", "FLOAT"):
            assert slot.min <= slot.default <= slot.max, slot.id
            if slot.io_type == "INT" and slot.step:
                assert (slot.default - slot.min) % slot.step == 0, f"{slot.id}: the arrows leave its default for good"


def test_the_help_page_names_the_node_and_its_inputs(node):
    page = (DOCS / f"{node.__name__}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {node.GET_SCHEMA().display_name}\n")
    # A table may give the four sides of the box as `box_x ... box_height`.
    missing = [slot.id for slot in node.GET_SCHEMA().inputs if slot.id not in page]
    assert [name for name in missing if name not in ("box_y", "box_width")] == []


def definition(node) -> dict:
    """The node's texts in the shape of the frontend's locale files."""
    schema = node.GET_SCHEMA()
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {slot.id: {"name": slot.id, "tooltip": slot.tooltip} for slot in schema.inputs},
        "outputs": {
            str(index): {"name": slot.display_name or slot.id, "tooltip": slot.tooltip}
            for index, slot in enumerate(schema.outputs)
        },
    }


def test_the_english_texts_are_the_schemas(nodes, tmp_path):
    """On failure the message names the right file, to be copied over the one in locales/en."""
    right = tmp_path / TEXTS.name
    expected = {name: definition(node) for name, node in nodes.items()}
    right.write_text(json.dumps(expected, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    assert TEXTS.read_text(encoding="utf-8") == right.read_text(encoding="utf-8"), f"{TEXTS} should be as {right}"
