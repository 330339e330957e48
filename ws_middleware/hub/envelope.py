"""The bus's wire format: what one process tells the others, as JSON on named channels.

The channel says to whom, the envelope says what, and both can be written by hand in any language
(docs/bus.md). Nothing that is read here is trusted: not its size, not its shape, and with a secret
not its sender. What cannot be read is dropped and counted; no bytes make `read` raise.

Sans-IO: `now` is wall time, in seconds since the epoch, for clocks of several machines.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeGuard
from urllib.parse import quote

from ws_middleware.codec import dump_json, load_json
from ws_middleware.codes import check_close
from ws_middleware.errors import BadMessage
from ws_middleware.types import EncodedMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from .registry import Address

__all__ = [
    "Beat",
    "Close",
    "Dropped",
    "Envelope",
    "channel_of",
    "node_channel",
    "node_of",
    "read",
    "write",
]

#: What we write. Another major is dropped; fields that are not known are ignored.
VERSION: Final = 1
_READABLE: Final = frozenset({VERSION})

#: Bytes that an envelope may have beyond its message: names, ids, signature.
_WRAPPING: Final = 64 * 1024
#: Sockets that one send may leave out.
_EXCLUDED: Final = 1000
#: Seconds that a signed envelope may be old, or ahead: clocks differ, and a replay is a forgery.
_WINDOW: Final = 60.0
#: Seconds over which closes may be spread by somebody else's word.
_LONGEST_CLOSE: Final = 3600.0
#: JSON has whole numbers that no float can hold.
_HUGE: Final = 10**15

#: What stays readable in a channel's name; a colon divides its parts.
_SAFE: Final = "/*@+=,;!$&'()"


class Dropped(Enum):
    """Why an envelope was not read; the values are the words in logs and metrics."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    VERSION = "version"
    FORGED = "forged"
    STALE = "stale"


@dataclass(frozen=True)
class Close:
    """Close the sockets, spread over `over` seconds."""

    code: int
    reason: str
    over: float = 0.0


@dataclass(frozen=True)
class Beat:
    """A sign of life that a process sends to itself."""

    number: int


Action = EncodedMessage | Close | Beat


@dataclass(frozen=True)
class Envelope:
    """One thing to do at the address that the channel stands for."""

    #: A message to deliver, what to close with, or nothing but a sign of life.
    action: Action
    #: Ids of sockets to leave out.
    exclude: frozenset[str] = frozenset()
    #: Who sent it, empty for an outsider; a node drops its own.
    node: str = ""
    #: The one socket that is meant, on a node's channel.
    socket: str = ""

    def to(self, address: Address, node: str = "") -> Envelope:
        """Return it as `node` sends it to `address`: what the channel does not say is in it."""
        return replace(self, node=node, socket=address.name if address.kind == "socket" else "")


# --- channels ------------------------------------------------------------------------------------


def channel_of(prefix: str, address: Address) -> str:
    """Return the channel of an address: `prefix:room:ROUTE:NAME`, ROUTE empty for all routes.

    A socket is reached on the channel of its node.
    """
    if address.kind == "socket":
        return node_channel(prefix, node_of(address.name))
    parts = [prefix, address.kind, quote(address.route or "", safe=_SAFE)]
    if address.name:
        parts.append(quote(address.name, safe=_SAFE))
    return ":".join(parts)


def node_channel(prefix: str, node: str) -> str:
    """Return the channel that one process listens to for itself."""
    return f"{prefix}:node:{quote(node, safe=_SAFE)}"


def node_of(socket_id: str) -> str:
    """Return the node that a socket's id begins with."""
    return socket_id.partition("-")[0]


# --- writing -------------------------------------------------------------------------------------


def write(
    envelope: Envelope, *, channel: str, now: float = 0.0, secret: bytes | None = None
) -> bytes:
    """Return the bytes to publish on `channel`; with a `secret` they are signed for it."""
    fields: dict[str, Any] = {"v": VERSION}
    action = envelope.action
    if isinstance(action, Close):
        fields["close"] = {"code": action.code, "reason": action.reason, "over": action.over}
    elif isinstance(action, Beat):
        fields["beat"] = action.number
    elif action.is_text:
        fields["text"] = action.payload.decode()
    else:
        fields["base64"] = base64.b64encode(action.payload).decode()
    if envelope.exclude:
        fields["exclude"] = sorted(envelope.exclude)
    for name in ("node", "socket"):
        if value := getattr(envelope, name):
            fields[name] = value
    if secret is None:
        return dump_json(fields).encode()
    body = dump_json({**fields, "at": round(now, 3)})
    return dump_json({"v": VERSION, "signed": body, "hmac": _sign(secret, channel, body)}).encode()


