"""The project's own tests with RPC and Python 3.13. With the other result backends, the README's commands run them."""

import re

import pytest

from tests.stack.conftest import Stack
from tests.stack.test_checks import WITH_OAUTH

VARIANTS = [WITH_OAUTH]

pytestmark = pytest.mark.usefixtures("image_of_tests")


def test_unit_tests_pass_without_servers(stack: Stack) -> None:
    output = stack.compose("run", "--rm", "--no-deps", "--env", "POSTGRES_HOST=nowhere", "test", "pytest")
    assert re.search(r"\d+ passed", output)
    assert "skipped" not in output


def test_tests_with_services_pass(stack: Stack) -> None:
    output = stack.compose("run", "--rm", "test", "pytest", "-m", "services")
    assert re.search(r"\d+ passed", output)
    assert "skipped" not in output
