"""PostgreSQL runs out of connections, or fails over to a standby."""

import contextlib
from collections.abc import Iterator

from tests.stack.conftest import SLUG, Stack, wait_until
from tests.stack.faults import faults
from tests.stack.faults.conftest import AssertAllDone
from tests.stack.faults.ledger import Ledger, under_load

STANDBY = f"{SLUG}-standby"
NETWORK = f"{SLUG}_default"
COPY = """
set -e
export PGDATA=/var/lib/postgresql/standby
pg_basebackup --host=db --username=postgres --pgdata=$PGDATA --write-recovery-conf --wal-method=stream --checkpoint=fast
exec postgres
"""


@contextlib.contextmanager
def no_connection_left(stack: Stack, ledger: Ledger) -> Iterator[None]:
    """End the sessions of the application's role, and reject new ones."""
    role = stack.project.env["POSTGRES_USER"]
    sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %(role)s"
    ledger.execute(f'ALTER ROLE "{role}" CONNECTION LIMIT 0')
    try:
        ledger.execute(sessions, role=role)
        yield
    finally:
        ledger.execute(f'ALTER ROLE "{role}" CONNECTION LIMIT -1')


def test_database_out_of_connections(stack: Stack, ledger: Ledger, assert_all_done: AssertAllDone) -> None:
    with under_load(seconds=120) as load:
        with no_connection_left(stack, ledger):
            wait_until(lambda: load.errors["503"] >= 40, 60, "requests to fail")
        sent = len(load.ids)
        wait_until(lambda: len(load.ids) > sent + 40, 60, "requests to be accepted again")
    assert set(load.errors) == {"503"}
    assert_all_done(load.ids, started_again=None)


@contextlib.contextmanager
def standby(stack: Stack, ledger: Ledger) -> Iterator[None]:
    """Run a standby with synchronous replication."""
    stack.compose(
        "exec", "-T", "db", "bash", "-c", "echo host replication postgres all scram-sha-256 >> $PGDATA/pg_hba.conf"
    )
    ledger.execute("SELECT pg_reload_conf()")
    password = stack.project.env["POSTGRES_ADMIN_PASSWORD"]
    options = ("--name", STANDBY, "--network", NETWORK, "--user", "postgres", "--env", f"PGPASSWORD={password}")
    faults.docker("run", "--detach", *options, "--entrypoint", "bash", "postgres:18", "-c", COPY)
    try:
        # pg_basebackup streams as well, and would copy the setting of the primary that is changed below.
        streams = "SELECT array_agg(application_name || ' ' || state) FROM pg_stat_replication"
        wait_until(lambda: ledger.execute(streams) == [(["walreceiver streaming"],)], 60, "the standby to stream")
        ledger.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        ledger.execute("SELECT pg_reload_conf()")
        wait_until(lambda: ledger.execute("SHOW synchronous_standby_names") == [("*",)], 10, "synchronous commits")
        yield
    finally:
        faults.docker("rm", "--force", "--volumes", STANDBY)


def test_failover_to_a_standby(stack: Stack, ledger: Ledger) -> None:
    """The promoted standby was started before every run, and has none of the workers' locks."""
    try:
        with standby(stack, ledger):
            with under_load(each_second=20, seconds=150) as load:
                long = [stack.enqueue("effect", seconds=30) for _ in range(2)]
                stack.wait_for_start(*long)
                faults.docker("network", "disconnect", NETWORK, faults.container("db"))
                faults.docker("stop", faults.container("db"))
                faults.docker("network", "disconnect", NETWORK, STANDBY)
                faults.docker("network", "connect", "--alias", "db", NETWORK, STANDBY)
                faults.docker("exec", STANDBY, "psql", "--username=postgres", "--command=SELECT pg_promote()")
                sent = len(load.ids)
                wait_until(lambda: len(load.ids) > sent + 100, 90, "requests to be accepted again")
            assert set(load.errors) <= {"503", "ReadTimeout"}
            ids = load.ids + long
            rows = [stack.wait_for_end(task_id, timeout=120) for task_id in ids]
            assert {row["state"] for row in rows} == {"SUCCESS"}
            assert {row["attempts"] for row in rows if row["task_id"] in long} == {1}
    finally:
        stack.down()
        stack.up()
