"""What a freshly started server makes of the installed pack: nodes, templates, help, texts; and no error."""

import asyncio
import inspect
import json
import re
from pathlib import Path

import pytest

TEXTS = json.loads(
    (Path(__file__).resolve().parents[3] / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8")
)
DISPLAY_NAMES = {name: texts["display_name"] for name, texts in TEXTS.items()}


@pytest.fixture(scope="module")
def info(server) -> dict:
    return server.json("/object_info")


def test_the_pack_loads_without_a_complaint(server):
    log = server.startup_log()
    # A pack that fails is listed with "(IMPORT FAILED)" and a traceback above.
    assert f"custom_nodes/{server.pack}" in log.replace("\\", "/")
    for complaint in ("IMPORT FAILED", "Traceback", "Cannot import"):
        assert complaint not in log


def test_the_nodes_are_listed(info, server):
    ours = {name: node for name, node in info.items() if node["python_module"] == f"custom_nodes.{server.pack}"}
    assert {name: node["display_name"] for name, node in ours.items()} == DISPLAY_NAMES
    assert {node["category"] for node in ours.values()} == {"SlotID"}


def test_the_listed_inputs_are_the_parameters_of_execute(info, pack):
    async def listed():
        return await (await pack.comfy_entrypoint()).get_node_list()

    for node in asyncio.run(listed()):
        inputs = info[node.__name__]["input"]
        names = [*inputs.get("required", {}), *inputs.get("optional", {})]
        assert sorted(names) == sorted(inspect.signature(node.execute).parameters)


def test_files_are_offered_in_the_widgets(info):
    weights = info["SlotIDLoadModel"]["input"]["required"]["model_name"][1]["options"]
    assert weights == [
        "slotid_demo.safetensors",
        "untrained.safetensors",
        "untrained (Wan 14B)",
        "untrained (Wan 1.3B)",
    ]
    video = info["SlotIDLoadReferenceClip"]["input"]["required"]["video"][1]
    assert "slotid_demo_person.mp4" in video["options"] and video["video_upload"] is True


def test_the_workflows_are_templates_with_pictures(server, repo_root):
    names = server.json("/workflow_templates")[server.pack]
    assert len(names) == 13 and sorted(names) == sorted(p.stem for p in (repo_root / "workflows").glob("*.json"))
    for name in names:
        for suffix in ("json", "jpg"):
            served = server.get(f"/api/workflow_templates/{server.pack}/{name}.{suffix}")
            assert served == (repo_root / "workflows" / f"{name}.{suffix}").read_bytes()


@pytest.mark.parametrize("node", DISPLAY_NAMES)
def test_the_help_page_is_served(server, node):
    page = server.get(f"/extensions/{server.pack}/docs/{node}.md").decode()
    assert page.startswith(f"# {DISPLAY_NAMES[node]}")
    for picture in re.findall(r"\((images/[^)]+)\)", page):
        assert server.get(f"/extensions/{server.pack}/docs/{picture}").startswith(b"\xff\xd8"), picture


def test_the_texts_are_served(server):
    served = server.json("/i18n")
    assert served["en"]["nodeDefs"] == TEXTS
    assert served["zh"]["nodeDefs"].keys() == TEXTS.keys()


def test_no_javascript_is_served(server):
    """The pack needs none; each file would run in every user's browser."""
    assert [path for path in server.json("/extensions") if f"/{server.pack}/" in path] == []


def test_the_pack_brings_its_own_core(server):
    """An absolute import would work here, where slotid_core is installed, and fail on a user's machine."""
    run = server.run(
        {"1": {"class_type": "OtherModules", "inputs": {"names": "nodes slotid_core training diffusers insightface"}}}
    )
    assert run.outputs["1"]["text"] == ["nodes"]
