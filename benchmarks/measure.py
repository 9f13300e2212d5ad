"""Rounds, medians and ratios, and the table of results."""

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """One line of the table: the figures of each round, ours and those of the reference measured between them."""

    name: str
    what: str
    unit: str
    ours: Sequence[float]
    against: str = ""
    reference: Sequence[float] = ()
    reach: str = ""
    """The aim, as it is printed beside the measured ratio."""
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios, ours divided by the reference."""
        if not self.reference:
            return None
        pairs = zip(self.ours, self.reference, strict=True)
        return statistics.median(ours / reference for ours, reference in pairs)

    def cells(self) -> list[str]:
        """Return the cells of the table: medians, ratio, reach and notes."""
        reference = f"{number(statistics.median(self.reference))} {self.unit}" if self.reference else "-"
        return [
            self.name,
            self.what,
            f"{number(statistics.median(self.ours))} {self.unit}",
            f"{self.against}: {reference}" if self.against else reference,
            f"{self.ratio:.2f}" if self.ratio is not None else "-",
            self.reach or "-",
            ", ".join(f"{name} {value}" for name, value in self.notes.items()),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return everything that was measured."""
        return {**vars(self), "ratio": self.ratio}


COLUMNS = ("benchmark", "what", "ours", "reference", "ratio", "reach", "notes")


def number(value: float) -> str:
    """Return a figure with three significant digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def interleaved(rounds: int, *measure: Callable[[], Any]) -> list[list[Any]]:
    """Measure in turn, `rounds` times; return the figures of each measurement."""
    figures: list[list[Any]] = [[] for _ in measure]
    for _ in range(rounds):
        for kept, each in zip(figures, measure, strict=True):
            kept.append(each())
    return figures


def table(results: Iterable[Result], *, is_aligned: bool = True) -> str:
    """Return the results as a table in Markdown, with columns of the same width if `is_aligned`."""
    rows = [list(COLUMNS), *(result.cells() for result in results)]
    widths = [max(map(len, column)) if is_aligned else 3 for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    padded = [
        [cell.ljust(width) if is_aligned else cell for cell, width in zip(row, widths, strict=True)] for row in rows
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in padded)


def write_json(results: Iterable[Result], file: Path) -> None:
    """Write the figures of every round."""
    text = json.dumps([result.as_json() for result in results], indent=2, ensure_ascii=False)
    file.write_text(f"{text}\n", encoding="utf-8", newline="\n")
