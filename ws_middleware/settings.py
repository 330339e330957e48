"""Where settings come from and which one counts: code, then the host's configuration, then WSM_*.

`Settings` collects them; `resolve_policy` puts a route's policy together. Everything wrong is a
`ConfigError` or a `TypeError` here, before the first socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from .checks import (
    DEFAULT_PREFIX,
    MEMORY,
    REMOTE,
    SWITCHES,
    THREAD_DEFAULTS,
    check_keywords,
    check_values,
)
from .config import (
    DEFAULT_HEARTBEAT,
    DEFAULT_LIMITS,
    INHERIT,
    EffectivePolicy,
    Heartbeat,
    Limits,
    Policy,
    ServerLimits,
)
from .errors import ConfigError
from .variables import read_environ

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Settings", "resolve_policy"]

AUTH_MISSING: Final = (
    "WebSockets() needs auth=. JWTAuth(key, algorithms=[…]), any callable, or Anonymous() to let "
    "everybody in."
)


@dataclass
class Settings:
    """One app's settings, layer over layer: what code gave, the host's configuration, WSM_*."""

    code: dict[str, Any]
    host: dict[str, Any] = field(default_factory=dict)
    environ: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_values(self.code, "WebSockets()")

    def add_host(self, given: Mapping[str, Any], where: str) -> None:
        """Take what the host application's own configuration says.

        Raises:
            TypeError: it names a setting that there is none of.
            ConfigError: a value is wrong.
        """
        check_keywords(given, where, app=True)
        check_values(given, where)
        self.host = dict(given)

    def add_environ(self, environ: Mapping[str, str]) -> None:
        """Take the WSM_* variables.

        Raises:
            ConfigError: a value is wrong; the text names the variable.
        """
        self.environ = read_environ(environ)

    @property
    def layers(self) -> tuple[dict[str, Any], ...]:
        """The layers, the first that counts first."""
        return self.code, self.host, self.environ

    def get(self, name: str, default: object = None) -> Any:  # noqa: ANN401 - one per setting
        """Return the value of `name` from the first layer that has one."""
        for layer in self.layers:
            if name in layer:
                return layer[name]
        return default

    @property
    def broker(self) -> str:
        """What carries messages to audiences between processes."""
        return cast("str", self.get("broker", MEMORY))

    @property
    def is_remote(self) -> bool:
        """Whether the broker is one that other processes hear."""
        return self.broker.startswith(REMOTE)

    @property
    def prefix(self) -> str:
        """What this app's channels begin with."""
        return cast("str", self.get("prefix", DEFAULT_PREFIX))

    @property
    def broker_secret(self) -> bytes | None:
        """What envelopes are signed with, if they are."""
        secret: str | None = self.get("broker_secret")
        return None if secret is None else secret.encode()

    @property
    def trusted_proxies(self) -> tuple[str, ...]:
        """The peers whose forwarded headers are believed."""
        return tuple(self.get("trusted_proxies", ()))

    @property
    def server_limits(self) -> ServerLimits:
        """The bounds of the whole front."""
        return cast("ServerLimits", self.get("server_limits", ServerLimits()))

    @property
    def tls_takeover(self) -> bool:
        """Whether connections are taken out of WSGI servers that end TLS themselves."""
        return cast("bool", self.get("tls_takeover", SWITCHES["tls_takeover"]))

    @property
    def abort_by_descriptor(self) -> bool:
        """Whether connections that an ASGI server holds on to may be cut by their descriptor."""
        name = "abort_by_descriptor"
        return cast("bool", self.get(name, SWITCHES[name]))

    @property
    def disabled(self) -> bool:
        """Whether no upgrade is let in."""
        return cast("bool", self.get("disabled", SWITCHES["disabled"]))

    @property
    def drain_over(self) -> float | None:
        """Seconds over which a process that ends spreads its closes; `None`: by their number."""
        return cast("float | None", self.get("drain_over"))

    @property
    def drain_on_sigterm(self) -> bool:
        """Whether SIGTERM closes the sockets before an ASGI server has it."""
        return cast("bool", self.get("drain_on_sigterm", SWITCHES["drain_on_sigterm"]))

    def threads(self, name: str) -> int:
        """Return how many threads the group `name` may have."""
        return cast("int", self.get(name, THREAD_DEFAULTS[name]))


def resolve_policy(settings: Settings, route: Policy, where: str) -> EffectivePolicy:
    """Put the policy of one route together.

    Raises:
        ConfigError: nobody said who may connect, or two settings contradict each other.
    """
    check_values(route, where)
    auth = route.get("auth", settings.get("auth"))
    if auth is None:
        raise ConfigError(AUTH_MISSING)
    origins = route.get("origins", settings.get("origins", "same-origin"))
    policy = EffectivePolicy(
        auth=auth,
        authorize=route.get("authorize", settings.get("authorize")),
        origins=origins if isinstance(origins, str) else tuple(origins),
        allowed_hosts=_resolve_hosts(settings, route),
        heartbeat=_resolve_heartbeat(settings, route, where),
        heartbeat_is_given=_is_heartbeat_given(settings, route),
        limits=_resolve_limits(settings, route),
        refuse_with=route.get("refuse_with", settings.get("refuse_with", "http")),
        slow=route.get("slow", settings.get("slow", "close")),
        gap=route.get("gap", settings.get("gap", "keep")),
    )
    if policy.origins == "*" and policy.is_ambient:
        msg = (
            f"{where}: origins='*' lets any page ride on the user's cookies. List the origins, or "
            "use an authenticator that never looks at what a browser sends by itself "
            "(JWTAuth, Anonymous, or a callable with ambient = False)."
        )
        raise ConfigError(msg)
    return policy


def _resolve_hosts(settings: Settings, route: Policy) -> tuple[str, ...] | None:
    given = route.get("allowed_hosts", settings.get("allowed_hosts"))
    return None if given is None else (given,) if isinstance(given, str) else tuple(given)


def _resolve_limits(settings: Settings, route: Policy) -> Limits:
    limits = route.get("limits", Limits())
    for layer in settings.layers:
        limits = limits.inherit(layer.get("limits", Limits()))
    return limits.inherit(DEFAULT_LIMITS)


def _resolve_heartbeat(settings: Settings, route: Policy, where: str) -> Heartbeat | None:
    given = [layer["heartbeat"] for layer in (route, *settings.layers) if "heartbeat" in layer]
    if given and given[0] is None:
        return None
    heartbeat = Heartbeat()
    try:
        for each in (*given, DEFAULT_HEARTBEAT):
            heartbeat = heartbeat.inherit(each or Heartbeat())
    except ConfigError as error:  # two of them contradict each other
        msg = f"{where}: {error}"
        raise ConfigError(msg) from None
    return heartbeat


def _is_heartbeat_given(settings: Settings, route: Policy) -> bool:
    """Whether any layer says when to ping, or never to; `Heartbeat()` says nothing."""
    said = [layer.get("heartbeat", Heartbeat()) for layer in (route, *settings.layers)]
    return any(
        each is None or each.interval is not INHERIT or each.timeout is not INHERIT for each in said
    )
