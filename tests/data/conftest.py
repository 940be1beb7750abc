"""A server of files on the loopback that can be made to fail."""

import functools
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from imgclf.data import remote


class Server(ThreadingHTTPServer):
    """Serves what lies in `folder`, with pages of links; counts what is asked for."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []  # "GET /photos/ant/0.png"
        self.failing = 0  # so many requests are answered by 503
        self.cuts = 0  # so many files end after half of their bytes
        self.has_parts = True  # whether a range is understood
        self.is_gone = False

    def __enter__(self) -> "Server":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_away()

    def go_away(self) -> None:
        """Answers nothing any more, on no connection."""
        if not self.is_gone:
            self.is_gone = True
            self.shutdown()
            self.server_close()

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is no error of the test."""


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.server.is_gone:
            self.close_connection = True
            return
        self.server.asked.append(f"{self.command} {unquote(self.path)}")
        if self.server.failing:
            self.server.failing -= 1
            self.send_error(503)
            return
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            super().do_GET() if self.command == "GET" else super().do_HEAD()
            return
        data, status = file.read_bytes(), file.stat()
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if span and self.server.has_parts:
            start, stop = int(span[1]), min(int(span[2]) + 1, len(data))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            data = data[start:stop]
        else:
            self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(file)))
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{status.st_mtime_ns}-{status.st_size}"')
        self.end_headers()
        if self.command == "GET" and self.server.cuts:
            self.server.cuts -= 1
            self.close_connection = True
            data = data[: len(data) // 2]
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves the test's own folder; nothing is in the cache, and no attempt is waited for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.setattr(remote, "_PAUSES", (0, 0))
    with Server(tmp_path) as found:
        yield found
