"""Rendered documents: links, pictures, size, and commands that no other test runs."""

import re
import shutil
import subprocess

import pytest

from tests.project import Project, code_blocks
from tests.variants import ANSWERS, TEMPLATE

DOCUMENTS = ("README.md", "FLOWER.md", "QUICK_ACCESS.md", "AGENTS.md")
PICTURES = f"https://raw.githubusercontent.com/ORG/flowerpot/v{ANSWERS['__version']}/"
POWERSHELL = re.compile(r"(?:\$\w+ = )?(?:curl\.exe|docker compose|Get-Content) .+")


def prose(markdown: str) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^( *)```\w+$.*?^\1```$", "", markdown, flags=re.M | re.S)


def anchors(markdown: str) -> set[str]:
    """Return the anchors of the headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", prose(markdown), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def broken_links(files: dict[str, str], document: str) -> list[str]:
    """Return the links of a document to files and headings that do not exist."""
    broken = []
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", prose(files[document])):
        path, _, anchor = target.partition("#")
        text = files.get(path or document)
        if text is None or (anchor and anchor not in anchors(text)):
            broken.append(f"{document}: {target}")
    return broken


def test_links_lead_to_files_and_headings(projects: list[Project]) -> None:
    found = [link for project in projects for name in DOCUMENTS for link in broken_links(project.files, name)]
    assert found == []


def test_broken_links_are_found() -> None:
    text = "# One two\n\n[a](#one-two) [b](#three) [c](A.md#one-two) [d](B.md) [e](https://example.com/#x)\n"
    assert broken_links({"A.md": text}, "A.md") == ["A.md: #three", "A.md: B.md"]


def test_pictures_are_in_the_template(projects: list[Project]) -> None:
    texts = [project.files[name] for project in projects for name in DOCUMENTS]
    addresses = {address for text in texts for address in re.findall(r"!\[.+?\]\((.+?)\)", text)}
    assert addresses
    for address in addresses:
        assert address.startswith(PICTURES)
        assert (TEMPLATE / address.removeprefix(PICTURES)).is_file(), address


def test_quick_access_fits_one_screen(projects: list[Project]) -> None:
    for project in projects:
        assert len(project.files["QUICK_ACCESS.md"].splitlines()) <= 64, project.variant.id


def test_migration_command_is_the_one_of_the_readme(projects: list[Project]) -> None:
    """`tests/stack` runs it as a step of the README."""
    for project in projects:
        (command,) = [line for line in project.files["AGENTS.md"].splitlines() if "alembic revision" in line]
        assert f"{command}\n" in code_blocks(project.files["README.md"], "shell"), project.variant.id


def powershell(projects: list[Project]) -> set[str]:
    """Return the distinct PowerShell blocks of all documents."""
    texts = [project.files[name] for project in projects for name in DOCUMENTS]
    return {block for text in texts for block in code_blocks(text, "powershell")}


def test_powershell_commands_are_well_formed(projects: list[Project]) -> None:
    """In Windows PowerShell, `curl` is an alias, and `&&` and a trailing backslash are errors."""
    blocks = powershell(projects)
    assert blocks
    for block in blocks:
        for line in block.splitlines():
            assert POWERSHELL.fullmatch(line), line
            assert line.count('"') % 2 == 0, line
            assert not re.search(r"&&|\\$|'", line), line
            for variable in re.findall(r"\$(\w+)", line):
                assert f"${variable} = " in block, line


def test_powershell_addresses_are_those_of_the_shell(projects: list[Project]) -> None:
    """The tests run the shell's commands."""
    for project in projects:
        (block,) = code_blocks(project.files["QUICK_ACCESS.md"], "powershell")
        shell = "".join(code_blocks(project.files["QUICK_ACCESS.md"] + project.files["FLOWER.md"], "bash"))
        paths = re.findall(r'http://localhost:\d+(/[^"]+)"', block)
        assert paths
        assert [path for path in paths if path not in shell] == [], project.variant.id


@pytest.mark.skipif(not shutil.which("pwsh"), reason="no PowerShell: install pwsh to parse the commands")
def test_powershell_parses_the_commands(projects: list[Project]) -> None:
    script = "$e = $null; $t = @($input) -join [char]10; "
    script += "$null = [Management.Automation.Language.Parser]::ParseInput($t, [ref]$null, [ref]$e); $e"
    for block in powershell(projects):
        done = subprocess.run(["pwsh", "-NoProfile", "-Command", script], input=block, capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, "")
