"""From a hub id to a base, against a server that answers as the hub does."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from glmstudio.models.loading import load_base
from tests.unit.golden_cases import CHATGLM

INDEX, FIRST, SECOND = "pytorch_model.bin.index.json", *(f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2))


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks: one model in pickled shards, one that is gated, and no other."""

    protocol_version = "HTTP/1.1"
    commit = "0" * 40
    files = ("config.json", INDEX, FIRST, SECOND)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        status, headers, body = 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if "/some/gated" in path:
            status, headers = 403, {"X-Error-Code": "GatedRepo"}
        elif path.startswith("/api/models/some/chatglm"):
            files = [{"rfilename": name, "size": (CHATGLM / name).stat().st_size} for name in self.files]
            entries = [{"type": "file", "path": f["rfilename"], "size": f["size"], "oid": "0" * 40} for f in files]
            info = {"id": "some/chatglm", "modelId": "some/chatglm", "sha": self.commit, "siblings": files}
            status, headers, body = 200, {}, json.dumps(entries if "/tree/" in path else info).encode()
        elif path.startswith("/some/chatglm/resolve/"):
            name = path.rsplit("/", 1)[1]
            body = (CHATGLM / name).read_bytes()
            status, headers = 200, {"ETag": f'"{name}"', "X-Repo-Commit": self.commit}
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def hub_run(tmp_path, repository):
    """Loads hub ids in a process of its own, since the client reads its address once; gives the line each printed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def run(*sources: str, offline: str = "0") -> list[str]:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        code = (
            "import sys\n"
            "from glmstudio.errors import StudioError\n"
            "from glmstudio.models.loading import load_base\n"
            "for source in sys.argv[1:]:\n"
            "    try:\n"
            "        base = load_base(source, device='cpu', dtype='fp32')\n"
            "        print('loaded', base.source, base.model.lm_head.weight.sum().item())\n"
            "    except StudioError as error:\n"
            "        print(error.code, error.params['source'], error.params['endpoint'])\n"
        )
        environment = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": offline, "HF_HOME": str(tmp_path), "PATH": "/bin"}
        result = subprocess.run(
            [sys.executable, "-c", code, *sources],
            cwd=repository,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout.splitlines()

    yield run
    server.shutdown()
    server.server_close()
    thread.join()


def test_hub_ids(hub_run):
    total = load_base(CHATGLM, device="cpu", dtype="fp32").model.lm_head.weight.sum().item()
    loaded = f"loaded some/chatglm {total}"
    found, unknown, gated = hub_run("some/chatglm", "some/other", "some/gated")
    assert found == loaded
    assert unknown.startswith("hub-unknown some/other http://127.0.0.1")
    assert gated.startswith("hub-gated some/gated http://127.0.0.1")
    kept, absent = hub_run("some/chatglm", "some/other", offline="1")
    assert kept == loaded
    assert absent.startswith("hub-unreachable some/other ")
