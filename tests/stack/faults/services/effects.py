"""Sink of effects: an append-only log outside the project, which faults do not affect.

POST /effects             append a record; returns every record of its run
GET  /effects?run_id=ID   return every record of a run
GET  /effects?after=SEQ   return every record after a sequence number
POST /query               {"ids": [...]}: return every record of these runs

A record is {"run_id", "step", "attempt", "owner"}; the sink adds "seq" and "at". A duplicate is not appended, so
a client may repeat a request that had no response. A request after its "expires" is rejected with 409: requests that a
broken network has delayed must not become effects of a process that has ended.
"""

import argparse
import json
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Record = dict[str, Any]
FIELDS = ("run_id", "step", "attempt", "owner")


class Log:
    """The records, in memory and in a file that a restart reads."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        self._records: list[Record] = []
        self._by_run: dict[str, list[Record]] = defaultdict(list)
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                self._keep(json.loads(line))
        self._file = file.open("a", encoding="utf-8", buffering=1)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _keep(self, record: Record) -> None:
        self._records.append(record)
        self._by_run[record["run_id"]].append(record)

    def append(self, given: Record) -> list[Record]:
        """Append a record that is new, and return every record of its run."""
        fields = {name: given[name] for name in FIELDS}
        with self._lock:
            of_run = self._by_run.get(fields["run_id"], [])
            if not any(all(record[name] == fields[name] for name in FIELDS) for record in of_run):
                record = {"seq": len(self._records) + 1, "at": time.time(), **fields}
                self._file.write(json.dumps(record) + "\n")
                self._keep(record)
            return list(self._by_run[fields["run_id"]])

    def of(self, run_ids: list[str]) -> list[Record]:
        """Return the records of runs, in the order of their sequence numbers."""
        with self._lock:
            found = [record for run_id in run_ids for record in self._by_run.get(run_id, [])]
        return sorted(found, key=lambda record: int(record["seq"]))

    def after(self, seq: int) -> list[Record]:
        """Return the records after a sequence number."""
        with self._lock:
            return self._records[seq:]


class Handler(BaseHTTPRequestHandler):
    """The sink's two paths."""

    log: Log

    def do_GET(self) -> None:
        """Return records."""
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        if url.path != "/effects":
            self.send_error(404)
        elif "run_id" in query:
            self._answer(self.log.of([query["run_id"]]))
        else:
            self._answer(self.log.after(int(query.get("after", 0))))

    def do_POST(self) -> None:
        """Append a record, or return those of many runs."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/query":
            self._answer(self.log.of(body["ids"]))
        elif self.path != "/effects":
            self.send_error(404)
        elif time.time() > body.get("expires", float("inf")):
            self.send_error(409, "expired")
        else:
            self._answer(self.log.append(body))

    def _answer(self, records: list[Record]) -> None:
        content = json.dumps(records).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (name in http.server)
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """A server for bursts of connections."""

    daemon_threads = True
    request_queue_size = 256


def main() -> None:
    """Serve until the process is killed."""
    parser = argparse.ArgumentParser(description="Serve the sink of effects.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8070)
    parser.add_argument("--file", type=Path, required=True)
    options = parser.parse_args()
    Handler.log = Log(options.file)
    Server((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
