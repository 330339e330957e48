"""`ws-middleware tail`: show what is sent between processes, as it is sent."""

from __future__ import annotations

import datetime as dt
import re
import sys
import time
from typing import TYPE_CHECKING, Final

from ws_middleware.errors import BrokerUnavailable
from ws_middleware.hub.envelope import Close, channel_of
from ws_middleware.hub.wire import Dropped, read
from ws_middleware.types import EncodedMessage

from .options import Bus, add_broker, add_route, read_address

if TYPE_CHECKING:
    import argparse

    from ws_middleware.hub.brokers.hearing import Heard, Hearing
    from ws_middleware.hub.envelope import Envelope

    from .options import Commands

__all__ = ["add"]

#: Bytes that a message may have to be shown.
_LARGEST: Final = 16 * 1024**2
#: Seconds from the loss of Redis to the next attempt.
_PAUSE: Final = 1.0
#: Seconds of one look; between two of them Ctrl-C is seen.
_LOOK: Final = 0.5


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "tail",
        help="show what is sent, as it is sent",
        description="Show what processes send each other, a line each, until Ctrl-C. What a "
        "process sends to its own sockets is sent to the others, too, and so shown.",
    )
    parser.add_argument(
        "address",
        metavar="WHO",
        nargs="?",
        help="room:NAME, user:ID, socket:ID or everyone; default: all that is sent",
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after N of them")
    add_route(parser)
    add_broker(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    bus = Bus.of(options)
    patterns = _patterns(bus.prefix, options)
    from ws_middleware.hub.brokers.addresses import Servers  # noqa: PLC0415 - the extra "redis"
    from ws_middleware.hub.brokers.hearing import Hearing  # noqa: PLC0415

    servers, left, was_here = Servers(bus.url), options.count, False
    while left is None or left > 0:
        try:
            with Hearing(servers, patterns, patterns=True) as hearing:
                print(f"listening at {servers}", file=sys.stderr)
                was_here = True
                left = _show(hearing, bus, left)
        except BrokerUnavailable as error:
            if not was_here:
                raise
            print(f"{error}; trying again", file=sys.stderr)
            time.sleep(_PAUSE)
    return 0


def _show(hearing: Hearing, bus: Bus, left: int | None) -> int | None:
    """Show what comes; return how many are still to be shown, when it is enough."""
    while left is None or left > 0:
        heard = hearing.next(time.monotonic() + _LOOK)
        line = None if heard is None else _line(heard, bus)
        if line is not None:
            print(line, flush=True)
            left = None if left is None else left - 1
    return left


def _patterns(prefix: str, options: argparse.Namespace) -> list[str]:
    """Return globs of channels. Questions and answers are on others."""
    if options.address is None:
        return [f"{_literal(prefix)}:{kind}:*" for kind in ("room", "user", "everyone", "node")]
    address = read_address(options.address, options.route)
    if address.kind == "socket" or address.route is not None:
        return [_literal(channel_of(prefix, address))]
    # On every route, and over all of them.
    channel = channel_of(prefix, address._replace(route="\0"))
    return [_literal(channel).replace("%00", "*")]


def _literal(text: str) -> str:
    """Return the glob of Redis that means just this text."""
    return re.sub(r"([\\*?\[\]^-])", r"\\\1", text)


def _line(heard: Heard, bus: Bus) -> str | None:
    """Return what is to be shown; nothing of what processes tell each other of themselves."""
    channel, data = heard
    now = time.time()
    found = read(data, channel=channel, largest=_LARGEST, now=now, secret=bus.key)
    at = dt.datetime.fromtimestamp(now).astimezone().isoformat(timespec="milliseconds")
    who = channel.removeprefix(f"{bus.prefix}:")
    if isinstance(found, Dropped):
        return f"{at} {_safe(who)} dropped: {found.value}"
    told = _told(found)
    return told and f"{at} {_safe(who)} from {_safe(found.node) or '-'}: {told}"


def _told(envelope: Envelope) -> str | None:
    action = envelope.action
    left_out = f" (without {', '.join(sorted(envelope.exclude))})" if envelope.exclude else ""
    if isinstance(action, EncodedMessage):
        text = action.payload.decode() if action.is_text else repr(action.payload)
        return _safe(text + left_out)
    if isinstance(action, Close):
        return _safe(f"close {action.code} {action.reason} over {action.over:g} s{left_out}")
    return None


def _safe(text: str) -> str:
    """Return what a terminal shows and does not obey."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
