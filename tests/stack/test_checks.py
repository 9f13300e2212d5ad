"""The project's own checks, in the images of both Python versions."""

import pytest

from tests.stack.conftest import Stack
from tests.variants import CHOICES, COVERING, OAUTH, Variant

# The only Python file that an answer selects belongs to OAuth.
WITH_OAUTH = Variant.of(flower_auth=OAUTH[0])

VARIANTS = [WITH_OAUTH, next(each for each in COVERING if each["python_version"] != WITH_OAUTH["python_version"])]

CHECKS = [
    "ruff check --no-cache",
    "ruff format --check --no-cache",
    "mypy --cache-dir /dev/null",
    "lint-imports --no-cache",
]


def test_variants_have_every_version_of_python() -> None:
    assert {each["python_version"] for each in VARIANTS} == set(CHOICES["python_version"])


@pytest.mark.usefixtures("image_of_tests")
@pytest.mark.parametrize("check", CHECKS)
def test_checks_pass(stack: Stack, check: str) -> None:
    stack.compose("run", "--rm", "--no-deps", "test", *check.split())
