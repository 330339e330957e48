"""`python -m tests.conformance`: the suite against our echo server, and uvicorn with our core.

Exit status: 0 all passed, 1 the server failed a case or the list of refusals is stale, 2 the run
could not be made.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import HarnessError
from .grading import PUBLISHED_REFUSALS, Report
from .results_page import Row, write_page
from .server_process import echo_server
from .suite import ROOT, SETS, Suite, check_url, select_cases, suite_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

PAGE = ROOT / "docs" / "conformance.md"

#: Which refusals are right under which limits. Raised ones have room for every case, and so has
#: uvicorn with our core as its WebSocket protocol.
REFUSALS: dict[str, tuple[str, ...]] = {
    "raised": (),
    "default": PUBLISHED_REFUSALS,
    "uvicorn": (),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do all the runs and return the exit status."""
    options = _options(arguments)
    try:
        rows = _runs(options)
        if options.write_docs:
            write_page(PAGE, rows, options.set)
    except HarnessError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    return 0 if all(report.passed for row in rows for report in row.reports) else 1


def _runs(options: argparse.Namespace) -> list[Row]:
    _check(options)
    directory = suite_directory(options.dir, os.environ)
    suite = Suite(directory)
    rows = []
    for limits in options.limits:
        with _server(options.url, limits, directory) as url:
            numbers = range(1, options.runs + 1)
            rows.append(Row(limits, [_run(suite, options, limits, url, n) for n in numbers]))
    return rows


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot be run before the time that a set-up takes."""
    select_cases(options.set)
    if options.url is not None:
        check_url(options.url)


def _server(url: str | None, limits: str, directory: Path) -> AbstractContextManager[str]:
    if url is not None:
        return contextlib.nullcontext(url)
    return echo_server(limits, directory / f"server-{limits}.log")


def _run(suite: Suite, options: argparse.Namespace, limits: str, url: str, number: int) -> Report:
    report = suite.run(limits, url, options.set, REFUSALS[limits])
    for line in report.lines():
        print(line)
    print(f"{limits} limits, run {number} of {options.runs}: {report.summary()}", flush=True)
    return report


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    if options.write_docs and (options.url or options.limits or options.set not in SETS):
        parser.error("--write-docs publishes whole runs: not with --url, --limits or single cases")
    # A server that runs already has one kind of limits, and only its owner knows which.
    limits = options.limits or ("raised" if options.url else None)
    options.limits = [limits] if limits else list(REFUSALS)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    add = parser.add_argument
    add("--set", default="core", help=f"{', '.join(SETS)}, or cases like '1.*,7.3.1' (core)")
    add("--runs", type=int, default=1, help="how often each run is made (1)")
    add("--limits", choices=[*REFUSALS], help="only the run with these limits")
    add("--url", help="a server on this machine that runs already; taken to have raised limits")
    add("--dir", type=Path, help="where the suite lives ($AUTOBAHN_DIR, else .cache/autobahn)")
    add("--write-docs", action="store_true", help="write the results into docs/conformance.md")
    return parser


if __name__ == "__main__":
    # The default would end this process on the spot and leave the echo server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    sys.exit(main())
