"""The WSGI door: WebSockets on the port of the server that the app already runs on.

An HTTP request is passed on after two dictionary look-ups and one at the beginning of its path. An
upgrade request goes through the gate and the authenticator in the worker's thread, and a refusal is
an ordinary answer. A yes takes the connection out of the server (`net.takeover`), hands it to the
sidecar's loop, and returns: the worker is free, and an idle socket holds no thread. A path that is
none of ours passes untouched, so a flask-sock route or a Socket.IO server in the same app goes on
working; but the app may accept there by itself, through the `Offer` in its environ.

Two answers of the app are replaced by what they mean: a plain GET of a socket's path that the app
knows nothing of is a 426, and a view's redirect to a login page, which no WebSocket client follows,
a 401.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from .core.headers import problem_body, refusal_headers, status_phrase
from .environ import clean_query, decode_path, request_from_environ
from .gate.auth.app import find_login
from .gate.upgrade import NO_UPGRADE, find_problem
from .gate.verdict import refusal_of
from .net.clock import SYSTEM
from .net.engine import Admission
from .net.logs import RefusalLog
from .net.servers import find_wsgi_server
from .net.takeover import CannotTake
from .substitute import Substitute
from .types import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .doors import Server
    from .gate.routing import PathSet
    from .net.engine import Engine
    from .net.runtime import Runtime
    from .net.sidecar import Sidecar
    from .route import Endpoint
    from .settings import Settings
    from .types import Principal, UpgradeRequest

__all__ = ["OFFER", "Offer", "WSGIMiddleware", "refuse_page"]

#: Fields that a WSGI answer must not have (PEP 3333), or that the server adds.
_SERVERS_OWN: Final = frozenset({"Connection", "Date", "Upgrade"})

#: The key under which an app finds the way to accept by itself.
OFFER: Final = "ws_middleware.upgrade"

_LOCALHOST: Final = "localhost"

_SWITCHING: Final = "101"
_NOT_FOUND: Final = "404"
#: What an app may answer where it knows no page.
_UNKNOWN: Final = frozenset({"400", _NOT_FOUND})
_READING: Final = frozenset({"GET", "HEAD"})


class WSGIMiddleware:
    """Wraps a WSGI app. `open_door` starts, in the process that serves, what serves sockets."""

    def __init__(
        self,
        app: WSGIApplication,
        open_door: Callable[[], tuple[Engine, Sidecar]],
        note_call: Callable[[bool, Server], None],
        paths: PathSet,
    ) -> None:
        self._app = app
        self._open_door = open_door
        self._note_call = note_call
        self._paths = paths
        self._is_noted = False
        self._refusals = RefusalLog()
        #: Whether a 400 of the app only says that there is nothing but a socket at this path, as
        #: Flask does. Set by the host's door.
        self.is_mismatch: Callable[[WSGIEnvironment], bool] = _never
        #: How the app will read a request, where a proxy stands before it. Set by the host's door.
        self.see: Callable[[WSGIEnvironment], WSGIEnvironment] = _as_it_is

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass HTTP on; answer an upgrade request."""
        if not self._is_noted:
            self._is_noted = True
            has_siblings = bool(environ.get("wsgi.multiprocess"))
            self._note_call(has_siblings, find_wsgi_server(environ))
        if "HTTP_UPGRADE" in environ or "HTTP_SEC_WEBSOCKET_KEY" in environ:
            return self._upgrade(environ, start_response)
        path = environ.get("PATH_INFO") or "/"
        if path.startswith(self._paths.prefixes):
            return self._page(path, environ, start_response)
        return self._app(environ, start_response)

    # --- HTTP --------------------------------------------------------------------------------

    def _page(
        self, path: str, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Pass on, but tell who opens a socket's path as a page that the app knows nothing of."""
        # The path is that of now: an app that is several, each mounted somewhere, will change it.
        substitute = Substitute(
            start_response,
            partial(self._judge_page, path, environ),
            partial(self._refuse_page, path, environ, start_response),
        )
        return substitute.answer(substitute.call(self._app, environ))

    def _judge_page(
        self,
        path: str,
        environ: WSGIEnvironment,
        status: str,
        headers: list[tuple[str, str]],  # noqa: ARG002 - see `Substitute`
    ) -> Refusal | None:
        # The status first: to match the path takes longer than all the rest.
        if status[:3] not in _UNKNOWN or environ["REQUEST_METHOD"] not in _READING:
            return None
        if decode_path(path) not in self._paths:
            return None
        is_ours = status.startswith(_NOT_FOUND) or self.is_mismatch(environ)
        return NO_UPGRADE if is_ours else None

    def _refuse_page(
        self,
        path: str,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        refusal: Refusal,
    ) -> Iterable[bytes]:
        # Not the engine's log: HTTP opens no door.
        request = request_from_environ({**environ, "PATH_INFO": path}, SYSTEM.wall())
        self._refusals.add(request, refusal, SYSTEM.now())
        return refuse_page(environ, start_response, refusal)

    # --- upgrades ----------------------------------------------------------------------------

    def _upgrade(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        engine, sidecar = self._open_door()
        request = request_from_environ(self.see(environ), engine.clock.wall())
        # What was seen is for our eyes: the app has still to read it by itself.
        request = replace(request, native=environ)
        routed = engine.gate.find(request)
        if routed is None:
            offer = Offer(engine, sidecar.ensure, request)
            return self._offer(offer, sidecar, environ, start_response)
        clean_query(environ, routed.request)
        outcome = engine.judge(routed, engine.clock.now(), sidecar.ensure)
        return Answer(engine, sidecar, routed.request).give(environ, start_response, outcome)

    def _offer(
        self,
        offer: Offer,
        sidecar: Sidecar,
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Let the app decide; replace only an answer that was made by us, or a login page."""
        environ[OFFER] = offer
        answer = Answer(offer.engine, sidecar, offer.request)
        substitute = Substitute(
            start_response, offer.judge, partial(answer.give, environ, start_response)
        )
        try:
            chunks = substitute.call(self._app, environ)
        except BaseException:
            offer.give_up()
            raise
        offer.is_open = False
        if not isinstance(substitute.verdict, Admission):
            offer.give_up()  # if the view accepted, something after it said something else
        return substitute.answer(chunks)


class Offer:
    """What an app finds in `environ["ws_middleware.upgrade"]`: the way to accept by itself.

    `runtime` gives the loop on which its coroutines are called.
    """

    def __init__(
        self, engine: Engine, runtime: Callable[[], Runtime], request: UpgradeRequest
    ) -> None:
        self.engine = engine
        self.request = request
        self._runtime = runtime
        #: Whether the app is still being called: what it yields later cannot accept any more.
        self.is_open = True
        self._outcome: Admission | Refusal | None = None

    @property
    def settings(self) -> Settings:
        """Those of the app whose door the request came through."""
        return self.engine.settings

    def accept(
        self, endpoint: Endpoint, principal: Principal | None, *, needs_origin: bool = True
    ) -> Refusal | None:
        """Check what the app cannot know, ask `authorize`, and admit its user.

        A refusal is to be answered.
        """
        if not self.is_open:
            return _LATE
        self.give_up()  # a second answer takes the place of the first
        candidate = self.engine.gate.check_view(self.request, endpoint, needs_origin=needs_origin)
        if isinstance(candidate, Refusal):
            return candidate
        now = self.engine.clock.now()
        if principal is None:
            nobody = Refusal(401, "credential_refused", "log in first", "the view gave no user")
            outcome = self.engine.conclude(candidate, nobody, now)
        else:
            outcome = self.engine.settle(candidate, now, self._runtime, principal)
        if isinstance(outcome, Refusal):
            return outcome
        self._outcome = outcome
        return None

    def refuse(self, refusal: Refusal, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a refusal, in the form that the policy asks for."""
        if refusal.as_close and self.is_open:
            self.give_up()
            self._outcome = refusal
            start_response("101 Switching Protocols", [])  # a mark, as for an accept
            return []
        return _refuse(self.engine, self.request, refusal, start_response)

    def judge(self, status: str, headers: list[tuple[str, str]]) -> Refusal | Admission | None:
        """Return what replaces the app's answer, `None` if it stands."""
        if not status.startswith(_SWITCHING):
            return self._judge_redirect(status, headers)
        if not isinstance(self._outcome, Admission):
            return self._outcome
        admission = replace(self._outcome, headers=tuple(headers))
        fault = self.engine.find_fault(admission.candidate, admission.headers)
        return admission if fault is None else self.engine.gate.dress(fault, admission.candidate)

    def _judge_redirect(self, status: str, headers: list[tuple[str, str]]) -> Refusal | None:
        login = find_login(status, headers)
        if login is None or find_problem(self.request) is not None:  # not a WebSocket's request
            return None
        return self.engine.gate.dress_unrouted(refusal_of(login), self.request)

    def give_up(self) -> None:
        """Give back the places of an admission that came to nothing."""
        if isinstance(self._outcome, Admission):
            self.engine.abandon(self._outcome)
            self._outcome = _LATE


#: What answers a view that called `upgrade()` when it was too late, or whose 101 came too late.
_LATE: Final = Refusal(
    500,
    "accepted_too_late",
    "the server could not decide",
    "upgrade() was called while the answer was read: call it before returning",
)


@dataclass(frozen=True)
class Answer:
    """Carries a verdict over a request out, on the server's connection."""

    engine: Engine
    sidecar: Sidecar
    request: UpgradeRequest

    def give(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        outcome: Refusal | Admission,
    ) -> Iterable[bytes]:
        """Refuse over HTTP, or take the socket, last of all, and leave the server a line to log."""
        if isinstance(outcome, Refusal) and not outcome.as_close:
            return _refuse(self.engine, self.request, outcome, start_response)
        try:
            taken = self.sidecar.take(environ)
        except BaseException as error:
            self._abandon(outcome)
            if not isinstance(error, (CannotTake, OSError)):
                raise
            return _refuse(self.engine, self.request, self._explain(error), start_response)
        self.sidecar.adopt(taken, self.request, outcome)
        if isinstance(outcome, Refusal):
            self.engine.refusals.add(self.request, outcome, self.engine.clock.now())
        # No hop-by-hop header: PEP 3333 forbids them, and some servers assert it. The client gets
        # the real 101 from the sidecar; this one goes to the sink and to the server's access log.
        start_response("101 Switching Protocols", [])
        return []

    def _abandon(self, outcome: Refusal | Admission) -> None:
        if not isinstance(outcome, Refusal):
            self.engine.abandon(outcome)

    def _explain(self, error: CannotTake | OSError) -> Refusal:
        detail = "this server cannot serve WebSockets"
        if isinstance(error, OSError):
            return Refusal(503, "server_full", detail, str(error))
        why = f"{error}: {self._open_port()}" if error.opens_port else str(error)
        return Refusal(501, "server_unsupported", detail, why)

    def _open_port(self) -> str:
        """Open a port of our own and return what to do with it."""
        try:
            host, port = self.sidecar.listen_beside()
        except OSError as error:
            return f"but it cannot be had ({error})"
        if self.request.host.partition(":")[0] == _LOCALHOST:
            host = _LOCALHOST  # a cookie of this name is not sent to an address
        told = f"connect to ws://{host}:{port}{self.request.raw_path}"
        origin = self.request.origin
        return told if origin is None else f"{told} and let the page in with origins=[{origin!r}]"


def _refuse(
    engine: Engine, request: UpgradeRequest, refusal: Refusal, start_response: StartResponse
) -> Iterable[bytes]:
    engine.refusals.add(request, refusal, engine.clock.now())
    return [_start_refusal(refusal, start_response)]


def refuse_page(
    environ: WSGIEnvironment, start_response: StartResponse, refusal: Refusal = NO_UPGRADE
) -> Iterable[bytes]:
    """Answer a GET or HEAD of a socket's path."""
    body = _start_refusal(refusal, start_response)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _start_refusal(refusal: Refusal, start_response: StartResponse) -> bytes:
    """Say status and headers; return the body."""
    body = problem_body(refusal) if refusal.body is None else refusal.body
    headers = [
        (name, value)
        for name, value in refusal_headers(refusal, body, wall=0.0)  # the server says the Date
        if name not in _SERVERS_OWN
    ]
    start_response(f"{refusal.status} {status_phrase(refusal.status)}", headers)
    return body


def _as_it_is(environ: WSGIEnvironment) -> WSGIEnvironment:
    return environ


def _never(environ: WSGIEnvironment) -> bool:  # noqa: ARG001 - see `is_mismatch`
    return False
