"""What several commands have in common: which broker, and whose sockets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ws_middleware.checks import DEFAULT_PREFIX, check_values
from ws_middleware.errors import ConfigError
from ws_middleware.given import check_broker
from ws_middleware.hub.registry import Address
from ws_middleware.names import as_name

if TYPE_CHECKING:
    import argparse
    from typing import Self

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - has no other name

__all__ = ["Bus", "add_broker", "add_route", "read_address"]

_FORMS: Final = "room:NAME, user:ID, socket:ID or everyone"

_EPILOG: Final = (
    "Set WSM_BROKER, WSM_PREFIX and WSM_BROKER_SECRET as the app has them and leave the options "
    "out. The secret is taken from there only: others see the arguments of a command."
)


class Bus(NamedTuple):
    """The broker and the app that a command is about."""

    url: str
    prefix: str
    secret: str | None

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """Return what the options and the environment say.

        Raises:
            ConfigError: one of them is wrong, or no broker is named.
        """
        secret = os.environ.get("WSM_BROKER_SECRET")
        given: dict[str, Any] = {"broker": options.broker, "prefix": options.prefix}
        if secret is not None:
            given["broker_secret"] = secret
        check_values(given, "ws-middleware")
        if not options.broker.startswith("redis"):
            msg = f"between processes there is only Redis; {options.broker!r} reaches nobody"
            raise ConfigError(msg)
        check_broker(given)
        return cls(options.broker, options.prefix, secret)

    @property
    def key(self) -> bytes | None:
        """The secret as bytes."""
        return None if self.secret is None else self.secret.encode()


def add_broker(parser: argparse.ArgumentParser) -> None:
    """Let a command be told which broker, and which app's channels in it."""
    broker = os.environ.get("WSM_BROKER")
    parser.add_argument(
        "--broker",
        metavar="URL",
        default=broker,
        required=broker is None,
        help="the app's broker, as in redis://localhost:6379/0; default: $WSM_BROKER",
    )
    parser.add_argument(
        "--prefix",
        default=os.environ.get("WSM_PREFIX", DEFAULT_PREFIX),
        help=f"the app's prefix; default: $WSM_PREFIX, or {DEFAULT_PREFIX!r}",
    )
    parser.epilog = _EPILOG


def add_route(parser: argparse.ArgumentParser) -> None:
    """Let a command be told which route."""
    parser.add_argument(
        "--route",
        metavar="NAME",
        help="only sockets of this route: its path, with * for parameters, or its name",
    )


def read_address(text: str, route: str | None = None) -> Address:
    """Return whose sockets `text` names.

    Raises:
        ValueError: nobody's.
    """
    kind, colon, name = text.partition(":")
    route = None if route is None else as_name(route, "route name")
    if text == "everyone":
        return Address("everyone", "", route)
    if kind == "socket" and colon:
        return Address("socket", as_name(name, "socket id"))
    if kind in {"room", "user"} and colon:
        return Address("room" if kind == "room" else "user", as_name(name, kind), route)
    msg = f"{text!r} is nobody: write {_FORMS}"
    raise ValueError(msg)
