"""The results in `docs/conformance.md`: generated, so that they are never typed by hand."""

from __future__ import annotations

import datetime as dt
import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from tests.markdown import line, replace_between

from .errors import HarnessError
from .grading import Report, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BEGIN = "<!-- results: begin (written by `python -m tests.conformance --write-docs`) -->"
END = "<!-- results: end -->"

COLUMNS = ("limits", "runs", "cases", *(str(verdict) for verdict in Verdict), "refused", "result")


@dataclass(frozen=True, slots=True)
class Row:
    """All runs of one kind; the worst one stands for them."""

    limits: str
    reports: Sequence[Report]

    @property
    def worst(self) -> Report:
        """The run that did worst."""
        return max(self.reports, key=lambda r: (len(r.failures), len(r.stale)))

    def cells(self) -> list[str]:
        """Return the row as it stands in the table."""
        worst = self.worst
        numbers = [len(self.reports), len(worst.cases), *map(worst.count, Verdict)]
        result = "pass" if worst.passed else "**FAIL**"
        return [self.limits, *map(str, numbers), str(len(worst.refused)), result]


def render(rows: Sequence[Row], case_set: str, today: dt.date) -> str:
    """Render the generated block, without its markers."""
    table = [line(COLUMNS), line(["---"] * len(COLUMNS)), *(line(row.cells()) for row in rows)]
    about = f"Run on {today:%Y-%m-%d} (set `{case_set}`) with {', '.join(_versions())}."
    return "\n".join([about, "Of several runs the worst one is shown.", "", *table])


def _versions() -> list[str]:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return [python, *(f"{name} {version(name)}" for name in ("wsproto", "h11"))]


def replace_block(text: str, block: str) -> str:
    """Return `text` with `block` between the markers in place of what was there."""
    try:
        return replace_between(text, BEGIN, END, block)
    except ValueError as error:
        raise HarnessError(str(error)) from None


def write_page(page: Path, rows: Sequence[Row], case_set: str) -> None:
    """Write the results into the page."""
    today = dt.datetime.now(tz=dt.UTC).date()
    page.write_text(replace_block(page.read_text(), render(rows, case_set, today)))
