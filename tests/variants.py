"""Variants of the template: one value for each answer that is a choice."""

import itertools
from dataclasses import dataclass
from functools import cache

from allpairspy import AllPairs

from tools.pieces import ROOT, Answers, Template, Value

TEMPLATE = ROOT

PIECES = Template()
"""The template, read statically."""

ANSWERS = PIECES.questions

CHOICES = PIECES.choices
"""Every answer that is a choice, with its values, the default first."""

SURFACE = ("https_proxy", "monitoring", "kubernetes", "ci", "license")
"""Choices that only add files and services."""

STRUCTURE = tuple(name for name in CHOICES if name not in SURFACE)
"""Choices that change services, variables and dependencies."""


@dataclass(frozen=True)
class Variant:
    """One value for each choice. The id names the structure, and any other answer that is not the default."""

    answers: tuple[tuple[str, Value], ...]

    @classmethod
    def of(cls, **answers: Value) -> "Variant":
        """Return the variant with these answers, and the default for all others."""
        return cls(tuple((name, answers.get(name, values[0])) for name, values in CHOICES.items()))

    def __getitem__(self, name: str) -> Value:
        return dict(self.answers)[name]

    @property
    def id(self) -> str:
        """Return an id such as `redis-basic-persistent-py313`."""
        values = dict(self.answers)
        words = [
            values.pop("result_backend"),
            values.pop("flower_auth"),
            "persistent" if values.pop("flower_persistence") else "forgetful",
            f"py{values.pop('python_version')}".replace(".", ""),
        ]
        words += [
            str(value) if isinstance(value, str) else f"{'' if value else 'no-'}{name}"
            for name, value in values.items()
            if value != CHOICES[name][0]
        ]
        return "-".join(map(str, words))


def product(names: tuple[str, ...]) -> list[Variant]:
    """Return every combination of the values of these choices."""
    return [
        Variant.of(**dict(zip(names, values, strict=True)))
        for values in itertools.product(*(CHOICES[name] for name in names))
    ]


@cache
def pairs(names: tuple[str, ...], without: tuple[str, ...] = ()) -> list[Variant]:
    """Return a few combinations with every pair of values of two of these choices, `without` some values."""
    values = [[value for value in CHOICES[name] if value not in without] for name in names]
    return [Variant.of(**dict(zip(names, chosen, strict=True))) for chosen in AllPairs(values)]


@cache
def covering() -> list[Variant]:
    """Return variants with every pair of answers and with every form of every piece: those that are rendered."""
    paired: list[Answers] = [dict(variant.answers) for variant in pairs(tuple(CHOICES))]
    return [Variant.of(**answers) for answers in PIECES.cover(paired)]


OAUTH = ("github", "gitlab", "google", "okta")
"""Values of `flower_auth` that differ from one another only in the login to Flower."""

COVERING = [
    Variant.of(**{**dict(variant.answers), "monitoring": ("none", "prometheus")[number % 2]})
    for number, variant in enumerate(pairs(STRUCTURE, without=OAUTH))
]
"""Variants that are started in containers by default. Those of OAUTH and HTTPS have their own tests."""

BACKENDS = [
    next(each for each in COVERING if each["result_backend"] == backend) for backend in CHOICES["result_backend"]
]
"""Of those, one with each result backend, and with them every version of Python."""

EVERYTHING = Variant.of(https_proxy="caddy", monitoring="prometheus", kubernetes=True)
"""The variant that has HTTPS, monitoring and Kubernetes; each has a test module of its own."""
