"""The project's own tests with RPC and OAuth. With the other result backends, the README's commands run them."""

import re

import pytest

from tests.stack.conftest import Stack
from tests.stack.test_checks import WITH_OAUTH

VARIANTS = [WITH_OAUTH]

FOR_OAUTH = "tests/core/unit/test_script_session.py"


@pytest.mark.usefixtures("image_of_tests")
def test_own_tests_pass(stack: Stack) -> None:
    """The other unit tests run in the default variant."""
    services = ("tests/core/services", "tests/features")
    output = stack.compose("run", "--rm", "test", "pytest", "-m", "", *services, FOR_OAUTH)
    assert re.search(r"\d+ passed", output)
    assert "skipped" not in output
