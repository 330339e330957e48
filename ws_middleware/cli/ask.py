"""`ws-middleware stats` and `who`: ask every process, and show what they answer."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from .options import Bus, add_broker, add_route, read_address
from .table import table

if TYPE_CHECKING:
    import argparse

    from ws_middleware.hub.envelope import Question
    from ws_middleware.hub.questions import Answers
    from ws_middleware.hub.registry import Address

    from .options import Commands

__all__ = ["add"]

_STATS = ("host", "pid", "node", "up", "ready", "sockets", "users", "rooms", "in", "out", "dropped")
_WHO = ("id", "user", "route", "rooms", "peer", "host", "pid", "in", "out")


def add(commands: Commands) -> None:
    """Add both commands."""
    stats = commands.add_parser(
        "stats",
        help="show every process that serves sockets",
        description="Show every process of the app that serves sockets. Exits with 1 where one "
        "has heard the question and does not answer, or nobody has heard it.",
    )
    stats.set_defaults(run=_stats)
    who = commands.add_parser(
        "who",
        help="show who is connected, and to which process",
        description="Show sockets: all of them, or those of a user or in a room. Each process "
        "tells of 200 at the most.",
    )
    what = who.add_mutually_exclusive_group()
    what.add_argument("--user", metavar="ID")
    what.add_argument("--room", metavar="NAME")
    add_route(who)
    who.set_defaults(run=_who)
    for parser in (stats, who):
        parser.add_argument("--json", action="store_true", help="print JSON, all there is to know")
        add_broker(parser)


def _ask(options: argparse.Namespace, question: Question, address: Address | None) -> Answers:
    bus = Bus.of(options)
    from ws_middleware.hub.brokers.inquiry import Inquiry  # noqa: PLC0415 - the extra "redis"

    return Inquiry(bus.url, bus.prefix, bus.key).ask(question, address)


def _stats(options: argparse.Namespace) -> int:
    answers = _ask(options, "stats", None)
    found = sorted(_objects(answers), key=lambda each: (str(each.get("host")), each.get("pid", 0)))
    if options.json:
        print(json.dumps({"processes": found, "missing": answers.missing}, indent=2))
    else:
        _print([_STATS, *(_stats_row(each) for each in found)])
    return _conclude(answers)


def _stats_row(stats: dict[str, Any]) -> tuple[str, ...]:
    why = ",".join(stats.get("reasons", ()))
    told = {
        **stats,
        **stats.get("messages", {}),
        "up": f"{float(stats.get('uptime', 0)):.0f}s",
        "ready": "yes" if stats.get("ready") else f"no: {why}",
    }
    return tuple(str(told.get(name, "")) for name in _STATS)


def _who(options: argparse.Namespace) -> int:
    text = (
        f"user:{options.user}"
        if options.user is not None
        else f"room:{options.room}"
        if options.room is not None
        else "everyone"
    )
    address = read_address(text, options.route)
    answers = _ask(options, "who", address)
    found = _objects(answers)
    if options.json:
        print(json.dumps({"processes": found, "missing": answers.missing}, indent=2))
    else:
        rows = [_who_row(process, each) for process in found for each in process["sockets"]]
        _print([_WHO, *sorted(rows)])
        untold = sum(int(each["count"]) - len(each["sockets"]) for each in found)
        if untold > 0:
            print(f"and {untold} more")
    return _conclude(answers)


def _who_row(process: dict[str, Any], socket: dict[str, Any]) -> tuple[str, ...]:
    told = {**process, **socket, "rooms": " ".join(socket.get("rooms", ()))}
    return tuple(str("" if told.get(name) is None else told[name]) for name in _WHO)


def _objects(answers: Answers) -> list[dict[str, Any]]:
    return [each for each in answers.values if isinstance(each, dict)]


def _print(rows: list[tuple[str, ...]]) -> None:
    for line in table(rows):
        print("".join(each if each.isprintable() else "?" for each in line))


def _conclude(answers: Answers) -> int:
    """Say what is missing."""
    if answers.missing:
        print(f"{answers.missing} more did not answer within 2 s", file=sys.stderr)
        return 1
    if not answers.values:
        print("no process answers: is it the app's --prefix, and does it serve?", file=sys.stderr)
        return 1
    return 0
