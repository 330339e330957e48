"""`WebSockets`: the one object a user makes. Settings, routes, audiences, doors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from .asgi import WebSocketMiddleware, socket_of
from .asgi_hosts import as_called, is_channels, is_django, is_flask
from .checks import check_keywords
from .codes import check_close
from .errors import ConfigError
from .flask import FlaskAuth, FlaskHost
from .fronts import Fronts
from .given import check_broker, check_origins
from .hub.audience import Audiences
from .hub.hub import Hub
from .logout import Logout
from .operations import Operations
from .route import Guard, Route
from .views import make_upgrade
from .wsgi import WSGIMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence
    from datetime import datetime

    from _typeshed.wsgi import WSGIApplication
    from flask import Flask

    from .asgi import App
    from .config import Policy, ServerLimits
    from .django import DjangoHost
    from .doors import Server
    from .front import Front
    from .net.engine import Engine
    from .net.sidecar import Sidecar
    from .receipt import Receipt
    from .route import Handler
    from .types import Principal
    from .websocket import WebSocket

__all__ = ["WebSockets"]

GapHandler = TypeVar("GapHandler", bound="Callable[[datetime, datetime], object]")


class WebSockets(Operations, Audiences["WebSocket"]):  # type: ignore[misc]  # a Hub is a Sender
    """WebSockets for an app: make one, give it routes, open a door.

    Args:
        broker: what carries audience messages between processes: "memory://" (nothing does; a send
            raises `BrokerRequired` where there are siblings), "memory://per-process" (nothing does,
            and that is meant so), or a URL of Redis, "redis://localhost:6379/0".
        prefix: what this app's channels in the broker begin with, so that apps may share one.
        broker_secret: a text of 32 bytes or more that all processes of the app share: what is not
            signed with it is not taken from the broker.
        trusted_proxies: addresses or networks whose `X-Forwarded-*` headers are believed.
        server_limits: bounds of the whole front.
        drain_over: seconds over which a process that ends spreads the closes of its sockets, that
            of a WSGI server or, with `drain_on_sigterm`, of an ASGI server. `None`: 0.02 a socket,
            at most 10 and a third of gunicorn's graceful timeout.
        drain_on_sigterm: whether SIGTERM closes the sockets before an ASGI server has it.
        sync_threads: threads for `def` events.
        sync_conversations: threads for `def` conversations, each as long as its socket.
        auth_threads: threads for `def` authenticators and `authorize`.
        disabled: whether every upgrade is refused with 503; HTTP is as it was.
        tls_takeover: whether connections are taken out of WSGI servers that end TLS themselves, by
            giving methods of another socket to the server's `ssl.SSLSocket`. Off: refused with 501.
        abort_by_descriptor: whether a connection whose peer is gone, and that an ASGI server holds
            on to, is cut by its descriptor, on Linux. Off: it stays as long as the server lets it.
        policy: `auth`, `authorize`, `origins`, `heartbeat`, `limits`, `refuse_with`, `slow`, `gap`:
            what holds for every route that says nothing else. See `ws_middleware.config.Policy`.

    What is not given is taken from the host's configuration (Flask: `app.config["WEBSOCKETS"]`,
    Django: `settings.WEBSOCKETS`), then from `WSM_*` variables, then from the defaults.

    Raises:
        ConfigError: a value is wrong. What is wrong only as a whole is raised when a door opens.
        TypeError: there is no such setting.
    """

    def __init__(
        self,
        *,
        broker: str | None = None,
        prefix: str | None = None,
        broker_secret: str | None = None,
        trusted_proxies: Sequence[str] | None = None,
        server_limits: ServerLimits | None = None,
        drain_over: float | None = None,
        drain_on_sigterm: bool | None = None,
        sync_threads: int | None = None,
        sync_conversations: int | None = None,
        auth_threads: int | None = None,
        tls_takeover: bool | None = None,
        abort_by_descriptor: bool | None = None,
        disabled: bool | None = None,
        **policy: Unpack[Policy],
    ) -> None:
        check_keywords(policy, "WebSockets()", app=True)
        check_origins(policy)
        given: dict[str, Any] = dict(policy)
        own = {
            "broker": broker,
            "prefix": prefix,
            "broker_secret": broker_secret,
            "trusted_proxies": trusted_proxies,
            "server_limits": server_limits,
            "drain_over": drain_over,
            "drain_on_sigterm": drain_on_sigterm,
            "sync_threads": sync_threads,
            "sync_conversations": sync_conversations,
            "auth_threads": auth_threads,
            "tls_takeover": tls_takeover,
            "abort_by_descriptor": abort_by_descriptor,
            "disabled": disabled,
        }
        given.update({name: value for name, value in own.items() if value is not None})
        check_broker(given)
        self._code = given
        self._hub = Hub()
        self._fronts = Fronts(given, self._hub)
        self._observe()

    def __repr__(self) -> str:
        return f"<WebSockets {len(self._fronts.routes)} routes>"

    # --- routes ------------------------------------------------------------------------------

    def route(
        self,
        path: str,
        *,
        name: str | None = None,
        subprotocols: Sequence[str] = (),
        **policy: Unpack[Policy],
    ) -> Route:
        """Return the route at `path`; as a decorator it takes a conversation.

        Args:
            path: as Flask writes it (`/ws/chat/<int:room>`) or Starlette (`/ws/chat/{room:int}`).
                A parameter called `room` is the socket's first room.
            name: its name in logs and between processes; the path with `*` for parameters.
            subprotocols: those it speaks; the first that the client offers is chosen.
            policy: what is different here from the app's policy.

        Raises:
            ConfigError: the path, the name or a value is wrong, or the path is taken.
            TypeError: there is no such setting.
        """
        check_origins(policy)
        route = Route(path, hub=self._hub, name=name, subprotocols=subprotocols, policy=policy)
        auth = policy.get("auth", self._code.get("auth"))
        if auth is not None and not isinstance(auth, FlaskAuth):
            route.template.check()
        self._fronts.add_route(route)
        return route

    def describe(self) -> str:
        """Return every route with its whole policy, a line each; for each app if there are several.

        Raises:
            ConfigError: the settings as a whole are wrong, as when a door opens.
        """
        return self._fronts.describe()

    def on_gap(self, handler: GapHandler) -> GapHandler:
        """Call `handler(since, until)` when messages of other processes may have been missed.

        The broker was away, or this process had gone deaf, between the two times (`datetime`, UTC):
        what matters should be fetched anew. A `def` handler runs in a thread, an `async def` one on
        the loop; each process calls its own. As a decorator it returns the handler.
        """
        self._hub.gap_handlers.append(handler)
        return handler

    # --- doors -------------------------------------------------------------------------------

    def init_app(self, app: Flask) -> None:
        """Make a Flask app our host: its configuration, its app context around our handlers.

        With several apps, or an app factory that is called several times, each has its own: the
        settings, the caps and the context are those of the app that a socket came through.
        Audiences span them all. An app that nobody has any more takes its sockets along: 1001.

        Who logs out with flask-login's `logout_user()` loses the sockets that the login opened:
        they are closed with 4401 "logged_out", every tab in every browser.

        Raises:
            ConfigError: `app.config["WEBSOCKETS"]` is wrong, the settings as a whole are, a port is
                open already, or this app is our host already.
            TypeError: it names a setting that there is none of.
        """
        if self._fronts.find(app) is not None:
            msg = (
                f"init_app() was called for the app {app.name!r} already; call it once, where the "
                "app is made"
            )
            raise ConfigError(msg)
        host = FlaskHost(app)
        front = self._fronts.take_in(host, "init_app()")
        host.register(self, lambda inner: _wrap(inner, front))
        host.watch_logout(Logout(self._hub, front))

    def wsgi(self, app: WSGIApplication) -> WSGIMiddleware:
        """Return `app` with our routes beside its own, on the port of whatever server runs it.

        Nothing starts before the first upgrade request, so that it starts in the process that
        serves. Django's own handler, `get_wsgi_application()`, makes its project our host; wrap
        other WSGI middleware around the result.

        Raises:
            ConfigError: for a Django project: `settings.WEBSOCKETS` is wrong, the settings as a
                whole are, or a door is open already.
            TypeError: it names a setting that there is none of.
        """
        if not _is_django_wsgi(app):
            return WSGIMiddleware(app, self._open, self._note_call, self._front.paths)
        host = _django_host()
        front = self._fronts.take_in(host, "wsgi()")
        host.register(self)
        return _wrap(host.wrap(app, self.upgrade), front)

    # Whose front it is, is known first when a request comes: `init_app` may be called after `wsgi`.

    def _open(self) -> tuple[Engine, Sidecar]:
        return self._front.open()

    def _note_call(self, has_siblings: bool, server: Server | None = None) -> None:  # noqa: FBT001
        self._front.note_call(has_siblings, server)

    @property
    def _front(self) -> Front:
        """Whose settings hold where no app is named."""
        return self._fronts.default

    def guard(self, path: str, *, name: str | None = None, **policy: Unpack[Policy]) -> Guard:
        """Lay a policy over WebSockets that a wrapped ASGI app serves itself; return its audiences.

        Of several guards that match a path the first counts; where none does, the app's own policy
        guards. A path that is nearly one of a guard's (`/rooms/1.0`, `/rooms/1/`) and that none
        matches is refused, for the app may read it as that one. Of `limits` a guard has a message
        size and a number of connections for each user only where it names them: what the app takes
        today it goes on taking.

        Args:
            path: as in `route`.
            name: its name in logs and between processes; the path with `*` for parameters.
            policy: what is different here from the app's policy.

        Raises:
            ConfigError: the path, the name or a value is wrong.
            TypeError: there is no such setting.
        """
        check_origins(policy)
        guard = Guard(path, hub=self._hub, name=name, policy=policy)
        self._fronts.add_guard(guard)
        return guard

    def asgi(self, app: Any) -> WebSocketMiddleware:  # noqa: ANN401 - an ASGI app, or a Flask app
        """Return `app` with our routes beside its own, on whatever ASGI server runs it.

        Its own WebSocket routes are guarded. What the result does not know is the app's:
        `app.state`, `app.routes`. A Flask app is served, too: its views in threads, by asgiref.

        Raises:
            ConfigError: the settings as a whole are wrong.
        """
        self.asgi_front(app)  # what is wrong is told here, also while a server's loop imports this
        return WebSocketMiddleware(app, sockets=self)

    def asgi_front(self, app: object) -> Front:
        """Return whose settings hold for an ASGI app; for `WebSocketMiddleware`.

        Raises:
            ConfigError: the settings as a whole are wrong.
        """
        front = self._host_front(app)
        if not is_flask(app) and not is_django(app):
            front.guard_rest()
        front.check_guards()
        return front

    def _host_front(self, app: object) -> Front:
        if is_flask(app) and self._fronts.find(app) is None:
            self.init_app(cast("Flask", app))
        elif is_django(app) or is_channels(app):
            host = _django_host()
            front = self._fronts.take_in(host, "asgi()")
            host.register(self)
            return front
        return self._fronts.find(app) or self._front

    def asgi_app(self, app: Any) -> App:  # noqa: ANN401 - an ASGI app, or a Flask app
        """Return what is called of an app; for `WebSocketMiddleware`."""
        return as_called(app, self._host_front(app).host, self.upgrade)

    @staticmethod
    def from_scope(scope: MutableMapping[str, Any]) -> WebSocket:
        """Return the hub's handle of a guarded WebSocket: to send, to join rooms, to close.

        What it receives is the app's own: its `receive` is not for use.

        Raises:
            RuntimeError: it is not guarded: the app is not wrapped, or this is no WebSocket.
        """
        return socket_of(scope)

    # --- a view that owns a socket -----------------------------------------------------------

    def upgrade(
        self,
        handler: Handler,
        *,
        user: Principal | str | int | None,
        name: str | None = None,
        subprotocols: Sequence[str] = (),
        **policy: Unpack[Policy],
    ) -> WSGIApplication:
        """Accept an upgrade request in a view of the app's own, which has let its user in.

        Host, syntax, origin and caps are checked first; a refusal is the answer then. Returns a
        WSGI app, which a Flask view may return as it is.

        Args:
            handler: a conversation, called as `handler(ws)`; bind more with `functools.partial`.
            user: who it is; `None` is a 401, `Principal("")` is anybody.
            name: its name in logs and audiences, and what a user's sockets are counted under; where
                none is given, the path of the request, and the handler.
            subprotocols: those it speaks.
            policy: what differs here from the app's policy; `auth` is not asked, `authorize` is.

        Raises:
            ConfigError: the handler or a value is wrong.
        """
        return make_upgrade(
            self._hub,
            handler,
            user,
            name=name,
            subprotocols=subprotocols,
            policy=policy,
            needs_origin=True,
        )

    # --- open and closed ---------------------------------------------------------------------

    def listen(
        self,
        host: str = "127.0.0.1",
        port: int = 8001,
        *,
        reuse_port: bool = False,
        app: Flask | None = None,
    ) -> tuple[str, int]:
        """Serve on a port of our own, from a thread of our own; return the bound address.

        Belongs into the process that serves: a child forked later lets go of the port. With port 0
        the kernel chooses one. `app` says whose settings and context hold here, where `init_app`
        was called for several.

        Raises:
            ConfigError: the settings as a whole are wrong, or nobody said which app it is for.
            OSError: the address cannot be had.
        """
        return self._fronts.listen(host, port, reuse_port=reuse_port, app=app)

    def close(
        self, *, code: int = 1001, reason: str = "", over: float = 0.0, timeout: float = 10.0
    ) -> Receipt[None]:
        """Stop: no new sockets, a close for each old one, an end within `timeout` seconds.

        The closes are spread over `over` seconds, so that the clients don't come back at once. The
        receipt resolves when all is over; then this object is as new.

        Raises:
            ValueError: the code or the reason may not be sent (RFC 6455 section 7.4).
        """
        check_close(code, reason)
        return self._fronts.close(code, reason, over=over, timeout=timeout)


def _wrap(app: WSGIApplication, front: Front) -> WSGIMiddleware:
    return WSGIMiddleware(app, front.open, front.note_call, front.paths)


def _is_django_wsgi(app: WSGIApplication) -> bool:
    """Whether it is a handler of Django's; what is not imported yet cannot have made one."""
    handlers = sys.modules.get("django.core.handlers.wsgi")
    return handlers is not None and isinstance(app, handlers.WSGIHandler)


def _django_host() -> DjangoHost:
    from .django import DjangoHost  # noqa: PLC0415 - Django is the app's, not ours

    return DjangoHost()
