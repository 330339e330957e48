"""One app's front: its settings over those of the code, and what serves its sockets.

A `WebSockets` has one for each app that `init_app` was called with, each with an engine, caps and a
loop of its own, and one for the doors that no app is behind. What they share is the hub: an
audience spans all of them.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from .errors import ConfigError
from .gate.origin import OriginRule
from .gate.routing import PathSet
from .net.engine import Engine
from .net.sidecar import Sidecar
from .receipt import Receipt
from .route import Endpoint
from .settings import MEMORY, Settings, resolve_policy, unknown_variables

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Mapping
    from contextlib import AbstractContextManager
    from weakref import WeakSet

    from .hub.hub import Hub
    from .route import Route

__all__ = ["Front", "Host", "NoHost", "check_broker", "check_origins"]

_log: Final = logging.getLogger("ws_middleware.settings")


class Host(Protocol):
    """An app that is ours to serve sockets for, as its framework's module sees it."""

    @property
    def app(self) -> object:
        """What it is the host for; one app has one front."""

    @property
    def name(self) -> str:
        """What the app is called, for people."""

    @property
    def where(self) -> str:
        """Where its settings come from, for errors."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What its own configuration says."""

    def defaults(self, given: Collection[str]) -> Mapping[str, Any]:
        """Return what its configuration means for settings that are not `given` anywhere."""

    def context(self) -> AbstractContextManager[object]:
        """Return what surrounds each call of the app's code."""

    def adapt(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint with what only this app knows of it."""

    def add(self, endpoint: Endpoint) -> None:
        """Make an endpoint known to the app."""


class NoHost:
    """Stands where no app is behind a door: a port of our own, or any WSGI app."""

    app = None
    name = where = ""
    settings: Final[Mapping[str, Any]] = {}

    def defaults(self, given: Collection[str]) -> Mapping[str, Any]:  # noqa: ARG002
        """Return nothing."""
        return {}

    def context(self) -> AbstractContextManager[object]:
        """Return a context that does nothing."""
        return contextlib.nullcontext()

    def adapt(self, endpoint: Endpoint) -> Endpoint:
        """Return it as it is."""
        return endpoint

    def add(self, endpoint: Endpoint) -> None:
        """Tell nobody."""


class Front:
    """See the top of this module. `group` has the fronts of the same hub."""

    _numbers = itertools.count()

    def __init__(
        self,
        code: dict[str, Any],
        hub: Hub,
        group: WeakSet[Front],
        lock: threading.RLock,
        host: Host,
    ) -> None:
        self.settings = Settings(code)
        self.host = host
        #: For the order in which they were made.
        self.number = next(self._numbers)
        #: How much may wait for a socket, by route.
        self.outbound_bytes: dict[str, int] = {}
        self._hub = hub
        self._group = group
        self._lock = lock
        #: Whether a server has called a door of its, so that this process serves sockets.
        self.is_called = False
        #: What a page must not be opened at.
        self.paths = PathSet()
        self._routes: list[Route] = []
        self._serving: tuple[Engine, Sidecar] | None = None
        #: Ends what serves when nobody has the app any more, and so nobody has us.
        self._end: weakref.finalize[..., Front] | None = None

    @property
    def engine(self) -> Engine | None:
        """What decides, once a door is open."""
        serving = self._serving
        return None if serving is None else serving[0]

    @property
    def sidecar(self) -> Sidecar | None:
        """What serves, once a door is open."""
        serving = self._serving
        return None if serving is None else serving[1]

    # --- settings and routes -----------------------------------------------------------------

    def read_settings(self) -> None:
        """Take what the host's configuration and the environment say.

        Raises:
            ConfigError: a value is wrong.
            TypeError: there is no such setting.
        """
        self.read_environ()
        own = self.host.settings
        given = {*self.settings.code, *own, *self.settings.environ}
        told = {**self.host.defaults(given), **own}
        self.settings.add_host(told, self.host.where)
        check_origins(told)
        check_broker(told)

    def read_environ(self) -> None:
        """Take the WSM_* variables.

        Raises:
            ConfigError: a value is wrong.
        """
        self.settings.add_environ(os.environ)
        for check, variable in ((check_origins, "WSM_ORIGINS"), (check_broker, "WSM_BROKER")):
            try:
                check(self.settings.environ)
            except ConfigError as error:
                msg = f"{variable}: {error}"
                raise ConfigError(msg) from None

    def resolve(self, route: Route) -> Endpoint:
        """Return a route as this app serves it.

        Raises:
            ConfigError: its policy cannot be, or its path is one that this app cannot read.
        """
        endpoint = self.host.adapt(Endpoint.of(route, self.settings))
        endpoint.template.check()
        self.outbound_bytes[route.name] = endpoint.policy.limits.outbound_bytes
        fronts = {self, *self._group}
        self._hub.outbound_bytes[route.name] = max(
            front.outbound_bytes.get(route.name, 0) for front in fronts
        )
        return endpoint

    def add(self, route: Route) -> None:
        """Serve a route: at once where a door is open, else when one opens.

        Raises:
            ConfigError: its policy cannot be.
        """
        template = route.template
        if self._serving is not None or self.host.app is not None:
            endpoint = self.resolve(route)
            template = endpoint.template
            self.host.add(endpoint)
            if self._serving is not None:
                self._serving[0].add(endpoint)
        self.paths.add(template)
        self._routes.append(route)

    def describe(self) -> str:
        """Return every route with its whole policy, a line each.

        Raises:
            ConfigError: the settings as a whole are wrong, as when a door opens.
        """
        return "\n".join(_describe(self.resolve(route)) for route in self._routes)

    @property
    def endpoints(self) -> list[Endpoint]:
        """Every route as this app serves it.

        Raises:
            ConfigError: the settings as a whole are wrong.
        """
        return [self.resolve(route) for route in self._routes]

    # --- open and closed ---------------------------------------------------------------------

    def open(self) -> tuple[Engine, Sidecar]:
        """Return what serves, made if this is the first door.

        Raises:
            ConfigError: the settings as a whole are wrong.
        """
        serving = self._serving
        if serving is None:
            with self._lock:
                serving = self._serving
                if serving is None:
                    engine = self.make_engine(Engine)
                    serving = self._serving = engine, Sidecar(engine)
                    self._end = weakref.finalize(self, serving[1].end_soon)
                    self._end.atexit = False  # for the exit has an order of its own
        return serving

    def make_engine(self, make: Callable[..., Engine]) -> Engine:
        """Put the settings together; `make` is `Engine`, or the test kit's."""
        self.read_environ()
        for sentence in unknown_variables():
            _log.warning("%s", sentence)
        engine = make(self.settings, self._hub, _weak_context(self.host))
        if not self._routes and self.settings.get("auth") is None:
            resolve_policy(self.settings, {}, "WebSockets()")
        for endpoint in self.endpoints:
            engine.add(endpoint)
        return engine

    def swap(self, serving: tuple[Engine, Sidecar] | None) -> tuple[Engine, Sidecar] | None:
        """Serve with these instead, for the test kit; return what served before."""
        with self._lock:
            before, self._serving = self._serving, serving
        return before

    def close(self, code: int, reason: str, *, over: float, timeout: float) -> Receipt[None]:
        """Close every socket and every door; the receipt resolves when all is over."""
        with self._lock:
            serving, self._serving = self._serving, None
        if serving is None:
            return Receipt.ready(None)
        if self._end is not None:
            self._end.detach()
        return serving[1].close(code, reason, over=over, timeout=timeout)

    def after_fork(self, lock: threading.RLock) -> None:
        """A child has none of our threads: it is as if no door had been opened."""
        self._lock = lock
        self._serving = None

    def note_call(self, has_siblings: bool) -> None:  # noqa: FBT001 - a WSGI server's word
        """A server has called a door: it serves; with siblings, messages would miss a part."""
        self.is_called = True
        if has_siblings and self.settings.broker == MEMORY:
            self._hub.has_siblings = True


def _weak_context(host: Host) -> Callable[[], AbstractContextManager[object]]:
    """Return what makes the host's context; what serves an app must not keep it alive."""
    find = weakref.ref(host)

    def context() -> AbstractContextManager[object]:
        found = find()
        return contextlib.nullcontext() if found is None else found.context()

    return context


def check_origins(given: Mapping[str, Any]) -> None:
    """Refuse an origin that is none where it is given, and not first when a door opens.

    Raises:
        ConfigError: `given["origins"]` is wrong.
    """
    if "origins" in given:
        origins = given["origins"]
        if not isinstance(origins, (str, Sequence)):
            msg = f"origins takes 'same-origin', '*' or a list of origins, got {origins!r}"
            raise ConfigError(msg)
        OriginRule(origins if isinstance(origins, str) else tuple(origins), ambient=False)


def check_broker(given: Mapping[str, Any]) -> None:
    """Refuse a broker that cannot be used where it is given, and not first when a door opens.

    Raises:
        ConfigError: `given["broker"]` is no URL, or redis-py is not installed.
    """
    broker = str(given.get("broker", MEMORY))
    if not broker.startswith("redis"):
        return
    try:
        from .hub.brokers.addresses import Servers  # noqa: PLC0415 - the extra "redis"
    except ImportError:
        msg = "a redis:// broker needs redis-py: python -m pip install 'ws-middleware[redis]'"
        raise ConfigError(msg) from None
    Servers(broker)


def _describe(endpoint: Endpoint) -> str:
    policy = endpoint.policy
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
        "slow": policy.slow,
    }
    told = " ".join(f"{name}={value}" for name, value in parts.items())
    return f"{endpoint.route.path} [{endpoint.route.shape.value}] {told}"
