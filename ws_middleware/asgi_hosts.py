"""Apps that serve no WebSocket by themselves, behind the ASGI door: Flask, and Django.

What HTTP they get is passed on, to a Flask app in threads. Of the rest of ASGI they know nothing:
lifespan is answered for them, and an upgrade request whose path is none of ours is put to their
views, which may accept it by themselves, as they may on a WSGI server.
"""

from __future__ import annotations

import asyncio
import io
import sys
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, cast

from asgiref.sync import ThreadSensitiveContext
from asgiref.wsgi import WsgiToAsgi, WsgiToAsgiInstance

from .asgi import PRINCIPAL, HTTPOnly
from .gate.auth.app import build_environ
from .net.engine import GOING_AWAY, Admission
from .receipt import Receipt
from .types import Refusal
from .wsgi import OFFER, Offer, refuse_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .django import DjangoHost
    from .flask import FlaskHost
    from .net.engine import Engine
    from .net.runtime import Runtime
    from .types import UpgradeRequest

    Scope = MutableMapping[str, Any]
    App = Callable[[Scope, Any, Any], Awaitable[None]]

__all__ = ["as_called", "is_channels", "is_django", "is_flask"]

_SWITCHING: Final = 101

_REFUSED: Final = Refusal(403, "app_refused", "refused")


# --- which is which ------------------------------------------------------------------------------
# What is not imported yet cannot have made an app.


def is_flask(app: object) -> bool:
    """Whether it is a Flask app."""
    flask = sys.modules.get("flask")
    return flask is not None and isinstance(app, flask.Flask)


def is_django(app: object) -> bool:
    """Whether it is Django's own handler."""
    handlers = sys.modules.get("django.core.handlers.asgi")
    return handlers is not None and isinstance(app, handlers.ASGIHandler)


def as_called(app: Any, host: object, upgrade: Callable[..., WSGIApplication]) -> App:  # noqa: ANN401
    """Return what a door calls of an app. `upgrade` is what a view of its may answer with."""
    if is_flask(app):
        return HTTPApp(InThreads(app), cast("FlaskHost", host).inner)
    if is_django(app):
        return HTTPApp(app, _Later(partial(_django_views, cast("DjangoHost", host), upgrade)))
    called: App = ChannelsApp(app) if is_channels(app) else app
    return called


def _django_views(host: DjangoHost, upgrade: Callable[..., WSGIApplication]) -> WSGIApplication:
    from django.core.handlers.wsgi import WSGIHandler  # noqa: PLC0415 - the app's, not ours

    return host.wrap(WSGIHandler(), upgrade)


class _Later:
    """A WSGI app that is made when it is first called: most are never asked."""

    def __init__(self, make: Callable[[], WSGIApplication]) -> None:
        self._make = cache(make)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._make()(environ, start_response)


# --- upgrades ------------------------------------------------------------------------------------


class HTTPApp(HTTPOnly):
    """An app as the door calls it.

    Args:
        http: what answers HTTP, an ASGI app.
        views: the same app as WSGI, without a door of ours around it: its views are asked.
    """

    def __init__(self, http: App, views: WSGIApplication) -> None:
        self._http = http
        self._views = views

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:  # noqa: ANN401
        """Pass HTTP on; say of lifespan what there is to say."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await self._http(scope, receive, send)

    async def judge(
        self, engine: Engine, runtime: Runtime, request: UpgradeRequest
    ) -> Refusal | Admission:
        """Have the app's views decide over an upgrade request that is for none of our routes."""
        offer = _Offer(engine, lambda: runtime, request)
        asked: Receipt[Refusal | Admission] = Receipt()

        def ask() -> None:
            if not offer.is_open:  # nobody waits any more
                return
            try:
                asked.resolve(self._ask(offer))
            except BaseException as error:  # raised again by whoever waits
                asked.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)))

        if not engine.threads["auth"].submit(ask):
            return GOING_AWAY
        timeout = engine.limits.upgrade_timeout
        try:
            async with asyncio.timeout(timeout):
                return await asked
        except TimeoutError:
            self._let_go(offer, asked)
            why = f"the view gave no answer in {timeout:g} s (upgrade_timeout)"
            return Refusal(503, "upgrade_timeout", "the server took too long to decide", why)
        except BaseException:
            self._let_go(offer, asked)
            raise

    @staticmethod
    def _let_go(offer: _Offer, asked: Receipt[Refusal | Admission]) -> None:
        """Have a view that answers too late hold nothing."""
        offer.is_open = False
        asked.add_done_callback(offer.give_up)

    def _ask(self, offer: _Offer) -> Refusal | Admission:
        """Run the app on the request and return what its answer means; in a thread."""
        environ = build_environ(offer.request)
        environ[OFFER] = offer
        try:
            status, headers, body = _run(self._views, environ)
            offer.is_open = False
            verdict = offer.judge(status, headers)
        except BaseException:
            offer.give_up()
            raise
        if isinstance(verdict, Admission):
            return verdict
        offer.give_up()  # if the view accepted, something after it said something else
        return verdict or _as_refusal(offer.refused, status, headers, body)


