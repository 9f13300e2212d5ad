"""The variants, the feature and the report of the fault suite."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, fields
from pathlib import Path

import pytest

from tests.stack.conftest import Stack, parametrize_variants
from tests.stack.faults.ledger import Account, Ledger
from tests.variants import TEMPLATE, Variant

AssertAllDone = Callable[..., Account]
"""Waits for the end of runs, and checks that each is done once."""

REPORT = TEMPLATE / "docs" / "reliability.md"
TABLE = "<!-- written by `uv run pytest tests/stack/faults --write-report` -->\n"

FEATURES = Path(__file__).parent / "features"
SERVICES = Path(__file__).parent / "services"
VARIANTS = [Variant.of(result_backend="redis")]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the fault suite, which are available when its folder is named."""
    parser.addoption("--write-report", action="store_true", help="write the table in docs/reliability.md")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Start the variants of the fault suite, with its own features and the sink of effects."""
    parametrize_variants(metafunc, VARIANTS, FEATURES, SERVICES)


@pytest.fixture
def ledger(stack: Stack) -> Ledger:
    """Return a ledger of the stack."""
    return Ledger(stack)


@pytest.fixture(scope="session")
def accounts(request: pytest.FixtureRequest, deployed: Stack) -> Iterator[dict[str, Account]]:
    """Collect the account of each scenario by its name. With --write-report, write them to the document."""
    collected: dict[str, Account] = {}
    yield collected
    if request.config.getoption("write_report"):
        head, _, written = REPORT.read_text(encoding="utf-8").partition(TABLE)
        tables = dict(section.split("\n", 1) for section in written.split("### ")[1:])
        title = f"Result backend: {deployed.variant['result_backend']}"
        tables[title] = table(rows(tables.get(title, "")) | {name: astuple(each) for name, each in collected.items()})
        sections = [f"### {title}\n\n{tables[title].strip()}\n" for title in sorted(tables)]
        REPORT.write_text("\n".join([head + TABLE, *sections]), encoding="utf-8", newline="\n")


def rows(written: str) -> dict[str, tuple[str, ...]]:
    """Return the rows of a table in Markdown by scenario, without those of scenarios that no longer exist."""
    sources = (path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    existing = {name.replace("_", " ") for source in sources for name in re.findall(r"def test_(\w+)", source)}
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in written.splitlines() if "|" in line]
    return {name: tuple(values) for name, *values in cells if name.partition(" (")[0] in existing}


def table(accounts: Mapping[str, tuple[object, ...]]) -> str:
    """Return the accounts as a table in Markdown."""
    columns = [field.name.replace("_", " ") for field in fields(Account)]
    lines = [("scenario", *columns), ("---",) * (len(columns) + 1), *((name, *accounts[name]) for name in accounts)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


@pytest.fixture
def assert_all_done(request: pytest.FixtureRequest, ledger: Ledger, accounts: dict[str, Account]) -> AssertAllDone:
    """Return a function that ends a scenario: every accepted run is done, and its effect happened once."""

    def check(
        ids: list[str], *, started_again: int | None = 0, sent_again: int | None = 0, timeout: float = 120
    ) -> Account:
        account = ledger.account(ids, timeout)
        chosen = {name: value for name, value in request.node.callspec.params.items() if name != "deployed"}
        case = ", ".join(str(getattr(value, "__name__", value)) for value in chosen.values())
        name = request.node.originalname.removeprefix("test_") + (f" ({case})" if case else "")
        accounts[name.replace("_", " ")] = account
        print(account)
        for row in ledger.unsuccessful(ids):
            print(row)
        assert account.accepted > 0
        assert (account.done, account.lost) == (account.accepted, 0), account
        assert (account.duplicate_effects, account.overlaps) == (0, 0), account
        if started_again is not None:
            assert account.started_again <= started_again, account
        if sent_again is not None:
            assert account.sent_again <= sent_again, account
        return account

    return check
