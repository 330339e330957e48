"""The WSGI door: WebSockets on the port of the server that the app already runs on.

An HTTP request is looked at with two dictionary look-ups and passed on. An upgrade request goes
through the gate and the authenticator in the worker's thread, and a refusal is an ordinary answer.
A yes takes the connection out of the server (`net.takeover`), hands it to the sidecar's loop, and
returns: the worker is free, and an idle socket holds no thread. A path that is none of ours passes
untouched, so a flask-sock route or a Socket.IO server in the same app goes on working; but the app
may accept there by itself, through the `Offer` in its environ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from .core.headers import problem_body, refusal_headers, status_phrase
from .net.takeover import CannotTake
from .types import Refusal, UpgradeRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .net.engine import Admission, Engine
    from .net.sidecar import Sidecar
    from .route import Route
    from .types import Principal

__all__ = ["OFFER", "Offer", "WSGIMiddleware", "request_from_environ"]

#: Where hosts keep the request target as it was sent; their access logs are written from it.
_TARGET_KEYS: Final = ("RAW_URI", "REQUEST_URI")

#: Fields that a WSGI answer must not have (PEP 3333), or that the server adds.
_SERVERS_OWN: Final = frozenset({"Connection", "Date", "Upgrade"})

#: The key under which an app finds the way to accept by itself.
OFFER: Final = "ws_middleware.upgrade"


class WSGIMiddleware:
    """Wraps a WSGI app. `open_door` starts, in the process that serves, what serves sockets."""

    def __init__(
        self,
        app: WSGIApplication,
        open_door: Callable[[], tuple[Engine, Sidecar]],
        note_siblings: Callable[[], None],
    ) -> None:
        self._app = app
        self._open_door = open_door
        self._note_siblings = note_siblings
        self._is_noted = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass HTTP on; answer an upgrade request."""
        if not self._is_noted:
            self._is_noted = True
            if environ.get("wsgi.multiprocess"):
                self._note_siblings()
        if "HTTP_UPGRADE" not in environ and "HTTP_SEC_WEBSOCKET_KEY" not in environ:
            return self._app(environ, start_response)
        return self._upgrade(environ, start_response)

    def _upgrade(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        engine, sidecar = self._open_door()
        routed = engine.gate.find(request_from_environ(environ, engine.clock.wall()))
        if routed is None:
            return self._offer(engine, sidecar, environ, start_response)
        _clean(environ, routed.request)
        outcome = engine.judge(routed, engine.clock.now(), sidecar.ensure)
        return Answer(engine, sidecar, routed.request, outcome).give(environ, start_response)

    def _offer(
        self,
        engine: Engine,
        sidecar: Sidecar,
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Let the app decide; take over only an answer that was made by us."""
        request = request_from_environ(environ, engine.clock.wall())
        offer = environ[OFFER] = Offer(engine, sidecar, request)

        def capture(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:  # noqa: ANN401
            if offer.admission is None or not status.startswith("101"):
                return start_response(status, headers, *exc_info)
            offer.headers = tuple(headers)
            return lambda data: None  # noqa: ARG005 - PEP 3333's write()

        try:
            chunks = self._app(environ, capture)
        except BaseException:
            offer.give_up()
            raise
        offer.is_open = False
        if offer.admission is None:
            return chunks
        if offer.headers is None:  # the view accepted, and something after it said something else
            offer.give_up()
            return chunks
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
        admission = replace(offer.admission, headers=offer.headers)
        outcome = engine.find_fault(admission.candidate, admission.headers) or admission
        if isinstance(outcome, Refusal):
            offer.give_up()
        return Answer(engine, sidecar, admission.request, outcome).give(environ, start_response)


class Offer:
    """What an app finds in `environ["ws_middleware.upgrade"]`: the way to accept by itself."""

    def __init__(self, engine: Engine, sidecar: Sidecar, request: UpgradeRequest) -> None:
        self._engine = engine
        self._sidecar = sidecar
        self._request = request
        #: Whether the app is still being called: what it yields later cannot accept any more.
        self.is_open = True
        #: Set once the app has accepted.
        self.admission: Admission | None = None
        #: What the app's 101 has to say.
        self.headers: tuple[tuple[str, str], ...] | None = None

    def accept(
        self, route: Route, principal: Principal | None, *, needs_origin: bool = True
    ) -> Refusal | None:
        """Check what the app cannot know, ask `authorize`, and admit its user.

        A refusal is to be answered.
        """
        if not self.is_open:
            why = "upgrade() was called while the answer was read: call it before returning"
            return Refusal(500, "accepted_too_late", "the server could not decide", why)
        candidate = self._engine.gate.check_view(self._request, route, needs_origin=needs_origin)
        if isinstance(candidate, Refusal):
            return candidate
        now = self._engine.clock.now()
        if principal is None:
            nobody = Refusal(401, "credential_refused", "log in first", "the view gave no user")
            outcome = self._engine.conclude(candidate, nobody, now)
        else:
            outcome = self._engine.settle(candidate, now, self._sidecar.ensure, principal)
        if isinstance(outcome, Refusal):
            return outcome
        self.admission = outcome
        return None

    def give_up(self) -> None:
        """Give back the places of an admission that came to nothing."""
        if self.admission is not None:
            self._engine.abandon(self.admission)
            self.admission = None

    def refuse(self, refusal: Refusal, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a refusal as HTTP."""
        return _refuse(self._engine, self._request, refusal, start_response)


@dataclass(frozen=True)
class Answer:
    """A verdict to be carried out on a server's connection."""

    engine: Engine
    sidecar: Sidecar
    request: UpgradeRequest
    outcome: Refusal | Admission

    def give(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Refuse over HTTP, or take the socket, last of all, and leave the server a line to log."""
        if isinstance(self.outcome, Refusal) and not self.outcome.as_close:
            return _refuse(self.engine, self.request, self.outcome, start_response)
        try:
            taken = self.sidecar.take(environ)
        except CannotTake as error:
            return self._give_up(501, "server_unsupported", error, start_response)
        except OSError as error:
            return self._give_up(503, "server_full", error, start_response)
        except BaseException:
            self._abandon()
            raise
        if isinstance(self.outcome, Refusal):
            self.engine.refusals.add(self.request, self.outcome, self.engine.clock.now())
        self.sidecar.adopt(taken, self.request, self.outcome)
        # No hop-by-hop header: PEP 3333 forbids them, and some servers assert it. The client gets
        # the real 101 from the sidecar; this one goes to the sink and to the server's access log.
        start_response("101 Switching Protocols", [])
        return []

    def _abandon(self) -> None:
        if not isinstance(self.outcome, Refusal):
            self.engine.abandon(self.outcome)

    def _give_up(
        self, status: int, code: str, error: Exception, start_response: StartResponse
    ) -> Iterable[bytes]:
        self._abandon()
        refusal = Refusal(status, code, "this server cannot serve WebSockets", str(error))
        return _refuse(self.engine, self.request, refusal, start_response)


def _refuse(
    engine: Engine, request: UpgradeRequest, refusal: Refusal, start_response: StartResponse
) -> Iterable[bytes]:
    engine.refusals.add(request, refusal, engine.clock.now())
    body = problem_body(refusal) if refusal.body is None else refusal.body
    headers = [
        (name, value)
        for name, value in refusal_headers(refusal, body, request.received_at)
        if name not in _SERVERS_OWN
    ]
    start_response(f"{refusal.status} {status_phrase(refusal.status)}", headers)
    return [body]


# --- environ to request --------------------------------------------------------------------------


def request_from_environ(environ: WSGIEnvironment, received_at: float) -> UpgradeRequest:
    """Return the upgrade request of an environ; its path is the one within the app."""
    target = _quote(environ.get("PATH_INFO", "") or "/")
    query = environ.get("QUERY_STRING", "")
    return UpgradeRequest(
        method=environ["REQUEST_METHOD"],
        target=f"{target}?{query}" if query else target,
        http_version=environ.get("SERVER_PROTOCOL", "").removeprefix("HTTP/"),
        head=b"\n".join(_fields(environ)),
        client=_client(environ),
        scheme=environ.get("wsgi.url_scheme", "http"),
        received_at=received_at,
        native=environ,
    )


def _quote(path: str) -> str:
    # WSGI hands out decoded bytes as latin-1; percent signs have to become escapes again.
    return "".join(
        c if c.isascii() and c not in "%?#" and c > " " else f"%{ord(c):02X}" for c in path
    )


def _fields(environ: WSGIEnvironment) -> Iterable[bytes]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            name = key[5:].replace("_", "-").lower()
        elif key in {"CONTENT_TYPE", "CONTENT_LENGTH"} and value:
            name = key.replace("_", "-").lower()
        else:
            continue
        yield f"{name}:{value}".replace("\n", " ").encode("latin-1", "replace")


def _client(environ: WSGIEnvironment) -> tuple[str, int] | None:
    address = environ.get("REMOTE_ADDR")
    if not address:
        return None
    try:
        return str(address), int(environ.get("REMOTE_PORT") or 0)
    except ValueError:
        return str(address), 0


def _clean(environ: WSGIEnvironment, request: UpgradeRequest) -> None:
    """Overwrite, in place, a token in the query: the server's access log is written from it."""
    if environ.get("QUERY_STRING", "") == request.query_string:
        return
    old, new = environ["QUERY_STRING"], request.query_string
    environ["QUERY_STRING"] = new
    for key in _TARGET_KEYS:
        if key in environ:
            environ[key] = environ[key].replace(old, new)
