"""The fronts of one `WebSockets`: which app has which, and what holds where no app is named."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from .errors import ConfigError
from .front import Front
from .host import NoHost
from .receipt import when_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .host import Host
    from .hub.hub import Hub
    from .receipt import Receipt
    from .route import Guard, Route
    from .types import Refusal

__all__ = ["Fronts"]


class Fronts:
    """Every app that serves these routes, and the doors that no app is behind.

    An app keeps its front alive, and nothing here does: a factory may make many apps, and what
    serves one ends with it. Only where there is a single one it is kept, for it is the one that
    `listen` is meant for; and those that have listened are, until they are closed.
    """

    def __init__(self, code: dict[str, Any], hub: Hub) -> None:
        self.routes: list[Route] = []
        self.guards: list[Guard] = []
        self._code = code
        self._hub = hub
        self._lock = threading.RLock()
        self._all: weakref.WeakSet[Front] = weakref.WeakSet()
        self._paused: Refusal | None = None
        self._bare = self._make(NoHost())
        self._all.add(self._bare)
        self._only: Front | None = None
        self._listening: set[Front] = set()
        self._apps = 0
        #: Another number for each app that comes: what was known of all of them may be wrong now.
        self.version = 0
        _instances.add(self)

    def _make(self, host: Host) -> Front:
        front = Front(self._code, self._hub, self._all, self._lock, host)
        front.pause(self._paused)
        return front

    def __iter__(self) -> Iterator[Front]:
        """Yield every front there is, in the order in which they were made."""
        return iter(sorted(self._all, key=lambda front: front.number))

    @property
    def serving(self) -> Front | None:
        """One that serves here, if there is one: a server has called its door, or it is open."""
        return next((each for each in self if each.is_called or each.engine is not None), None)

    # --- apps --------------------------------------------------------------------------------

    def take_in(self, host: Host, call: str) -> Front:
        """Return the front of a host's app, made if there is none; `call` is for errors.

        Raises:
            ConfigError: its settings are wrong, or a port without an app is open already.
            TypeError: they name one that there is none of.
        """
        with self._lock:
            if self._bare.engine is not None:
                msg = f"{call} comes before listen(): the settings are fixed once a door is open"
                raise ConfigError(msg)
            known = self.find(host.app)
            front = known or self._make(host)
            if front.engine is None:
                front.read_settings()
                for route in self.routes:
                    front.resolve(route)
            if known is None:
                for route in self.routes:
                    front.add(route)
                for guard in self.guards:
                    front.add_guard(guard)
                self._all.add(front)
                self.version += 1
                self._apps += 1
                self._only = front if self._apps == 1 else None
        return front

    def find(self, app: object) -> Front | None:
        """Return the front of an app, if it has one."""
        return next((front for front in self._all if front.host.app is app), None)

    @property
    def default(self) -> Front:
        """The front of the only app there is; where there are none or several, that of no app."""
        return self._only or self._bare

    def choose(self, app: object = None) -> Front:
        """Return the front of `app`; without one, that of the only app there is, or of none.

        Raises:
            ConfigError: there are several apps, or this one is none of them.
        """
        if app is None and self._apps > 1:
            msg = (
                f"init_app() was called for {self._apps} apps: say whose settings hold, as in "
                "listen(app=app), or connect(app.test_client(), path) in a test"
            )
            raise ConfigError(msg)
        front = self.default if app is None else self.find(app)
        if front is None:
            msg = f"init_app() was never called for {app!r}"
            raise ConfigError(msg)
        return front

    def listen(
        self, host: str, port: int, *, reuse_port: bool, app: object = None
    ) -> tuple[str, int]:
        """Open a port for `app`, which need not be kept by anybody else then; return its address.

        Raises:
            ConfigError: see `choose`, or the settings as a whole are wrong.
            OSError: the address cannot be had.
        """
        front = self.choose(app)
        address = front.open()[1].listen(host, port, reuse_port=reuse_port)
        self._listening.add(front)
        return address

    def read_environ(self) -> None:
        """Take the WSM_* variables where no app of ours has taken them, and no door is open."""
        with self._lock:
            if self._bare.engine is None and not self._apps:
                self._bare.read_environ()

    # --- for all of them ---------------------------------------------------------------------

    def add_route(self, route: Route) -> None:
        """Serve a route in every app there is and will be.

        Raises:
            ConfigError: its path or its name is taken, or its policy cannot be.
        """
        with self._lock:
            for other in self.routes:
                if other.template.masked == route.template.masked or other.name == route.name:
                    msg = f"there is a route {other.name!r} at {other.path} already"
                    raise ConfigError(msg)
            for front in self._all:
                front.add(route)
            self.routes.append(route)

    def add_guard(self, guard: Guard) -> None:
        """Guard, in every app there is and will be, what it serves itself.

        Raises:
            ConfigError: its policy cannot be.
        """
        with self._lock:
            for front in self._all:
                front.add_guard(guard)
            self.guards.append(guard)

    def describe(self) -> str:
        """Return every route with its whole policy, a line each; for each app if there are several.

        Raises:
            ConfigError: the settings as a whole are wrong, as when a door opens.
        """
        if self._apps <= 1:
            return self.default.describe()
        told = [f"{each.host.name}:\n{each.describe()}" for each in self if each.host.app]
        return "\n".join(told)

    def pause(self, refusal: Refusal | None) -> None:
        """Refuse upgrades with this; with `None`, let in again."""
        self._paused = refusal
        for front in list(self._all):
            front.pause(refusal)

    def close(self, code: int, reason: str, *, over: float, timeout: float) -> Receipt[None]:
        """Close every socket and every door; the receipt resolves when all is over."""
        fronts = list(self._all)
        self._listening.clear()
        return when_all([each.close(code, reason, over=over, timeout=timeout) for each in fronts])

    def after_fork(self) -> None:
        """A child has none of our threads: it is as if no door had been opened."""
        self._lock = threading.RLock()
        self._listening.clear()
        for front in self._all:
            front.after_fork(self._lock)
        self._hub.after_fork()


#: For the hook, which is registered once and can never be taken back.
_instances: Final[weakref.WeakSet[Fronts]] = weakref.WeakSet()


def _reset_all() -> None:
    for fronts in list(_instances):
        fronts.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