def _sign(secret: bytes, channel: str, body: str) -> str:
    """Return HMAC-SHA256 in hex (RFC 2104); the channel is in it, so that it counts only there."""
    return hmac.digest(secret, f"{channel}\n{body}".encode(), "sha256").hex()


# --- reading -------------------------------------------------------------------------------------


def read(
    data: bytes, *, channel: str, largest: int, now: float = 0.0, secret: bytes | None = None
) -> Envelope | Dropped:
    """Return what was published on `channel`, or why it is not taken.

    Args:
        data: what came.
        channel: where it came.
        largest: bytes that a message may have.
        now: wall time, for signatures.
        secret: where there is one, only what is signed with it is taken.
    """
    # Base64 is 4 bytes for 3, and a character may be written as an escape of 6.
    if len(data) > largest * 6 + _WRAPPING:
        return Dropped.OVERSIZED
    fields = _load(data)
    if isinstance(fields, Mapping) and secret is not None and fields.get("v") in _READABLE:
        fields = _open(fields, channel, now, secret)
    if isinstance(fields, Dropped):
        return fields
    envelope = _read_fields(fields)
    if isinstance(envelope, Envelope) and isinstance(envelope.action, EncodedMessage):
        return Dropped.OVERSIZED if len(envelope.action) > largest else envelope
    return envelope


def _load(data: bytes | str) -> Mapping[str, Any] | Dropped:
    try:
        fields = load_json(data)
    except BadMessage:
        return Dropped.MALFORMED
    if not isinstance(fields, dict):
        return Dropped.MALFORMED
    version = fields.get("v")
    if type(version) is not int:
        return Dropped.MALFORMED
    return fields if version in _READABLE else Dropped.VERSION


def _open(
    fields: Mapping[str, Any], channel: str, now: float, secret: bytes
) -> Mapping[str, Any] | Dropped:
    """Return what is inside of a signed envelope."""
    body, sent = fields.get("signed"), fields.get("hmac")
    if not isinstance(body, str) or not isinstance(sent, str):
        return Dropped.FORGED
    if not hmac.compare_digest(_sign(secret, channel, body).encode(), sent.encode()):
        return Dropped.FORGED
    inside = _load(body)
    if isinstance(inside, Dropped):
        return inside
    at = inside.get("at")
    if not _is_number(at):
        return Dropped.MALFORMED
    return inside if abs(now - at) <= _WINDOW else Dropped.STALE


def _read_fields(fields: Mapping[str, Any]) -> Envelope | Dropped:
    action = _read_action(fields)
    exclude = fields.get("exclude", [])
    node, socket = fields.get("node", ""), fields.get("socket", "")
    if action is None or not isinstance(node, str) or not isinstance(socket, str):
        return Dropped.MALFORMED
    if not isinstance(exclude, list) or len(exclude) > _EXCLUDED:
        return Dropped.MALFORMED
    if not all(isinstance(each, str) for each in exclude):
        return Dropped.MALFORMED
    return Envelope(action, frozenset(exclude), node, socket)


def _read_action(fields: Mapping[str, Any]) -> Action | None:
    """Return the one thing that is asked for; `None` if it is none, or more than one."""
    asked = [name for name in _ACTIONS if name in fields]
    if len(asked) != 1:
        return None
    try:
        return _ACTIONS[asked[0]](fields[asked[0]])
    except (TypeError, ValueError):
        return None


def _read_text(value: object) -> EncodedMessage:
    return EncodedMessage(_only_text(value))


def _read_json(value: object) -> EncodedMessage:
    return EncodedMessage(dump_json(value))


def _read_base64(value: object) -> EncodedMessage:
    return EncodedMessage(base64.b64decode(_only_text(value), validate=True))


def _read_close(value: object) -> Close:
    if not isinstance(value, dict):
        raise TypeError
    code, reason, over = value.get("code"), value.get("reason", ""), value.get("over", 0.0)
    if type(code) is not int or not _is_number(over):
        raise TypeError
    check_close(code, _only_text(reason))
    return Close(code, reason, float(min(max(over, 0), _LONGEST_CLOSE)))


def _read_beat(value: object) -> Beat:
    if type(value) is not int:
        raise TypeError
    return Beat(value)


_ACTIONS: Final[dict[str, Callable[[object], Action]]] = {
    "text": _read_text,
    "json": _read_json,
    "base64": _read_base64,
    "close": _read_close,
    "beat": _read_beat,
}


def _only_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number that arithmetic with floats can take."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _HUGE
