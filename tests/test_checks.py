"""The template's own Python: hooks, filters, tools, tests and benchmarks."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.variants import TEMPLATE

BIN = Path(sys.executable).parent


@pytest.mark.parametrize("check", ["ruff check", "ruff format --check", "mypy"])
def test_own_python_is_clean(check: str) -> None:
    program, *options = check.split()
    done = subprocess.run([BIN / program, *options], cwd=TEMPLATE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
