"""Every exception this package raises on purpose, and nothing else.

::

    WebSocketError
    ├── ConfigError        (also ValueError)   a setting, route or handler is wrong; raised at start
    ├── ConnectionClosed                       the socket has ended: .code, .reason
    ├── BadMessage         (also ValueError)   a message is not what it should be; unhandled: 1007
    ├── MessageTooBig      (also ValueError)   what *you* send is over the limit that is named
    ├── TooManyRooms                           a socket would be in more rooms than allowed
    ├── BrokerRequired                         other processes have sockets that a send cannot reach
    ├── BrokerUnavailable                      what carries messages between processes is away
    └── Refused                                raise it in an authenticator to refuse an upgrade

An exception that is not in this tree and comes out of this package is a bug in it.
`TimeoutError`, `TypeError` and `ValueError` keep their usual meaning where a docstring names them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BadMessage",
    "BrokerRequired",
    "BrokerUnavailable",
    "ConfigError",
    "ConnectionClosed",
    "MessageTooBig",
    "Refused",
    "TooManyRooms",
    "WebSocketError",
]


class WebSocketError(Exception):
    """The root of the tree: catch it to catch all that is ours."""


class ConfigError(WebSocketError, ValueError):
    """A setting, a route or a handler is wrong. Raised when it is given, or when a door opens."""


class ConnectionClosed(WebSocketError):  # noqa: N818 - the name that `websockets` made standard
    """The socket has ended.

    `code` and `reason` are those of the close frame that ended it; 1006 where there was none
    (RFC 6455 section 7.1.5), 1005 where the frame had no code.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class BadMessage(WebSocketError, ValueError):  # noqa: N818 - says what it is about
    """A message is not what it should be: not JSON, lone surrogates, a NaN.

    Left unhandled in a handler, the socket closes with 1007 and no traceback is logged: the fault
    is the peer's.
    """


class MessageTooBig(WebSocketError, ValueError):  # noqa: N818 - says what it is about
    """What you asked to send is over a limit; the text names the limit and the setting."""


class TooManyRooms(WebSocketError):  # noqa: N818 - says what it is about
    """A socket would be in more rooms than `Limits.rooms_per_socket`."""


class BrokerRequired(WebSocketError):  # noqa: N818 - says what to do
    """Sibling processes have sockets too, and nothing carries messages to them.

    Raised by the first send to an audience, so that it does not lose a part of them in silence.
    """


class BrokerUnavailable(WebSocketError):  # noqa: N818 - says what it is about
    """The broker has not taken a message in time, or cannot be reached; the text says which.

    In a process that serves sockets it is in a send's receipt, and the sockets of that process have
    the message; in any other process the send itself raises it.
    """


class Refused(WebSocketError):  # noqa: N818 - it is an answer, not a fault
    """Raise it in an authenticator: the upgrade is answered with it, as it is.

    `status` is an HTTP status from 400 to 599; `code` is the stable word that goes to the peer in
    the problem document, where no `body` of your own is given.
    """

    def __init__(
        self,
        status: int = 403,
        code: str = "refused",
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        why: str = "",
    ) -> None:
        if not 400 <= status <= 599:  # noqa: PLR2004 - RFC 9110 section 15.5 and 15.6
            msg = f"Refused(status=...) takes an HTTP error status, 400 to 599, not {status}"
            raise ValueError(msg)
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.headers = tuple(headers)
        self.body = body
        #: For the log only, never sent.
        self.why = why
