"""What a run of the suite says about the server: verdicts, published refusals, pass or not.

Pure: an index (as wstest writes it) goes in, a `Report` comes out.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from .errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: What the default limits (messages of 1 MiB in at most 1,024 fragments) refuse, 24 cases in all.
PUBLISHED_REFUSALS = (
    *("9.1.4", "9.1.5", "9.1.6"),
    *("9.2.4", "9.2.5", "9.2.6"),
    *("9.3.*", "9.4.*"),
)

#: A refusal is one only if the server says so: any other end of the case is a plain failure.
MESSAGE_TOO_BIG = 1009

BAD_CLOSES = frozenset({"FAILED", "WRONG CODE", "UNCLEAN"})


class Verdict(enum.StrEnum):
    """The suite's own grades, best first."""

    OK = "OK"
    INFORMATIONAL = "INFORMATIONAL"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    NON_STRICT = "NON-STRICT"
    FAILED = "FAILED"


FAILING = frozenset({Verdict.NON_STRICT, Verdict.FAILED})
QUIET = frozenset({Verdict.OK, Verdict.INFORMATIONAL})


@dataclass(frozen=True, slots=True)
class Case:
    """One case of the suite and how the server did in it."""

    id: str
    verdict: Verdict
    close: str
    code: int | None
    refused: bool = False

    def __str__(self) -> str:
        """Return the line that a run prints for this case."""
        grade = f"{self.verdict} (refused, as published)" if self.refused else self.verdict
        return f"{self.id:8} {grade}, close {self.close}, code {self.code}"


@dataclass(frozen=True, slots=True)
class Report:
    """One run of the suite."""

    cases: tuple[Case, ...]
    stale: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def refused(self) -> tuple[Case, ...]:
        """The cases that the server was known to refuse, and did."""
        return tuple(case for case in self.cases if case.refused)

    @property
    def failures(self) -> tuple[Case, ...]:
        """The cases that fail the run."""
        return tuple(c for c in self.cases if c.verdict in FAILING and not c.refused)

    @property
    def passed(self) -> bool:
        """Whether nothing failed and the list of refusals is still true."""
        return not self.failures and not self.stale

    def count(self, verdict: Verdict) -> int:
        """How many cases got this verdict, published refusals left out."""
        return Counter(c.verdict for c in self.cases if not c.refused)[verdict]

    def lines(self) -> list[str]:
        """One line for each case worth a look, and one for each stale refusal."""
        cases = [str(case) for case in self.cases if case.verdict not in QUIET]
        return cases + [f"stale refusal: {stale}" for stale in self.stale]

    def summary(self) -> str:
        """Return the run in one line."""
        counts = ", ".join(f"{self.count(verdict)} {verdict}" for verdict in Verdict)
        return (
            f"{len(self.cases)} cases in {self.seconds:.0f} s: {counts}, "
            f"{len(self.refused)} refused as published, {len(self.stale)} stale: "
            f"{'pass' if self.passed else 'FAIL'}"
        )


def grade(
    index: Mapping[str, object],
    refusals: Sequence[str] = (),
    *,
    partial: bool = False,
    seconds: float = 0.0,
) -> Report:
    """Grade an agent's part of `index.json` against the refusals that are published.

    `partial` says that only some cases were asked for, so that a refusal whose cases did not run
    is no news.
    """
    cases = tuple(_case(id_, index[id_], refusals) for id_ in sorted(index, key=_numbers))
    return Report(cases, tuple(_stale(cases, refusals, partial=partial)), seconds)


def _case(id_: str, entry: object, refusals: Sequence[str]) -> Case:
    if not isinstance(entry, dict):
        msg = f"the suite's index has no readable entry for case {id_}"
        raise HarnessError(msg)
    close = str(entry.get("behaviorClose"))
    code = entry.get("remoteCloseCode")
    verdict = worse_of(str(entry.get("behavior")), close)
    refused = verdict in FAILING and code == MESSAGE_TOO_BIG and _listed(id_, refusals)
    return Case(id_, verdict, close, code if isinstance(code, int) else None, refused)


def worse_of(behavior: str, close: str) -> Verdict:
    """Return a case's grade: what it showed or how it was closed, whichever is worse."""
    if close in BAD_CLOSES:
        return Verdict.FAILED
    try:
        return Verdict(behavior)
    except ValueError:  # "WRONG CODE", "UNCLEAN", or a word that a later suite brings
        return Verdict.FAILED


def _stale(cases: Sequence[Case], refusals: Sequence[str], *, partial: bool) -> Iterator[str]:
    """Yield what is listed as refused and is not, so that the published list stays true."""
    for pattern in refusals:
        listed = [case for case in cases if fnmatchcase(case.id, pattern)]
        if not listed and not partial:
            yield f"{pattern} (no such case ran)"
        # A listed case that failed in another way than by a refusal is among the failures already.
        yield from (f"{case.id} ({case.verdict})" for case in listed if case.verdict not in FAILING)


def _listed(id_: str, refusals: Sequence[str]) -> bool:
    return any(fnmatchcase(id_, pattern) for pattern in refusals)


def _numbers(id_: str) -> list[int]:
    return [int(number) for number in id_.split(".")]
