"""The project's own tests with RPC and Python 3.13. With the other result backends, the README's commands run them."""

import re

from tests.stack.conftest import Stack
from tests.stack.test_checks import WITH_OAUTH
from tests.stack.test_features import TEST

VARIANTS = [WITH_OAUTH]


def test_unit_tests_pass_without_servers(stack: Stack) -> None:
    output = stack.compose("run", "--rm", "--no-deps", "--env", "POSTGRES_HOST=nowhere", "test", "pytest")
    assert re.search(r"\d+ passed", output)
    assert "skipped" not in output


def test_all_tests_pass_with_the_services(stack: Stack) -> None:
    output = stack.project.run(*TEST.split(), timeout=900).stdout
    assert re.search(r"\d+ passed in", output)
    assert "skipped" not in output
    assert "deselected" not in output
