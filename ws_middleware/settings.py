"""Where settings come from and which one counts: code, then the host's configuration, then WSM_*.

`Settings` collects them; `resolve_policy` puts a route's policy together. Everything wrong is a
`ConfigError` or a `TypeError` here, before the first socket.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from .config import (
    DEFAULT_HEARTBEAT,
    DEFAULT_LIMITS,
    INHERIT,
    EffectivePolicy,
    Gap,
    Heartbeat,
    Limits,
    Policy,
    RefuseWith,
    ServerLimits,
    Slow,
)
from .errors import ConfigError
from .names import is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Settings", "check_keywords", "check_values", "resolve_policy", "unknown_variables"]

AUTH_MISSING: Final = (
    "WebSockets() needs auth=. JWTAuth(key, algorithms=[…]), any callable, or Anonymous() to let "
    "everybody in."
)

_POLICY_NAMES: Final = frozenset(Policy.__annotations__)

#: Threads of our own, by what runs in them; see `net/threads.py` for why there are three groups.
_THREAD_DEFAULTS: Final = {"sync_threads": 32, "sync_conversations": 32, "auth_threads": 8}

#: Settings that are on or off, with their defaults.
_SWITCHES: Final = {
    "tls_takeover": True,
    "abort_by_descriptor": True,
    "disabled": False,
    "drain_on_sigterm": False,
}

#: Settings of an app that are one number.
_NUMBERS: Final = ("drain_over", *_THREAD_DEFAULTS)

#: Settings that are a text.
_TEXTS: Final = ("broker", "prefix", "broker_secret")

_APP_NAMES: Final = frozenset({*_TEXTS, "server_limits", "trusted_proxies", *_SWITCHES, *_NUMBERS})

_PREFIX: Final = "WSM_"

#: What channels begin with where nothing else is said.
DEFAULT_PREFIX: Final = "wsm"
_SECRET_BYTES: Final = 32

#: Settings that are lists: comma-separated in a variable.
_LISTS: Final = ("origins", "allowed_hosts", "trusted_proxies")

#: Settings that are one of a few words; the first is the default.
_WORDS: Final = {"refuse_with": get_args(RefuseWith), "slow": get_args(Slow), "gap": get_args(Gap)}

#: Messages of audiences stay in the process; the second says that this is meant so.
MEMORY: Final = "memory://"
PER_PROCESS: Final = "memory://per-process"
#: What the URL of a broker begins with that other processes hear.
_REMOTE: Final = ("redis://", "rediss://", "redis+", "rediss+")

#: Fields of a group that only code says: what an app and its pages have agreed on.
_UNVARIABLE: Final = frozenset({"app_ping", "app_pong"})

#: How a switch is written in a variable.
_SWITCH_WORDS: Final = {"true": True, "1": True, "false": False, "0": False}

#: Settings that are groups of numbers: one variable for each number, WSM_LIMITS_MESSAGE_SIZE.
_GROUPS: Final[dict[str, type[Limits | ServerLimits | Heartbeat]]] = {
    "limits": Limits,
    "server_limits": ServerLimits,
    "heartbeat": Heartbeat,
}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the known name that looks most like `name`, else ""."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def check_keywords(given: Iterable[str], where: str, *, app: bool = False) -> None:
    """Refuse keyword arguments nobody knows, as Python would, but with the nearest name.

    Raises:
        TypeError: one of them is not a policy keyword (nor, with `app`, a setting of the app).
    """
    known = _POLICY_NAMES | _APP_NAMES if app else _POLICY_NAMES
    for name in given:
        if name not in known:
            msg = f"{where} has no setting {name!r}{nearest(name, known)}"
            raise TypeError(msg)


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
        self.environ = _read_environ(environ)

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
        return self.broker.startswith(_REMOTE)

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
        return cast("bool", self.get("tls_takeover", _SWITCHES["tls_takeover"]))

    @property
    def abort_by_descriptor(self) -> bool:
        """Whether connections that an ASGI server holds on to may be cut by their descriptor."""
        name = "abort_by_descriptor"
        return cast("bool", self.get(name, _SWITCHES[name]))

    @property
    def disabled(self) -> bool:
        """Whether no upgrade is let in."""
        return cast("bool", self.get("disabled", _SWITCHES["disabled"]))

    @property
    def drain_over(self) -> float | None:
        """Seconds over which a process that ends spreads its closes; `None`: by their number."""
        return cast("float | None", self.get("drain_over"))

    @property
    def drain_on_sigterm(self) -> bool:
        """Whether SIGTERM closes the sockets before an ASGI server has it."""
        return cast("bool", self.get("drain_on_sigterm", _SWITCHES["drain_on_sigterm"]))

    def threads(self, name: str) -> int:
        """Return how many threads the group `name` may have."""
        return cast("int", self.get(name, _THREAD_DEFAULTS[name]))


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


def check_values(given: Mapping[str, Any], where: str) -> None:
    """Check what can be checked of each value by itself."""
    _check_types(given, where)
    for name, (fits, wanted) in _CHECKS.items():
        if name in given and not fits(given[name]):
            msg = f"{where}: {name} takes {wanted}, got {given[name]!r}"
            raise ConfigError(msg)
    if isinstance(given.get("auth"), type):
        name = given["auth"].__name__
        msg = f"{where}: auth is the class {name}; make one: {name}(...)"
        raise ConfigError(msg)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_switch(value: object) -> bool:
    return isinstance(value, bool)


def _is_time(value: object) -> bool:
    if value is None:
        return True
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= cast("float", value) < float("inf")


def _is_broker(value: object) -> bool:
    return value in (MEMORY, PER_PROCESS) or (isinstance(value, str) and value.startswith(_REMOTE))


def _is_prefix(value: object) -> bool:
    return isinstance(value, str) and is_name(value) and not any(map(str.isspace, value))


def _is_secret(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value.encode()) >= _SECRET_BYTES)


def _is_call(value: object) -> bool:
    return value is None or callable(value)


#: What a value has to be, by itself, and how to say so.
_CHECKS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    **dict.fromkeys(_THREAD_DEFAULTS, (_is_count, "a whole number above 0")),
    **dict.fromkeys(_SWITCHES, (_is_switch, "True or False")),
    "drain_over": (_is_time, "seconds, 0 or more, or None"),
    "broker": (_is_broker, f"{MEMORY!r}, {PER_PROCESS!r} or a URL of Redis, redis://host:6379/0"),
    "prefix": (_is_prefix, "a name without blanks, as in 'shop'"),
    "broker_secret": (_is_secret, "a text of 32 bytes or more"),
    **{
        name: (words.__contains__, " or ".join(repr(word) for word in words))
        for name, words in _WORDS.items()
    },
    "auth": (_is_call, "a callable"),
    "authorize": (_is_call, "a callable"),
}


def _check_types(given: Mapping[str, Any], where: str) -> None:
    for name, kind in _GROUPS.items():
        value = given.get(name)
        if value is None and (name not in given or name == "heartbeat"):
            continue
        if not isinstance(value, kind):
            msg = f"{where}: {name} takes {kind.__name__}(...), got {value!r}"
            raise ConfigError(msg)


# --- WSM_* ---------------------------------------------------------------------------------------


def _variables() -> dict[str, tuple[str, str | None]]:
    """Return every variable there is: its name, the setting, the field of a group."""
    known: dict[str, tuple[str, str | None]] = {
        f"{_PREFIX}{name.upper()}": (name, None)
        for name in (*_LISTS, *_TEXTS, *_WORDS, *_SWITCHES, *_NUMBERS)
    }
    for group, kind in _GROUPS.items():
        for part in (each for each in fields(kind) if each.name not in _UNVARIABLE):
            known[f"{_PREFIX}{group.upper()}_{part.name.upper()}"] = (group, part.name)
    return known


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return a sentence for each WSM_* variable that means nothing, with the nearest that does."""
    known = _variables()
    return [
        f"the environment variable {name} means nothing{nearest(name, known)}"
        for name in (os.environ if environ is None else environ)
        if name.startswith(_PREFIX) and name not in known
    ]