class _Offer(Offer):
    """One whose refusals are logged by the door, as it logs all it answers."""

    #: What a view was told to answer.
    refused: Refusal | None = None

    def refuse(self, refusal: Refusal, start_response: StartResponse) -> Iterable[bytes]:
        if refusal.as_close:
            return super().refuse(refusal, start_response)
        self.refused = refusal
        return refuse_page({"REQUEST_METHOD": "GET"}, start_response, refusal)


def _run(
    app: WSGIApplication, environ: WSGIEnvironment
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return the whole answer of a WSGI app."""
    said: list[Any] = []
    written = io.BytesIO()  # what the app gives to PEP 3333's write()

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:  # noqa: ANN401
        said[:] = [status, headers]
        return written.write

    body = b"".join(_closing(app(environ, start_response)))
    status, headers = said
    return status, headers, written.getvalue() + body


def _as_refusal(
    told: Refusal | None, status: str, headers: list[tuple[str, str]], body: bytes
) -> Refusal:
    """Return the app's own answer: whatever it is, it is no yes."""
    number = int(status[:3])
    why = f"the app answered {number}"
    if number == _SWITCHING:  # somebody else's, and there is nothing behind it here
        return replace(_REFUSED, why=f"{why}, but by none of our ways to accept")
    if told is None or told.status != number:
        told = replace(_REFUSED, status=number, why=why)
    return replace(told, headers=tuple(headers), body=body)


def _closing(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield them, and close them as PEP 3333 wants it."""
    try:
        yield from chunks
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


async def _live(receive: Any, send: Any) -> None:  # noqa: ANN401
    """Answer a server's lifespan: there is nothing to start and nothing to end."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


# --- HTTP of a WSGI app --------------------------------------------------------------------------


class InThreads(WsgiToAsgi):
    """A WSGI app as an ASGI app: asgiref's, but requests don't wait for one another."""

    def __init__(self, app: WSGIApplication) -> None:
        def closing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            return _closing(app(environ, start_response))

        super().__init__(closing)  # type: ignore[no-untyped-call]

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:  # noqa: ANN401
        """Answer one request, in a thread of its own: asgiref has one for all of a process."""

        async def put(event: Any) -> None:  # noqa: ANN401 - granian's own is no `async def`
            await send(event)

        async with ThreadSensitiveContext():
            request = _Request(self.wsgi_application)  # type: ignore[no-untyped-call]
            await request(scope, receive, put)


class _Request(WsgiToAsgiInstance):
    def build_environ(self, scope: Scope, body: Any) -> WSGIEnvironment:  # noqa: ANN401
        environ: WSGIEnvironment = super().build_environ(scope, body)  # type: ignore[no-untyped-call]
        # asgiref knows of no siblings, and says in any case that there are some.
        environ["wsgi.multiprocess"] = False
        return environ


# --- channels ------------------------------------------------------------------------------------

#: Where middleware keeps what it wraps.
_WRAPPED: Final = ("inner", "app", "application")
#: How many middlewares there may be around another; more is a ring.
_DEEPEST: Final = 50


class ChannelsApp:
    """An app of channels', as the door calls it.

    Its `AuthMiddleware` fills in the user that is in the scope, if there is one: ours it cannot.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:  # noqa: ANN401
        """Take our principal out again: it stays in `scope["state"]`."""
        ours = (scope.get("state") or {}).get(PRINCIPAL)
        if ours is not None and scope.get("user") is ours:
            scope = {key: value for key, value in scope.items() if key != "user"}
        await self._app(scope, receive, send)


def is_channels(app: object) -> bool:
    """Whether an app, or what it is wrapped around, is of channels: its routers, its middleware."""
    for _ in range(_DEEPEST):
        kinds = {each.__module__.partition(".")[0] for each in type(app).__mro__}
        if "channels" in kinds:
            return True
        kept = getattr(app, "__dict__", {})
        inner = next((kept[name] for name in _WRAPPED if name in kept), None)
        if inner is None:
            return False
        app = inner
    return False
