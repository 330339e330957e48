"""Members of one room in several workers, who talk all the time: who hears whom, and how often."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from .test_several import Members

__all__ = ["Mesh"]

#: Seconds from one message of a talker to its next.
PAUSE = 0.02


class Mesh:
    """Reads what every member hears; one member of each worker talks, in a thread. A context.

    What a talker says is `WORKER NUMBER`, each number once.
    """

    def __init__(self, members: Members) -> None:
        self._sockets = list(zip(members.owners, members.sockets, strict=True))
        #: The first socket of each worker talks. It does not hear itself.
        self._talkers = dict(reversed(self._sockets))
        self.workers = sorted(self._talkers)
        #: What each member has heard, by its place, and what one has heard again.
        self.heard: list[set[str]] = [set() for _ in self._sockets]
        self.twice: list[str] = []
        #: The highest number that somebody of a worker has heard of another: (hearer, talker).
        self._latest: Counter[tuple[str, str]] = Counter()
        self._numbers = itertools.count(1)
        self._ends = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._listen, args=(i,)) for i in range(len(self._sockets))),
            *(threading.Thread(target=self._talk, args=(each,)) for each in self.workers),
        ]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._ends.set()
        for each in self._threads:
            each.join()

    def _talk(self, worker: str) -> None:
        with suppress(ConnectionClosed):  # the server has ended
            while not self._ends.wait(PAUSE):
                self._talkers[worker].send(f"{worker} {next(self._numbers)}")

    def _listen(self, place: int) -> None:
        owner, socket = self._sockets[place]
        while not self._ends.is_set():
            try:
                text = str(socket.recv(0.2))
            except TimeoutError:
                continue
            except ConnectionClosed:
                return
            if text in self.heard[place]:
                self.twice.append(text)
            self.heard[place].add(text)
            talker, _, number = text.partition(" ")
            if number:
                self._latest[owner, talker] = max(self._latest[owner, talker], int(number))

    def until_whole(self, timeout: float) -> float:
        """Wait until each worker hears what each says from now on; return how long it took."""
        began, first = time.monotonic(), next(self._numbers)
        self.until(lambda: not self._missing(first), timeout, lambda: self._missing(first))
        return time.monotonic() - began

    def _missing(self, first: int) -> list[tuple[str, str]]:
        pairs = itertools.product(self.workers, self.workers)
        return [pair for pair in pairs if self._latest[pair] < first]

    def has_reached(self, text: str, owner: str | None = None) -> bool:
        """Whether all members have heard it, or all of one worker."""
        owners = (each for each, _ in self._sockets)
        return all(
            text in heard
            for each, heard in zip(owners, self.heard, strict=True)
            if owner in {None, each}
        )

    def until(self, done: Callable[[], object], timeout: float, why: Callable[[], object]) -> None:
        end = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < end, why()
            time.sleep(0.01)
