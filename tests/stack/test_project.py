"""What the owner of the project does with it: its tests, its checks, its documents, a task of one's own."""

import re

import pytest

SHELL = re.compile(r"^```bash\n(.*?)^```", re.M | re.S)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def test_its_unit_tests_pass_without_any_server(stack):
    said = stack.compose(
        "run", "--rm", "--no-deps", "--env", "POSTGRES_HOST=nowhere", "test", "pytest", "-p", "no:cacheprovider"
    )
    assert re.search(r"\d+ passed", said)
    assert "skipped" not in said


@pytest.mark.parametrize(
    "check", ["ruff check --no-cache", "ruff format --check --no-cache", "mypy --cache-dir /dev/null"]
)
def test_its_checks_are_clean(stack, check):
    stack.compose("run", "--rm", "--no-deps", "test", *check.split())


def test_the_readme_shows_all_that_a_task_of_ones_own_takes(stack):
    (shout,) = [code for code in PYTHON.findall(stack.project.files["README.md"]) if "def shout" in code]
    file = stack.project.path / "backend" / "app" / "tasks" / "shout.py"
    file.write_text(shout, encoding="utf-8")
    try:
        stack.up("--build")
        answer = stack.api.post("/tasks/shout", params={"text": "hello", "times": 2, "wait": 10})
        assert (answer.status_code, answer.json()["result"]) == (200, "HELLO HELLO")
        assert stack.api.post("/tasks/shout").status_code == 422
        assert "Say it louder." in stack.api.get("/openapi.json").text
    finally:
        file.unlink()
    stack.up("--build")


def test_the_readme_shows_how_other_code_gets_results(stack):
    (code,) = [code for code in PYTHON.findall(stack.project.files["README.md"]) if "send_task" in code]
    assert stack.compose("exec", "-T", "backend", "python", "-c", code).splitlines()[0] == "5.0"


@pytest.mark.parametrize("document", ["QUICK_ACCESS.md", "FLOWER.md", "README.md"])
def test_every_command_of_a_document_works(stack, document):
    blocks = SHELL.findall(stack.project.files[document])
    assert blocks
    said = stack.project.run("bash", "-ex", "-c", "\n".join(blocks)).stdout
    if "run --rm --build test" in "".join(blocks):
        assert re.search(r"\d+ passed in", said), "the project's own tests"
        assert "skipped" not in said
