"""The pieces of the template: few answers each, and every form rendered.

`tools/pieces.py` finds statically which answers a piece reads, and so every form it can have. Any project consists of
forms. The covering set of variants contains every form, so the other tests check each form.
"""

import json
import random
import re
from pathlib import Path

import pytest

from tests.project import Project
from tests.variants import CHOICES, PIECES, Variant, covering, product
from tools.pieces import PROJECT, Form, Template

SAMPLE = 200
"""Combinations of answers to try: the analysis holds for all of them, and this number keeps the time constant."""


def test_pieces_read_at_most_three_answers() -> None:
    assert PIECES.violations() == []


def test_pieces_are_all_included() -> None:
    assert PIECES.unused() == []


def test_forms_all_occur_in_the_rendered_variants() -> None:
    occurring = set().union(*(PIECES.occurring(dict(variant.answers)) for variant in covering()))
    assert set(PIECES.required) - occurring == set()


def test_combinations_consist_of_forms_that_were_rendered() -> None:
    for variant in sample():
        assert PIECES.occurring(dict(variant.answers)) - set(PIECES.required) == set(), variant.id


def sample() -> list[Variant]:
    """Return some of all combinations of answers."""
    chance = random.Random(9)
    return [Variant.of(**{name: chance.choice(values) for name, values in CHOICES.items()}) for _ in range(SAMPLE)]


def test_projects_are_assembled_from_their_forms(projects: list[Project]) -> None:
    for project in projects:
        assembled = PIECES.render({**dict(project.variant.answers), "project_slug": "my-service"})
        assert set(assembled) == set(project.files), project.variant.id
        changed = [path for path, text in assembled.items() if text != project.files[path]]
        assert changed == [], project.variant.id


def test_python_is_copied_unless_its_name_has_a_condition() -> None:
    """Cookiecutter renders a conditional name only together with the text, so that text must have no Jinja."""
    for piece in (piece for piece in PIECES.files if re.search(r"\.py\b(?!.*\.toml)", piece)):
        text = (PIECES.root / PROJECT / piece).read_text(encoding="utf-8")
        assert PIECES.is_copied(piece) is ("{%" not in piece), piece
        assert PIECES.is_copied(piece) or not re.search(r"\{[{%#]", text), piece


def test_private_answers_are_flags_or_short_data() -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .-_")
    for variant in product(("python_version", "result_backend", "flower_auth", "flower_persistence", "ci")):
        for name, source in PIECES.private.items():
            if name != "__validated":
                answers = {**PIECES.texts, **dict(variant.answers)}
                reads = PIECES.resolve({name})
                value = PIECES.environment.from_string(source).render(
                    cookiecutter={**{key: answers[key] for key in reads}}
                )
                assert len(value) < 120, name
                assert set(value) <= allowed, name


@pytest.fixture
def template(tmp_path: Path) -> Template:
    """Write a small template with four choices."""
    questions = {
        "a": ["1", "2"],
        "b": ["1", "2"],
        "c": ["1", "2"],
        "d": False,
        "__ab": "{{ cookiecutter.a ~ cookiecutter.b }}",
        "__flag": "{{ 'yes' if cookiecutter.__ab == '11' else '' }}",
        "_jinja2_env_vars": {"trim_blocks": True, "lstrip_blocks": True},
        "_copy_without_render": ["*.copied"],
    }
    (tmp_path / "cookiecutter.json").write_text(json.dumps(questions), encoding="utf-8")
    write(tmp_path / PROJECT / "plain.txt", "Plain.\n")
    return Template(tmp_path)


def write(path: Path, text: str) -> None:
    """Write a file of a template."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("{{ cookiecutter.a }}", "a"),
        ("{{ cookiecutter['a'] }}", "a"),
        ("{% if cookiecutter.__flag %}x{% endif %}", "ab"),
        ("{% for part in cookiecutter.__ab.split() %}{{ part }}{% endfor %}{{ cookiecutter.d }}", "abd"),
        ('{% include "part-" ~ cookiecutter.b ~ ".txt" %}', "b"),
        ('{% import "macros/m.jinja" as m with context %}{{ m.text() }}', "c"),
        ("{% set x = cookiecutter.c %}{{ x }}{{ cookiecutter.a if cookiecutter.b == '1' }}", "abc"),
    ],
)
def test_reads_are_found_in_every_construct(template: Template, text: str, reads: str) -> None:
    write(template.root / "templates" / "macros" / "m.jinja", "{% macro text() %}{{ cookiecutter.c }}{% endmacro %}")
    write(template.root / PROJECT / "piece.txt", text)
    assert template.reads["piece.txt"] == set(reads)


def test_reads_are_found_in_the_name_of_a_file(template: Template) -> None:
    write(template.root / PROJECT / "{% if cookiecutter.__flag %}x.copied{% endif %}", "{{ cookiecutter.d }}")
    assert {name: set(reads) for name, reads in template.reads.items() if reads} == {
        "{% if cookiecutter.__flag %}x.copied{% endif %}": {"a", "b", "d"}
    }


def test_reads_of_the_whole_context_are_rejected(template: Template) -> None:
    write(template.root / PROJECT / "piece.txt", "{{ cookiecutter | length }}")
    with pytest.raises(ValueError, match="read one answer at a time"):
        _ = template.reads


def test_violations_name_a_piece_with_four_answers(template: Template) -> None:
    write(
        template.root / PROJECT / "piece.txt",
        "{{ cookiecutter.__flag }}{{ cookiecutter.c }}{% if cookiecutter.d %}{% endif %}",
    )
    assert template.violations() == [
        "piece.txt: reads 4 answers, a, b, c, d (split it: 3 are the limit for anything but includes)"
    ]


def test_violations_allow_a_piece_that_only_assembles(template: Template) -> None:
    for name in ("a-1", "a-2", "b-1", "b-2", "c-1", "c-2"):
        write(template.root / "templates" / f"{name}.txt", f"{name}\n")
    includes = [f'{{% include "{name}-" ~ cookiecutter.{name} ~ ".txt" %}}' for name in "abc"]
    write(template.root / "templates" / "d.txt", "d\n")
    write(
        template.root / PROJECT / "piece.txt",
        "\n".join([*includes, '{% if cookiecutter.d %}\n{% include "d.txt" %}\n{% endif %}', ""]),
    )
    assert template.violations() == []
    assert template.unused() == []
    assert len(template.cover([])) <= 8


def test_cover_contains_every_form(template: Template) -> None:
    write(template.root / PROJECT / "piece.txt", "{% if cookiecutter.a == '1' and cookiecutter.d %}x{% endif %}y")
    write(template.root / PROJECT / "{% if cookiecutter.b == '2' %}two.txt{% endif %}", "{{ cookiecutter.a }}")
    cover = template.cover([])
    assert set(template.required) == set().union(*map(template.occurring, cover))
    texts = {part.text for part in template.required if isinstance(part, Form) and part.piece == "piece.txt"}
    assert texts == {"xy", "y"}


def test_unused_pieces_are_named(template: Template) -> None:
    write(template.root / "templates" / "lost.txt", "Lost.\n")
    assert template.unused() == ["lost.txt"]
