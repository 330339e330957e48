"""Which settings hold behind which door: the one table of that.

`misfits` warns by it of what was set in vain, and docs/settings.md shows it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from .doors import Cell, Door, Row, Who

if TYPE_CHECKING:
    from collections.abc import Callable

    from .doors import Holds

__all__ = ["EVERYWHERE", "TABLE"]


def _same(value: Any, bound: Any) -> bool:  # noqa: ANN401 - of any setting
    return bool(value == bound)


def _fits(value: Any, bound: Any) -> bool:  # noqa: ANN401
    """Whether the server lets through what we would; 0 is no bound."""
    return bound == 0 or (value is not None and bound is not None and value <= bound)


def _is_tighter(value: Any, bound: Any) -> bool:  # noqa: ANN401
    return bound is not None and 0 < bound <= value


def _never(_: object, __: object) -> bool:
    return False


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _or_zero(value: float | None) -> str:
    return "0" if value is None else _plain(value)


def _whole(value: float) -> str:
    return str(math.ceil(value))


def _zero(_: object) -> str:
    return "0"


def _year(_: object) -> str:
    """Return what is as good as never."""
    return str(365 * 86_400)


def _buffer(value: int) -> str:
    """Return a size of granian's buffer, which has a least one."""
    return str(max(value, 8192))


def _milliseconds(value: float) -> str:
    return str(math.ceil(value * 1000))


_OURS: Final = Cell(Who.OURS)
_NEEDLESS: Final = Cell(Who.NEEDLESS)
_FIXED: Final = Cell(Who.SERVERS)
_NO: Final = Cell(Who.NOBODYS)


def _ours(note: str, holds: Holds | None = None, **more: Any) -> Cell:  # noqa: ANN401
    return Cell(Who.OURS, note=note, holds=holds, **more)


def _option(option: str, **more: Any) -> Cell:  # noqa: ANN401
    return Cell(Who.SERVERS, option, **more)


#: Names of the servers in the rows.
_SERVERS: Final = {
    "ours": Door.UVICORN_OURS,
    "uvicorn": Door.UVICORN,
    "hypercorn": Door.HYPERCORN,
    "daphne": Door.DAPHNE,
    "granian": Door.GRANIAN,
    "gunicorn": Door.GUNICORN,
    "other": Door.OTHER,
}


def _row(
    why: str,
    *,
    own: Cell = _OURS,
    wsgi: Cell = _OURS,
    asgi: Cell = _OURS,
    guard: str = "",
    is_largest: bool = False,
    **servers: Cell,
) -> Row:
    """Make a row; `asgi` is the cell of each ASGI server that is not named."""
    by_server = {door: servers.get(name, asgi) for name, door in _SERVERS.items()}
    return Row(why, {Door.OWN_PORT: own, Door.WSGI: wsgi, **by_server}, guard, is_largest)


_ASSEMBLES: Final = "it puts messages together itself, and closes at a bound of its own before ours"
_COUNTS_NO_FRAMES: Final = "it puts messages together itself, and counts no frames"
_READS_HEAD: Final = "it reads the head of the request itself"
_PINGS: Final = "the pings are its own"
_SENDS_NONE: Final = Cell(Who.NOBODYS, why="it sends no pings")
_TAKES_ALL: Final = "its send() never waits: what a client does not take is kept in its memory"
_READS_ON: Final = "it reads on into its own memory, whatever is not taken"

_OUR_CLASS: Final = "Or serve with --ws ws_middleware.uvicorn:WebSocketProtocol, where it holds"
_HEAD_NOTE: Final = (
    "WSGI servers have names of their own for it: waitress `max_request_header_size`, uWSGI "
    "`buffer-size`. On a port of our own, `sockets.listen()`, ours hold."
)
_BOUND_NOTE: Final = (
    "Ours for whole messages; the server's own bound, {}, comes first where it is lower."
)
_THRICE: Final = "Three times as long, for whether a single send makes progress cannot be seen."
_HUBS_OWN: Final = "what the hub sends; the app's own sends wait"
_NAMED: Final = "where the guard names it"
_MIB: Final = 1024**2


def _bounded(option: str, setting: str = "", bound: int = 16 * _MIB, **more: Any) -> Cell:  # noqa: ANN401
    named = f"`{option}`" if option else "64 MiB, and 16 MiB for a frame"
    note = _BOUND_NOTE.format(named)
    return _ours(note, _fits, option=option, setting=setting, bound=bound, **more)


def _ping_option(option: str, setting: str, write: Callable[[Any], str], remedy: str = "") -> Cell:
    return _option(option, setting=setting, write=write, holds=_same, remedy=remedy)


