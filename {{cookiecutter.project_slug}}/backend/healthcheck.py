"""Health checks that cost next to nothing: run as `python -S healthcheck.py`, without the application.

- `http PORT PATH`: the server on this port answers 200.
- `file PATH SECONDS`: the file was touched within the last seconds.
"""

import os
import socket
import sys
import time


def answers(port: str, path: str) -> bool:
    """Whether the server on the port answers 200 within 3 seconds."""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=3) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return connection.recv(64).split(maxsplit=2)[1:2] == [b"200"]


def touched(path: str, seconds: str) -> bool:
    """Whether the file was touched within the last seconds."""
    return time.time() - os.stat(path).st_mtime < float(seconds)  # noqa: PTH116 (pathlib costs a start-up)


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    check = {"http": answers, "file": touched}[kind]
    try:
        sys.exit(0 if check(*arguments) else 1)
    except OSError as error:
        sys.exit(str(error))
