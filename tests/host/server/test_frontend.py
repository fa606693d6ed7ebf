"""The workflows in ComfyUI's real frontend, in a headless browser: nothing is missing, and the twins are its own."""

import asyncio
import json
import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-port=0"
).split()
READY = "Boolean(window.app && window.app.graph && window.app.extensionManager)"
LOAD = """(async () => {
    await window.app.loadGraphData(%s)
    const nodes = window.app.graph.nodes
    const unknown = nodes.map((node) => node.type).filter((type) => !(type in window.LiteGraph.registered_node_types))
    const prompt = (await window.app.graphToPrompt()).output
    nodes.find((node) => node.type === "SlotIDApply").mode = 4
    const bypassed = (await window.app.graphToPrompt()).output
    return JSON.stringify({ unknown, prompt, bypassed })
})()"""

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def evaluate(server, tmp_path_factory):
    """``evaluate(*expressions)``: their values, one after another, in a page with the frontend."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"needs a browser on the path: {', '.join(BROWSERS)}")
    profile = tmp_path_factory.mktemp("browser")
    command = [browser, *FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield lambda *expressions: asyncio.run(asyncio.wait_for(_evaluate(server.port, profile, expressions), 180))
    process.terminate()
    process.wait(20)


async def _evaluate(port, profile, expressions):
    import aiohttp

    port_file = profile / "DevToolsActivePort"
    while not (port_file.is_file() and port_file.read_text().count("\n")):
        await asyncio.sleep(0.1)
    debugger = f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}"
    values = []
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{debugger}/json/new?http://127.0.0.1:{port}/") as answer:
            page = await answer.json()
        async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            while not await _ask(socket, READY):
                await asyncio.sleep(0.2)
            for expression in expressions:
                values.append(await _ask(socket, expression))
    return values


async def _ask(socket, expression):
    parameters = {"expression": expression, "awaitPromise": True, "returnByValue": True}
    await socket.send_json({"id": 1, "method": "Runtime.evaluate", "params": parameters})
    while True:
        message = await socket.receive_json()
        if message.get("id") == 1:
            assert "exceptionDetails" not in message["result"], message
            return message["result"]["result"].get("value")


def test_the_frontend_opens_the_workflows(evaluate, twins, assert_is_twin, repo_root):
    workflows = {name: (repo_root / "workflows" / f"{name}.json").read_text(encoding="utf-8") for name in twins}
    for name, value in zip(workflows, evaluate(*(LOAD % text for text in workflows.values())), strict=True):
        opened = json.loads(value)
        assert opened["unknown"] == []
        for node in opened["prompt"].values():
            # The player under the clip counts as a widget; the server ignores it.
            node["inputs"].pop("video-preview", None)
        assert_is_twin(name, opened["prompt"])
        bypassed = {node["class_type"]: node for node in opened["bypassed"].values()}
        assert "SlotIDApply" not in bypassed
        source, _ = bypassed["KSampler"]["inputs"]["model"]
        assert opened["bypassed"][source]["class_type"] == "ModelSamplingSD3"
