"""Files of the hub, from a server on this machine that answers as the hub does."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from gtool.data.open import open_dataset
from gtool.errors import CheckpointError, NetworkError
from gtool.io import hub

CONTENT = bytes(range(256)) * 4096


class Hub(BaseHTTPRequestHandler):
    """Has one file, of which it sends no more than the first bytes; or answers with another status."""

    status, code, sends = 200, "", len(CONTENT)
    asked: list[str]

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.asked.append(f"from {start}")
        self.answer(CONTENT[start : self.sends], start)

    def answer(self, content, start=0):
        self.send_response(206 if start and self.status == 200 else self.status)
        headers = {"Content-Length": len(CONTENT) - start if self.status == 200 else 0, "ETag": '"e"'}
        headers |= {"X-Repo-Commit": "c" * 40, "X-Error-Code": self.code, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content if self.status == 200 else b"")
        self.close_connection = True

    def log_message(self, *arguments):
        """Tests are quiet."""


@pytest.fixture
def server(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(Hub, "asked", [], raising=False)
    running = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
    yield monkeypatch
    running.shutdown()
    running.server_close()
    thread.join()


def test_a_download_that_breaks_off_goes_on(server):
    server.setattr(
        "huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000
    )  # what has come is written in such parts
    server.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    server.setattr(Hub, "sends", 300_000)
    with pytest.raises(
        NetworkError, match=r"a/b: the download broke off: .*; the same command again"
    ) as caught:
        hub.download("a/b", "model.safetensors")
    assert "\n" not in str(caught.value)
    server.setattr(Hub, "sends", len(CONTENT))
    assert hub.download("a/b", "model.safetensors").read_bytes() == CONTENT
    assert "from 300000" in Hub.asked


def test_a_hub_that_fails_is_not_said_to_lack_the_file(server):
    server.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    server.setattr(Hub, "status", 500)
    with pytest.raises(NetworkError, match="a/b: the download broke off: .*500"):
        hub.download("a/b", "model.safetensors")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "GatedRepo", "its owner grants access on the hub; ask for it there"),
        (401, "GatedRepo", "its owner grants access on the hub; ask for it there"),
        (401, "RepoNotFound", "none of this name on the hub, or a private one, which takes `hf auth login`"),
        (403, "", "the hub does not let you read it"),
        (404, "RepoNotFound", "none of this name on the hub"),
        (404, "EntryNotFound", "the repository holds no model.safetensors"),
    ],
)
def test_what_may_not_be_read_is_told_from_what_is_not_there(server, status, code, said):
    server.setattr(Hub, "status", status)
    server.setattr(Hub, "code", code)
    with pytest.raises(CheckpointError, match=said) as caught:
        hub.download("a/b", "model.safetensors")
    assert "\n" not in str(caught.value)


def test_a_data_set_whose_download_breaks_off_is_not_blamed(server):
    def load(*_):
        try:
            raise ConnectionError("peer closed connection")
        except ConnectionError as bad:
            raise RuntimeError("An error occurred while generating the dataset") from bad

    server.setattr("gtool.data.read_tables._require_repository", lambda _: None)
    server.setattr("datasets.load_dataset", load)
    with pytest.raises(NetworkError) as caught:
        open_dataset("owner/name")
    said = "owner/name: the download broke off: peer closed connection; the same command again goes on where it ended"
    assert str(caught.value) == said
