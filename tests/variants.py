"""The variants: every combination of answers that changes the structure of what is rendered."""

import itertools
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from allpairspy import AllPairs

TEMPLATE = Path(__file__).parent.parent

ANSWERS = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))

CHOICES: dict[str, list[str | bool]] = {
    name: value if isinstance(value, list) else [value, not value]
    for name, value in ANSWERS.items()
    if not name.startswith("_") and isinstance(value, list | bool)
}
"""Every answer that is a choice, with its values, the default first."""

SURFACE = ("ci", "license")
"""Choices that only decide which file of its kind is there: covered in pairs."""

STRUCTURE = tuple(name for name in CHOICES if name not in SURFACE)
"""Choices that change services, variables and dependencies: covered in every combination."""


@dataclass(frozen=True)
class Variant:
    """One value for each choice. Its id names all of the structure, and of the rest what is not the default."""

    answers: tuple[tuple[str, str | bool], ...]

    @classmethod
    def of(cls, **answers: str | bool) -> "Variant":
        """The variant with these answers, and the default for all others."""
        return cls(tuple((name, answers.get(name, values[0])) for name, values in CHOICES.items()))

    def __getitem__(self, name: str) -> str | bool:
        return dict(self.answers)[name]

    @property
    def id(self) -> str:
        """Such as `redis-basic-persistent-py313`."""
        values = dict(self.answers)
        words = [
            values.pop("result_backend"),
            values.pop("flower_auth"),
            "persistent" if values.pop("flower_persistence") else "forgetful",
            f"py{values.pop('python_version')}".replace(".", ""),
        ]
        words += [str(value) for name, value in values.items() if value != CHOICES[name][0]]
        return "-".join(map(str, words))


def product(names: tuple[str, ...]) -> list[Variant]:
    """Every combination of the values of these choices."""
    return [
        Variant.of(**dict(zip(names, values, strict=True)))
        for values in itertools.product(*(CHOICES[name] for name in names))
    ]


@cache
def pairs(names: tuple[str, ...], without: tuple[str, ...] = ()) -> list[Variant]:
    """A few combinations in which every pair of values of two of these choices occurs, `without` some values."""
    values = [[value for value in CHOICES[name] if value not in without] for name in names]
    return [Variant.of(**dict(zip(names, chosen, strict=True))) for chosen in AllPairs(values)]


OAUTH = ("github", "gitlab", "google", "okta")
"""Values of `flower_auth` that differ from one another only in how people log in to Flower."""

EVERY = list(dict.fromkeys([*product(STRUCTURE), *pairs(tuple(CHOICES))]))
"""What is rendered and checked."""

COVERING = pairs(STRUCTURE, without=OAUTH)
"""What is started in containers, unless all are asked for; those of OAUTH have tests of their own."""
