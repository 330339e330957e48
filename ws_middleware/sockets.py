"""`WebSockets`: the one object a user makes. Settings, routes, audiences, doors."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack

from .codes import check_close
from .errors import ConfigError
from .flask import FlaskDoor
from .gate.auth.anonymous import Anonymous
from .gate.auth.app import ViewAuth
from .gate.origin import OriginRule
from .gate.routing import PathSet
from .hub.audience import Audience
from .hub.hub import Hub
from .hub.registry import Address
from .names import Name, as_name
from .net.engine import Engine
from .net.sidecar import Sidecar
from .receipt import Receipt
from .route import Route
from .settings import MEMORY, Settings, check_keywords, resolve_policy, unknown_variables
from .types import as_principal
from .wsgi import OFFER, Offer, WSGIMiddleware, refuse_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask

    from .config import EffectivePolicy, Policy, ServerLimits
    from .django import DjangoHost
    from .route import Handler
    from .types import Principal
    from .websocket import WebSocket

__all__ = ["WebSockets"]

_log: Final = logging.getLogger("ws_middleware.settings")


class WebSockets:
    """WebSockets for an app: make one, give it routes, open a door.

    Args:
        broker: what carries audience messages between processes: "memory://" (nothing does; a send
            raises `BrokerRequired` where there are siblings) or "memory://per-process" (nothing
            does, and that is meant so).
        trusted_proxies: addresses or networks whose `X-Forwarded-*` headers are believed.
        server_limits: bounds of the whole front.
        drain_over: seconds over which a worker of a WSGI server that ends spreads the closes of its
            sockets; `None`: 0.02 a socket, at most 10 and a third of gunicorn's graceful timeout.
        sync_threads: threads for `def` events.
        sync_conversations: threads for `def` conversations, each as long as its socket.
        auth_threads: threads for `def` authenticators and `authorize`.
        tls_takeover: whether connections are taken out of WSGI servers that end TLS themselves, by
            giving methods of another socket to the server's `ssl.SSLSocket`. Off: refused with 501.
        policy: `auth`, `authorize`, `origins`, `heartbeat`, `limits`, `refuse_with`: what holds for
            every route that does not say otherwise. See `ws_middleware.config.Policy`.

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
        trusted_proxies: Sequence[str] | None = None,
        server_limits: ServerLimits | None = None,
        drain_over: float | None = None,
        sync_threads: int | None = None,
        sync_conversations: int | None = None,
        auth_threads: int | None = None,
        tls_takeover: bool | None = None,
        **policy: Unpack[Policy],
    ) -> None:
        check_keywords(policy, "WebSockets()", app=True)
        _check_origins(policy)
        given: dict[str, Any] = dict(policy)
        own = {
            "broker": broker,
            "trusted_proxies": trusted_proxies,
            "server_limits": server_limits,
            "drain_over": drain_over,
            "sync_threads": sync_threads,
            "sync_conversations": sync_conversations,
            "auth_threads": auth_threads,
            "tls_takeover": tls_takeover,
        }
        given.update({name: value for name, value in own.items() if value is not None})
        self._settings = Settings(given)
        self._hub = Hub()
        self._routes: list[Route] = []
        self._paths = PathSet()
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._sidecar: Sidecar | None = None
        self._doors: list[FlaskDoor] = []
        self._context: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
        _instances.add(self)

    def __repr__(self) -> str:
        return f"<WebSockets {len(self._routes)} routes>"

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
        _check_origins(policy)
        route = Route(path, hub=self._hub, name=name, subprotocols=subprotocols, policy=policy)
        with self._lock:
            for other in self._routes:
                if other.template.masked == route.template.masked or other.name == route.name:
                    msg = f"there is a route {other.name!r} at {other.path} already"
                    raise ConfigError(msg)
            if self._engine is not None:
                self._resolve(route)
                self._engine.add_route(route)
            self._routes.append(route)
            self._paths.add(route.template)
            for door in self._doors:
                self._resolve(route)
                door.add_route(route)
        return route

    def describe(self) -> str:
        """Return every route with its whole policy, a line each.

        Raises:
            ConfigError: the settings as a whole are wrong, as when a door opens.
        """
        for route in self._routes:
            self._resolve(route)
        return "\n".join(_describe(route) for route in self._routes)

    def _resolve(self, route: Route) -> None:
        route.policy = resolve_policy(self._settings, route.given, f"route {route.path}")
        self._hub.outbound_bytes[route.name] = route.policy.limits.outbound_bytes

    # --- audiences ---------------------------------------------------------------------------

    def room(self, name: Name) -> Audience[WebSocket]:
        """Return the sockets of all routes that are in a room.

        Raises:
            TypeError, ValueError: it is no name for a room.
        """
        return self._audience(Address("room", as_name(name, "room")))

    def user(self, id: Name) -> Audience[WebSocket]:  # noqa: A002 - what it is
        """Return the sockets of all routes that belong to a user: every tab.

        Raises:
            TypeError, ValueError: it is no id of a user.
        """
        return self._audience(Address("user", as_name(id, "user id")))

    def socket(self, id: str) -> Audience[WebSocket]:  # noqa: A002 - what it is
        """Return the one socket with this id, if it is there.

        Raises:
            TypeError, ValueError: it is no id of a socket.
        """
        return self._audience(Address("socket", as_name(id, "socket id")))

    @property
    def everyone(self) -> Audience[WebSocket]:
        """All sockets of all routes."""
        return self._audience(Address("everyone"))

    def _audience(self, address: Address) -> Audience[WebSocket]:
        return Audience(self._hub, address)

    # --- doors -------------------------------------------------------------------------------

    def init_app(self, app: Flask) -> None:
        """Make a Flask app our host: its configuration, its app context around our handlers.

        Raises:
            ConfigError: `app.config["WEBSOCKETS"]` is wrong, the settings as a whole are, or a door
                is open already.
            TypeError: it names a setting that there is none of.
        """
        door = FlaskDoor(app)
        with self._lock:
            if self._engine is not None:
                msg = "init_app() comes before listen(): the settings are fixed once a door is open"
                raise ConfigError(msg)
            self._settings.add_host(door.settings, 'app.config["WEBSOCKETS"]')
            _check_origins(door.settings)
            self._context = door.context
            self._settings.add_environ(os.environ)
            _check_environ(self._settings.environ)
            self.describe()
            door.register(self, self.wsgi)
            for route in self._routes:
                door.add_route(route)
            self._doors.append(door)

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
        host = _django_host(app)
        if host is not None:
            app = self._adopt(host, app)
        return WSGIMiddleware(app, self._door, self._note_siblings, self._paths)

    def _adopt(self, host: DjangoHost, app: WSGIApplication) -> WSGIApplication:
        """Make a Django project our host, as `init_app` does with a Flask app."""
        with self._lock:
            if self._engine is not None:
                msg = "wsgi() comes before listen(): the settings are fixed once a door is open"
                raise ConfigError(msg)
            self._settings.add_environ(os.environ)
            own = host.settings
            given = {*self._settings.code, *own, *self._settings.environ}
            told = {**host.defaults(given), **own}
            self._settings.add_host(told, host.where)
            _check_origins(told)
            self._context = host.context
            self.describe()
            host.register(self)
        return host.wrap(app, self.upgrade)

    def _note_siblings(self) -> None:
        """The server has sibling workers: audience messages would reach only a part."""
        self._hub.has_siblings = self._settings.broker == MEMORY

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
            name: its name in logs and audiences; the path of the request where none is given.
            subprotocols: those it speaks.
            policy: what differs here from the app's policy; `auth` is not asked, `authorize` is.

        Raises:
            ConfigError: the handler or a value is wrong.
        """
        return self._upgrade(handler, user, name, subprotocols, policy, needs_origin=True)

    def _upgrade(
        self,
        handler: Handler,
        user: Principal | str | int | None,
        name: str | None,
        subprotocols: Sequence[str],
        policy: Policy,
        *,
        needs_origin: bool,
    ) -> WSGIApplication:
        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            offer: Offer | None = environ.get(OFFER)
            if offer is None:
                return refuse_page(environ, start_response)
            path = environ.get("PATH_INFO") or "/"
            route = self._view_route(
                path, handler, name, subprotocols, policy, needs_origin=needs_origin
            )
            refusal = offer.accept(route, as_principal(user), needs_origin=needs_origin)
            if refusal is not None:
                return offer.refuse(refusal, start_response)
            start_response("101 Switching Protocols", [])
            return []

        return answer

    def _view_route(
        self,
        path: str,
        handler: Handler,
        name: str | None,
        subprotocols: Sequence[str],
        policy: Policy,
        *,
        needs_origin: bool,
    ) -> Route:
        route = Route(
            "/", hub=self._hub, name=name or path, subprotocols=subprotocols, policy=policy
        )
        route(handler)
        # How the view knew its user is not known here: as bad as a cookie, unless it says not.
        given: Policy = {**policy, "auth": ViewAuth() if needs_origin else Anonymous()}
        route.policy = resolve_policy(self._settings, given, f"upgrade() at {path}")
        return route

    def _door(self) -> tuple[Engine, Sidecar]:
        engine, sidecar = self._engine, self._sidecar
        if engine is None or sidecar is None:
            sidecar = self._open()
            engine = self._engine
            assert engine is not None
        return engine, sidecar

    def listen(
        self, host: str = "127.0.0.1", port: int = 8001, *, reuse_port: bool = False
    ) -> tuple[str, int]:
        """Serve on a port of our own, from a thread of our own; return the bound address.

        Belongs into the process that serves: a child forked later lets go of the port. With port 0
        the kernel chooses one.

        Raises:
            ConfigError: the settings as a whole are wrong.
            OSError: the address cannot be had.
        """
        return self._open().listen(host, port, reuse_port=reuse_port)

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
        with self._lock:
            sidecar, self._sidecar, self._engine = self._sidecar, None, None
        if sidecar is None:
            return Receipt.ready(None)
        return sidecar.close(code, reason, over=over, timeout=timeout)

    def _open(self) -> Sidecar:
        """Put the settings together and return what serves, made if it is the first door."""
        with self._lock:
            if self._sidecar is None:
                engine = self._make_engine(Engine)
                self._engine, self._sidecar = engine, Sidecar(engine)
            return self._sidecar

    def _make_engine(self, make: Callable[..., Engine]) -> Engine:
        self._settings.add_environ(os.environ)
        _check_environ(self._settings.environ)
        for sentence in unknown_variables():
            _log.warning("%s", sentence)
        engine = make(self._settings, self._hub, self._context)
        if not self._routes and self._settings.get("auth") is None:
            resolve_policy(self._settings, {}, "WebSockets()")
        for route in self._routes:
            self._resolve(route)
            engine.add_route(route)
        return engine

    def _swap_door(
        self, engine: Engine | None, sidecar: Sidecar | None
    ) -> tuple[Engine | None, Sidecar | None]:
        """Serve with these instead, for the test kit; return what served before."""
        with self._lock:
            before = self._engine, self._sidecar
            self._engine, self._sidecar = engine, sidecar
        return before

    def _after_fork(self) -> None:
        """A child has none of our threads: it is as if no door had been opened."""
        self._lock = threading.RLock()
        self._engine = self._sidecar = None
        self._hub.after_fork()


#: For the hook, which is registered once and can never be taken back.
_instances: Final[weakref.WeakSet[WebSockets]] = weakref.WeakSet()


def _reset_all() -> None:
    for sockets in list(_instances):
        sockets._after_fork()  # noqa: SLF001 - the hook is its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)


def _django_host(app: WSGIApplication) -> DjangoHost | None:
    """Return the host of a Django handler; what is not imported yet cannot have made one."""
    handlers = sys.modules.get("django.core.handlers.wsgi")
    if handlers is None or not isinstance(app, handlers.WSGIHandler):
        return None
    from .django import DjangoHost  # noqa: PLC0415 - Django is the app's, not ours

    return DjangoHost()


def _check_environ(environ: Mapping[str, Any]) -> None:
    try:
        _check_origins(environ)
    except ConfigError as error:
        msg = f"WSM_ORIGINS: {error}"
        raise ConfigError(msg) from None


def _check_origins(given: Mapping[str, Any]) -> None:
    """Refuse an origin that is none where it is given, and not first when a door opens."""
    if "origins" in given:
        origins = given["origins"]
        if not isinstance(origins, (str, Sequence)):
            msg = f"origins takes 'same-origin', '*' or a list of origins, got {origins!r}"
            raise ConfigError(msg)
        OriginRule(origins if isinstance(origins, str) else tuple(origins), ambient=False)


def _describe(route: Route) -> str:
    policy: EffectivePolicy = route.policy
    heartbeat = policy.heartbeat
    origins = policy.origins if isinstance(policy.origins, str) else ",".join(policy.origins)
    limits = policy.limits
    parts = {
        "auth": repr(policy.auth),
        "authorize": getattr(policy.authorize, "__qualname__", policy.authorize),
        "origins": origins,
        "heartbeat": f"{heartbeat.interval:g}/{heartbeat.timeout:g} s" if heartbeat else None,
        "message_size": limits.message_size,
        "outbound_bytes": limits.outbound_bytes,
        "refuse_with": policy.refuse_with,
    }
    told = " ".join(f"{name}={value}" for name, value in parts.items())
    return f"{route.path} [{route.shape.value}] {told}"
