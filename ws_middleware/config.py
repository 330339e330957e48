"""The settings a user gives, frozen, with the reason for each default beside it.

Every bound is finite unless `None` says "no bound" aloud. A field of `Limits` or `Heartbeat` that
is not given is `INHERIT`: a route takes it from the app, the app from `DEFAULT_LIMITS` or
`DEFAULT_HEARTBEAT`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, TypeVar

from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .types import Authenticator, Authorizer

__all__ = [
    "INHERIT",
    "EffectivePolicy",
    "Heartbeat",
    "Limits",
    "Policy",
    "ServerLimits",
]


class _Inherit(Enum):
    INHERIT = "inherit"

    def __repr__(self) -> str:
        return "INHERIT"


#: "As the app has it, else the default." Typed `Any` so that a field can be declared as what it is
#: once the policy has been put together, which is when it is read.
INHERIT: Final[Any] = _Inherit.INHERIT

T = TypeVar("T", "Limits", "Heartbeat")


def _inherit(given: T, base: T) -> T:
    """Return `given` with every INHERIT taken from `base`."""
    return replace(
        given,
        **{
            field.name: getattr(base, field.name)
            for field in fields(given)
            if getattr(given, field.name) is INHERIT
        },
    )


def _check_positive(owner: object, name: str, *, none: bool, whole: bool) -> None:
    value: Any = getattr(owner, name)
    if (value is INHERIT and not isinstance(owner, ServerLimits)) or (none and value is None):
        return
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < float("inf"):
        wanted = "a whole number above 0" if whole else "a number of seconds above 0"
        msg = (
            f"{type(owner).__name__}({name}=...) takes {wanted}"
            f"{', or None for no limit' if none else ''}; got {value!r}"
        )
        raise ConfigError(msg)


#: Bytes of an `app_ping` or an `app_pong`: all that they say is that somebody is there.
_BEAT_SIZE: Final = 1024


def _check_beat(name: str, value: object) -> None:
    if value is INHERIT or value is None:
        return
    size = 0
    if isinstance(value, (str, bytes)):
        with suppress(UnicodeEncodeError):  # half a surrogate pair, which no frame can have
            size = len(value if isinstance(value, bytes) else value.encode())
    if not 0 < size <= _BEAT_SIZE:
        msg = (
            f"Heartbeat({name}=...) takes a text or bytes, of 1 to {_BEAT_SIZE} bytes, or None for "
            f"none; got {value!r:.80}"
        )
        raise ConfigError(msg)


@dataclass(frozen=True)
class Limits:
    """What one connection may use. Sizes in bytes, times in seconds; `None` is no limit.

    Raises:
        ConfigError: a value is not a positive number.
    """

    #: One message, both ways of counting it: what the frames declare and what is put together.
    message_size: int | None = INHERIT
    #: Frames in one message; empty ones count, for each costs the parser its time.
    fragments: int | None = INHERIT
    #: Messages received and not yet taken by the handler; then reading pauses.
    inbound_messages: int = INHERIT
    #: The same in bytes.
    inbound_bytes: int = INHERIT
    #: Bytes sent that the kernel has not taken; over it the peer is closed with 1013.
    outbound_bytes: int = INHERIT
    #: The same in messages.
    outbound_messages: int = INHERIT
    #: How long a write may make no progress at all; then the connection is dropped.
    write_timeout: float = INHERIT
    #: How long the peer may take to answer a close frame.
    close_timeout: float = INHERIT
    #: Rooms one socket may be in.
    rooms_per_socket: int | None = INHERIT
    #: Open sockets of one user on one route of this process.
    connections_per_user: int | None = INHERIT

    def __post_init__(self) -> None:
        for name in ("message_size", "fragments", "rooms_per_socket", "connections_per_user"):
            _check_positive(self, name, none=True, whole=True)
        for name in ("inbound_messages", "inbound_bytes", "outbound_bytes", "outbound_messages"):
            _check_positive(self, name, none=False, whole=True)
        for name in ("write_timeout", "close_timeout"):
            _check_positive(self, name, none=False, whole=False)

    def inherit(self, base: Limits) -> Limits:
        """Return these limits with what was not given taken from `base`."""
        return _inherit(self, base)


DEFAULT_LIMITS: Final = Limits(
    message_size=1024**2,  # what `websockets` has; a chat should set 64 KiB
    fragments=1024,  # honest clients send a handful
    inbound_messages=16,
    inbound_bytes=2 * 1024**2,
    outbound_bytes=1024**2,
    outbound_messages=10_000,  # a burst from one view must fit
    write_timeout=10.0,
    close_timeout=5.0,
    rooms_per_socket=100,
    connections_per_user=20,  # tabs and devices of one person
)


@dataclass(frozen=True)
class ServerLimits:
    """What an app's whole front may use, before and beside its routes. `None` is no limit.

    Raises:
        ConfigError: a value is not a positive number.
    """

    #: The request head: everything up to the empty line.
    head_size: int = 16 * 1024
    #: Header fields in it.
    head_fields: int = 100
    #: From the first byte, or none, to the whole head; a total, not a pause between bytes.
    head_timeout: float = 5.0
    #: From the head to the verdict: authenticator and authorize together.
    upgrade_timeout: float = 10.0
    #: Open sockets of this process.
    connections: int | None = 10_000
    #: Upgrades of this process whose verdict is still out.
    undecided: int | None = 1_000

    def __post_init__(self) -> None:
        for name in ("head_size", "head_fields"):
            _check_positive(self, name, none=False, whole=True)
        for name in ("head_timeout", "upgrade_timeout"):
            _check_positive(self, name, none=False, whole=False)
        for name in ("connections", "undecided"):
            _check_positive(self, name, none=True, whole=True)


@dataclass(frozen=True)
class Heartbeat:
    """How dead peers are found: a ping every `interval` seconds, life within `timeout` after it.

    Any byte that arrives is life. A dead peer is closed with 1011 `interval + timeout` after its
    last sign at the latest.

    Raises:
        ConfigError: a time is not a positive number, a message is none, or there is an `app_pong`
            to no `app_ping`.
    """

    interval: float = INHERIT
    timeout: float = INHERIT
    #: Sent as a message in the place of a ping where an ASGI server owns the frames, which lets
    #: nobody ping: for clients that know it, and answer. `None`: none is sent.
    app_ping: str | bytes | None = INHERIT
    #: What they answer; no handler gets it. `None`: an answer is a message like any other.
    app_pong: str | bytes | None = INHERIT

    def __post_init__(self) -> None:
        _check_positive(self, "interval", none=False, whole=False)
        _check_positive(self, "timeout", none=False, whole=False)
        _check_beat("app_ping", self.app_ping)
        _check_beat("app_pong", self.app_pong)
        if self.app_ping is None and self.app_pong is not None and self.app_pong is not INHERIT:
            msg = (
                f"Heartbeat(app_pong={self.app_pong!r:.80}) answers an app_ping, and there is "
                "none; give one, or app_pong=None, too"
            )
            raise ConfigError(msg)

    def inherit(self, base: Heartbeat) -> Heartbeat:
        """Return this heartbeat with what was not given taken from `base`.

        Raises:
            ConfigError: that makes an `app_pong` to no `app_ping`.
        """
        return _inherit(self, base)

    def describe(self) -> str:
        """Return it as `WebSockets.describe` shows it; nothing may be INHERIT any more."""
        told = f"{self.interval:g}/{self.timeout:g} s"
        if self.app_ping is not None:
            told += f" app_ping={self.app_ping!r} app_pong={self.app_pong!r}"
        return told


DEFAULT_HEARTBEAT: Final = Heartbeat(
    interval=30.0,  # under the 60 s after which most proxies cut an idle connection
    timeout=20.0,
    app_ping=None,  # it is a message in the app's own protocol, which only the app can put there
    app_pong=None,
)

RefuseWith = Literal["http", "close"]

#: What becomes of a peer that does not keep up.
Slow = Literal["close", "drop_oldest", "latest_only"]

#: What becomes of sockets that may have missed messages of other processes.
Gap = Literal["keep", "close"]


class Policy(TypedDict, total=False):
    """What an app says once and a route may say again. All optional, all keyword arguments."""

    #: Who is it? An authenticator; must be given somewhere. See `ws_middleware.types`.
    auth: Authenticator
    #: May they? `(user, request) -> bool`, after the authenticator; only `True` lets in.
    authorize: Authorizer | None
    #: Pages that may connect: "same-origin", a list of origins, or "*" for every page there is.
    origins: str | Sequence[str]
    #: Host names that are served, a leading dot for a domain and all below it; `None` for any.
    allowed_hosts: Sequence[str] | None
    #: `None` switches pings off.
    heartbeat: Heartbeat | None
    limits: Limits
    #: "http": refusals are HTTP answers, which a browser shows its script as 1006. "close": a 101
    #: and a close frame with 4000 + status, which it can read.
    refuse_with: RefuseWith
    #: When more waits for a peer than may: "close" it with 1013, "drop_oldest" of what waits, or
    #: "latest_only": whenever something has to wait, only the newest message does.
    slow: Slow
    #: When messages of other processes may have been missed: "keep" the sockets (`on_gap` may tell
    #: them), or "close" them with 1013, spread, so that they come back and fetch what they need.
    gap: Gap


@dataclass(frozen=True)
class EffectivePolicy:
    """A route's policy put together: the route's own words, then the app's, then the defaults."""

    auth: Authenticator
    authorize: Authorizer | None
    origins: str | tuple[str, ...]
    heartbeat: Heartbeat | None
    limits: Limits
    refuse_with: RefuseWith
    allowed_hosts: tuple[str, ...] | None = None
    slow: Slow = "close"
    gap: Gap = "keep"
    #: Whether somebody has asked for this heartbeat; else a server's own pings may do.
    heartbeat_is_given: bool = False

    @property
    def is_ambient(self) -> bool:
        """Whether the authenticator may look at what a browser sends by itself, such as cookies."""
        return bool(getattr(self.auth, "ambient", True))
