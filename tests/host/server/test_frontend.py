"""The pack in ComfyUI's real frontend, in a headless browser, as a user has it.

Templates, nodes found by an alias, widgets, an upload, a run with progress, video and pictures. With SLOTID_SCREENSHOTS
set to a folder, what was seen is kept there.
"""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1920,1080 --remote-debugging-port=0"
).split()
# The frontend begins with a graph of its own, or it would come over ours.
READY = "Boolean(window.app?.graph && window.app.extensionManager?.workflow?.activeWorkflow)"
# The machine may be busy, and software draws every frame.
PATIENCE = 300
LOAD = """(async () => {
    await window.app.loadGraphData(%s)
    const nodes = window.app.graph.nodes
    const unknown = nodes.map((node) => node.type).filter((type) => !(type in window.LiteGraph.registered_node_types))
    const cramped = nodes.filter((node) => node.computeSize()[1] > node.size[1]).map((node) => node.type)
    const prompt = (await window.app.graphToPrompt()).output
    for (const node of nodes.filter((node) => node.type === "SlotIDApply")) node.mode = 4
    const bypassed = (await window.app.graphToPrompt()).output
    for (const node of nodes) node.mode = 0
    return JSON.stringify({ unknown, cramped, prompt, bypassed })
})()"""
# The middle of a widget in the page, of the only node of a type.
PLACE = """(() => {
    const node = window.app.graph.nodes.find((node) => node.type === "%s")
    const canvas = window.app.canvas, widget = node.widgets.find((widget) => widget.name === "%s")
    canvas.ds.scale = 1
    canvas.ds.offset = [300 - node.pos[0], 200 - node.pos[1]]
    canvas.draw(true, true)
    const box = canvas.canvas.getBoundingClientRect()
    return JSON.stringify([box.x + 300 + node.size[0] - %d, box.y + 200 + widget.last_y + 10])
})()"""
# The title of the only node of a type.
TITLE = """(() => {
    const node = window.app.graph.nodes.find((node) => node.type === "%s")
    const canvas = window.app.canvas
    canvas.ds.scale = 1
    canvas.ds.offset = [500 - node.pos[0], 400 - node.pos[1]]
    canvas.draw(true, true)
    const box = canvas.canvas.getBoundingClientRect()
    return JSON.stringify([box.x + 560, box.y + 385])
})()"""
# The middle of an element in the page, as soon as there is one.
MIDDLE = """(() => {
    const box = document.querySelector("%s")?.getBoundingClientRect()
    return box?.width ? JSON.stringify([box.x + box.width / 2, box.y + box.height / 2]) : null
})()"""
BOUNDS = """(() => {
    const nodes = window.app.graph.nodes
    const far = (axis) => Math.max(...nodes.map((node) => node.pos[axis] + node.size[axis]))
    const near = (axis) => Math.min(...nodes.map((node) => node.pos[axis]))
    return JSON.stringify([far(0) - near(0) + 160, far(1) - near(1) + 240])
})()"""
MOVE = """(() => {
    const near = (axis) => Math.min(...window.app.graph.nodes.map((node) => node.pos[axis]))
    window.app.canvas.ds.scale = 1
    window.app.canvas.ds.offset = [80 - near(0), 150 - near(1)]
    window.app.canvas.setDirty(true, true)
})()"""
LISTEN = """(() => {
    window.seen = []
    for (const name of ["progress", "executed", "execution_success", "execution_error"])
        window.app.api.addEventListener(name, (event) => window.seen.push([name, event.detail]))
})()"""
SHOWN = """JSON.stringify(window.app.graph.nodes.flatMap((node) =>
    (node.imgs ?? []).map((image) => [node.type, image.naturalWidth])))"""
VIDEO = """JSON.stringify([...document.querySelectorAll("video")].map((video) => [video.src, video.videoWidth]))"""

pytestmark = pytest.mark.full


