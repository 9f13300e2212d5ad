import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "healthcheck.py"


def check(*arguments: str) -> int:
    command = [sys.executable, "-S", str(SCRIPT), *arguments]
    return subprocess.run(command, check=False, capture_output=True, timeout=20).returncode


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def port() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield str(server.server_port)
        server.shutdown()


def test_a_server_is_well_when_it_answers_200(port: str) -> None:
    assert check("http", port, "/well") == 0
    assert check("http", port, "/ill") == 1


def test_a_server_that_is_not_there_is_not_well() -> None:
    assert check("http", "1", "/well") == 1


def test_a_file_is_well_as_long_as_it_is_fresh(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    assert check("file", str(file), "30") == 1
    file.touch()
    assert check("file", str(file), "30") == 0
    os.utime(file, (time.time() - 60,) * 2)
    assert check("file", str(file), "30") == 1
