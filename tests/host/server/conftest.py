"""A real ComfyUI server, headless on the CPU, with the pack installed as a user has it and folders of its own."""

import copy
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
# As the registry and most users name it. A hyphen is what breaks packs that import themselves absolutely.
PACK_FOLDER = "slot-id"
START_TIMEOUT, RUN_TIMEOUT = 180, 120


@dataclass(frozen=True)
class Run:
    """How a prompt ended."""

    outputs: dict
    """By node id, what the node showed: files, texts."""
    error: dict | None
    """What ComfyUI reports of the node that failed."""


@dataclass(frozen=True)
class Server:
    """A running server and its base folder."""

    process: subprocess.Popen
    port: int
    base: Path
    log_file: Path
    pack: str = PACK_FOLDER

    def startup_log(self) -> str:
        """The log up to where the server waits for requests."""
        return self.log().split("To see the GUI go to", 1)[0]

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as response:
            return response.read()

    def json(self, path: str):
        return json.loads(self.get(path))

    def post(self, path: str, body: dict) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    def submit(self, graph: dict) -> dict:
        """POST /prompt: the server's answer, also when it refuses the graph."""
        try:
            return json.loads(self.post("/prompt", {"prompt": graph}))
        except urllib.error.HTTPError as refusal:
            return json.loads(refusal.read())

    def run(self, graph: dict) -> Run:
        """Run a graph in API format to its end."""
        answer = self.submit(graph)
        assert "prompt_id" in answer, answer
        for _ in range(RUN_TIMEOUT * 20):
            history = self.json(f"/history/{answer['prompt_id']}")
            if history:
                entry = history[answer["prompt_id"]]
                errors = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
                return Run(entry["outputs"], errors[0] if errors else None)
            assert self.process.poll() is None, self.log()
            time.sleep(0.05)
        pytest.fail(f"the graph took more than {RUN_TIMEOUT} s\n{self.log()}")


@pytest.fixture(scope="session")
def server(comfy_root, repo_root, tmp_path_factory):
    base = tmp_path_factory.mktemp("server")
    _fill(base, repo_root)
    shutil.copy(comfy_root / "input" / "example.png", base / "input")  # what a new Load Image shows
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = base / "server.log"
    options = ["--cpu", "--port", str(port), "--base-directory", str(base), "--disable-api-nodes"]
    # The default database lies in the checkout; one in memory fails in older versions.
    options += ["--database-url", f"sqlite:///{(base / 'comfyui.db').as_posix()}"]
    # The models are tiny: threads would only wait for each other, and long ones where the machine is busy.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    with log.open("wb") as stream:
        command = [sys.executable, str(comfy_root / "main.py"), *options]
        process = subprocess.Popen(command, cwd=base, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    running = Server(process, port, base, log)
    try:
        _wait(running)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Server) -> None:
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end:
        assert server.process.poll() is None, f"the server ended while starting\n{server.log()}"
        try:
            server.get("/system_stats")
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start in {START_TIMEOUT} s\n{server.log()}")


def _fill(base: Path, repo_root: Path) -> None:
    """The demo's files as the demo installs them, a longer clip, untrained weights, a LoRA, and two packs."""
    from PIL import Image
    from safetensors.torch import save_file

    from slotid_core.checkpoint import load_weights, save_weights, untrained_weights_of
    from training.demo_clip import demo_clip
    from training.demo_models import SLOTID, install_demo_models
    from training.media import write_mp4

    for folder in ("models/loras", "input", "output", "temp", "user", "custom_nodes"):
        (base / folder).mkdir(parents=True)
    (base / "main.py").touch()  # as in a ComfyUI folder
    install_demo_models(base)
    write_mp4(base / "input" / LONG_CLIP, demo_clip())
    Image.fromarray(demo_clip(1, frames=1, size=80)[0]).save(base / "input" / "other_portrait.png")
    untrained = untrained_weights_of(load_weights(SLOTID.path).model.config, seed=0)
    save_weights(base / "models" / "slotid" / "untrained.safetensors", untrained)
    save_file(_lora(), base / "models" / "loras" / "somebodys.safetensors")
    install_pack(repo_root, base / "custom_nodes" / PACK_FOLDER)
    shutil.copy(HERE / "other_pack.py", base / "custom_nodes" / "other_pack.py")


def _lora() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, out in (("blocks.0.cross_attn.k", 256), ("blocks.1.ffn.0", 512)):
        state[f"diffusion_model.{name}.lora_A.weight"] = torch.randn(4, 256, generator=generator) * 0.1
        state[f"diffusion_model.{name}.lora_B.weight"] = torch.randn(out, 4, generator=generator) * 0.1
    return state