class Page:
    """One page of a browser, by its debugging protocol. Every method waits for the browser's answer."""

    def __init__(self, loop, socket, session):
        self.loop, self.socket, self.session = loop, socket, session
        self.number, self.events = 0, []

    def command(self, method: str, **parameters) -> dict:
        return self.loop.run_until_complete(asyncio.wait_for(self._command(method, parameters), PATIENCE))

    async def _command(self, method, parameters):
        self.number += 1
        number = self.number
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self.socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def evaluate(self, expression: str):
        """The value of an expression, or of what it promises."""
        answer = self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = PATIENCE):
        """The value of an expression, as soon as it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.evaluate(expression):
                return value
            time.sleep(0.3)
        pytest.fail(f"not within {seconds} s: {expression}")

    def click(self, x: float, y: float) -> None:
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def click_on(self, text: str) -> None:
        """Click on the innermost visible element with exactly this text."""
        find = f"""(() => {{
            const found = [...document.querySelectorAll("body *")].filter((element) =>
                element.textContent.trim() === {json.dumps(text)} && element.getBoundingClientRect().width > 0).at(-1)
            if (!found) return null
            found.scrollIntoView({{ block: "center" }})
            const box = found.getBoundingClientRect()
            return JSON.stringify([box.x + box.width / 2, box.y + box.height / 2])
        }})()"""
        self.click(*json.loads(self.wait_for(find)))

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=13)

    def keep(self, name: str) -> None:
        """A screenshot, where they are asked for."""
        folder = os.environ.get("SLOTID_SCREENSHOTS")
        if folder:
            picture = self.command("Page.captureScreenshot", format="png")["data"]
            (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(picture))

    def show_graph(self) -> None:
        """The whole graph, large enough to be read."""
        width, height = json.loads(self.evaluate(BOUNDS))
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        time.sleep(1)
        self.evaluate(MOVE)
        time.sleep(2)

    def complaints(self, pack: str) -> list[str]:
        """What the console has said of us: exceptions, and errors that name the pack or its nodes."""
        said = []
        for event in self.events:
            kind, details = event.get("method"), json.dumps(event.get("params"))
            console = kind == "Runtime.consoleAPICalled" and event["params"]["type"] == "error"
            failed = kind == "Log.entryAdded" and event["params"]["entry"]["level"] == "error"
            ours = any(name in details for name in ("SlotID", "slotid", f"extensions/{pack}", "filename=undefined"))
            if kind == "Runtime.exceptionThrown" or ((console or failed) and ours and "huggingface.co" not in details):
                said.append(details)
        return said


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser's debugging address."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"needs a browser on the path: {', '.join(BROWSERS)}")
    profile = tmp_path_factory.mktemp("browser")
    command = [program, *FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    file, end = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
    while not (file.is_file() and file.read_text().count("\n")):
        assert process.poll() is None and time.monotonic() < end, "the browser did not start"
        time.sleep(0.1)
    yield f"http://127.0.0.1:{file.read_text().splitlines()[0]}"
    process.terminate()
    process.wait(20)


@pytest.fixture
def page(server, browser):
    """A fresh page with the frontend."""
    import aiohttp

    loop = asyncio.new_event_loop()

    async def connect():
        session = aiohttp.ClientSession()
        async with session.put(f"{browser}/json/new?about:blank") as answer:
            target = await answer.json()
        return session, await session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0), target["id"]

    async def close(session, socket, target):
        await socket.close()
        async with session.get(f"{browser}/json/close/{target}"):
            pass
        await session.close()

    session, socket, target = loop.run_until_complete(connect())
    opened = Page(loop, socket, session)
    for domain in ("Runtime", "Page", "Log", "DOM"):
        opened.command(f"{domain}.enable")
    opened.command("Emulation.setDeviceMetricsOverride", width=1920, height=1080, deviceScaleFactor=1, mobile=False)
    # As for a new user: no graph of the page before.
    origin = f"http://127.0.0.1:{server.port}"
    opened.command("Storage.clearDataForOrigin", origin=origin, storageTypes="all")
    opened.command("Page.bringToFront")
    server.post("/settings", {"Comfy.TutorialCompleted": True})  # or the first start opens the template browser
    opened.command("Page.navigate", url=f"{origin}/")
    opened.wait_for(READY)
    time.sleep(2)  # the canvas takes its size
    yield opened
    loop.run_until_complete(close(session, socket, target))
    loop.close()


def test_the_frontend_opens_the_workflows(page, server, twins, assert_is_twin, repo_root):
    for name in twins:
        opened = json.loads(page.evaluate(LOAD % (repo_root / "workflows" / f"{name}.json").read_text("utf-8")))
        assert (name, opened["unknown"], opened["cramped"]) == (name, [], [])
        for node in opened["prompt"].values():
            # The player under the clip counts as a widget; the server ignores it.
            node["inputs"].pop("video-preview", None)
        assert_is_twin(name, opened["prompt"])
        kinds = [node["class_type"] for node in opened["bypassed"].values()]
        assert "SlotIDApply" not in kinds
        for node in opened["bypassed"].values():
            if node["class_type"].startswith("KSampler") and "model" in node["inputs"]:
                assert opened["bypassed"][node["inputs"]["model"][0]]["class_type"] == "ModelSamplingSD3"
        if os.environ.get("SLOTID_SCREENSHOTS"):
            page.show_graph()
            page.keep(name)
    assert page.complaints(server.pack) == []


def test_a_template_opens(page, server, twins):
    # Pictures below the fold are fetched when one scrolls to them.
    page.command("Emulation.setDeviceMetricsOverride", width=1920, height=2400, deviceScaleFactor=1, mobile=False)
    page.evaluate('window.app.extensionManager.command.execute("Comfy.BrowseTemplates")')
    page.click_on(server.pack)
    listed = "JSON.stringify([...document.querySelectorAll('h3')].map((title) => title.textContent.trim()))"
    page.wait_for(f"{listed}.includes('slotid_demo')")
    assert set(twins) <= set(json.loads(page.evaluate(listed)))
    pictures = "[...document.querySelectorAll('img')].filter((image) => image.naturalWidth === 512).length"
    page.wait_for(f"{pictures} >= {len(twins)}")
    page.keep("templates")
    page.click_on("slotid_demo")
    page.wait_for("window.app.graph.nodes.some((node) => node.type === 'SlotIDDemoPrompt')")
    assert page.complaints(server.pack) == []


def test_a_node_is_found_by_an_alias_and_a_widget_is_set(page, server):
    page.evaluate("window.app.graph.clear()")
    # What a double click does; where each message takes long, two clicks are none.
    page.evaluate('window.app.extensionManager.command.execute("Workspace.SearchBox.Toggle")')
    page.wait_for("document.activeElement?.tagName === 'INPUT'")
    page.command("Input.insertText", text="best frame")
    page.wait_for("document.body.textContent.includes('Extract Portrait')")
    page.keep("search")
    time.sleep(1)
    page.press("Enter")
    time.sleep(1)
    page.click(900, 600)  # where the search leaves the node to the mouse, it is dropped here
    page.wait_for("window.app.graph.nodes.some((node) => node.type === 'SlotIDExtractPortrait')")
    value = """window.app.graph.nodes.find((node) => node.type === "SlotIDExtractPortrait")
        .widgets.find((widget) => widget.name === "count").value"""
    assert page.evaluate(value) == 1
    page.click(*json.loads(page.evaluate(PLACE % ("SlotIDExtractPortrait", "count", 20))))
    page.wait_for(f"({value}) === 2")
    page.keep("widget")
    assert page.complaints(server.pack) == []


def test_the_help_page_opens(page, server):
    """As a user opens it: a click on the node, and on the button that then stands above it."""
    page.evaluate("""(() => {
        window.app.graph.clear()
        const node = window.LiteGraph.createNode("SlotIDIdentityScore")
        node.pos = [500, 300]
        window.app.graph.add(node)
    })()""")
    time.sleep(1)
    page.click(*json.loads(page.evaluate(TITLE % "SlotIDIdentityScore")))
    page.click(*json.loads(page.wait_for(MIDDLE % '[data-testid=\\"info-button\\"]')))
    help_page = "document.querySelector('.node-help-content')"
    page.wait_for(f"{help_page}?.textContent.includes('whatever made the frames')")
    picture = f"[...{help_page}.querySelectorAll('img')].find((image) => image.src.includes('identity_score'))"
    page.wait_for(f"{picture}?.naturalWidth > 0")
    page.keep("help")
    # The frontend asks for a page in the user's language first; there is one page for all.
    assert [said for said in page.complaints(server.pack) if "docs/SlotIDIdentityScore/en.md" not in said] == []


def test_the_demo_runs_with_an_uploaded_clip(page, server, repo_root, tmp_path):
    page.evaluate(LOAD % (repo_root / "workflows" / "slotid_demo.json").read_text("utf-8"))
    upload = tmp_path / "my clip é.mp4"
    shutil.copy(server.base / "input" / "slotid_demo_person.mp4", upload)
    page.command("Page.setInterceptFileChooserDialog", enabled=True)
    page.click(*json.loads(page.evaluate(PLACE % ("SlotIDLoadReferenceClip", "upload", 100))))
    end = time.monotonic() + PATIENCE
    while not (chosen := [e for e in page.events if e.get("method") == "Page.fileChooserOpened"]):
        assert time.monotonic() < end, "no file dialog"
        page.evaluate("1")
    node = chosen[0]["params"]["backendNodeId"]
    page.command("DOM.setFileInputFiles", files=[str(upload)], backendNodeId=node)
    clip = "window.app.graph.nodes.find((node) => node.type === 'SlotIDLoadReferenceClip').widgets[0].value"
    page.wait_for(f"{clip} === {json.dumps(upload.name)}")
    assert (server.base / "input" / upload.name).is_file()

    small = {
        "SlotIDLoadReferenceClip": {"frame_count": 17, "size": 64},
        "EmptyHunyuanLatentVideo": {"width": 64, "height": 64, "length": 17},
        "KSampler": {"steps": 4},
        "SlotIDGatePreview": {"steps": 4},
    }
    page.evaluate(f"""(() => {{
        const wanted = {json.dumps(small)}
        for (const node of window.app.graph.nodes)
            for (const [name, value] of Object.entries(wanted[node.type] ?? {{}}))
                node.widgets.find((widget) => widget.name === name).value = value
    }})()""")
    page.evaluate(LISTEN)
    page.click_on("Run")
    page.wait_for("window.seen.some(([name]) => name.startsWith('execution_'))")
    seen = json.loads(page.evaluate("JSON.stringify(window.seen)"))
    assert seen[-1][0] == "execution_success", seen[-1]
    steps = [detail["value"] for name, detail in seen if name == "progress" and detail["max"] == 4]
    assert steps[-1] == 4, "the sampler's progress was not shown"
    page.show_graph()  # pictures are fetched when their node is drawn
    page.wait_for(f"JSON.parse({SHOWN}).length >= 2")
    pictures = dict(json.loads(page.evaluate(SHOWN)))
    assert {"SlotIDRoutingPreview", "SlotIDGatePreview"} <= set(pictures)
    assert all(pictures.values()), pictures
    page.wait_for(f"JSON.parse({VIDEO}).some(([source, width]) => source.includes('SlotID_demo') && width === 64)")
    page.keep("demo_run")
    assert page.complaints(server.pack) == []


NOTE = """agreed <img src=x onerror="window.ran = true"> by <ann@x.org> & others"""


def test_what_a_note_says_is_shown_and_not_run(page, server):
    """Identity files come from anywhere, and the frontend takes a node's text for HTML."""
    import torch

    from slotid_core.identity_file import save_identity
    from slotid_core.types import Identity, IdentityEmbedding

    tokens, globals_ = torch.zeros(1, 2, 4), torch.zeros(1, 3)
    identity = Identity(
        IdentityEmbedding(tokens, tokens.clone(), globals_, globals_.clone()), weights_hash="0" * 64,
        clip_hash="1" * 64, portrait_hash="2" * 64, notes=(NOTE,),
        thumbnail_HWC=torch.zeros(8, 8, 3, dtype=torch.uint8),
    )  # fmt: skip
    save_identity(server.base / "models" / "slotid" / "identities" / "somebodys.safetensors", identity)
    page.evaluate("""(() => {
        window.app.graph.clear()
        const [load, save] = ["SlotIDLoadIdentity", "SlotIDSaveIdentity"].map((type) => {
            const node = window.LiteGraph.createNode(type)
            window.app.graph.add(node)
            return node
        })
        save.pos = [load.pos[0] + 500, load.pos[1]]
        load.widgets.find((widget) => widget.name === "identity_name").value = "somebodys.safetensors"
        load.connect(0, save, 0)
    })()""")
    page.evaluate(LISTEN)
    page.click_on("Run")
    page.wait_for("window.seen.some(([name]) => name.startsWith('execution_'))")
    seen = json.loads(page.evaluate("JSON.stringify(window.seen)"))
    assert seen[-1][0] == "execution_success", seen[-1]
    page.show_graph()
    page.wait_for(f"document.body.textContent.includes({json.dumps(NOTE)})")
    page.keep("note")
    assert page.evaluate("window.ran === undefined && !document.querySelector('img[src=x]')")
