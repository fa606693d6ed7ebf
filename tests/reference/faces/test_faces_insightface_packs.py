"""InsightFace's model packs: found, missing, and downloaded from a server on this machine."""

import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from slotid_core.errors import SlotIDError
from slotid_core.reference.faces import insightface_packs
from slotid_core.reference.faces.insightface_packs import PACKS, download_pack, explain_missing, find_pack, pack_folder


def put(folder, pack: str, *names: str, inside: str = "") -> None:
    for name in names or PACKS[pack].files:
        path = pack_folder(folder, pack) / inside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"old")


def archive(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, f"weights of {name}" * 1000)
    return data.getvalue()


@pytest.fixture
def server(monkeypatch):
    """Serves what is put into the returned dict: by path, the body and how many bytes it claims to have."""
    files: dict[str, tuple[bytes, int]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in files:
                self.send_error(404)
                return
            body, claimed = files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(claimed))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(insightface_packs, "_URL", f"http://127.0.0.1:{running.server_port}/")
    yield files
    running.shutdown()
    thread.join()
    running.server_close()


def serve(server, pack: str, body: bytes, claimed: int | None = None) -> None:
    server[f"/{pack}.zip"] = (body, len(body) if claimed is None else claimed)


def leftovers(folder) -> list[str]:
    return sorted(path.name for path in (folder / "models").iterdir())


def test_the_first_complete_pack_is_found(tmp_path):
    assert find_pack(tmp_path, None) is None
    put(tmp_path, "buffalo_s")
    assert find_pack(tmp_path, None) == "buffalo_s"
    put(tmp_path, "buffalo_l", "det_10g.onnx")
    assert find_pack(tmp_path, None) == "buffalo_s"
    put(tmp_path, "buffalo_l")
    assert find_pack(tmp_path, None) == "buffalo_l"
    assert find_pack(tmp_path, "buffalo_s") == "buffalo_s"
    assert find_pack(tmp_path, "antelopev2") is None


def test_what_is_missing_is_named(tmp_path):
    put(tmp_path, "antelopev2", "1k3d68.onnx")
    for asked in ("antelopev2", None):
        said = explain_missing(tmp_path, asked)
        assert str(pack_folder(tmp_path, "antelopev2")) in said
        assert "lacks scrfd_10g_bnkps.onnx, glintr100.onnx." in said
        assert "Turn on download" in said and "407 MB" in said and "/antelopev2.zip" in said
        assert "non-commercial research only" in said


def test_a_pack_one_folder_too_deep_is_recognised(tmp_path):
    put(tmp_path, "antelopev2", inside="antelopev2")
    assert find_pack(tmp_path, "antelopev2") is None
    assert "one folder too deep" in explain_missing(tmp_path, "antelopev2")


def test_packs_without_landmarks_are_refused(tmp_path):
    with pytest.raises(SlotIDError, match="'buffalo_sc', expected one with 3D landmarks: buffalo_l, antelopev2"):
        find_pack(tmp_path, "buffalo_sc")


@pytest.mark.parametrize("prefix", ["", "antelopev2/", "../../"], ids=["flat", "nested", "hostile"])
def test_a_download_lands_where_it_is_found(tmp_path, server, prefix):
    names = (*PACKS["antelopev2"].files, "genderage.onnx")
    serve(server, "antelopev2", archive(*(prefix + name for name in names), prefix + "readme.txt"))
    seen = []
    download_pack(tmp_path, "antelopev2", lambda done, total: seen.append((done, total)))
    assert find_pack(tmp_path, "antelopev2") == "antelopev2"
    assert sorted(p.name for p in pack_folder(tmp_path, "antelopev2").iterdir()) == sorted(names)
    assert leftovers(tmp_path) == ["antelopev2"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models"]
    assert seen[-1][0] == seen[-1][1] > 0


def test_a_download_completes_a_partial_pack(tmp_path, server):
    put(tmp_path, "buffalo_l", "1k3d68.onnx", "of_somebody_else.onnx")
    serve(server, "buffalo_l", archive(*PACKS["buffalo_l"].files))
    download_pack(tmp_path, "buffalo_l", None)
    assert (pack_folder(tmp_path, "buffalo_l") / "1k3d68.onnx").read_bytes().startswith(b"weights")
    assert (pack_folder(tmp_path, "buffalo_l") / "of_somebody_else.onnx").read_bytes() == b"old"


@pytest.mark.parametrize("fault", ["absent", "broken off", "no archive", "damaged", "other contents"])
def test_a_failed_download_leaves_nothing_and_says_what_to_do(tmp_path, server, fault):
    whole = archive(*PACKS["buffalo_l"].files)
    if fault == "broken off":
        serve(server, "buffalo_l", whole[: len(whole) // 2], claimed=len(whole))
    elif fault == "no archive":
        serve(server, "buffalo_l", b"<html>sign in</html>")
    elif fault == "damaged":
        serve(server, "buffalo_l", whole[:60] + b"\x00" * 20 + whole[80:])
    elif fault == "other contents":
        serve(server, "buffalo_l", archive("det_10g.onnx"))
    with pytest.raises(SlotIDError, match="buffalo_l.zip") as error:
        download_pack(tmp_path, "buffalo_l", None)
    assert str(pack_folder(tmp_path, "buffalo_l")) in str(error.value)
    assert find_pack(tmp_path, "buffalo_l") is None
    assert not any(name.endswith(".part") for name in leftovers(tmp_path))


def test_an_interrupted_download_leaves_nothing(tmp_path, server):
    serve(server, "buffalo_l", archive(*PACKS["buffalo_l"].files))

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_pack(tmp_path, "buffalo_l", stop)
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_written(tmp_path, server):
    serve(server, "buffalo_l", archive(*PACKS["buffalo_l"].files))
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(SlotIDError, match="could not be downloaded"):
        download_pack(tmp_path, "buffalo_l", None)
