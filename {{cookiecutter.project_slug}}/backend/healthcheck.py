"""Cheap health checks, run as `python -S healthcheck.py` without loading the application.

- `http PORT PATH`: the server on this port responds with 200.
- `file PATH SECONDS`: the file was modified less than SECONDS ago.
"""

import os
import socket
import sys
import time


def is_serving(port: str, path: str) -> bool:
    """Return whether the server on the port responds with 200 within 3 seconds."""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=3) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return connection.recv(64).split(maxsplit=2)[1:2] == [b"200"]


def is_recent(path: str, seconds: str) -> bool:
    """Return whether the file was modified less than `seconds` ago."""
    return time.time() - os.stat(path).st_mtime < float(seconds)  # noqa: PTH116 (importing pathlib is slow)


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    check = {"http": is_serving, "file": is_recent}[kind]
    try:
        sys.exit(0 if check(*arguments) else 1)
    except OSError as error:
        sys.exit(str(error))
