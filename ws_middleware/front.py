"""One app's front: its settings over those of the code, and what serves its sockets.

A `WebSockets` has one for each app that `init_app` was called with, each with an engine, caps and a
loop of its own, and one for the doors that no app is behind. What they share is the hub: an
audience spans all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .checks import MEMORY
from .doors import Door
from .errors import ConfigError
from .gate.routing import PathSet
from .given import check_broker, check_origins
from .misfits import find_complaints
from .net.engine import Engine
from .net.hosted import Hosted
from .net.sidecar import Sidecar
from .receipt import Receipt, when_all
from .route import Endpoint, Rest
from .settings import Settings, resolve_policy
from .types import Refusal
from .variables import unknown_variables

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from weakref import WeakSet

    from .doors import Server
    from .host import Host
    from .hub.hub import Hub
    from .route import Guard, Route

    #: What serves an app: what decides, the loop that is ours, and those that are somebody else's.
    Serving = tuple[Engine, Sidecar, Hosted]

__all__ = ["DISABLED", "PAUSED", "Front", "openers"]

_log: Final = logging.getLogger("ws_middleware.settings")


#: What upgrades are answered while nobody is let in.
_SHUT: Final = "WebSockets are switched off for now"
DISABLED: Final = Refusal(503, "disabled", _SHUT, "disabled=True, or WSM_DISABLED", retry_after=60)
PAUSED: Final = Refusal(503, "paused", _SHUT, "until sockets.resume()", retry_after=30)


#: What opens the doors of apps on a loop, where that is not the app's front: the test kit.
openers: Final[
    weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Callable[[Front], tuple[Engine, Hosted]]]
] = weakref.WeakKeyDictionary()


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
        #: Doors of which it was said what does not hold behind them.
        self._checked: set[Door] = set()
        self._paused: Refusal | None = None
        self._guards: list[Guard] = []
        #: What guards that no other guard does: the app's own policy.
        self._rest = Rest("/", hub=hub, name="*", policy={})
        #: Whether it does: for an app that may serve WebSockets that no guard is laid over.
        self.guards_rest = False
        self._own: Serving | None = None
        #: What serves in its place, see `stage`.
        self._staged: Serving | None = None
        #: Ends what serves when nobody has the app any more, and so nobody has us.
        self._end: weakref.finalize[..., Front] | None = None

    @property
    def _serving(self) -> Serving | None:
        return self._staged or self._own

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

    @property
    def is_closing(self) -> bool:
        """Whether `close` is under way."""
        serving = self._serving
        return serving is not None and (serving[1].is_closing or serving[2].is_closing)

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

    def resolve(self, route: Route | Guard) -> Endpoint:
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

    def add_guard(self, guard: Guard) -> None:
        """Guard what the host app serves itself: at once where a door is open, else when one opens.

        Raises:
            ConfigError: its policy cannot be.
        """
        self._guards.append(guard)
        if self._serving is not None:
            self._serving[0].guard(self.resolve(guard))

    def describe(self) -> str:
        """Return every route with its whole policy, a line each; then every guard.

        Raises:
            ConfigError: the settings as a whole are wrong, as when a door opens.
        """
        everything: tuple[Route | Guard, ...] = (*self._routes, *self._guards)
        return "\n".join(self.resolve(each).describe() for each in everything)

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
        return (self._serving or self._open_own())[:2]

    def _open_own(self) -> Serving:
        with self._lock:
            if self._own is None:
                engine = self.make_engine(Engine)
                self._own = engine, Sidecar(engine), Hosted(engine)
                self._end = weakref.finalize(self, self._own[1].end_soon)
                self._end.atexit = False  # for the exit has an order of its own
            return self._own

    def open_here(self) -> tuple[Engine, Hosted]:
        """Return what serves on a loop that is somebody else's.

        Raises:
            ConfigError: the settings as a whole are wrong.
        """
        opener = openers.get(asyncio.get_running_loop())
        if opener is not None:
            return opener(self)
        engine, _, hosted = self._own or self._open_own()
        return engine, hosted

    def guard_rest(self) -> None:
        """Guard by the app's own policy, too: it may serve WebSockets that no guard is laid over.

        Raises:
            ConfigError: a door is open, and there is no such policy.
        """
        self.guards_rest = True
        if self._serving is not None:
            self._serving[0].guard_rest(self.resolve(self._rest))

    def has_path(self, path: str) -> bool:
        """Whether a route of ours is at `path`."""
        return path in self.paths

    def check_guards(self) -> None:
        """Check what is in front of an app that may serve WebSockets by itself.

        Raises:
            ConfigError: the settings as a whole are wrong, or the app has no policy.
        """
        self._resolve_all()

    def _resolve_all(self) -> list[Endpoint]:
        self.read_environ()
        rest = (self._rest,) if self.guards_rest else ()
        everything: tuple[Route | Guard, ...] = (*self._routes, *self._guards, *rest)
        return [self.resolve(each) for each in everything]

    def make_engine(self, make: Callable[..., Engine]) -> Engine:
        """Put the settings together; `make` is `Engine`, or the test kit's."""
        self.read_environ()
        for sentence in unknown_variables():
            _log.warning("%s", sentence)
        engine = make(self.settings, self._hub, _weak_context(self.host))
        engine.gate.shut(self.shut_with)
        if not self._routes and self.settings.get("auth") is None:
            resolve_policy(self.settings, {}, "WebSockets()")
        for endpoint in self.endpoints:
            engine.add(endpoint)
        for guard in self._guards:
            engine.guard(self.resolve(guard))
        if self.guards_rest:
            engine.guard_rest(self.resolve(self._rest))
        return engine

    def stage(self, serving: Serving) -> None:
        """Serve with these instead, for the test kit, until they are to be forgotten.

        Where it serves already, and on loops that are somebody else's, nothing changes.
        """
        self._staged = serving

    def close(
        self, code: int, reason: str, *, over: float, timeout: float, for_good: bool = False
    ) -> Receipt[None]:
        """Close every socket and every door; the receipt resolves when all is over.

        After it whoever comes is let in, as new; `for_good`: refused, for the process ends.
        """
        if self._end is not None:
            self._end.detach()
        ends = []
        for serving in (self._staged, self._own):
            if serving is not None:
                closed = _close(serving, code, reason, over=over, timeout=timeout)
                # Until then it refuses what comes: a new one would let in who has just been sent
                # away.
                if not for_good:
                    closed.add_done_callback(partial(self.forget, serving))
                ends.append(closed)
        return when_all(ends)

    def forget(self, serving: Serving) -> None:
        """Serve with these no more, if it still does. From any thread."""
        # No lock: this may be a thread that must not wait.
        if self._staged is serving:
            self._staged = None
        elif self._own is serving:
            self._own = None

    def pause(self, refusal: Refusal | None) -> None:
        """Refuse upgrades with this, now and when a door opens; with `None`, let in again."""
        self._paused = refusal
        if self._serving is not None and not self.is_closing:
            self._serving[0].gate.shut(self.shut_with)

    @property
    def shut_with(self) -> Refusal | None:
        """What every upgrade is refused with, if it is."""
        return DISABLED if self.settings.disabled else self._paused

    def after_fork(self, lock: threading.RLock) -> None:
        """A child has none of our threads: it is as if no door had been opened."""
        self._lock = lock
        self._own = self._staged = None

    def note_call(self, has_siblings: bool, server: Server | None = None) -> None:  # noqa: FBT001
        """A server has called a door: it serves; with siblings, messages would miss a part."""
        self.is_called = True
        if has_siblings and self.settings.broker == MEMORY:
            self._hub.has_siblings = True
        if server is not None:
            self._check_server(server)

    def _check_server(self, server: Server) -> None:
        """Say, once for each kind of door, what was set and does not hold behind it."""
        sidecar = self.sidecar
        has_port = server.door is Door.WSGI and sidecar is not None and sidecar.is_listening
        if server.door in self._checked or has_port:  # on the port all holds
            return
        self._checked.add(server.door)
        try:
            endpoints = self._resolve_all()
        except ConfigError:  # which whoever opens the door hears
            return
        for sentence in find_complaints(server, self.settings, endpoints, self.host.where):
            _log.warning("%s", sentence)


def _close(
    serving: Serving, code: int, reason: str, *, over: float, timeout: float
) -> Receipt[None]:
    _, sidecar, hosted = serving
    end = partial(sidecar.close, code, reason, over=over, timeout=timeout)
    elsewhere = partial(hosted.close, code, reason, over=over, timeout=timeout)
    if sidecar.runtime is None:  # it has but threads, which handlers elsewhere still need
        return _after(elsewhere(), end)
    return when_all([end(), elsewhere()])


def _after(first: Receipt[None], then: Callable[[], Receipt[None]]) -> Receipt[None]:
    """Return a receipt for what begins when another one is done."""
    both: Receipt[None] = Receipt()
    first.add_done_callback(lambda: then().add_done_callback(lambda: both.resolve(None)))
    return both


def _weak_context(host: Host) -> Callable[[], AbstractContextManager[object]]:
    """Return what makes the host's context; what serves an app must not keep it alive."""
    find = weakref.ref(host)

    def context() -> AbstractContextManager[object]:
        found = find()
        return contextlib.nullcontext() if found is None else found.context()

    return context
