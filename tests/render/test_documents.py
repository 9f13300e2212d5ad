"""The template's own documents: links, diagrams, commands, facts that the code states as well, and language."""

import ast
import io
import json
import re
import shutil
import subprocess
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mermaidx
import pytest
import yaml

from tests.project import Project
from tests.render.conftest import Texts
from tests.variants import TEMPLATE
from tools.changelog import release_notes, section

BIN = Path(sys.executable).parent
DOCS = TEMPLATE / "docs"
APP = TEMPLATE / "{{cookiecutter.project_slug}}" / "backend" / "app"
DOCUMENTS = sorted([*TEMPLATE.glob("*.md"), *(TEMPLATE / ".github").glob("*.md"), *DOCS.rglob("*.md")])
IDS = [path.relative_to(TEMPLATE).as_posix() for path in DOCUMENTS]
NONE = "\N{EN DASH}"  # in tables
ON_GITHUB = "https://github.com/ORG/flowerpot/blob/main/"

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)


def without_code(text: str) -> str:
    """Return Markdown without its fenced code."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.M | re.S)


def rows(path: Path, heading: str = "") -> list[list[str]]:
    """Return the cells of every table row of a document, or of the section below a heading."""
    text = path.read_text(encoding="utf-8")
    if heading:
        text = re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.M)[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def first_names(path: Path, heading: str = "") -> list[str]:
    """Return the code in the first cell of every table row."""
    return [name for row in rows(path, heading) for name in re.findall(r"^`([^`]+)`", row[0])]


# ---- the site ----------------------------------------------------------------------------------------------------


def test_site_builds_without_warnings(tmp_path: Path) -> None:
    config = (TEMPLATE / "mkdocs.yml").read_text(encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(config, encoding="utf-8")
    shutil.copytree(DOCS, tmp_path / "docs")
    done = subprocess.run(
        [BIN / "zensical", "build", "--strict"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "lifecycle" / "index.html").exists()


def test_navigation_lists_every_page() -> None:
    nav = (TEMPLATE / "mkdocs.yml").read_text(encoding="utf-8").split("nav:\n", 1)[1].split("\n\n", 1)[0]
    listed = re.findall(r"(\S+\.md)$", nav, re.M)
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_titles_in_the_navigation_are_those_of_the_guides() -> None:
    nav = (TEMPLATE / "mkdocs.yml").read_text(encoding="utf-8")
    titles = re.findall(r"- (.+): (guides/\S+)$", nav, re.M)
    assert len(titles) > 5
    for title, name in titles:
        assert (DOCS / name).read_text(encoding="utf-8").startswith(f"# {title}\n")


# ---- links -------------------------------------------------------------------------------------------------------


@cache
def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub and the site form them."""
    headings = re.findall(r"^#+ (.+)$", without_code(path.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(path: Path, text: str) -> list[str]:
    """Return links of a document to files, pages or anchors that do not exist."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(text)) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    broken = []
    for target in targets:
        name, _, anchor = target.partition("#")
        if name.startswith(ON_GITHUB):
            file = TEMPLATE / name.removeprefix(ON_GITHUB)
        elif re.match(r"\w+:", name):
            continue
        else:
            file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in anchors(file.resolve())):
            broken.append(target)
        elif DOCS in path.parents and DOCS not in file.resolve().parents and not name.startswith("https:"):
            broken.append(f"{target}: outside of the site")
    return broken


@every_document
def test_links_lead_to_files_and_anchors(path: Path) -> None:
    assert broken_links(path, path.read_text(encoding="utf-8")) == []


def test_broken_links_are_found() -> None:
    text = '[a](none.md) [b](README.md#none) [c](LICENSE) <img src="none.png"> [d](https://example.com)'
    assert broken_links(TEMPLATE / "README.md", text) == ["none.md", "README.md#none", "none.png"]
    assert broken_links(DOCS / "index.md", "[a](../LICENSE)") == ["../LICENSE: outside of the site"]


# ---- diagrams ----------------------------------------------------------------------------------------------------


def diagrams(text: str) -> list[str]:
    """Return the Mermaid diagrams of a document."""
    return re.findall(r"^```mermaid\n(.*?)^```", text, re.M | re.S)


def faults(diagram: str) -> str:
    """Return the error of Mermaid's own parser, or an empty text."""
    try:
        mermaidx.render(diagram).svg()
    except RuntimeError as error:
        return str(error)
    return ""


def test_diagrams_parse(texts: Texts) -> None:
    own = {diagram for path in DOCUMENTS for diagram in diagrams(path.read_text(encoding="utf-8"))}
    rendered = {diagram for (path, text) in texts if path.endswith(".md") for diagram in diagrams(text)}
    assert own
    assert rendered
    assert [found for found in map(faults, own | rendered) if found] == []


def test_invalid_diagrams_are_found() -> None:
    assert "Parse error" in faults("flowchart LR\n a --> \n b[[ x")
    assert "Parse error" in faults("sequenceDiagram\n  A->>B hi\n")


# ---- facts -------------------------------------------------------------------------------------------------------

LIFECYCLE = DOCS / "lifecycle.md"
HISTORY = APP / "core" / "tasks" / "history.py"


def states_in(node: ast.AST) -> set[str]:
    """Return the states that a piece of code names; `UNFINISHED` stands for three."""
    found = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "State":
            found.add(each.attr)
        elif isinstance(each, ast.Name) and each.id == "UNFINISHED":
            found |= {"PENDING", "STARTED", "RETRY"}
    return found


def written_states() -> dict[str, set[str]]:
    """Return the states that each statement of the history writes."""
    tree = ast.parse(HISTORY.read_text(encoding="utf-8"))
    written: dict[str, set[str]] = {}
    for unit in tree.body:
        if isinstance(unit, ast.FunctionDef):
            name = unit.name
        elif isinstance(unit, ast.Assign) and isinstance(unit.targets[0], ast.Name):
            name = unit.targets[0].id
        else:
            continue
        for call in ast.walk(unit):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute | ast.Name)):
                continue
            called = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
            for keyword in call.keywords if called in {"values", "_insert_received"} else []:
                if keyword.arg == "state":
                    written.setdefault(name, set()).update(states_in(keyword.value))
    for path in (APP / "core").rglob("*.py"):  # the state is an argument of this one; its callers have newer syntax
        text = path.read_text(encoding="utf-8")
        for state in re.findall(r"finish_externally\([^()]*State\.(\w+)", text):
            name = "exceed_time_limit" if path == HISTORY else "finish_externally"
            written.setdefault(name, set()).add(state)
    return written


