"""A hub on this machine that speaks enough of the protocol for the real client, and can break off on purpose."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HUB_ID = "PKU-Alignment/Align-Anything-Instruction-100K-zh"
MODEL_ID = "Qwen/Tiny"
COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """A stand-in hub with one data set and one model: enough of the protocol for huggingface_hub."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], model: dict[str, bytes] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.model = model or {}
        self.commit = COMMIT
        self.go_on = threading.Event()  # ends an answer that stalls
        self.seen: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.status: dict[str, tuple[int, dict[str, str]]] = {}  # what part of a path is answered with instead
        self.cut: dict[str, list[str]] = {}  # file: how the next answers break off: "close", "reset" or "stall"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def gets(self, name: str) -> list[str | None]:
        """The Range of each GET of a file."""
        return [r for method, path, r in self.seen if method == "GET" and path.endswith(f"/{name}")]

    def handle_error(self, *_: Any) -> None:
        """A connection that was cut on purpose is no news."""


class Answer(BaseHTTPRequestHandler):
    """The routes: repo info, tree, and resolve with ETag, X-Repo-Commit and Range."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        self.server.seen.append((self.command, path, self.headers.get("Range")))
        for part, (status, headers) in self.server.status.items():
            if part in f"{self.command} {path}":
                return self.send(status, b"{}", headers)
        repos = (("datasets/", HUB_ID, self.server.files, "datasets"), ("", MODEL_ID, self.server.model, "models"))
        for prefix, repo, files, kind in repos:
            if path in (f"/api/{kind}/{repo}/revision/main", f"/api/{kind}/{repo}/revision/{self.server.commit}"):
                siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                return self.send(
                    200, json.dumps({"id": repo, "sha": self.server.commit, "siblings": siblings}).encode()
                )
            if path == f"/api/{kind}/{repo}/tree/{self.server.commit}":
                tree = [{"type": "file", "oid": "0" * 40, "size": len(b), "path": n} for n, b in files.items()]
                return self.send(200, json.dumps(tree).encode())
            name = path.removeprefix(f"/{prefix}{repo}/resolve/{self.server.commit}/")
            if name in files:
                return self.send_file(name, files[name])
        return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def send_file(self, name: str, data: bytes) -> None:
        digest = hashlib.sha256 if len(data) > 1 << 20 else hashlib.sha1  # as of large files and of others
        headers = {
            "ETag": f'"{digest(data).hexdigest()}"',
            "X-Repo-Commit": self.server.commit,
            "Accept-Ranges": "bytes",
        }
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self.send(206, data[start:], headers)
        breaks = self.server.cut.get(name) if self.command == "GET" else None
        return self.send(200, data, headers, breaks.pop(0) if breaks else None)

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None, how: str | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if how else body)
        if how == "stall":
            self.wfile.flush()
            self.server.go_on.wait(120)
        self.close_connection = bool(how)
        if how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


@contextmanager
def serving(server: Hub) -> Iterator[None]:
    """The hub answers, in a thread, until the block ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def fetch(endpoint: str, name: str = "align-anything", *more: str) -> subprocess.CompletedProcess[str]:
    """`qdata fetch` in a process of its own: huggingface_hub reads its environment when it is imported."""
    words = [sys.executable, "-m", "qdata.cli", "fetch", name, *more]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment(endpoint))


def environment(endpoint: str) -> dict[str, str]:
    """Of a process that asks the hub at `endpoint` and keeps its cache beside the working directory."""
    ours = {"HF_ENDPOINT": endpoint, "HF_HOME": str(Path.cwd().parent / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | ours


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a command that failed as it should: exit 2, one message, no traceback."""
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error:") == 1
    return done.stderr[done.stderr.index("error:") :]
