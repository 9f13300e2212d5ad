"""The chaos run without containers: its schedule, its planted bugs and the sink of effects."""

import json
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.chaos.bugs import BUGS, Bug
from tests.chaos.load import make_rates
from tests.chaos.plan import DECK, HURRIED, Fault, make_plan
from tests.project import Project
from tests.stack.faults import ledger
from tests.stack.faults.ledger import Effect, Ledger, overlapping
from tests.stack.faults.services.effects import Handler, Log, Server
from tests.variants import TEMPLATE

SERVICES = ("db", "rabbitmq", "backend", "worker", "flower", "redis")


@pytest.mark.parametrize("hurried", [False, True])
def test_plan_is_reproducible(hurried: bool) -> None:
    assert make_plan(7, 30, SERVICES, hurried=hurried) == make_plan(7, 30, SERVICES[::-1], hurried=hurried)
    assert make_plan(7, 30, SERVICES, hurried=hurried) != make_plan(8, 30, SERVICES, hurried=hurried)
    assert make_rates(7, 30, hurried=hurried) == make_rates(7, 30, hurried=hurried)


@pytest.mark.parametrize("seed", range(20))
def test_plan_has_at_most_two_faults_at_a_time_of_different_containers(seed: int) -> None:
    plan = make_plan(seed, 30, SERVICES)
    for fault in plan:
        assert 0 <= fault.seconds <= 75
        active = [other for other in plan if other.at < fault.at < other.until]
        assert len(active) < 2
        assert not any(map(fault.conflicts, active))
    assert {(fault.kind, fault.service) for fault in plan} == {(kind, each) for kind in DECK for each in DECK[kind]}


@pytest.mark.parametrize("seed", range(20))
def test_hurried_plan_has_every_kind_within_two_minutes(seed: int) -> None:
    plan = make_plan(seed, 4, SERVICES, hurried=True)
    assert {fault.kind for fault in plan if fault.at < 120} == set(DECK)
    assert {fault.service for fault in plan} == HURRIED


@pytest.mark.parametrize("bug", BUGS)
def test_bug_can_be_planted(projects: list[Project], tmp_path: Path, bug: str) -> None:
    core = Path("backend", "app", "core")
    shutil.copytree(projects[0].path / core, tmp_path / core)
    BUGS[bug].plant(tmp_path)
    changed = (tmp_path / core / BUGS[bug].file).read_text(encoding="utf-8")
    assert changed == projects[0].files[(core / BUGS[bug].file).as_posix()].replace(
        BUGS[bug].original, BUGS[bug].broken
    )
    assert BUGS[bug].broken in changed


def test_bug_is_rejected_when_its_string_is_missing(projects: list[Project]) -> None:
    with pytest.raises(ValueError, match="occurs 0 times"):
        Bug("celery.py", "nonesuch", "").plant(projects[0].path)


def test_documented_command_is_valid() -> None:
    command = "python -m tests.chaos --seed 7 --minutes 4 --bug no-claim"
    assert f"uv run {command}\n" in (TEMPLATE / "CONTRIBUTING.md").read_text(encoding="utf-8")
    options = [*shlex.split(command)[1:], "--plan"]
    done = subprocess.run([sys.executable, *options], cwd=TEMPLATE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("seed 7: ")
    assert [str(fault) for fault in make_plan(7, 4, HURRIED, hurried=True)] == done.stdout.splitlines()[1:]


def test_fault_is_described_in_one_line() -> None:
    assert str(Fault(12.3, "pause", "worker", 2, 31.0, 0)) == "12.3 s: pause worker-2 for 31 s"
    assert str(Fault(12.3, "scale", "worker", 0, 0.0, 3)) == "12.3 s: scale worker to 3"


@pytest.fixture
def sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the sink in this process; return its address."""
    monkeypatch.setattr(Handler, "log", Log(tmp_path / "effects.jsonl"), raising=False)
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(ledger, "SINK", address)
    yield address
    server.shutdown()
    thread.join()
    server.server_close()
    Handler.log.close()


def note(sink: str, step: str, attempt: int, run_id: str = "a") -> None:
    """Write a step of an attempt to the sink."""
    record = {"run_id": run_id, "step": step, "attempt": attempt, "owner": f"{attempt}@host"}
    httpx2.post(f"{sink}/effects", json=record).raise_for_status()


def test_sink_ignores_repeated_and_late_requests(sink: str, tmp_path: Path) -> None:
    note(sink, "begun", 1)
    note(sink, "begun", 1)
    note(sink, "done", 1)
    late = httpx2.post(f"{sink}/effects", json={"run_id": "b", "step": "done", "attempt": 1, "owner": "", "expires": 1})
    assert late.status_code == 409
    assert [each["step"] for each in httpx2.get(f"{sink}/effects", params={"run_id": "a"}).json()] == ["begun", "done"]
    lines = (tmp_path / "effects.jsonl").read_text(encoding="utf-8").splitlines()
    restarted = Log(tmp_path / "effects.jsonl")
    assert restarted.after(0) == list(map(json.loads, lines))
    restarted.close()


def test_ledger_counts_repeated_and_overlapping_effects(sink: str) -> None:
    account = Ledger.__new__(Ledger)  # without PostgreSQL
    for attempt, step in ((1, "begun"), (2, "begun"), (1, "done"), (2, "done")):
        note(sink, step, attempt)
    for attempt, step in ((1, "begun"), (1, "done"), (2, "begun"), (2, "over")):
        note(sink, step, attempt, "b")
    assert (account.attempts("a"), account.attempts("b"), account.attempts("c")) == (2, 2, 0)
    assert (account.repeated("done", ["a", "b"]), account.repeated("begun", ["a", "b"])) == (1, 2)
    assert overlapping(account.effects(["a", "b"])) == {("a", 1, "1@host")}
    assert account.effects_after(6) == account.effects(["a", "b"])[6:]


def test_consecutive_attempts_do_not_overlap() -> None:
    steps = [(1, "begun"), (2, "begun"), (2, "done"), (3, "begun"), (3, "over")]
    effects = [Effect(seq, 0.0, "a", step, attempt, "") for seq, (attempt, step) in enumerate(steps)]
    assert overlapping(effects) == set()
