"""The websocket of a `def` conversation, which has a thread to itself and may block it."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final

from .codec import load_json
from .errors import ConnectionClosed
from .receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .websocket import WebSocket

__all__ = ["BlockingWebSocket"]

#: Seconds that a loop which is blocked by somebody's handler may hold up a `receive`.
_LOOP: Final = 1.0


class BlockingWebSocket:
    """A WebSocket for a `def` conversation: `receive` blocks the thread it runs in.

    Everything else is that of `WebSocket`, which it wraps.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        #: A message asked for and not yet come: kept over a timeout, so that nothing is lost.
        self._asked: Receipt[str | bytes] | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the wrapped websocket's
        return getattr(self._websocket, name)

    def __repr__(self) -> str:
        return repr(self._websocket).replace("WebSocket", "BlockingWebSocket", 1)

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message.

        Args:
            timeout: seconds to wait at most; 0, or less, takes one that has come already. `None`
                waits for as long as it takes.

        Raises:
            TimeoutError: none came in time. Nothing is lost: the next call returns it.
            ConnectionClosed: the socket has ended, and all that came before has been taken.
        """
        if self._asked is None:
            self._asked = self._ask()
        receipt, wait = self._asked, timeout
        if timeout is not None:
            wait = min(max(timeout, 0.0), threading.TIMEOUT_MAX)
        try:
            message = receipt.result(wait)
        except TimeoutError:
            self._hear_loop()
            if not receipt.done:
                msg = f"no message came within {timeout:g} s"
                raise TimeoutError(msg) from None
            message = receipt.result()
        self._asked = None
        return message

    def _hear_loop(self) -> None:
        """Wait until the loop has dealt with what it was asked for.

        Messages lie with the loop, and a short timeout may end before it has looked: then one that
        was there would be found or missed by chance.
        """
        heard: Receipt[None] = Receipt()
        if self._websocket.link.run(lambda: heard.resolve(None)):
            with contextlib.suppress(TimeoutError):
                heard.result(_LOOP)

    def _ask(self) -> Receipt[str | bytes]:
        receipt: Receipt[str | bytes] = Receipt()
        websocket = self._websocket

        def take() -> None:
            if websocket.inbox:
                websocket.inbox.on_message = None
                receipt.resolve(websocket.inbox.take())
                websocket.link.resume()
            elif websocket.closed:
                websocket.inbox.on_message = None
                receipt.fail(ConnectionClosed(websocket.close_code or 1006, websocket.close_reason))
            else:
                websocket.inbox.on_message = take
                websocket.inbox.in_hand = False
                websocket.link.resume()

        if not websocket.link.run(take):
            receipt.fail(ConnectionClosed(websocket.close_code or 1006, websocket.close_reason))
        return receipt

    def receive_json(self, timeout: float | None = None) -> Any:  # noqa: ANN401 - it is JSON
        """Return what the next message holds, as JSON; raises as `WebSocket.receive_json`."""
        return load_json(self.receive(timeout))

    def __iter__(self) -> Iterator[str | bytes]:
        """Iterate over the messages until the socket ends."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosed:
                return
            yield message

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the connection is gone; what arrives meanwhile is thrown away.

        Raises:
            TimeoutError: it is not, after `timeout` seconds.
        """
        receipt: Receipt[None] = Receipt()
        websocket = self._websocket

        def wait() -> None:
            websocket.inbox.discarding = True
            websocket.inbox.clear()
            websocket.inbox.in_hand = False
            websocket.link.resume()
            websocket.link.when_gone(receipt)

        if websocket.link.run(wait):
            receipt.result(timeout)
