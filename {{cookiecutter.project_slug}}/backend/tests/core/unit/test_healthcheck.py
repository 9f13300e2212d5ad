import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "healthcheck.py"


def check(*arguments: str) -> int:
    command = [sys.executable, "-S", str(SCRIPT), *arguments]
    return subprocess.run(command, check=False, capture_output=True, timeout=20).returncode


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthy" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def port() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield str(server.server_port)
        server.shutdown()


def test_http_check_passes_when_the_server_responds_with_200(port: str) -> None:
    assert check("http", port, "/healthy") == 0
    assert check("http", port, "/unhealthy") == 1


def test_http_check_fails_when_nothing_listens() -> None:
    assert check("http", "1", "/healthy") == 1


def test_file_check_passes_while_the_file_is_recent(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    assert check("file", str(file), "30") == 1
    file.touch()
    assert check("file", str(file), "30") == 0
    os.utime(file, (time.time() - 60,) * 2)
    assert check("file", str(file), "30") == 1
