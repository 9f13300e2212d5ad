"""Measure the speed of the default project beside its references: `uv run python -m benchmarks`.

Takes less than 30 minutes, needs Docker, and changes nothing but the file of `--json`. Figures are comparable only
within one run, so each is printed as a ratio. The load generator, the databases and the broker share the processors of
this machine with the measured processes: stop everything else.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import accept, finish, read, rest, start
from benchmarks.bench import Bench
from benchmarks.measure import Result, table, write_json
from tests.project import render_project
from tests.stack.conftest import SLUG
from tests.variants import TEMPLATE, Variant

LIMIT = 25 * 60
"""Seconds after which no further benchmark starts."""

BENCHMARKS: dict[str, Callable[[Bench], list[Result]]] = {
    "accept": accept.accept,
    "frozen": accept.frozen,
    "enqueue": accept.enqueue,
    "worker": finish.worker,
    "latency": finish.latency,
    "task": read.task,
    "live": read.live,
    "history": read.history,
    "up": start.up,
    "rebuild": start.rebuild,
    "render": start.render,
    "cpu": rest.processor,
    "memory": rest.memory,
    "image": rest.image,
    "others": finish.others,
    "curve": finish.curve,
}

REPORT = TEMPLATE / "docs" / "performance.md"
BEGIN = "<!-- written by `uv run python -m benchmarks --write-report` -->\n"
END = "<!-- end of the table -->\n"


def main() -> None:
    """Measure, print the table and write the figures; fail if a benchmark could not be measured."""
    options = arguments()
    began = time.monotonic()
    results: list[Result] = []
    failed = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as cleanup:
        config = Path(folder) / "cookiecutter.yml"
        config.touch()
        project = render_project(Variant.of(), Path(folder), config, project_slug=SLUG)
        bench = Bench(project, rounds=options.rounds, quick=options.quick)
        cleanup.callback(bench.down)
        cleanup.callback(bench.close)
        bench.build()
        for name in options.names:
            if time.monotonic() - began > LIMIT:
                failed.append(f"{name}: not started within {LIMIT // 60} minutes")
                continue
            try:
                found = BENCHMARKS[name](bench)
            except AssertionError as error:
                failed.append(f"{name}: {error}")
                continue
            print(table(found), flush=True)
            results += found
            write_json(results, options.json)
    minutes = round((time.monotonic() - began) / 60)
    print(f"\n{table(results)}\n{minutes} minutes; the figures of each round are in {options.json}")
    if failed:
        sys.exit("\n".join(failed))
    if options.write_report:
        conditions = f"{os.cpu_count()} cores, {options.rounds} rounds, {minutes} minutes."
        write_report(f"{conditions}\n\n{table(results, is_aligned=False)}")


def write_report(text: str) -> None:
    """Write the table into the document."""
    head, _, rest_of_document = REPORT.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = rest_of_document.partition(END)
    REPORT.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8", newline="\n")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser("benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each figure (default 5)")
    parser.add_argument("--quick", action="store_true", help="short loads, to try the benchmarks")
    default = Path(__file__).parent / "results.json"
    parser.add_argument(
        "--json", type=Path, default=default, metavar="FILE", help="file with the figures of each round"
    )
    parser.add_argument("--write-report", action="store_true", help="write the table in docs/performance.md")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"unknown benchmark: {', '.join(unknown)} (choose from {', '.join(BENCHMARKS)})")
    if options.write_report and (options.names or options.quick):
        parser.error("--write-report: only for a complete run (omit names and --quick)")
    options.names = options.names or list(BENCHMARKS)
    return options


if __name__ == "__main__":
    main()
