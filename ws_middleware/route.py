"""A path with its policy, its handlers, and its own audiences.

A handler is one of three shapes: a conversation (`async def`, lives as long as the socket; a `def`
one holds a thread), events (`on_open`, `on_message`, `on_close`, each `def` or `async def`), or
none at all (push only). Everything that can be wrong with one is a `ConfigError` where it is given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final

from .callables import is_async, name_of, unwrapped
from .checks import check_keywords, check_values
from .config import INHERIT, Limits
from .errors import ConfigError
from .gate.routing import PathTemplate
from .hub.audience import RouteAudiences
from .names import as_name
from .settings import resolve_policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import EffectivePolicy, Policy
    from .hub.hub import Hub
    from .settings import Settings
    from .websocket import WebSocket  # noqa: F401 - named in the base

__all__ = ["Endpoint", "Guard", "Handler", "Rest", "Route", "Shape"]

Handler = Callable[..., Any]

#: What a handler is given besides the path's parameters, by event.
_ARGUMENTS: Final = {
    "conversation": ("ws",),
    "on_open": ("ws",),
    "on_message": ("ws", "message"),
    "on_close": ("ws",),
}

_RESERVED: Final = frozenset({"ws", "message"})

#: The parameter whose value is the socket's first room.
ROOM_PARAMETER: Final = "room"


class Shape(Enum):
    """How a route's sockets are served."""

    CONVERSATION = "async def conversation"
    BLOCKING = "def conversation"
    EVENTS = "events"
    PUSH = "push only"
    GUARDED = "guarded"


class Route(RouteAudiences["WebSocket"]):
    """What is served under one path. Made by `WebSockets.route`.

    As a decorator it takes a conversation and returns itself, so that routes stack.
    """

    kind: ClassVar[str] = "route"

    def __init__(
        self,
        path: str,
        *,
        hub: Hub,
        name: str | None,
        subprotocols: Sequence[str],
        policy: Policy,
    ) -> None:
        self.template = PathTemplate(path)
        self.path = path
        #: Its name in logs and on the bus.
        try:
            self.name = as_name(self.template.masked if name is None else name, "route name")
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if isinstance(subprotocols, str):
            msg = f"{path}: subprotocols takes a list, got the text {subprotocols!r}"
            raise ConfigError(msg)
        self.subprotocols = tuple(subprotocols)
        check_keywords(policy, f"route({path!r})")
        check_values(policy, f"route({path!r})")
        #: What was given; each app that serves it puts it together with its own (`Endpoint`).
        self.given: Policy = policy
        self.handler: Handler | None = None
        self.events: dict[str, Handler] = {}
        self._hub, self._route_name = hub, self.name
        for parameter in self.template.parameters:
            if parameter in _RESERVED:
                msg = (
                    f"{path}: a parameter cannot be called {parameter!r}, handlers get that already"
                )
                raise ConfigError(msg)

    def __repr__(self) -> str:
        return f"<Route {self.path} ({self.shape.value})>"

    # --- handlers ----------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """How its sockets are served."""
        if self.handler is not None:
            if is_async(self.handler):
                return Shape.CONVERSATION
            return Shape.BLOCKING
        return Shape.EVENTS if self.events else Shape.PUSH

    def __call__(self, handler: Handler | Route) -> Route:
        """Serve a conversation: `async def f(ws, **path_params)`, or `def`, which holds a thread.

        Raises:
            ConfigError: there is a handler already, or it doesn't take what it would be given.
        """
        function = handler.handler if isinstance(handler, Route) else handler
        if function is None:
            msg = f"{self.path}: the route below has no conversation to share; events don't stack"
            raise ConfigError(msg)
        self._check(function, "conversation")
        self.handler = function
        return self

    def on_open(self, handler: Handler) -> Handler:
        """Call `handler(ws, **path_params)` when a socket has opened, before any message."""
        return self._event("on_open", handler)

    def on_message(self, handler: Handler) -> Handler:
        """Call `handler(ws, message, **path_params)` for each message, in order, one at a time."""
        return self._event("on_message", handler)

    def on_close(self, handler: Handler) -> Handler:
        """Call `handler(ws, **path_params)` when a socket has ended, after the last message.

        Best effort: a process that is killed calls nothing.
        """
        return self._event("on_close", handler)

    def _event(self, event: str, handler: Handler) -> Handler:
        if event in self.events:
            msg = f"{self.path}: there is an {event} handler already"
            raise ConfigError(msg)
        self._check(handler, event)
        self.events[event] = handler
        return handler

    def _check(self, handler: Handler, event: str) -> None:
        conflict = self.events if event == "conversation" else self.handler
        if conflict or (event == "conversation" and self.handler is not None):
            msg = f"{self.path}: a route has one conversation, or events, not both and not two"
            raise ConfigError(msg)
        if not callable(handler):
            msg = f"{self.path}: {event} takes a function, got {handler!r}"
            raise ConfigError(msg)
        function = unwrapped(handler)
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            msg = (
                f"{self.path}: {name_of(handler)} has a yield in it; a handler sends with ws.send()"
            )
            raise ConfigError(msg)
        given = dict.fromkeys((*_ARGUMENTS[event], *self.template.parameters))
        positional = len(_ARGUMENTS[event])
        try:
            inspect.signature(handler).bind(
                *_ARGUMENTS[event], **dict.fromkeys(list(given)[positional:])
            )
        except (TypeError, ValueError) as error:  # ValueError: a builtin without a signature
            msg = (
                f"{self.path}: {name_of(handler)} is called as "
                f"{name_of(handler)}({', '.join(given)}), which it doesn't take: {error}"
            )
            raise ConfigError(msg) from None