def install_pack(repo_root: Path, target: Path) -> None:
    """A copy of what ComfyUI's registry would install: the repository less hidden files and ``.comfyignore``."""
    lines = (repo_root / ".comfyignore").read_text(encoding="utf-8").splitlines()
    ignored = {line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")}
    built = {"outputs", "build", "dist"}

    def leave_out(folder: str, names: list[str]) -> set[str]:
        top = ignored | built if Path(folder) == repo_root else set()
        return {n for n in names if n.startswith(".") or n.endswith((".egg-info", "__pycache__")) or n in top}

    shutil.copytree(repo_root, target, ignore=leave_out)


@pytest.fixture(scope="session")
def twins() -> dict[str, dict]:
    """The workflows in API format, as the frontend makes it of them, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (HERE / "graphs").glob("*.json")}


@pytest.fixture(scope="session")
def assert_is_twin(twins):
    """``assert_is_twin(name, graph)``: a graph made of that workflow is its twin.

    Of ComfyUI's own nodes an older version may lack an input that the twin has.
    """

    def function(name: str, graph: dict) -> None:
        twin = twins[name]
        assert {k: n["class_type"] for k, n in graph.items()} == {k: n["class_type"] for k, n in twin.items()}
        for key, node in graph.items():
            expected = twin[key]["inputs"]
            if not node["class_type"].startswith("SlotID"):
                expected = {k: v for k, v in expected.items() if k in node["inputs"]}
            assert node["inputs"] == expected, node["class_type"]

    return function


LONG_CLIP = "drawn.mp4"
"""65 frames of 256x256, in the input folder."""
SMALL = {
    "SlotIDLoadReferenceClip": {"frame_count": 17, "size": 64},
    "SlotIDExtractPortrait": {"size": 64},
    "EmptyHunyuanLatentVideo": {"width": 64, "height": 64, "length": 17},
    "KSampler": {"steps": 2},
}
"""The demo's settings as small as they go."""


class Graph(dict):
    """A graph in API format that is edited by node type."""

    def id(self, class_type: str) -> str:
        """The id of the one node of this type."""
        (found,) = (key for key, node in self.items() if node["class_type"] == class_type)
        return found

    def set(self, class_type: str, **inputs) -> "Graph":
        self[self.id(class_type)]["inputs"].update(inputs)
        return self

    def shrink(self) -> "Graph":
        """Everything as small as it goes."""
        for node in self.values():
            node["inputs"].update(SMALL.get(node["class_type"], {}))
        return self

    def all(self, class_type: str) -> list[str]:
        """The ids of all nodes of this type."""
        return [key for key, node in self.items() if node["class_type"] == class_type]

    def add(self, class_type: str, **inputs) -> str:
        """A new node; returns its id."""
        key = str(1 + max(map(int, self)))
        self[key] = {"class_type": class_type, "inputs": inputs}
        return key

    def insert(self, before: str, class_type: str, **inputs) -> None:
        """A node that takes the MODEL on its way into the node of type ``before``."""
        target = self[self.id(before)]["inputs"]
        target["model"] = [self.add(class_type, model=target["model"], **inputs), 0]

    def bypass(self, class_type: str) -> None:
        """What the frontend sends for a bypassed model node: the node is not there."""
        gone = self.id(class_type)
        model = self.pop(gone)["inputs"]["model"]
        for node in self.values():
            for name, value in node["inputs"].items():
                if value == [gone, 0]:
                    node["inputs"][name] = model

    def save_latent(self) -> None:
        """Save the sampler's latents, and make no video of them."""
        for class_type in ("VAEDecode", "CreateVideo", "SaveVideo"):
            del self[self.id(class_type)]
        # A name of its own: of a node that need not run again, older versions report no output.
        self.add("SaveLatent", samples=[self.id("KSampler"), 0], filename_prefix=f"latents-{uuid.uuid4().hex}")


@pytest.fixture
def small_graph(twins):
    """``small_graph(name)``: a shipped workflow, as it is but small."""
    return lambda name: Graph(copy.deepcopy(twins[name])).shrink()


@pytest.fixture
def demo_graph(twins) -> Graph:
    """The demo workflow with everything as small as it goes, on a longer clip, without its previews."""
    graph = Graph(copy.deepcopy(twins["slotid_demo"])).set("SlotIDLoadReferenceClip", video=LONG_CLIP)
    for class_type in ("SlotIDRoutingPreview", "SlotIDGatePreview"):
        del graph[graph.id(class_type)]
    return graph.shrink()


@pytest.fixture
def latents(server):
    """``latents(graph)``: what the sampler of a graph makes."""
    from safetensors.torch import load_file

    def function(graph: Graph) -> torch.Tensor:
        graph.save_latent()
        run = server.run(graph)
        assert run.error is None, run.error
        (saved,) = run.outputs[graph.id("SaveLatent")]["latents"]
        return load_file(server.base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]

    return function
