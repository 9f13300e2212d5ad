"""Each combination: what its answers call for is there, and nothing of an option that is off."""

import itertools
import re

import pytest

from tests.variants import CHOICES, OAUTH

MARKS = {
    ("python_version", "3.13"): r'3\.13-slim|"py313"',
    ("python_version", "3.14"): r'3\.14-slim|"py314"',
    ("result_backend", "rpc"): r"rpc://",
    ("result_backend", "redis"): r"(?i)redis(?!t)",
    ("result_backend", "database"): r"db\+postgresql|celery_taskmeta",
    ("flower_auth", "basic"): r"FLOWER_USER|FLOWER_PASSWORD|FLOWER_BASIC_AUTH",
    ("flower_auth", "none"): r"FLOWER_UNAUTHENTICATED_API",
    ("flower_auth", "github"): r"GithubLoginHandler|FLOWER_GITHUB|at GitHub",
    ("flower_auth", "gitlab"): r"GitLabLoginHandler|FLOWER_GITLAB|at GitLab",
    ("flower_auth", "google"): r"GoogleAuth2LoginHandler|at Google",
    ("flower_auth", "okta"): r"OktaLoginHandler|OKTA|Okta",
    (
        "flower_persistence",
        True,
    ): r"flower-data|FLOWER_PERSISTENT|FLOWER_DB|FLOWER_STATE_SAVE_INTERVAL|install -d|/data/",
    ("flower_persistence", False): r"memory, and starts empty",
    ("ci", "github"): r"runs-on:|\.github/workflows",
    ("ci", "gitlab"): r"stage: |gitlab-ci",
    ("license", "MIT"): r"MIT License",
    ("license", "Apache-2.0"): r"Apache License",
    ("license", "BSD-3-Clause"): r"BSD 3-Clause",
    ("license", "Proprietary"): r"All rights reserved",
}
"""What is seen in a project with this answer, and in no other."""

TICKET = {"backend/app/monitor/ticket.py", "backend/tests/unit/test_ticket.py"}

FILES = {
    ("result_backend", "redis"): {"backend/tests/services/test_results.py"},
    ("result_backend", "database"): {"backend/tests/services/test_results.py"},
    **dict.fromkeys([("flower_auth", provider) for provider in OAUTH], TICKET),
    ("ci", "github"): {".github/workflows/ci.yml", ".github/workflows/update.yml"},
    ("ci", "gitlab"): {".gitlab-ci.yml"},
}
"""Files that are there with this answer; all others are always there."""

WITHOUT_MARK = {("ci", "none")}

THE_SAME_FOR_ALL = {"backend/app/monitor/access.py", "backend/tests/unit/test_access.py"}
"""They read from the environment which answer was given."""


def test_every_answer_has_a_mark():
    assert set(MARKS) | WITHOUT_MARK == {(name, value) for name, values in CHOICES.items() for value in values}


@pytest.mark.parametrize("answer", MARKS, ids=lambda answer: f"{answer[0]}-{answer[1]}")
def test_an_option_is_whole_or_not_there(projects, answer):
    name, value = answer
    mark = re.compile(MARKS[answer])
    for project in projects:
        own = {path: text for path, text in project.files.items() if path not in THE_SAME_FOR_ALL}
        marked = sorted(path for path, text in own.items() if mark.search(path) or mark.search(text))
        if project.variant[name] == value:
            assert marked, f"{project.variant.id}: nothing of {name}={value}"
        else:
            assert marked == [], f"{project.variant.id}: {name} is {project.variant[name]}, not {value}"


def test_the_files_are_just_those_that_the_answers_call_for(projects):
    sometimes = set().union(*FILES.values())
    always = set(projects[0].files) - sometimes
    for project in projects:
        called_for = set().union(*(FILES.get(answer, set()) for answer in project.variant.answers))
        assert set(project.files) == always | called_for, project.variant.id


def test_every_module_of_the_application_is_the_same_in_all_variants(texts):
    paths = [path for path, _ in texts if path.startswith("backend/app/") and path.endswith(".py")]
    assert paths
    assert len(paths) == len(set(paths))


def test_dependencies_are_used(projects):
    """Every dependency is imported by the application, or is a server or driver that is named in the list."""
    named = {"celery[redis]": "celery", "psycopg[binary]": "psycopg", "sqlalchemy[asyncio]": "sqlalchemy"}
    by_name_only = {"flower", "psycopg"}  # started by compose; loaded by SQLAlchemy
    for project in projects:
        code = "\n".join(text for path, text in project.files.items() if path.endswith(".py"))
        imported = {word.replace("_", "-") for word in re.findall(r"^(?:from|import) (\w+)", code, re.M)}
        section = project.files["backend/pyproject.toml"].split("[dependency-groups]")[0].split("dependencies = [")[1]
        wanted = {dependency.split(">=")[0] for dependency in re.findall(r'"([^"]+)"', section)}
        wanted = {named.get(dependency, dependency) for dependency in wanted}
        assert wanted - by_name_only - imported == set(), project.variant.id


def test_no_file_depends_on_more_than_three_answers(projects):
    """Beyond that nobody can hold the forms of a file in the head."""
    names = tuple(CHOICES)
    for path in set().union(*(project.files for project in projects)):
        forms = {project.variant: project.files.get(path) for project in projects}
        for size in range(4):
            if any(decides(choice, forms) for choice in itertools.combinations(names, size)):
                break
        else:
            raise AssertionError(f"{path} depends on more than three answers")


def decides(names, forms):
    """Whether the text of a file follows from these answers alone."""
    seen = {}
    keys = {variant: tuple(variant[name] for name in names) for variant in forms}
    return all(seen.setdefault(keys[variant], text) == text for variant, text in forms.items())
