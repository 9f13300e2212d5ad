"""The commands of README.md, the own tests among them, and of QUICK_ACCESS.md, in variants with every text of them."""

import re

import pytest

from tests.conftest import Render
from tests.project import code_blocks
from tests.stack.conftest import Stack
from tests.variants import BACKENDS, CHOICES, COVERING

VARIANTS = BACKENDS

DOCUMENTS = ("QUICK_ACCESS.md", "README.md")


def test_variants_have_every_text_and_every_version_of_python(render: Render) -> None:
    """The texts of all other variants are the same."""
    assert {each["python_version"] for each in VARIANTS} == set(CHOICES["python_version"])
    texts = {
        document: {variant: "\n".join(code_blocks(render(variant).files[document], "bash")) for variant in COVERING}
        for document in DOCUMENTS
    }
    for of_variants in texts.values():
        assert set(of_variants.values()) == {of_variants[variant] for variant in VARIANTS}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_work(stack: Stack, document: str) -> None:
    commands = "\n".join(code_blocks(stack.project.files[document], "bash"))
    assert commands
    output = stack.project.run("bash", "-ex", "-c", commands).stdout
    if document == "README.md":
        assert re.search(r"\d+ passed in", output), "the project's own tests"
        assert "skipped" not in output
