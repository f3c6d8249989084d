"""A server that answers as huggingface.co does, as far as a download asks, and can misbehave on request."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".model")


class FakeHub(ThreadingHTTPServer):
    """`models` maps owner/name to {file name: content}. Files that end as `LARGE` says are LFS files with a sha256.

    `gated` models list their files but give none. `cut_after` breaks every connection after so many bytes of one file,
    once a key; `damaged` files come with their first byte changed. Like the real one it sends LFS files from another
    host. `ranges` are the (file, first byte) that were asked for, `tokens` the (path, Authorization) of all requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.cut_after: dict[str, int] = {}
        self.damaged: set[str] = set()
        self.no_ranges = False
        self.sizes_listed = True
        self.ranges: list[tuple[str, str]] = []
        self.tokens: list[tuple[str, str | None]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.tokens.append((path, self.headers.get("Authorization")))
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path)
        if found and (files := self.server.models.get(found[1])) is not None:
            listed = [self._listed(name, content) for name, content in files.items()]
            info = {"id": found[1], "sha": COMMIT, "siblings": listed}
            entries = [{"type": "file", "path": row["rfilename"], "oid": row["blobId"], **row} for row in listed]
            return self._send(200, json.dumps(entries if "/tree/" in path else info).encode(), with_body)
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        if found and found[1] in self.server.gated:
            return self._send(403, b"{}", with_body, {"X-Error-Code": "GatedRepo"})
        if found and found[2] in self.server.models.get(found[1], {}):
            return self._resolved(found[1], found[2], with_body)
        found = re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path)
        if found:
            return self._file(found[2], self.server.models[found[1]][found[2]], with_body)
        return self._send(404, b"{}", with_body, {"X-Error-Code": "RepoNotFound"})

    def _listed(self, name: str, content: bytes) -> dict[str, object]:
        row: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
        if not self.server.sizes_listed:
            return row | {"size": None}
        if name.endswith(LARGE):
            row["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
            row["lfs"]["oid"] = row["lfs"]["sha256"]
        return row

    def _resolved(self, model: str, name: str, with_body: bool) -> None:
        content = self.server.models[model][name]
        headers = {"X-Repo-Commit": COMMIT}
        if not name.endswith(LARGE):
            headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
            return self._send(200, content, with_body, headers)
        headers |= {"X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        headers["Location"] = f"http://localhost:{self.server.server_port}/cdn/{model}/{name}"
        return self._send(302, b"", with_body, headers)

    def _file(self, name: str, content: bytes, with_body: bool) -> None:
        headers = {}
        if name in self.server.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        status, start = 200, 0
        if asked and with_body:
            self.server.ranges.append((name, asked[1]))
            if not self.server.no_ranges:
                status, start = 206, int(asked[1])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        cut = self.server.cut_after.pop(name, None) if with_body else None
        self._send(status, body, with_body, headers, cut)

    def _send(
        self, status: int, body: bytes, with_body: bool, headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass
