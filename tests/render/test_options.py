"""Options: each is rendered completely, and nothing of it remains in a project with another answer."""

import re

import pytest

from tests.project import Project
from tests.render.conftest import Texts
from tests.variants import CHOICES, OAUTH, PIECES
from tools.pieces import Form, Reader, Value

MARKS: dict[tuple[str, Value], str] = {
    ("python_version", "3.13"): r'3\.13-slim|"py313"',
    ("python_version", "3.14"): r'3\.14-slim|"py314"',
    ("result_backend", "rpc"): r": rpc://|`rpc://",
    ("result_backend", "redis"): r"(?i)redis(?!t)",
    ("result_backend", "database"): r"db\+postgresql|celery_taskmeta",
    ("flower_auth", "basic"): r"FLOWER_USER|FLOWER_PASSWORD|FLOWER_BASIC_AUTH",
    ("flower_auth", "none"): r"FLOWER_UNAUTHENTICATED_API",
    ("flower_auth", "github"): r"GithubLoginHandler|FLOWER_GITHUB|with GitHub",
    ("flower_auth", "gitlab"): r"GitLabLoginHandler|FLOWER_GITLAB|with GitLab",
    ("flower_auth", "google"): r"GoogleAuth2LoginHandler|with Google",
    ("flower_auth", "okta"): r"OktaLoginHandler|OKTA|Okta",
    (
        "flower_persistence",
        True,
    ): r"flower-data|FLOWER_PERSISTENT|FLOWER_DB|FLOWER_STATE_SAVE_INTERVAL|install -d|(?<![\w:])/data/",
    ("flower_persistence", False): r"memory, and starts empty",
    ("https_proxy", "caddy"): r"(?i)caddy|DOMAIN\b.*localhost|docker-compose\.prod",
    ("monitoring", "prometheus"): r"GRAFANA|Grafana shows|prom/prometheus|localhost:9090",
    ("kubernetes", True): r"(?i)kubernetes|kustom|kubectl|KEDA",
    ("ci", "github"): r"runs-on:|\.github/workflows",
    ("ci", "gitlab"): r"stage: |gitlab-ci",
    ("license", "MIT"): r"MIT License",
    ("license", "Apache-2.0"): r"Apache License",
    ("license", "BSD-3-Clause"): r"BSD 3-Clause",
    ("license", "Proprietary"): r"All rights reserved",
}
"""Text that occurs in a project with this answer, and in no other."""

WITHOUT_MARK = {("https_proxy", "none"), ("monitoring", "none"), ("kubernetes", False), ("ci", "none")}

SCRIPT_SESSION = {"backend/app/core/monitor/script_session.py", "backend/tests/core/unit/test_script_session.py"}

MANIFESTS = {
    ".gitignore",
    "README.md",
    "prepare.sh",
    *(
        f"base/{name}.yaml"
        for name in (
            "backend",
            "flower",
            "kustomization",
            "migrate",
            "namespace",
            "network",
            "serviceaccount",
            "worker-celery",
        )
    ),
    "overlays/local/20-definitions.conf",
    *(f"overlays/local/{name}.yaml" for name in ("db", "kustomization", "network", "rabbitmq")),
    *(
        f"overlays/production/{name}.yaml"
        for name in ("ingress", "keda-auth", "keda-celery", "keda-names", "kustomization", "network")
    ),
    *(f"overlays/production-hpa/{name}.yaml" for name in ("hpa-celery", "kustomization")),
}

FILES: dict[tuple[str, Value], set[str]] = {
    ("result_backend", "redis"): {"backend/tests/core/services/test_results.py"},
    ("result_backend", "database"): {"backend/tests/core/services/test_results.py"},
    **dict.fromkeys([("flower_auth", provider) for provider in OAUTH], SCRIPT_SESSION),
    ("https_proxy", "caddy"): {"docker-compose.prod.yml", "proxy/Caddyfile"},
    ("monitoring", "prometheus"): {
        "monitoring/alerts.yml",
        "monitoring/prometheus.yml",
        "monitoring/grafana/dashboards/service.json",
        "monitoring/grafana/provisioning/dashboards/files.yml",
        "monitoring/grafana/provisioning/datasources/prometheus.yml",
    },
    ("kubernetes", True): {f"deploy/kubernetes/{name}" for name in MANIFESTS},
    ("ci", "github"): {
        ".github/dependabot.yml",
        ".github/workflows/ci.yml",
        ".github/workflows/update.yml",
    },
    ("ci", "gitlab"): {".gitlab-ci.yml", "renovate.json"},
}
"""Files that exist with this answer. All others exist in every project."""

