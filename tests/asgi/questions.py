"""How a question is put to every door and server, and which answers are known to be no.

`question` makes a test of the matrix: one cell for each server it is put to. A cell is ok, or it is
in `EXPECTED` and fails, strictly: a server that has learnt it breaks the run, until the table says
so too. `page.py` writes docs/asgi-servers.md of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from tests.asgi.expected import EXPECTED
from tests.asgi.servers import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["GROUPS", "QUESTIONS", "Question", "question"]

GROUPS: Final = ("In", "Messages", "The end", "The app's own WebSockets", "Peers and processes")


class Question(NamedTuple):
    """One row of the matrix."""

    name: str
    label: str
    group: str
    servers: tuple[str, ...]


#: All rows, in the order in which they are asked.
QUESTIONS: list[Question] = []


def question(
    group: str, label: str, *, on: Collection[str] = NAMES, slow: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a test a row of the matrix, asked of the servers in `on`.

    Args:
        group: the table it is in.
        label: what holds, for readers of the page.
        on: the servers for which the question has a meaning.
        slow: whether an answer takes more than five seconds.
    """
    assert group in GROUPS

    def mark(test: Callable[..., None]) -> Callable[..., None]:
        name = test.__name__.removeprefix("test_")
        servers = tuple(each for each in NAMES if each in on)
        QUESTIONS.append(Question(name, label, group, servers))
        cells = [pytest.param(each, marks=_marks(name, each)) for each in servers]
        pytest.mark.parametrize("server", cells, indirect=True, scope="session")(test)
        if slow:
            pytest.mark.slow(test)
        return test

    return mark


def _marks(name: str, server: str) -> list[Any]:
    expected = EXPECTED.get((name, server))
    if expected is None:
        return []
    return [pytest.mark.xfail(strict=expected.is_certain, reason=expected.reason)]
