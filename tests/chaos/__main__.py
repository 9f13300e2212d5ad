"""Start a variant, inject a random schedule of faults under load, and check every invariant.

    uv run python -m tests.chaos --minutes 30
    uv run python -m tests.chaos --seed 7 --minutes 4 --bug no-claim

The same seed, minutes and answers give the same schedule. The exit code is 1 if an invariant was violated.
"""

import argparse
import contextlib
import secrets
import tempfile
from pathlib import Path

from tests.chaos.bugs import BUGS
from tests.chaos.checker import Checker
from tests.chaos.executor import Executor
from tests.chaos.load import Load, make_rates
from tests.chaos.plan import WORKERS, Fault, make_plan
from tests.conftest import no_engine
from tests.project import render_project
from tests.stack.conftest import SLUG, Stack, wait_until
from tests.stack.faults.conftest import FEATURES, SERVICES
from tests.stack.faults.ledger import Ledger
from tests.variants import CHOICES, Variant

STALLED, STALLED_HURRIED = 400.0, 200.0
"""Seconds: two of the longest faults in a row, RabbitMQ's detection of a dead peer (90 s), and a backlog."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Inject random faults into a variant under load."
    )
    parser.add_argument("--seed", type=int, help="seed of the schedule and the load; random by default")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--result-backend", choices=CHOICES["result_backend"], default=CHOICES["result_backend"][0])
    parser.add_argument("--bug", choices=BUGS, help="plant a bug that the checker has to find")
    parser.add_argument("--plan", action="store_true", help="print the schedule and stop")
    parser.add_argument("--logs", type=Path, metavar="FILE", help="write the logs of all containers")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = secrets.randbelow(2**32)
    return options


def services(variant: Variant) -> set[str]:
    """Return the services that faults are injected into."""
    return {
        "db",
        "rabbitmq",
        "backend",
        "worker",
        "flower",
        *({"redis"} if variant["result_backend"] == "redis" else ()),
    }


def run(stack: Stack, plan: list[Fault], options: argparse.Namespace) -> tuple[list[str], str]:
    """Execute the plan in a started stack; return the violations and the summary."""
    ledger = Ledger(stack)
    hurried = options.bug is not None
    checker = Checker(stack, ledger, stalled=STALLED_HURRIED if hurried else STALLED)
    rates = make_rates(options.seed, options.minutes, hurried=hurried)
    load = Load(options.seed, rates, checker.unfinished, checker.running)
    executor = checker.executor = Executor(stack, ledger, plan)
    try:
        checker.start()
        load.start()
        executor.start()
        checker.found.wait(options.minutes * 60)
    finally:
        load.stop()
        executor.stop()
    if not checker.found.is_set():
        try:
            wait_until(stack.is_healthy, 180, "every service to be healthy again")
        except AssertionError as error:
            checker.violate("containers recover without intervention", "services", str(error))
        checker.drain()
    checker.stop()
    if not checker.found.is_set():
        checker.check(load, executor)
    if not checker.found.is_set():
        if 2 * len(executor.executed) < len(plan):
            checker.violate("faults can be injected", "plan", f"{len(executor.failed)} of {len(plan)} failed")
        try:
            for _ in range(10):
                assert stack.wait_for_end(stack.enqueue("add", x=1, y=1))["state"] == "SUCCESS"
        except AssertionError as error:
            checker.violate("requests succeed after the faults", "add", str(error))
    violations = checker.report()
    summary = (
        f"seed {options.seed}: {options.minutes:g} minutes, {len(load.accepted)} accepted, "
        f"{sum(load.errors.values())} failed requests {dict(load.errors)}, {len(executor.executed)} faults executed, "
        f"{len(executor.failed)} faults failed, {len(checker.violations)} violations"
    )
    return violations, summary


def main() -> int:
    """Run the command; return its exit code."""
    options = parse()
    variant = Variant.of(result_backend=options.result_backend)
    plan = make_plan(options.seed, options.minutes, services(variant), hurried=options.bug is not None)
    print(f"seed {options.seed}: {len(plan)} faults in {options.minutes:g} minutes, {variant.id}")
    print(*plan, sep="\n", flush=True)
    if options.plan:
        return 0
    if missing := no_engine():
        print(missing)
        return 2
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, contextlib.ExitStack() as cleanup:
        config = Path(folder) / "config.yaml"
        config.write_text(f"replay_dir: {folder}/replay\n", encoding="utf-8")
        stack = Stack(render_project(variant, Path(folder), config, project_slug=SLUG), FEATURES, SERVICES)
        if options.bug:
            BUGS[options.bug].plant(stack.project.path)
        cleanup.callback(stack.down)
        cleanup.callback(stack.close)
        stack.compose("build")
        stack.up("--scale", f"worker={WORKERS}")
        violations, summary = run(stack, plan, options)
        if options.logs:
            options.logs.write_text(stack.compose("logs", "--timestamps", "--no-color"), encoding="utf-8")
    print(*violations, summary, sep="\n")
    return 1 if violations else 0


if __name__ == "__main__":
    raise SystemExit(main())
