"""A page of documentation, taken apart: what can be run in it, in order, and its tables.

A page is a script for the tests. Its fences are run as `blocks.py` says; a comment that does not
show when the page is rendered says what a fence alone cannot:

    <!-- test: file app.py -->      the next block is saved under this name, not run
    <!-- test: serve app.py -->     saved, and started as a program that runs to the end of the page
    <!-- test: pytest test_x.py --> saved, and run by pytest
    <!-- test: raises -->           the next block must raise
    <!-- test: error -->            the next block is what a traceback says of that exception
    <!-- test: log -->              the next block's lines are in the log, in this order
    <!-- test: value EXPRESSION --> the next block is the value of the expression

    <!-- test: run                  hidden code, run at this place of the page
    assert ...
    -->

Commands are looked at, but not run, unless a comment says so. What they `export` counts for all
that come after:

    <!-- test: begin -->            the next command is started, and runs to the end of the page
    <!-- test: command 1 -->        the next commands are run, and end with this code; without: 0
    <!-- test: output -->           the next block is what the last of them has printed, but for
                                    the widths of columns

    <!-- test: redis -->            from here on there is a Redis at localhost:6379, as far as this
                                    page can tell; hidden code has it as `redis_server`. No block
                                    follows
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Block", "Table", "read_blocks", "read_tables"]

ROOT = Path(__file__).resolve().parents[2]

#: Every page there is. Those in docs/ are found, so that a new one cannot be forgotten.
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])

#: What a comment may ask for.
DIRECTIVES = frozenset(
    {
        *("file", "serve", "pytest", "raises", "error", "log", "value", "run"),
        *("begin", "command", "output", "redis"),
    }
)

_FENCE = re.compile(r" {0,3}(?P<marks>`{3,}|~{3,})\s*(?P<language>[^\s`]*)[^`]*")
_COMMENT = re.compile(r"<!-- test: (?P<directive>\w+) ?(?P<argument>.*?)(?P<end>-->)?\s*")


@dataclass(frozen=True)
class Block:
    """A fence, or hidden code, with what the comment before it asked for."""

    language: str
    code: str
    #: Of its first line of code, from 1.
    line: int
    directive: str = ""
    argument: str = ""


def read_blocks(page: Path) -> list[Block]:
    """Every fence and every piece of hidden code of a page, in order."""
    return list(_Reader(page).blocks())


class _Reader:
    def __init__(self, page: Path) -> None:
        self._name = page.name
        self._lines = page.read_text(encoding="utf-8").splitlines()
        self._at = 0

    def blocks(self) -> list[Block]:
        found: list[Block] = []
        waiting: tuple[str, str] | None = None
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            if comment := _COMMENT.fullmatch(line):
                assert waiting is None, self._say("two comments before one block")
                waiting = self._directive(comment)
                if waiting[0] == "run":
                    assert comment["end"] is None, self._say("hidden code begins on the next line")
                    found.append(self._until("-->", "python", waiting))
                    waiting = None
                elif waiting[0] == "redis":
                    found.append(Block("", "", self._at, *waiting))
                    waiting = None
            elif fence := _FENCE.fullmatch(line):
                found.append(self._until(fence["marks"], fence["language"], waiting or ("", "")))
                waiting = None
            else:
                assert "<!-- test" not in line, self._say(
                    "a comment for the tests has its own line"
                )
                assert waiting is None or not line.strip(), self._say("no block after the comment")
        assert waiting is None, self._say("no block after the comment")
        return found

    def _directive(self, comment: re.Match[str]) -> tuple[str, str]:
        assert comment["directive"] in DIRECTIVES, self._say(f"no directive {comment['directive']}")
        return comment["directive"], comment["argument"].strip()

    def _until(self, end: str, language: str, asked: tuple[str, str]) -> Block:
        first = self._at
        while self._lines[self._at].strip() != end:
            self._at += 1
            assert self._at < len(self._lines), self._say(f"no {end} for what begins at {first}")
        code = "\n".join(self._lines[first : self._at]) + "\n"
        self._at += 1
        return Block(language, code, first + 1, *asked)

    def _say(self, text: str) -> str:
        return f"{self._name}:{self._at}: {text}"


@dataclass(frozen=True)
class Table:
    """A table, under the heading it stands under."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> list[str]:
        """The cells of a column, without the ticks of code."""
        at = self.columns.index(name)
        return [row[at].strip("`") for row in self.rows]

    def by(self, *names: str) -> dict[str, dict[str, str]]:
        """The rows by the first of these columns, each with the others."""
        columns = {name: self.column(name) for name in names}
        keys = columns[names[0]]
        assert len(set(keys)) == len(keys), f"{self.heading}: a row comes twice"
        return {
            key: {name: columns[name][number] for name in names} for number, key in enumerate(keys)
        }


def read_tables(page: Path) -> dict[str, Table]:
    """The tables of a page by their headings; the first one under each."""
    tables: dict[str, Table] = {}
    heading = ""
    rows: list[tuple[str, ...]] = []
    for line in [*page.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("#"):
            heading = line.lstrip("# ").replace("`", "")
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            rows.append(tuple(cell.strip().replace("\\|", "|") for cell in cells))
        elif rows:
            assert all(len(row) == len(rows[0]) for row in rows), f"{heading}: a ragged table"
            tables.setdefault(heading, Table(heading, rows[0], tuple(rows[2:])))
            rows = []
    return tables
