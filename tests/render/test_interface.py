"""The interface of the template: released answers and values are renamed or removed only in a major version."""

import re
import tomllib

from tests.variants import ANSWERS, TEMPLATE

FROZEN: dict[str, list[str] | list[bool] | None] = {
    "project_name": None,
    "project_slug": None,
    "description": None,
    "author_name": None,
    "python_version": ["3.13", "3.14"],
    "result_backend": ["rpc", "redis", "database"],
    "flower_auth": ["basic", "none", "github", "gitlab", "google", "okta"],
    "flower_persistence": [True, False],
    "https_proxy": ["none", "caddy"],
    "monitoring": ["none", "prometheus"],
    "kubernetes": [False, True],
    "ci": ["github", "gitlab", "none"],
    "license": ["MIT", "Apache-2.0", "BSD-3-Clause", "Proprietary"],
}
"""Every answer with its values, the default first; none for free text. Add new ones here."""


def test_answers_and_values_are_kept() -> None:
    public = {name: value for name, value in ANSWERS.items() if not name.startswith("_")}
    for name, values in FROZEN.items():
        assert name in public, f"{name} is missing"
        if values is None:
            assert isinstance(public[name], str), name
        elif isinstance(values[0], bool):
            assert public[name] is values[0], name
        else:
            assert public[name][0] == values[0], f"{name} has a different default"
            assert set(values) <= set(public[name]), name


def test_version_is_the_same_everywhere() -> None:
    """A rendered project names the version of the template."""
    ours = tomllib.loads((TEMPLATE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert ANSWERS["__version"] == ours
    changes = (TEMPLATE / "CHANGELOG.md").read_text(encoding="utf-8")
    latest = re.search(r"^## (?:Unreleased|(\S+) - \d{4}-\d\d-\d\d)$", changes, re.M)
    assert latest
    assert latest[1] in (None, ours)


def test_new_answers_and_values_are_frozen() -> None:
    values = {name: value for name, value in ANSWERS.items() if not name.startswith("_")}
    assert set(FROZEN) == set(values)
    assert {name: frozen for name, frozen in FROZEN.items() if isinstance(values[name], list)} == {
        name: value for name, value in values.items() if isinstance(value, list)
    }