#: What is kept on gunicorn alike by all of its workers: per line, so that no value is the same.
_LINES: Final = "--limit-request-line and --limit-request-field_size"
_FIELDS: Final = _option(
    "--limit-request-fields", setting="limit_request_fields", holds=_is_tighter, write=_plain
)
_NOT_H2: Final = _ours("Over HTTP/2 its `send()` never waits, as little as daphne's.")
_H11: Final = _option(
    "--h11-max-incomplete-event-size",
    write=_plain,
    note="With `--http h11`.",
    remedy="The option holds only with --http h11",
)
_WAITS_FOREVER: Final = Cell(
    Who.NOBODYS,
    note="A proxy before it does: nginx by `client_header_timeout`, 60 s if nothing is said.",
    remedy="Have a proxy before it do so: nginx's client_header_timeout",
    why="it waits for the head of a request without end",
)
_CLOSE_NOTE: Final = (
    "Ours until the close frame is out; for the answer the server has its own time."
)
_DAPHNE_PINGS: Final = "Its --ping-interval and --ping-timeout end such a client"
_PROXIES: Final = (
    "{} has replaced the client's address before, where its peer is in {} if nothing is said."
)
_BARE_403: Final = Cell(
    Who.NOBODYS,
    note='`"close"` holds; `"http"` is a bare 403.',
    remedy='With refuse_with="close" clients are told 4401 and the like',
    holds=_same,
    bound="close",
)

