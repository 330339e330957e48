"""The opening handshake: bytes to an `UpgradeRequest`; a 101 or a `Refusal` to bytes.

The only module that imports h11. Two things are counted here because h11 does not count them: it
limits only heads that are *incomplete*, so a head that arrives in one read has no bound, and it
has no bound on the number of fields. Whether the request is one for a WebSocket is not asked here
(`gate/upgrade.py`): this module knows HTTP, not RFC 6455 section 4.2.1.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final

import h11

from ws_middleware.types import Refusal, UpgradeRequest

from .headers import accept_headers, problem_body, refusal_headers, status_phrase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ws_middleware.config import ServerLimits

__all__ = ["HeadReader", "accept_bytes", "refusal_bytes"]

#: RFC 6455 section 1.3.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: h11 gets no more than this at once, so that it never holds much more than it may.
_SLICE: Final = 4096

#: RFC 9112 section 3 asks for at least 8,000 octets.
_REQUEST_LINE: Final = 8192

#: How a TLS handshake begins: somebody speaks https to a plain port.
_TLS_HELLO: Final = b"\x16"


class HeadReader:
    """Reads one request head. After its result it reads no more: what follows is `trailing`."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        # Our own counts decide, at exact bytes, so h11's limit must never come first.
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_size + _SLICE)
        self._fed = 0
        self._line: int | None = 0
        self._first = b""
        #: What came after the head.
        self.trailing = b""

    @property
    def started(self) -> bool:
        """Whether any byte has come."""
        return self._fed > 0

    def receive_data(self, data: bytes) -> UpgradeRequest | Refusal | None:
        """Take bytes; return the request, a refusal, or `None` while the head is incomplete.

        The request has no client, scheme or time yet: bytes do not say.
        """
        view = memoryview(data)
        while view:
            room = self._limits.head_size - self._fed
            if room == 0:
                return Refusal(431, "head_too_large", f"the head is over {self._fed} bytes")
            piece = bytes(view[: min(_SLICE, room)])
            view = view[len(piece) :]
            result = self._feed(piece)
            if result is not None:
                self.trailing += bytes(view)
                return result
        return None

    def _feed(self, piece: bytes) -> UpgradeRequest | Refusal | None:
        if not self._first:
            self._first = piece[:1]
        self._fed += len(piece)
        if self._line is not None and (refusal := self._count_line(piece)):
            return refusal
        self._h11.receive_data(piece)
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            return Refusal(
                400, "head_malformed", "this is not an HTTP/1.1 request", self._why(error)
            )
        if isinstance(event, h11.Request):
            self.trailing = self._h11.trailing_data[0]
            return self._request(event)
        return None

    def _count_line(self, piece: bytes) -> Refusal | None:
        end = piece.find(b"\n")
        assert self._line is not None
        self._line += len(piece) if end < 0 else end
        if self._line > _REQUEST_LINE:
            return Refusal(
                414, "target_too_long", f"the request line is over {_REQUEST_LINE} bytes"
            )
        if end >= 0:
            self._line = None
        return None

    def _why(self, error: Exception) -> str:
        if self._first == _TLS_HELLO:
            return "TLS on a plain port: end TLS at a proxy before this one"
        return str(error).partition(":")[0]  # what follows is the peer's own line, token and all

    def _request(self, event: h11.Request) -> UpgradeRequest | Refusal:
        if len(event.headers) > self._limits.head_fields:
            detail = f"the head has over {self._limits.head_fields} fields"
            return Refusal(431, "too_many_fields", detail)
        return UpgradeRequest(
            method=event.method.decode("ascii"),
            target=event.target.decode("latin-1"),
            http_version=event.http_version.decode("ascii"),
            head=b"\n".join(name + b":" + value for name, value in event.headers),
        )


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2, 5.4)."""
    digest = hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def accept_bytes(
    request: UpgradeRequest, *, subprotocol: str | None, headers: Iterable[tuple[str, str]]
) -> bytes:
    """Return the 101.

    Raises:
        ValueError: a field has a name or a value that HTTP does not allow (such as a line feed).
    """
    key = request.headers.get("sec-websocket-key", "")
    return _head_bytes(101, accept_headers(accept_key(key), subprotocol, headers))


def refusal_bytes(refusal: Refusal, wall: float) -> bytes:
    """Return the whole answer; `wall` is the wall time in seconds, for its Date.

    Raises:
        ValueError: a field has a name or a value that HTTP does not allow.
    """
    body = problem_body(refusal) if refusal.body is None else refusal.body
    return _head_bytes(refusal.status, refusal_headers(refusal, body, wall)) + body


def _is_sendable(name: str, value: str) -> bool:
    try:
        h11.InformationalResponse(
            status_code=101, headers=[(name.encode("latin-1"), value.encode("latin-1"))]
        )
    except (h11.LocalProtocolError, UnicodeEncodeError):
        return False
    return True


def _head_bytes(status: int, headers: list[tuple[str, str]]) -> bytes:
    """Serialise a response head; h11 refuses what would split it (RFC 9112 section 11.1)."""
    kind = h11.InformationalResponse if status < 200 else h11.Response  # noqa: PLR2004
    reason = status_phrase(status).encode()
    for name, value in headers:
        if not _is_sendable(name, value):
            # Not the value: it may be a cookie, and this ends in logs.
            msg = (
                f"the response header {name[:40]!r} has a name or a value that HTTP does not allow"
            )
            raise ValueError(msg)
    event = kind(
        status_code=status,
        headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        reason=reason,
    )
    lines = [b"HTTP/1.1 %d %s" % (status, reason)]
    lines.extend(b"%s: %s" % (name, value) for name, value in event.headers.raw_items())
    return b"\r\n".join(lines) + b"\r\n\r\n"
