"""The bus's wire format: envelopes as versioned JSON.

The channel says to whom, the envelope says what, and both can be written by hand in any language
(docs/bus.md). Nothing that is read here is trusted: not its size, not its shape, and with a secret
not its sender. What cannot be read is dropped and counted; no bytes make `read` raise.

Sans-IO: `now` is wall time, in seconds since the epoch, for clocks of several machines.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeGuard, get_args

from ws_middleware.codec import dump_json, load_json
from ws_middleware.codes import check_close
from ws_middleware.errors import BadMessage
from ws_middleware.names import is_name
from ws_middleware.types import EncodedMessage

from .envelope import Answer, Ask, Beat, Close, Envelope, Question
from .registry import Address, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from .envelope import Action

__all__ = ["Dropped", "read", "write"]

#: What we write. We read the major before it, too, once there is one; any other is dropped. Fields
#: that are not known are ignored.
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


class Dropped(Enum):
    """Why an envelope was not read; the values are the words in logs and metrics."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    VERSION = "version"
    FORGED = "forged"
    STALE = "stale"


# --- writing -------------------------------------------------------------------------------------


def write(
    envelope: Envelope, *, channel: str, now: float = 0.0, secret: bytes | None = None
) -> bytes:
    """Return the bytes to publish on `channel`; with a `secret` they are signed for it."""
    fields: dict[str, Any] = {"v": VERSION, **_write_action(envelope.action)}
    if envelope.exclude:
        fields["exclude"] = sorted(envelope.exclude)
    for name in ("node", "socket"):
        if value := getattr(envelope, name):
            fields[name] = value
    if secret is None:
        return dump_json(fields).encode()
    body = dump_json({**fields, "at": round(now, 3)})
    return dump_json({"v": VERSION, "signed": body, "hmac": _sign(secret, channel, body)}).encode()


def _write_action(action: Action) -> dict[str, Any]:
    if isinstance(action, EncodedMessage):
        if action.is_text:
            return {"text": action.payload.decode()}
        return {"base64": base64.b64encode(action.payload).decode()}
    if isinstance(action, Close):
        return {"close": {"code": action.code, "reason": action.reason, "over": action.over}}
    if isinstance(action, Beat):
        return {"beat": action.number}
    if isinstance(action, Answer):
        return {"answer": {"id": action.id, "value": action.value}}
    asked: dict[str, Any] = {"id": action.id, "question": action.question}
    if action.address is not None:
        kind, name, route = action.address
        asked["at"] = {"kind": kind, "name": name, "route": route}
    return {"ask": asked}


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
    if isinstance(action, Ask) and not is_name(node):  # nobody could be answered
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


def _read_ask(value: object) -> Ask:
    if not isinstance(value, dict) or value.get("question") not in get_args(Question):
        raise TypeError
    at = value.get("at")
    address = None if at is None else _read_address(at)
    return Ask(_only_name(value.get("id")), value["question"], address)


def _read_address(value: object) -> Address:
    if not isinstance(value, dict) or value.get("kind") not in get_args(Kind):
        raise TypeError
    route = value.get("route")
    name = "" if value["kind"] == "everyone" else _only_name(value.get("name"))
    return Address(value["kind"], name, None if route is None else _only_name(route))


def _read_answer(value: object) -> Answer:
    if not isinstance(value, dict) or "value" not in value:
        raise TypeError
    return Answer(_only_name(value.get("id")), value["value"])


_ACTIONS: Final[dict[str, Callable[[object], Action]]] = {
    "text": _read_text,
    "json": _read_json,
    "base64": _read_base64,
    "close": _read_close,
    "beat": _read_beat,
    "ask": _read_ask,
    "answer": _read_answer,
}


def _only_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _only_name(value: object) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise TypeError
    return value


def _is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number that arithmetic with floats can take."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _HUGE
