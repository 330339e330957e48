"""docs/asgi-servers.md: the words of page.md, and the matrix of one run.

Written where `MATRIX_PAGE=docs/asgi-servers.md` is set and every question has been asked:
`MATRIX_PAGE=docs/asgi-servers.md make test ARGS=tests/asgi`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.asgi.expected import EXPECTED
from tests.asgi.questions import GROUPS, QUESTIONS
from tests.asgi.servers import NAMES, STARTS, version_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.asgi.expected import Expected
    from tests.asgi.questions import Question

__all__ = ["WORDS", "cell", "notes", "render"]

OK: Final = "ok"
NOT_ASKED: Final = ""

#: The words around the tables.
WORDS: Final = Path(__file__).with_name("page.md").read_text(encoding="utf-8")


def notes() -> dict[Expected, int]:
    """Return the number of each no, in the order in which the tables come to them."""
    found: dict[Expected, int] = {}
    for each in QUESTIONS:
        for server in each.servers:
            expected = EXPECTED.get((each.name, server))
            if expected is not None:
                found.setdefault(expected, len(found) + 1)
    return found


def cell(each: Question, server: str) -> str:
    """Return what the page has for a question to a server."""
    if server not in each.servers:
        return NOT_ASKED
    expected = EXPECTED.get((each.name, server))
    return OK if expected is None else f"[{notes()[expected]}](#notes)"


def render(results: Mapping[tuple[str, str], str]) -> str:
    """Return the page.

    Raises:
        ValueError: a question was not asked, or its answer is not the one that was expected.
    """
    for each in QUESTIONS:
        for server in each.servers:
            expected = EXPECTED.get((each.name, server))
            wanted = {"ok"} if expected is None else {"no"} if expected.is_certain else {"ok", "no"}
            if results.get((each.name, server)) not in wanted:
                msg = f"{each.name} on {server}: {results.get((each.name, server), 'not asked')}"
                raise ValueError(msg)
    parts = {"{servers}": _servers(), "{matrix}": _matrix(), "{notes}": _notes()}
    lines: list[str] = []
    for line in WORDS.splitlines():
        lines += parts.get(line, [line])
    return "\n".join([*lines, ""])


def _servers() -> list[str]:
    rows = [f"| {name} | {version_of(name)} | {STARTS[name]} |" for name in NAMES]
    head = [
        "## Servers",
        "",
        "| name here | tested with | how it was started |",
        "| --- | --- | --- |",
    ]
    return [*head, *rows]


def _matrix() -> list[str]:
    lines = []
    for group in GROUPS:
        asked = [each for each in QUESTIONS if each.group == group]
        servers = [name for name in NAMES if any(name in each.servers for each in asked)]
        lines += [
            f"## {group}",
            "",
            f"| | {' | '.join(servers)} |",
            "| --- " * (len(servers) + 1) + "|",
        ]
        for each in asked:
            cells = " | ".join(cell(each, name) for name in servers)
            lines.append(f"| {each.label} | {cells} |")
        lines.append("")
    return lines[:-1]


def _notes() -> list[str]:
    head = ["## Notes", "", "| | where | why | what to do |", "| --- | --- | --- | --- |"]
    rows = []
    for expected, number in notes().items():
        there = {server for (_, server), each in EXPECTED.items() if each == expected}
        where = ", ".join(name for name in NAMES if name in there)
        rows.append(f"| {number} | {where} | {expected.reason} | {expected.remedy} |")
    return [*head, *rows]
