"""A stand-in for the Hub on loopback: the few endpoints by which huggingface_hub fetches a model.

`serve(repositories)` yields its address, for HF_ENDPOINT.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = ".safetensors"  # kept in LFS by the Hub: their SHA-256 is known


@contextmanager
def serve(repositories: Mapping[str, Path], *, garble: str = "") -> Iterator[str]:
    """Serve folders under their Hub ids, all at COMMIT.

    Args:
        garble: a file whose SHA-256 is stated wrongly.
    """
    handler = type("Handler", (_Handler,), {"folders": repositories, "garbled": garble})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    folders: Mapping[str, Path]
    garbled: str

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        api = path.startswith("/api/models/")
        owner, name, verb, _, *rest = [*path.removeprefix("/api/models").split("/")[1:], "", "", ""]
        folder = self.folders.get(f"{owner}/{name}")
        if folder is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        elif api:
            listed = self._tree(folder) if verb == "tree" else self._info(folder, f"{owner}/{name}")
            self._send(200, json.dumps(listed).encode(), {"Content-Type": "application/json"}, body)
        else:
            self._file(folder / "/".join(filter(None, rest)), body)

    def _file(self, path: Path, body: bool) -> None:
        if not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            return
        content = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self._send(200, content, headers, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _info(self, folder: Path, repository: str) -> dict[str, Any]:
        siblings = [{**entry, "rfilename": entry["path"]} for entry in self._tree(folder)]
        return {"id": repository, "sha": COMMIT, "siblings": siblings}

    def _tree(self, folder: Path) -> list[dict[str, Any]]:
        return [self._entry(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]

    def _entry(self, folder: Path, path: Path) -> dict[str, Any]:
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        stated = digest[::-1] if name == self.garbled else digest
        lfs = {"oid": stated, "sha256": stated, "size": len(content), "pointerSize": 134}
        entry = {"type": "file", "path": name, "oid": digest[:40], "size": len(content)}
        return {**entry, "lfs": lfs} if name.endswith(LARGE) else entry
