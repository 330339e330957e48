"""The events of ASGI's WebSockets as every server takes them.

Servers differ: daphne raises at most close codes, others put illegal ones on the wire or cut a
reason in the middle of a character; some want just one of `text` and `bytes`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.codes import check_close
from ws_middleware.core.headers import extra_headers, problem_body, refusal_headers
from ws_middleware.types import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping, Sequence

    from ws_middleware.types import EncodedMessage

__all__ = [
    "DENIAL",
    "accept_event",
    "close_event",
    "close_refusal_events",
    "denial_events",
    "http_denial",
    "legal_close",
    "message_of",
    "payload_event",
    "refusal_of_close",
    "send_event",
]

#: What fits into a close frame beside its code (RFC 6455 section 5.5).
_REASON_BYTES: Final = 123

#: The least code that daphne sends besides 1000.
_PRIVATE: Final = 3000

#: What a denial's server adds by itself, or is told by us.
_SERVERS_OWN: Final = frozenset({b"connection", b"content-length", b"date", b"transfer-encoding"})

#: The close code of a credential that has expired.
_EXPIRED: Final = 4401

#: The extension of servers that can answer a refusal over HTTP.
DENIAL: Final = "websocket.http.response"

#: RFC 9110 sections 5.1 and 5.5.
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def _raw(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return header fields as servers want them.

    Raises:
        ValueError: a name or a value is none that HTTP allows: not every server looks.
    """
    raw = []
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            # Not the value: it may be a cookie, and this ends in logs.
            msg = f"the header {name[:40]!r} has a name or a value that HTTP does not allow"
            raise ValueError(msg)
        raw.append((name.lower().encode("latin-1"), value.strip(" \t").encode("latin-1")))
    return raw


def accept_event(subprotocol: str | None, headers: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the answer 101.

    Raises:
        ValueError: a header is none that HTTP allows.
    """
    raw = _raw(extra_headers(headers))
    return {"type": "websocket.accept", "subprotocol": subprotocol, "headers": raw}


def send_event(message: str | bytes | EncodedMessage) -> dict[str, Any]:
    """Return a message: with one of `text` and `bytes`, never both."""
    if isinstance(message, str):
        return {"type": "websocket.send", "text": message}
    if isinstance(message, bytes):
        return {"type": "websocket.send", "bytes": message}
    if message.is_text:
        return {"type": "websocket.send", "text": message.payload.decode()}
    return {"type": "websocket.send", "bytes": message.payload}


def payload_event(event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return a message of an app with one of `text` and `bytes`, and bytes as bytes.

    Raises:
        ValueError: it has neither.
    """
    text, data = event.get("text"), event.get("bytes")
    if text is not None:
        return {"type": "websocket.send", "text": text}
    if data is None:
        msg = "websocket.send needs text or bytes"
        raise ValueError(msg)
    return {"type": "websocket.send", "bytes": bytes(data)}


def message_of(event: MutableMapping[str, Any]) -> str | bytes | None:
    """Return the message of an event from the server; `None` if there is none in it."""
    if event["type"] != "websocket.receive":
        return None
    text, data = event.get("text"), event.get("bytes")
    if text is not None:
        return str(text)
    return None if data is None else bytes(data)


def legal_close(code: object, reason: object) -> tuple[int, str]:
    """Return a code that may be sent, and what of a reason fits into a close frame."""
    number = code if isinstance(code, int) else 1000
    try:
        check_close(number, "")
    except ValueError:
        number = 1000
    text = reason if isinstance(reason, str) else str(reason or "")
    return number, text.encode("utf-8", "replace")[:_REASON_BYTES].decode("utf-8", "ignore")


def close_event(code: object, reason: object, scope: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return a close that the server of `scope` sends."""
    number, text = legal_close(code, reason)
    is_daphne = "scheme" not in scope  # it raises at 1001 and most others, and goes on serving
    if is_daphne and number != 1000 and number < _PRIVATE:  # noqa: PLR2004
        number += _PRIVATE
    return {"type": "websocket.close", "code": number, "reason": text}


def close_refusal_events(
    offered: Sequence[str], code: int, reason: str, scope: MutableMapping[str, Any]
) -> list[dict[str, Any]]:
    """Return a refusal that a page's script can read: a 101 and a close frame at once."""
    # A browser that offered subprotocols fails the connection if none is chosen.
    accept = accept_event(offered[0] if offered else None, ())
    return [accept, close_event(code, reason, scope)]


def refusal_of_close(code: int, reason: str) -> Refusal:
    """Return what is said of a socket that is closed before its app has accepted it."""
    if code == _EXPIRED:
        return Refusal(401, "credential_expired", "the credential has expired")
    why = f"it was closed with {code} {reason!r} before its app had answered"
    return Refusal(503, "going_away", "closed before it was open", why, retry_after=1)


def denial_events(refusal: Refusal, scope: MutableMapping[str, Any]) -> list[dict[str, Any]]:
    """Return how a refusal is said before the 101: over HTTP where the server can, else by a close.

    In one body message, with its length: granian takes no second one.

    Raises:
        ValueError: a header is none that HTTP allows.
    """
    if DENIAL not in (scope.get("extensions") or {}):
        return [close_event(1008, refusal.code, scope)]
    body = problem_body(refusal) if refusal.body is None else refusal.body
    headers = refusal_headers(refusal, body, wall=0.0)
    return http_denial(refusal.status, _raw(headers), body, scope)


def http_denial(
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
    scope: MutableMapping[str, Any],
) -> list[dict[str, Any]]:
    """Return an HTTP answer to an upgrade request, as the extension has it."""
    own = [(name.lower(), value) for name, value in headers if name.lower() not in _SERVERS_OWN]
    if _is_granian(scope):
        own = _once_each(own)
    sent = [*own, (b"content-length", str(len(body)).encode())]
    return [
        {"type": f"{DENIAL}.start", "status": status, "headers": sent},
        {"type": f"{DENIAL}.body", "body": body},
    ]


def _is_granian(scope: MutableMapping[str, Any]) -> bool:
    """Whether it is granian's: nobody else has ports that are texts."""
    server: Any = scope.get("server") or ()
    return len(server) > 1 and isinstance(server[1], str)


def _once_each(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return them with no name twice: at such a denial granian's worker ends.

    Of cookies, which cannot be joined (RFC 6265 section 3), the last one stays.
    """
    once: dict[bytes, bytes] = {}
    for name, value in headers:
        joins = name in once and name != b"set-cookie"
        once[name] = b", ".join((once[name], value)) if joins else value
    return list(once.items())
