"""What we log, in one place: stable words, never payloads, tokens or cookies.

Text that a peer chose is escaped and cut, so that it can neither forge a line nor fill a disk.
"""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.native import Lock, is_ours

if TYPE_CHECKING:
    from ws_middleware.core.events import Closed
    from ws_middleware.hub.counts import Counts
    from ws_middleware.native import Host
    from ws_middleware.types import Refusal, UpgradeRequest
    from ws_middleware.websocket import WebSocket

__all__ = ["Logger", "RefusalLog", "log_close", "log_open", "relay", "safe"]


class Logger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose filters and handlers, which are the app's, may raise and cost no socket.

    One that asks for the current request is in many apps, and in our threads there is none.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401
        """Log; what is raised goes where `logging` tells of lines that could not be written."""
        try:
            self.logger.log(level, msg, *args, stacklevel=2, **kwargs)
        except Exception:
            if logging.raiseExceptions:
                traceback.print_exc()


_log: Final = Logger("ws_middleware.socket")
_gate_log: Final = Logger("ws_middleware.gate")

_CUT: Final = 200

#: Refusals a second that get a line of their own; the rest are counted into the next one.
_REFUSALS_PER_SECOND: Final = 10.0


def safe(text: str, cut: int = _CUT) -> str:
    """Return `text` on one line of ASCII, at most `cut` characters of it."""
    escaped = text.encode("unicode_escape", "backslashreplace").decode("ascii")
    return escaped if len(escaped) <= cut else escaped[:cut] + "..."


def _peer(request: UpgradeRequest) -> str:
    """Return the address; where a server believes a header it is any text, so no word of ours."""
    return "-" if request.client is None else safe(request.client[0]).replace(" ", "\\x20")


def log_open(websocket: WebSocket) -> None:
    """One line for a socket that has opened."""
    request = websocket.request
    _log.info(
        "open id=%s route=%s user=%s peer=%s",
        websocket.id,
        safe(websocket.route_name),
        safe(websocket.user_id) or "-",
        _peer(request),
        extra={
            "ws_id": websocket.id,
            "ws_route": websocket.route_name,
            "ws_user": websocket.user_id,
        },
    )


def log_close(
    websocket: WebSocket, closed: Closed, *, after: float, taken: int, sent: int, dropped: int
) -> None:
    """One line for a socket that has ended. `why` may hold what the peer said: its reason."""
    _log.info(
        "close id=%s code=%d by=%s why=%s after=%.0fs in=%d out=%d%s",
        websocket.id,
        closed.code,
        closed.by,
        safe(closed.why),
        after,
        taken,
        sent,
        f" dropped={dropped}" if dropped else "",
        extra={
            "ws_id": websocket.id,
            "ws_route": websocket.route_name,
            "ws_user": websocket.user_id,
            "ws_code": closed.code,
            "ws_by": closed.by,
            "ws_why": closed.why,
        },
    )


class _Relay(logging.Filter):
    """Hands what our own threads log to greenlets: the locks of `logging` are theirs under gevent.

    Another thread that meets such a lock waits until the hub turns, so that a busy view would stop
    every socket; and a greenlet that waits for a busy thread may never be woken.
    """

    host: Host

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass what is logged elsewhere."""
        if not is_ours():
            return True
        self.host.spawn(lambda: logging.getLogger(record.name).handle(record))
        return False


_relay: Final = _Relay()


def relay(host: Host) -> None:
    """From now on, write what our own threads log in the greenlets of `host`."""
    _relay.host = host
    for name in list(logging.Logger.manager.loggerDict):
        if name == "asyncio" or name.startswith("ws_middleware."):
            filters = logging.getLogger(name).filters
            if _relay not in filters:  # the first: what the app filters is filtered there, once
                filters.insert(0, _relay)


#: Codes that, where we know a remedy, more often mean a missing setting than an attack: the first
#: of each is a warning.
_SETTINGS: Final = frozenset(
    {
        "http_version",
        "origin_missing",
        "origin_not_allowed",
        "upgrade_malformed",
        "upgrade_required",
    }
)


class RefusalLog:
    """A line for each refusal, but not for each of a flood, and a count of all. From any thread."""

    def __init__(self, counts: Counts | None = None) -> None:
        self._counts = counts
        self._lock = Lock()
        self._budget = _REFUSALS_PER_SECOND
        self._at = 0.0
        self._unsaid = 0
        self._seen: set[str] = set()

    def add(self, request: UpgradeRequest | None, refusal: Refusal, now: float) -> None:
        """Log one refusal; a server fault (5xx) as a warning."""
        if self._counts is not None:
            self._counts.add("refused", refusal.code)
        unsaid = self._admit(now)
        if unsaid is None:
            return
        level = self._level(refusal)
        path = "-" if request is None else safe(request.raw_path)
        why = safe(refusal.why or refusal.detail, 400)
        more = f" ({unsaid} more refusals unsaid)" if unsaid else ""
        _gate_log.log(
            level,
            "refused %s: %s. %s%s",
            path,
            refusal.code,
            why,
            more,
            extra={"ws_status": refusal.status, "ws_code": refusal.code},
        )

    def _level(self, refusal: Refusal) -> int:
        """Return the level: the first of those is most likely a setting, ours or a proxy's."""
        is_setting = refusal.code in _SETTINGS and bool(refusal.why)  # which has the remedy then
        first = is_setting and refusal.code not in self._seen
        if first:
            self._seen.add(refusal.code)
        if first or refusal.status >= 500:  # noqa: PLR2004
            return logging.WARNING
        return logging.INFO

    def _admit(self, now: float) -> int | None:
        """Return how many went unsaid before this one, or `None` if this one does too."""
        with self._lock:
            grown = self._budget + (now - self._at) * _REFUSALS_PER_SECOND
            self._budget = min(_REFUSALS_PER_SECOND, grown)
            self._at = now
            if self._budget < 1:
                self._unsaid += 1
                return None
            self._budget -= 1
            unsaid, self._unsaid = self._unsaid, 0
            return unsaid
