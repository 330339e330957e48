"""Whether a process lives and is ready, for load balancers and orchestrators; and its metrics.

`Health` says it without a framework, `HealthWSGI` and `HealthASGI` are apps to be mounted. What
they answer depends on the last part of the path only, so that they may be mounted anywhere.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .core.headers import status_phrase
from .metrics import CONTENT_TYPE, render

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from .stats import Report

__all__ = ["Health", "HealthASGI", "HealthAnswer", "HealthWSGI"]

_OK: Final = 200
_NOT_FOUND: Final = 404
_UNAVAILABLE: Final = 503
_JSON: Final = "application/json"
#: What a process that still turns can say of itself and be alive.
_STUCK: Final = "loop_blocked"


class HealthAnswer(NamedTuple):
    """An answer over HTTP, for any framework to send."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Health:
    """Answers `livez`, `readyz` and `metrics` for one `WebSockets`."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def answer(self, path: str) -> HealthAnswer:
        """Return the answer to a GET; of `path` only what follows the last slash counts."""
        name = path.rpartition("/")[2]
        if name == "livez":
            return self._livez()
        if name == "readyz":
            return self._readyz()
        if name == "metrics":
            text = render([self._report.stats()])
            return _answer(_OK, CONTENT_TYPE, text.encode())
        problem = {"detail": "there are livez, readyz and metrics"}
        return _json(_NOT_FOUND, problem)

    def _livez(self) -> HealthAnswer:
        """Alive: whoever asks gets an answer, and the event loop turns, or nothing needs it to."""
        stats = self._report.identity()
        stuck = self._report.is_stuck
        said = {"status": "stuck" if stuck else "alive", **stats}
        return _json(_UNAVAILABLE if stuck else _OK, said)

    def _readyz(self) -> HealthAnswer:
        reasons = self._report.reasons()
        said = {
            "status": "not ready" if reasons else "ready",
            "reasons": reasons,
            **self._report.identity(),
        }
        return _json(_UNAVAILABLE if reasons else _OK, said)


def _json(status: int, said: dict[str, Any]) -> HealthAnswer:
    return _answer(status, _JSON, json.dumps(said).encode())


def _answer(status: int, content_type: str, body: bytes) -> HealthAnswer:
    headers = (
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    )
    return HealthAnswer(status, headers, body)


class HealthWSGI:
    """The answers as a WSGI app; a Flask view may return it."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer."""
        path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
        status, headers, body = self._health.answer(path)
        start_response(f"{status} {status_phrase(status)}", list(headers))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


class HealthASGI:
    """The answers as an ASGI app, to be mounted or routed to."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],  # noqa: ARG002 - a GET has no body
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer an HTTP request."""
        if scope["type"] != "http":
            msg = f"health answers HTTP, not {scope['type']!r}"
            raise ValueError(msg)
        status, headers, body = self._health.answer(scope["path"])
        raw = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        is_head = scope["method"] == "HEAD"
        await send({"type": "http.response.body", "body": b"" if is_head else body})
