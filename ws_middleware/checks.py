"""Every setting there is, by what it takes, and whether a value can be one.

What is wrong with a value by itself is said here, with the place where it was given.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from .config import Gap, Heartbeat, Limits, Policy, RefuseWith, ServerLimits, Slow
from .errors import ConfigError
from .names import is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["check_keywords", "check_values", "nearest"]

POLICY_NAMES: Final = frozenset(Policy.__annotations__)

#: Threads of our own, by what runs in them; see `net/threads.py` for why there are three groups.
THREAD_DEFAULTS: Final = {"sync_threads": 32, "sync_conversations": 32, "auth_threads": 8}

#: Settings that are on or off, with their defaults.
SWITCHES: Final = {
    "tls_takeover": True,
    "abort_by_descriptor": True,
    "disabled": False,
    "drain_on_sigterm": False,
}

#: Settings of an app that are one number.
NUMBERS: Final = ("drain_over", *THREAD_DEFAULTS)

#: Settings that are a text.
TEXTS: Final = ("broker", "prefix", "broker_secret")

APP_NAMES: Final = frozenset({*TEXTS, "server_limits", "trusted_proxies", *SWITCHES, *NUMBERS})

#: What channels begin with where nothing else is said.
DEFAULT_PREFIX: Final = "wsm"
_SECRET_BYTES: Final = 32

#: Settings that are lists: comma-separated in a variable.
LISTS: Final = ("origins", "allowed_hosts", "trusted_proxies")

#: Settings that are one of a few words; the first is the default.
WORDS: Final = {"refuse_with": get_args(RefuseWith), "slow": get_args(Slow), "gap": get_args(Gap)}

#: Messages of audiences stay in the process; the second says that this is meant so.
MEMORY: Final = "memory://"
PER_PROCESS: Final = "memory://per-process"
#: What the URL of a broker begins with that other processes hear.
REMOTE: Final = ("redis://", "rediss://", "redis+", "rediss+")

#: Settings that are groups of numbers: one variable for each number, WSM_LIMITS_MESSAGE_SIZE.
GROUPS: Final[dict[str, type[Limits | ServerLimits | Heartbeat]]] = {
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
    known = POLICY_NAMES | APP_NAMES if app else POLICY_NAMES
    for name in given:
        if name not in known:
            msg = f"{where} has no setting {name!r}{nearest(name, known)}"
            raise TypeError(msg)


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
    return value in (MEMORY, PER_PROCESS) or (isinstance(value, str) and value.startswith(REMOTE))


def _is_prefix(value: object) -> bool:
    return isinstance(value, str) and is_name(value) and not any(map(str.isspace, value))


def _is_secret(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value.encode()) >= _SECRET_BYTES)


def _is_call(value: object) -> bool:
    return value is None or callable(value)


#: What a value has to be, by itself, and how to say so.
_CHECKS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    **dict.fromkeys(THREAD_DEFAULTS, (_is_count, "a whole number above 0")),
    **dict.fromkeys(SWITCHES, (_is_switch, "True or False")),
    "drain_over": (_is_time, "seconds, 0 or more, or None"),
    "broker": (_is_broker, f"{MEMORY!r}, {PER_PROCESS!r} or a URL of Redis, redis://host:6379/0"),
    "prefix": (_is_prefix, "a name without blanks, as in 'shop'"),
    "broker_secret": (_is_secret, "a text of 32 bytes or more"),
    **{
        name: (words.__contains__, " or ".join(repr(word) for word in words))
        for name, words in WORDS.items()
    },
    "auth": (_is_call, "a callable"),
    "authorize": (_is_call, "a callable"),
}


def _check_types(given: Mapping[str, Any], where: str) -> None:
    for name, kind in GROUPS.items():
        value = given.get(name)
        if value is None and (name not in given or name == "heartbeat"):
            continue
        if not isinstance(value, kind):
            msg = f"{where}: {name} takes {kind.__name__}(...), got {value!r}"
            raise ConfigError(msg)