def documented_transitions() -> list[tuple[str, str, str]]:
    """Return the rows of the table of transitions: from, to, statement."""
    found = [row for row in rows(LIFECYCLE, "Transitions") if "`" in row[2]]
    return [(row[0], row[1], name) for row in found for name in re.findall(r"`(\w+)`", row[2])]


def test_lifecycle_has_every_transition_of_the_history() -> None:
    documented = defaultdict(set)
    for _, target, name in documented_transitions():
        documented[name].add(target)
    assert documented == written_states()


def test_lifecycle_diagram_has_an_arrow_for_every_transition() -> None:
    (diagram,) = [each for each in diagrams(LIFECYCLE.read_text(encoding="utf-8")) if "stateDiagram" in each]
    arrows = set(re.findall(r"^ +(\S+) --> (\S+)$", diagram, re.M))
    assert len(diagram.splitlines()) == len(arrows) + 1
    tables = {("[*]" if source == NONE else source, target) for source, target, _ in documented_transitions()}
    final = {(state, "[*]") for state in ("SUCCESS", "FAILURE", "REVOKED")}
    assert arrows == tables | final


def test_settings_are_those_of_the_examples(projects: list[Project]) -> None:
    examples = {project.files[".env.example"] for project in projects}
    variables = {name for text in examples for name in re.findall(r"^(?:# )?([A-Z][A-Z_0-9]+)=", text, re.M)}
    assert set(first_names(DOCS / "reference" / "settings.md")) == variables


def test_defaults_of_settings_are_those_of_the_examples(projects: list[Project]) -> None:
    values = {
        name: value
        for project in projects
        for name, value in re.findall(r"^([A-Z][A-Z_0-9]+)=(.*)$", project.files[".env.example"], re.M)
    }
    for row in rows(DOCS / "reference" / "settings.md"):
        name = row[0].strip("`")
        if name in values:
            assert row[1] in ({f"`{values[name]}`"} if values[name] else {"empty", "generated"}), name