#: Every setting whose meaning a door can change. In the words of the classes in `config`.
TABLE: Final[dict[str, Row]] = {
    "Limits.message_size": _row(
        _ASSEMBLES,
        guard=_NAMED,
        is_largest=True,
        ours=_bounded("--ws-max-size", "ws_max_size", write=_plain),
        uvicorn=_bounded("--ws-max-size", "ws_max_size", write=_plain),
        hypercorn=_bounded(
            "websocket_max_message_size", "websocket_max_message_size", write=_plain
        ),
        daphne=_bounded(
            "--websocket-max-message-size",
            "websocket_max_message_size",
            _MIB,
            write=_or_zero,
            remedy="And --websocket-max-frame-size to as much",
        ),
        granian=_bounded(""),
        gunicorn=_bounded(
            "--websocket-max-message-size", "websocket_max_message_size", write=_or_zero
        ),
    ),
    "Limits.fragments": _row(
        _COUNTS_NO_FRAMES,
        asgi=_NO,
        ours=Cell(
            Who.SERVERS,
            "--ws-max-size",
            why="its bound for frames is a part of that for bytes",
            note="A 64th of it, and 1,024 at the least.",
            remedy="A 64th of it is how many there may be, and 1,024 at the least",
        ),
    ),
    "Limits.inbound_messages": _row(_READS_ON, daphne=_NO),
    "Limits.inbound_bytes": _row(_READS_ON, daphne=_NO),
    "Limits.outbound_bytes": _row(_TAKES_ALL, guard=_HUBS_OWN, hypercorn=_NOT_H2, daphne=_NO),
    "Limits.outbound_messages": _row(_TAKES_ALL, guard=_HUBS_OWN, hypercorn=_NOT_H2, daphne=_NO),
    "Limits.write_timeout": _row(
        _TAKES_ALL,
        is_largest=True,
        asgi=_ours(_THRICE),
        ours=_ours(
            f"{_THRICE} And 10 s in any case, of the class itself.",
            _fits,
            bound=10,
            why="a client that takes nothing is given up after 10 s, by the class itself",
        ),
        daphne=Cell(Who.NOBODYS, note="Its `send()` never waits.", remedy=_DAPHNE_PINGS),
    ),
    "Limits.close_timeout": _row(
        "once the close frame is out, how long the client may take to answer is its own",
        asgi=Cell(Who.SERVERS, note=_CLOSE_NOTE),
        ours=Cell(Who.SERVERS, note=_CLOSE_NOTE, holds=_same, bound=5),
    ),
    "Limits.rooms_per_socket": _row(""),
    "Limits.connections_per_user": _row("", guard=_NAMED),
    "Heartbeat.interval": _row(
        _PINGS,
        asgi=_SENDS_NONE,
        ours=_OURS,
        uvicorn=_ping_option("--ws-ping-interval", "ws_ping_interval", _plain, _OUR_CLASS),
        hypercorn=_ping_option("--websocket-ping-interval", "websocket_ping_interval", _whole),
        daphne=_ping_option("--ping-interval", "ping_interval", _whole),
        other=_FIXED,
    ),
    "Heartbeat.timeout": _row(
        _PINGS,
        asgi=_SENDS_NONE,
        ours=_OURS,
        uvicorn=_ping_option("--ws-ping-timeout", "ws_ping_timeout", _plain, _OUR_CLASS),
        hypercorn=_NO,
        daphne=_ping_option("--ping-timeout", "ping_timeout", _whole),
        other=_FIXED,
    ),
    "Heartbeat.app_ping": _row("", own=_NEEDLESS, wsgi=_NEEDLESS, ours=_NEEDLESS),
    "Heartbeat.app_pong": _row("", own=_NEEDLESS, wsgi=_NEEDLESS, ours=_NEEDLESS),
    "heartbeat=None": _row(
        _PINGS,
        asgi=_NEEDLESS,
        ours=_OURS,
        uvicorn=_option("--ws-ping-interval", note="With 0.", write=_zero, remedy=_OUR_CLASS),
        daphne=_option("--ping-interval", note="It has no word for never.", write=_year),
        other=_FIXED,
    ),
    "ServerLimits.head_size": _row(
        _READS_HEAD,
        wsgi=_option(_LINES, note=_HEAD_NOTE),
        asgi=_FIXED,
        ours=_H11,
        uvicorn=_H11,
        hypercorn=_option(
            "h11_max_incomplete_size",
            setting="h11_max_incomplete_size",
            holds=_is_tighter,
            write=_plain,
        ),
        granian=_option("--http1-buffer-size", write=_buffer),
        gunicorn=_option(_LINES),
    ),
    "ServerLimits.head_fields": _row(_READS_HEAD, wsgi=_FIELDS, asgi=_FIXED, gunicorn=_FIELDS),
    "ServerLimits.head_timeout": _row(
        _READS_HEAD,
        wsgi=Cell(Who.SERVERS, note=_HEAD_NOTE),
        asgi=_FIXED,
        ours=_WAITS_FOREVER,
        uvicorn=_WAITS_FOREVER,
        granian=_option("--http1-header-read-timeout", write=_milliseconds),
        gunicorn=_WAITS_FOREVER,
    ),
    "ServerLimits.upgrade_timeout": _row(
        "it ends a connection that is not accepted in time",
        wsgi=_ours("A `def` has as long as the server gives its thread."),
        daphne=_ours(
            "Its own `--websocket_connect_timeout`, 5 s, comes first where it is lower.",
            _fits,
            option="--websocket_connect_timeout",
            setting="websocket_connect_timeout",
            bound=5,
            write=_whole,
        ),
    ),
    "ServerLimits.connections": _row(""),
    "ServerLimits.undecided": _row(""),
    "refuse_with": _row(
        "it cannot answer an upgrade with HTTP: every refusal is a bare 403",
        guard="ours; what the app refuses by itself is HTTP",
        daphne=_BARE_403,
        gunicorn=_BARE_403,
        other=_ours("Where the server has `websocket.http.response`; else a bare 403."),
    ),
    "slow": _row(_TAKES_ALL, guard=_HUBS_OWN, hypercorn=_NOT_H2, daphne=_NO),
    "trusted_proxies": _row(
        "",
        ours=_ours(_PROXIES.format("uvicorn", "`--forwarded-allow-ips`, which is 127.0.0.1")),
        uvicorn=_ours(_PROXIES.format("uvicorn", "`--forwarded-allow-ips`, which is 127.0.0.1")),
        daphne=_ours("With `--proxy-headers` daphne has replaced the client's address before."),
    ),
    "auth_threads": _row(
        "a def in auth or authorize runs in the thread that has the request",
        wsgi=_option("--threads", note="A `def` runs in the server's thread."),
    ),
    "drain_over": _row(
        "at its end it closes its clients by itself, or drops them, all at once",
        own=_ours(
            "By `ws-middleware serve`, if it has no `--drain-over`; in a process of your own call "
            "`sockets.close(over=...)`."
        ),
        asgi=_ours(
            "With `drain_on_sigterm=True`; else call `sockets.close(code=1012, over=...)` before "
            "the server is told to end.",
            _never,  # for what holds is not asked: see `misfits`
            remedy="Set drain_on_sigterm=True, or call sockets.close(code=1012, over=...) before "
            "the server is told to end",
        ),
    ),
    "drain_on_sigterm": _row(
        "",
        own=_NEEDLESS,
        wsgi=_NEEDLESS,
        asgi=_ours("Where SIGTERM can be held back; else there is a WARNING at the start."),
    ),
    "tls_takeover": _row("", own=_NEEDLESS, asgi=_NEEDLESS),
    "abort_by_descriptor": _row(
        "",
        own=_NEEDLESS,
        wsgi=_NEEDLESS,
        asgi=_ours("On Linux, over HTTP/1.1, where the server tells the client's own address."),
        ours=_NEEDLESS,
    ),
}

#: Settings of an app that mean the same behind every door.
EVERYWHERE: Final = (
    "auth",
    "authorize",
    "origins",
    "allowed_hosts",
    "gap",
    "broker",
    "prefix",
    "broker_secret",
    "sync_threads",
    "sync_conversations",
    "disabled",
)
