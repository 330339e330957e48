"""Fields of our own answers: what may be in them, and what the host's may not."""

from __future__ import annotations

import json
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ws_middleware.types import Refusal

__all__ = ["accept_headers", "extra_headers", "problem_body", "refusal_headers", "status_phrase"]

#: Ours to say on a 101, or meaningless there; an authenticator's headers may not say them.
_NOT_ON_ACCEPT: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

#: Framing of a refusal is ours too.
_NOT_ON_REFUSAL: Final = frozenset({"connection", "content-length", "transfer-encoding", "date"})


def status_phrase(status: int) -> str:
    """Return the reason phrase; never empty, for an empty one leaves a trailing blank."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def accept_headers(
    accept: str, subprotocol: str | None, extra: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return the fields of a 101 (RFC 6455 section 4.2.2)."""
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept),
    ]
    if subprotocol is not None:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    headers.extend(extra_headers(extra))
    return headers


def extra_headers(given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return those of an authenticator's headers that may be on a 101."""
    # No Content-Type and the like: it has no content, though frameworks say of which type it is.
    return [
        (name, value)
        for name, value in given
        if name.lower() not in _NOT_ON_ACCEPT and not name.lower().startswith("content-")
    ]


def problem_body(refusal: Refusal) -> bytes:
    """Return the problem document (RFC 9457) of a refusal that brings no body of its own."""
    document = {
        "type": "about:blank",
        "title": status_phrase(refusal.status),
        "status": refusal.status,
        "detail": refusal.detail,
        "code": refusal.code,
    }
    return json.dumps(document).encode()


def refusal_headers(refusal: Refusal, body: bytes, wall: float) -> list[tuple[str, str]]:
    """Return the fields of a refusal. `wall` is the wall time in seconds, for Date."""
    ours = _NOT_ON_REFUSAL | ({"content-type"} if refusal.body is None else set())
    own = [(name, value) for name, value in refusal.headers if name.lower() not in ours]
    named = {name.lower() for name, _ in own}
    headers = [
        ("Date", formatdate(wall, usegmt=True)),
        *own,
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    if refusal.body is None:
        headers.insert(1, ("Content-Type", "application/problem+json"))
    if "cache-control" not in named:
        headers.insert(1, ("Cache-Control", "no-store"))
    if refusal.retry_after is not None and "retry-after" not in named:
        headers.insert(1, ("Retry-After", str(refusal.retry_after)))
    return headers