def test_decorator_arguments_are_documented() -> None:
    text = (APP / "core" / "tasks" / "registry.py").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^    (\w+): .+ = (.+)$", text.split("class task:", 1)[1].split("@overload", 1)[0], re.M))
    assert len(fields) > 5
    known = {"queues.DEFAULT": '"celery"', "TRANSIENT": "(ConnectionError, TimeoutError)"}
    table = rows(DOCS / "reference" / "tasks.md", "Arguments of the decorator")[1:]
    assert {row[0].strip("`"): row[1].strip("`") for row in table} == {
        name: known.get(default, default) for name, default in fields.items()
    }


def test_endpoints_and_fields_are_documented() -> None:
    found = {("POST /tasks/<name>", "enqueue_<name>")}
    for name in ("runs", "operations", "schedules", "queues", "health"):
        text = (APP / "core" / "api" / f"{name}.py").read_text(encoding="utf-8")
        (prefix,) = re.findall(r'APIRouter\(prefix="([^"]+)"', text)
        for method, path, function in re.findall(r'^@router\.(\w+)\("([^"]*)".*\nasync def (\w+)', text, re.M):
            found.add((f"{method.upper()} {prefix}{path}", function))
    assert len(found) > 5
    reference = DOCS / "reference" / "api.md"
    assert {(row[0].strip("`"), row[1].strip("`")) for row in rows(reference, "Endpoints")[1:]} == found
    tree = ast.parse((APP / "core" / "api" / "runs.py").read_text(encoding="utf-8"))
    (run,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TaskRun"]
    fields = [
        each.target.id for each in run.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]
    assert first_names(reference, "Fields of a run") == fields


def test_limits_of_queues_are_documented() -> None:
    definitions = json.loads((APP.parent.parent / "rabbitmq" / "definitions.json").read_text(encoding="utf-8"))
    limits = {policy["name"]: policy["definition"] for policy in definitions["policies"]}
    table = {
        row[0].strip("`"): [cell.strip("`") for cell in row[1:]]
        for row in rows(DOCS / "reference" / "queues.md", "Limits")[1:]
    }
    assert table == {
        name: [str(limits[policy].get(name, NONE)) for policy in ("tasks", "dead-letters")]
        for name in {**limits["tasks"], **limits["dead-letters"]}
    }


def test_answers_are_the_same_in_the_readme_and_on_the_site() -> None:
    answers = [row for row in rows(TEMPLATE / "README.md", "Answers") if row[0].startswith("`")]
    assert len(answers) > 5
    assert [row for row in rows(DOCS / "answers.md") if row[0].startswith("`")] == answers


# ---- commands ----------------------------------------------------------------------------------------------------

ELSEWHERE = re.compile(r"(uvx cookiecutter|uvx --with \S+ cruft|git clone|cd) ")
"""Commands that tests/render/test_readme.py and tests/update run, or that only change the folder."""


def commands(text: str, language: str) -> list[str]:
    """Return the commands in blocks of a language, without comments."""
    blocks = re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.M | re.S)
    lines = [line.split("  # ")[0].strip() for block in blocks for line in block.splitlines()]
    return [re.sub(r" +# .*", "", line) for line in lines if line and not line.startswith("#")]


@every_document
def test_commands_for_the_template_exist(path: Path) -> None:
    for command in commands(path.read_text(encoding="utf-8"), "shell"):
        words = command.split()
        if words[:4] == ["uv", "run", "python", "-m"]:
            assert find_spec(words[4]), command
        elif words[:3] == ["uv", "run", "pytest"]:
            paths = [word for word in words[3:] if word.startswith("tests/")]
            assert all((TEMPLATE / each).exists() for each in paths), command
        elif words[:2] == ["uv", "run"]:
            assert (BIN / words[2]).exists(), command
        else:
            assert ELSEWHERE.match(command) or words[0] in {"docker", "curl"}, command


def test_commands_for_a_project_are_in_its_documents(texts: Texts) -> None:
    """The documents of a rendered project are run by tests/stack."""
    known = "\n".join(text for path, text in texts if path.endswith(".md"))
    own = {line for path in DOCUMENTS for line in commands(path.read_text(encoding="utf-8"), "(?:bash|shell)")}
    for_projects = {line for line in own if line.startswith(("docker", "curl"))}
    assert len(for_projects) > 5
    assert {line for line in for_projects if line not in known} == set()