class Guard(RouteAudiences["WebSocket"]):
    """A policy over WebSockets that a wrapped app serves itself. Made by `WebSockets.guard`.

    Its audiences are the sockets that it has let in.
    """

    kind: ClassVar[str] = "guard"
    shape: Final = Shape.GUARDED
    handler: Final = None
    subprotocols: Final = ()

    def __init__(self, path: str, *, hub: Hub, name: str | None, policy: Policy) -> None:
        self.template = PathTemplate(path)
        self.path = path
        #: Its name in logs and on the bus.
        try:
            self.name = as_name(self.template.masked if name is None else name, "guard name")
        except ValueError as error:
            raise ConfigError(str(error)) from None
        check_keywords(policy, f"guard({path!r})")
        check_values(policy, f"guard({path!r})")
        self.given: Policy = policy
        self.events: dict[str, Handler] = {}
        self._hub, self._route_name = hub, self.name

    def __repr__(self) -> str:
        return f"<Guard {self.path}>"

    def bound(self, policy: EffectivePolicy) -> EffectivePolicy:
        """Return the policy without the bounds that were not meant for the app's own messages.

        What it takes today it goes on taking: a size or a number of connections is a guard's only
        where the guard itself names it.
        """
        named = self.given.get("limits", Limits())
        open_ended: dict[str, Any] = {
            name: None for name in _GUARDS_OWN if getattr(named, name) is INHERIT
        }
        return replace(policy, limits=replace(policy.limits, **open_ended))


class Rest(Guard):
    """Guards, by the app's own policy, what no other guard is laid over, if there is any."""

    kind = "rest"


#: Limits that a guard has only if it names them itself.
_GUARDS_OWN: Final = ("message_size", "connections_per_user")


@dataclass(frozen=True)
class Endpoint:
    """A route as one app serves it: one route may have several, in a process with several apps."""

    route: Route | Guard
    #: The route's own words, then the app's, then the defaults.
    policy: EffectivePolicy
    #: The route's, with what the app's own converters match.
    template: PathTemplate
    #: What its sockets are counted under, for each user: nothing that a client may vary.
    name: str

    @classmethod
    def of(cls, route: Route | Guard, settings: Settings) -> Endpoint:
        """Put the policy of `route` together with an app's settings.

        Raises:
            ConfigError: nobody said who may connect, or two settings contradict each other.
        """
        policy = resolve_policy(settings, route.given, f"route {route.path}")
        if isinstance(route, Guard):
            policy = route.bound(policy)
        return cls(route, policy, route.template, route.name)

    def describe(self) -> str:
        """Return its path and its whole policy in one line."""
        policy = self.policy
        origins = policy.origins if isinstance(policy.origins, str) else ",".join(policy.origins)
        limits = policy.limits
        parts = {
            "auth": repr(policy.auth),
            "authorize": getattr(policy.authorize, "__qualname__", policy.authorize),
            "origins": origins,
            "heartbeat": policy.heartbeat and policy.heartbeat.describe(),
            "message_size": limits.message_size,
            "outbound_bytes": limits.outbound_bytes,
            "refuse_with": policy.refuse_with,
            "slow": policy.slow,
            "gap": policy.gap,
        }
        told = " ".join(f"{name}={value}" for name, value in parts.items())
        return f"{self.route.path} [{self.route.shape.value}] {told}"