def _read_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for variable, (name, part) in _variables().items():
        if variable not in environ:
            continue
        text = environ[variable]
        if part is not None:
            number: Any = _read_number(variable, text)
            given: dict[str, Any] = {part: number}
            try:
                _GROUPS[name](**given)
            except ConfigError as error:
                msg = f"{variable}: {error}"
                raise ConfigError(msg) from None
            groups.setdefault(name, {})[part] = number
        elif name in _NUMBERS:
            settings[name] = _read_number(variable, text)
        elif name in _SWITCHES:
            settings[name] = _read_switch(variable, text)
        elif name in _LISTS:
            settings[name] = _read_list(text)
        else:
            settings[name] = text
        if part is None:
            check_values({name: settings[name]}, variable)
    for name, values in groups.items():
        settings[name] = _GROUPS[name](**values)
    return settings


def _read_list(text: str) -> str | list[str]:
    if text in {"same-origin", "*"}:
        return text
    return [part for piece in text.split(",") if (part := piece.strip())]


def _read_switch(variable: str, text: str) -> bool:
    if text.lower() not in _SWITCH_WORDS:
        msg = f"{variable} takes true or false, or 1 or 0; got {text!r}"
        raise ConfigError(msg)
    return _SWITCH_WORDS[text.lower()]


def _read_number(variable: str, text: str) -> float | None:
    if text.lower() == "none":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    msg = f"{variable} takes a number, or none for no limit; got {text!r}"
    raise ConfigError(msg)
