"""A smoke run of some benchmarks: seconds, and nothing is asserted about speed."""

import contextlib
from collections.abc import Iterator

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.bench import Bench
from benchmarks.measure import number, table
from tests.conftest import Render
from tests.stack.conftest import SLUG
from tests.variants import Variant

SELECTED = ("accept", "worker", "task", "live", "render", "cpu", "image")
"""At least one benchmark of each module, of a few seconds each; a nightly job runs all of them, with `--quick`."""


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, render: Render) -> Iterator[Bench]:
    """Start the default project with the references, and remove it before other modules start theirs."""
    request.getfixturevalue("no_leftovers")
    made = Bench(render(Variant.of(), project_slug=SLUG), rounds=1, quick=True)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(made.down)
        cleanup.callback(made.close)
        made.build()
        yield made


@pytest.mark.parametrize("name", SELECTED)
def test_benchmark_returns_positive_figures(bench: Bench, name: str) -> None:
    results = BENCHMARKS[name](bench)
    assert results
    for result in results:
        assert all(figure > 0 for figure in (*result.ours, *result.reference)), result
        assert result.name in table(results)


def test_number_has_three_significant_digits() -> None:
    assert [number(value) for value in (12345.6, 123.4, 12.34, 0.01234)] == ["12,346", "123", "12.3", "0.0123"]
