"""What one process has asked the others, and what has come back so far. Sans-IO.

Nobody has a list of all processes. But a broker that can tell how many have heard the question
tells how many answers there will be; one that cannot is waited for to the end.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.errors import BrokerUnavailable
from ws_middleware.receipt import Receipt

from .envelope import Ask

if TYPE_CHECKING:
    from .envelope import Question
    from .registry import Address

__all__ = ["PATIENCE", "Answers", "Questions", "total_of"]

#: Seconds that a process has for its answer: it may be busy, but whoever asks waits.
PATIENCE: Final = 2.0


@dataclass(frozen=True)
class Answers:
    """What other processes have answered."""

    values: tuple[Any, ...] = ()
    #: How many have heard the question and not answered in time; `None` where that is not known.
    missing: int | None = 0


@dataclass
class _Pending:
    receipt: Receipt[Answers] = field(default_factory=Receipt)
    values: list[Any] = field(default_factory=list)
    #: How many answers there will be, once it is known.
    wanted: int | None = None


class Questions:
    """Those of one process that are not settled yet. On one loop, or in one thread."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._pending: dict[str, _Pending] = {}

    def add(self, question: Question, address: Address | None) -> tuple[Ask, Receipt[Answers]]:
        """Return what to ask, and the receipt that will have the answers."""
        ask = Ask(f"{next(self._numbers):x}", question, address)
        pending = self._pending[ask.id] = _Pending()
        return ask, pending.receipt

    def expect(self, ask: Ask, wanted: int) -> None:
        """Hear how many answers there will be."""
        if pending := self._pending.get(ask.id):
            pending.wanted = wanted
            self._look(ask.id, pending)

    def take(self, id: str, value: object) -> None:  # noqa: A002 - what it is
        """Take an answer; one that comes too late, or to nothing that was asked, is nothing."""
        if pending := self._pending.get(id):
            pending.values.append(value)
            self._look(id, pending)

    def _look(self, id: str, pending: _Pending) -> None:  # noqa: A002
        if pending.wanted is not None and len(pending.values) >= pending.wanted:
            self._settle(id, missing=0)

    def give_up(self, ask: Ask) -> None:
        """Settle with what has come: the time is over."""
        if pending := self._pending.get(ask.id):
            known = pending.wanted is not None
            self._settle(ask.id, (pending.wanted or 0) - len(pending.values) if known else None)

    def _settle(self, id: str, missing: int | None) -> None:  # noqa: A002
        pending = self._pending.pop(id)
        pending.receipt.resolve(Answers(tuple(pending.values), missing))

    def fail(self, ask: Ask, error: Exception) -> None:
        """It could not be asked."""
        if pending := self._pending.pop(ask.id, None):
            pending.receipt.fail(error)


def total_of(answers: Answers) -> int:
    """Return the sum of what all have counted; of those that were heard, where nobody knows all.

    Raises:
        BrokerUnavailable: one has not answered.
    """
    if answers.missing:
        known = len(answers.values)
        msg = f"{answers.missing} of {answers.missing + known} other processes did not answer"
        raise BrokerUnavailable(msg)
    return sum(each for each in answers.values if type(each) is int and each >= 0)
