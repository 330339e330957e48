"""`WebSockets`: the one object a user makes. Settings, routes, audiences, doors."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack

from .codes import check_close
from .errors import ConfigError
from .flask import FlaskDoor
from .gate.origin import OriginRule
from .hub.audience import Audience
from .hub.hub import Hub
from .hub.registry import Address
from .names import Name, as_name
from .net.engine import Engine
from .net.sidecar import Sidecar
from .receipt import Receipt
from .route import Route
from .settings import Settings, check_keywords, resolve_policy, unknown_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from flask import Flask

    from .config import EffectivePolicy, Policy, ServerLimits
    from .websocket import WebSocket

__all__ = ["WebSockets"]

_log: Final = logging.getLogger("ws_middleware.settings")


class WebSockets:
    """WebSockets for an app: make one, give it routes, open a door.

    Args:
        server_limits: bounds of the whole front.
        sync_threads: threads for `def` events.
        sync_conversations: threads for `def` conversations, each as long as its socket.
        auth_threads: threads for `def` authenticators and `authorize`.
        policy: `auth`, `authorize`, `origins`, `heartbeat`, `limits`, `refuse_with`: what holds for
            every route that does not say otherwise. See `ws_middleware.config.Policy`.

    What is not given is taken from the host's configuration (Flask: `app.config["WEBSOCKETS"]`),
    then from `WSM_*` variables, then from the defaults.

    Raises:
        ConfigError: a value is wrong. What is wrong only as a whole is raised when a door opens.
        TypeError: there is no such setting.
    """

    def __init__(
        self,
        *,
        server_limits: ServerLimits | None = None,
        sync_threads: int | None = None,
        sync_conversations: int | None = None,
        auth_threads: int | None = None,
        **policy: Unpack[Policy],
    ) -> None:
        check_keywords(policy, "WebSockets()", app=True)
        _check_origins(policy)
        given: dict[str, Any] = dict(policy)
        own = {
            "server_limits": server_limits,
            "sync_threads": sync_threads,
            "sync_conversations": sync_conversations,
            "auth_threads": auth_threads,
        }
        given.update({name: value for name, value in own.items() if value is not None})
        self._settings = Settings(given)
        self._hub = Hub()
        self._routes: list[Route] = []
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._sidecar: Sidecar | None = None
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
        door.register(self)

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
                self._settings.add_environ(os.environ)
                _check_environ(self._settings.environ)
                for sentence in unknown_variables():
                    _log.warning("%s", sentence)
                engine = Engine(self._settings, self._hub, self._context)
                if not self._routes and self._settings.get("auth") is None:
                    resolve_policy(self._settings, {}, "WebSockets()")
                for route in self._routes:
                    self._resolve(route)
                    engine.add_route(route)
                self._engine, self._sidecar = engine, Sidecar(engine)
            return self._sidecar

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