THE_SAME_FOR_ALL = {
    "backend/app/core/monitor/access.py",
    "backend/tests/core/unit/test_access.py",
    "backend/migrations/env.py",
}
"""Copied files that handle every answer, by the environment or by ignoring the tables of every result backend."""


def test_answers_all_have_a_mark() -> None:
    assert set(MARKS) | WITHOUT_MARK == {(name, value) for name, values in CHOICES.items() for value in values}


@pytest.mark.parametrize("answer", MARKS, ids=lambda answer: f"{answer[0]}-{answer[1]}")
def test_option_is_rendered_completely_or_not_at_all(projects: list[Project], answer: tuple[str, Value]) -> None:
    name, value = answer
    mark = re.compile(MARKS[answer])
    for project in projects:
        own = {path: text for path, text in project.files.items() if path not in THE_SAME_FOR_ALL}
        marked = sorted(path for path, text in own.items() if mark.search(path) or mark.search(text))
        if project.variant[name] == value:
            assert marked, f"{project.variant.id}: nothing of {name}={value}"
        else:
            assert marked == [], f"{project.variant.id}: {name} is {project.variant[name]}, not {value}"


@pytest.mark.parametrize("answer", MARKS, ids=lambda answer: f"{answer[0]}-{answer[1]}")
def test_option_marks_no_form_that_occurs_without_it(answer: tuple[str, Value]) -> None:
    """This covers every combination of answers: a form occurs only with the answers that lead to it."""
    name, value = answer
    mark = re.compile(MARKS[answer])
    for form, answers in PIECES.occurrences:
        if isinstance(form, Form) and form.text is not None and form.piece not in THE_SAME_FOR_ALL:
            path = form.piece
            if path in PIECES.files:
                path = PIECES.environment.from_string(path).render(cookiecutter=Reader(PIECES, answers))
            if mark.search(re.sub("\0.*?\1", "", form.text)) or (path in PIECES.files and mark.search(path)):
                assert answers.get(name) == value, f"{form.piece}: occurs with {name}={answers.get(name, 'any')}"


BOTH = {(("result_backend", "redis"), ("kubernetes", True)): {"deploy/kubernetes/overlays/local/redis.yaml"}}
"""Files that exist with both answers."""


def test_files_follow_from_the_answers(projects: list[Project]) -> None:
    sometimes = set().union(*FILES.values(), *BOTH.values())
    always = set(projects[0].files) - sometimes
    for project in projects:
        expected = set().union(*(FILES.get(answer, set()) for answer in project.variant.answers))
        expected |= set().union(*(files for both, files in BOTH.items() if set(both) <= set(project.variant.answers)))
        assert set(project.files) == always | expected, project.variant.id


def test_application_modules_are_the_same_in_every_variant(texts: Texts) -> None:
    paths = [path for path, _ in texts if path.startswith("backend/app/") and path.endswith(".py")]
    assert paths
    assert len(paths) == len(set(paths))


def test_dependencies_are_all_used(projects: list[Project]) -> None:
    """Every dependency is imported, or loaded by name."""
    named = {
        "celery[redis]": "celery",
        "fastapi[opentelemetry]": "fastapi",
        "psycopg[binary]": "psycopg",
        "sqlalchemy[asyncio]": "sqlalchemy",
    }
    by_name_only = {"flower", "psycopg", "httptools", "uvloop"}  # started by compose; loaded by SQLAlchemy and uvicorn
    for project in projects:
        code = "\n".join(text for path, text in project.files.items() if path.endswith(".py"))
        imported = {word.replace("_", "-") for word in re.findall(r"^(?:from|import) (\w+)", code, re.M)}
        section = project.files["backend/pyproject.toml"].split("[dependency-groups]")[0].split("dependencies = [")[1]
        wanted = {dependency.split(">=")[0] for dependency in re.findall(r'"([^"]+)"', section)}
        wanted = {named.get(dependency, dependency) for dependency in wanted}
        assert wanted - by_name_only - imported == set(), project.variant.id
