"""`ws-middleware publish`: send a message to sockets, whatever process has them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ws_middleware.hub.envelope import Envelope
from ws_middleware.types import EncodedMessage

from .options import Bus, add_broker, add_route, read_address

if TYPE_CHECKING:
    import argparse

    from .options import Commands

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "publish",
        help="send a message to a room, a user, a socket or everyone",
        description="Send a message. Says how many processes listen there, with each tail of it; "
        "exits with 1 where none does.",
    )
    parser.add_argument("address", metavar="WHO", help="room:NAME, user:ID, socket:ID or everyone")
    parser.add_argument("message", help="the text; - is what comes on standard input")
    parser.add_argument("--binary", action="store_true", help="send a binary message, not a text")
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="ID", help="leave out this socket"
    )
    add_route(parser)
    add_broker(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    bus = Bus.of(options)
    address = read_address(options.address, options.route)
    from ws_middleware.hub.brokers.post import Post  # noqa: PLC0415 - the extra "redis"

    envelope = Envelope(EncodedMessage(_message(options)), frozenset(options.exclude))
    heard = Post(bus.url, bus.prefix, bus.key).send(address, envelope)
    if heard == 0:
        print("published, and nobody listens: is it the app's --prefix?", file=sys.stderr)
        return 1
    print("published" if heard is None else f"published to {heard} listening")
    return 0


def _message(options: argparse.Namespace) -> str | bytes:
    if options.message != "-":
        return options.message.encode() if options.binary else str(options.message)
    data = sys.stdin.buffer.read()
    return data if options.binary else data.decode()
