"""The commands and examples of a project's documents, in variants that have all of them."""

import re

import pytest

from tests.conftest import Render
from tests.project import code_blocks
from tests.stack.conftest import Stack
from tests.variants import BACKENDS, COVERING

VARIANTS = [variant for variant in BACKENDS if variant["result_backend"] != "rpc"]

DOCUMENTS = ("QUICK_ACCESS.md", "README.md", "FLOWER.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_variants_have_every_command(render: Render, document: str) -> None:
    blocks = {variant: set(code_blocks(render(variant).files[document], "bash")) for variant in COVERING}
    assert set().union(*blocks.values()) == set().union(*(blocks[variant] for variant in VARIANTS))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_work(stack: Stack, document: str) -> None:
    commands = "\n".join(code_blocks(stack.project.files[document], "bash"))
    assert commands
    output = stack.project.run("bash", "-ex", "-c", commands, timeout=1800).stdout
    if document == "README.md":
        assert re.search(r"\d+ passed in", output), "the project's own tests"
        assert "skipped" not in output