# ---- files of GitHub ---------------------------------------------------------------------------------------------

SCHEMAS = {
    "vendor.github-workflows": "workflows/*.yml",
    "vendor.github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
    "vendor.github-issue-config": "ISSUE_TEMPLATE/config.yml",
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_of_github_are_valid(schema: str) -> None:
    files = sorted((TEMPLATE / ".github").glob(SCHEMAS[schema]))
    assert files
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_release_is_created_after_all_tests() -> None:
    workflow: dict[str, Any] = yaml.safe_load((TEMPLATE / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    runs = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in workflow["jobs"].items()}
    assert workflow["jobs"]["release"]["needs"] == ["test", "faults"]
    assert runs["test"] == ["uv run pytest"]
    assert runs["faults"][-1] == "uv run pytest tests/stack/faults"
    assert all("tools.changelog" in runs[name][0] for name in ("version", "release"))


def test_release_notes_are_the_section_of_the_version() -> None:
    changelog = (
        "# Changelog\n\n## Unreleased\n\n- new\n\n## 1.1.0 - 2026-01-02\n\n- one\n\n## 1.0.0 - 2026-01-01\n\n- two\n"
    )
    assert section(changelog, "1.1.0") == "- one\n"
    assert section(changelog, "1.0.0") == "- two\n"
    for missing in ("1.2.0", "1.1", "Unreleased"):
        with pytest.raises(ValueError, match="no section for"):
            section(changelog, missing)
    with pytest.raises(ValueError, match="not the version"):
        release_notes("v0.0.0")


# ---- language ----------------------------------------------------------------------------------------------------

DIALECT = re.compile(
    r"(?<![?.!] )\b(?:what|who|whom|whose|whoever|whatever)\b(?! is the| are the)"
    r"|\b(?:tells?|told|says?|said|hears?|heard|asks?|asked|remembers?|wants?)\b"
    r"|\b(?:anew|besides|mend(?:s|ed|ing)?|for ever|meanwhile|at work|at hand|lets? go|of its own|by itself)\b"
    r"|, too[.;:]",
    re.I,
)
"""Words of speech and of older prose. Technical English names the thing instead: "rejected requests"."""

LIMIT = 4  # per 1,000 words


def markdown_prose(text: str) -> str:
    """Return the prose of a document: no code, no addresses."""
    return re.sub(r"`[^`]*`|<[^>]*>|\]\([^)]*\)|\{%.*?%\}|\{\{.*?\}\}", " ", without_code(text))


def python_prose(text: str) -> Iterator[str]:
    """Yield the comments and docstrings of a module."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_comment = token.type == tokenize.COMMENT and "noqa" not in token.string
        if is_comment or (token.type == tokenize.STRING and token.string.startswith('"""')):
            yield re.sub(r"`[^`]*`", " ", token.string)


def prose(kind: str) -> str:
    """Return all prose of the template: its documents with those of rendered projects, or its Python."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=TEMPLATE, check=True, capture_output=True, text=True).stdout.split("\0")
    paths = [TEMPLATE / name for name in dict.fromkeys(listed) if name.endswith(kind)]
    texts = [path.read_text(encoding="utf-8") for path in paths if path.is_file()]
    parts = map(markdown_prose, texts) if kind == ".md" else (part for text in texts for part in python_prose(text))
    return "\n".join(parts)


def dialect_rate(text: str) -> float:
    """Return the occurrences of the words per 1,000 words."""
    return 1000 * len(DIALECT.findall(text)) / len(re.findall(r"[A-Za-z']+", text))


@pytest.mark.parametrize("kind", [".md", ".py"])
def test_prose_is_plain_technical_english(kind: str) -> None:
    text = prose(kind)
    assert len(text.split()) > 5_000
    found = [line.strip() for line in text.splitlines() if DIALECT.search(line)]
    assert dialect_rate(text) <= LIMIT, "\n".join(found)


def test_dialect_is_counted() -> None:
    assert dialect_rate("It tells the worker what was refused, and does it anew.") > 200
    assert dialect_rate("Report rejected requests. What is the limit?") == 0
