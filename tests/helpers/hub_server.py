"""A server on this machine that answers as the Hugging Face hub does: repositories in memory, and faults on demand.

The protocol is the public one: https://huggingface.co/docs/hub/api and, for large files, Git LFS's batch API.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Fault:
    """What goes wrong with requests whose `METHOD path` has this pattern in it."""

    pattern: str
    status: int = 200
    code: str = ""  # X-Error-Code
    headers: dict[str, str] = field(default_factory=dict)
    sends: int | None = None  # bytes of the answer that are sent before the connection is closed
    pause: float = 0.0  # seconds between two pieces of the answer
    piece: int = 1 << 16


@dataclass
class HubServer:
    """Repositories by `model/owner/name` or `dataset/owner/name`: what the tests fill and look at."""

    repositories: dict[str, Files] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)  # `METHOD path`, and `from N` of ranges
    large: Files = field(default_factory=dict)  # by SHA-256: what was sent ahead of a commit
    address: str = ""
    commit: str = "c" * 40  # that the branch main stands at

    def gets(self) -> list[str]:
        """Return the files that were fetched, by their last names."""
        return [asked.rpartition("/")[2] for asked in self.asked if re.match("GET .*/resolve/", asked)]


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Serve an empty hub on a free port of the loopback."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.daemon_threads = True
    hub.address = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield hub
    running.shutdown()
    running.server_close()
    thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):  # of a client that has gone
            super().handle_one_request()

    def log_message(self, *arguments: Any) -> None:
        """Tests are quiet."""

    def _route(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        faults = (fault for fault in self.hub.faults if re.search(fault.pattern, f"{self.command} {path}"))
        self.fault = next(faults, Fault(""))
        if self.fault.status != 200:
            return self._send(b"", self.fault.status, {"X-Error-Code": self.fault.code} | self.fault.headers)
        for pattern, answer in _ROUTES.items():
            if found := re.fullmatch(pattern, path):
                return answer(self, **found.groupdict())
        self._send(b"no such address", 404)

    do_GET = do_HEAD = do_POST = do_PUT = _route  # noqa: N815 - names of the standard library

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            threading.Event().wait(self.fault.pause)
            return
        for start in range(0, len(content), self.fault.piece):
            if self.fault.sends is not None and start >= self.fault.sends:
                self.close_connection = True
                return
            self.wfile.write(content[start : start + self.fault.piece])
            threading.Event().wait(self.fault.pause)  # not time.sleep, which tests shorten for the client

    def _files(self, kind: str, name: str) -> Files | None:
        """Return the files of a repository; None, with the answer sent, where there is none."""
        files = self.hub.repositories.get(f"{kind or 'model'}/{name}")
        if files is None:
            self._send(b"", 404, {"X-Error-Code": "RepoNotFound"})
        return files

    def resolve(self, kind: str, name: str, file: str) -> None:
        if (files := self._files(kind, name)) is None:
            return
        if file not in files:
            return self._send(b"", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.hub.commit})
        content = files[file]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        etag = {"ETag": f'"{_sha(content)}"', "X-Repo-Commit": self.hub.commit, "Accept-Ranges": "bytes"}
        if asked is None:
            return self._send(content, headers=etag)
        first, last = int(asked[1]), int(asked[2] or len(content) - 1)
        self.hub.asked.append(f"from {first}")
        etag["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(content[first : last + 1], 206, etag)

    def about(self, kind: str, name: str) -> None:
        if (files := self._files(kind, name)) is not None:
            known = {
                "id": name,
                "sha": self.hub.commit,
                "private": False,
                "gated": False,
                "tags": [],
                "downloads": 0,
            }
            siblings = [{"rfilename": file} for file in files]
            self._json(known | {"siblings": siblings, "lastModified": "2026-01-01T00:00:00.000Z"})

    def tree(self, kind: str, name: str, folder: str | None = None) -> None:
        if (files := self._files(kind, name)) is not None:
            begin = f"{folder}/" if folder else ""
            self._json([_entry(file, files) for file in _below(begin, files)])

    def paths(self, kind: str, name: str) -> None:
        if (files := self._files(kind, name)) is None:
            return
        text = self.body.decode()
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        wanted = json.loads(text)["paths"] if is_json else parse_qs(text).get("paths", [])
        self._json(
            [_entry(path, files) for path in wanted if path in files or any(_below(f"{path}/", files))]
        )

    def create(self) -> None:
        asked = json.loads(self.body)
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        is_new = f"model/{name}" not in self.hub.repositories
        self.hub.repositories.setdefault(f"model/{name}", {})
        url = json.dumps({"url": f"{self.hub.address}/{name}"}).encode()
        self._send(url, 200 if is_new else 409, {"Content-Type": "application/json"})

    def preupload(self, kind: str, name: str) -> None:
        files = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if file["path"].endswith((".safetensors", ".png")) else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None})
        self._json({"files": files})

    def batch(self, name: str) -> None:
        objects = [dict(wanted) for wanted in json.loads(self.body)["objects"]]
        for wanted in objects:
            if wanted["oid"] not in self.hub.large:
                wanted["actions"] = {
                    "upload": {"href": f"{self.hub.address}/lfs/{wanted['oid']}", "header": {}}
                }
        self._json({"transfer": "basic", "objects": objects})

    def put(self, oid: str) -> None:
        assert _sha(self.body) == oid
        self.hub.large[oid] = self.body
        self._send(b"")

    def commit(self, kind: str, name: str) -> None:
        files = self.hub.repositories[f"{kind}/{name}"]
        for line in map(json.loads, self.body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.hub.large[line["value"]["oid"]]
        url = f"{self.hub.address}/{name}/commit/{self.hub.commit}"
        self._json({"success": True, "commitOid": self.hub.commit, "commitUrl": url, "hookOutput": ""})

    def validate(self) -> None:
        self._json({"errors": [], "warnings": []})


_NAME = r"(?P<name>[^/]+/[^/]+)"
_API = rf"/api/(?P<kind>model|dataset)s/{_NAME}"
_ROUTES = {
    r"/(?:(?P<kind>dataset)s/)?(?P<name>[^/]+/[^/]+)/resolve/[^/]+/(?P<file>.+)": _Handler.resolve,
    rf"{_API}(?:/revision/[^/]+)?": _Handler.about,
    rf"{_API}/tree/[^/]+(?:/(?P<folder>.+))?": _Handler.tree,
    rf"{_API}/paths-info/[^/]+": _Handler.paths,
    rf"{_API}/preupload/[^/]+": _Handler.preupload,
    rf"{_API}/commit/[^/]+": _Handler.commit,
    r"/api/repos/create": _Handler.create,
    r"/api/validate-yaml": _Handler.validate,
    rf"/{_NAME}\.git/info/lfs/objects/batch": _Handler.batch,
    r"/lfs/(?P<oid>\w+)": _Handler.put,
}


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _below(folder: str, files: Files) -> list[str]:
    """Return the files and folders in a folder."""
    inside = [file.removeprefix(folder) for file in files if file.startswith(folder)]
    return sorted({folder + file.partition("/")[0] for file in inside})


def _entry(path: str, files: Files) -> dict[str, Any]:
    if path not in files:
        return {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}
    return {"type": "file", "path": path, "size": len(files[path]), "oid": _sha(files[path])[:40]}
