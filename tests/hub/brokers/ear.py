"""A subscriber that takes down what it hears."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Ear:
    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.connections = 0
        self.losses: list[Exception] = []
        self._changed = asyncio.Event()

    def received(self, channel: str, data: bytes) -> None:
        self.heard.append((channel, data))
        self._changed.set()

    def connected(self) -> None:
        self.connections += 1
        self._changed.set()

    def lost(self, error: Exception) -> None:
        self.losses.append(error)
        self._changed.set()

    async def until(self, done: Callable[[], object], timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout):
            while not done():
                self._changed.clear()
                await self._changed.wait()
