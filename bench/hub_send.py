"""What a send to a room of a thousand costs the view that sends, and how soon all have it.

One worker of gunicorn, and a view that is asked for one send after the other, each when all sockets
have had the one before. With `memory://`, and with Redis: while it is up, while it hangs (SIGSTOP),
and while nobody listens on its port. Beside it Flask-SocketIO with its Redis message queue, on the
gevent worker that its documentation deploys.
"""

from __future__ import annotations

import importlib.util
import json
import math
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from .common import redis
from .common.clients import Sockets
from .common.quiet import quietest
from .common.redis import Redis
from .common.report import Report, arguments, median, percentile, spread
from .common.servers import Server, gunicorn, raise_file_limit, serve

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

OURS: Final = gunicorn("bench.apps.room:app", "--worker-class", "gthread", "--threads", "4")
THEIRS: Final = gunicorn(
    "bench.apps.socketio_room:app",
    *("--worker-class", "gevent"),
    *("--worker-connections", "10000"),  # of the default, 1,000 sockets would leave none for a view
)

#: The command of each, and what its sockets are asked for.
SYSTEMS: Final = {
    "ours": (OURS, ("/ws/all",)),
    "Flask-SocketIO": (THEIRS, ("/socket.io/?EIO=4&transport=websocket", "--socketio")),
}

#: Seconds from one send to the next, at the least.
PAUSE: Final = 0.02
#: Seconds that a view, and a message on its way to all, may take; then it counts as never.
PATIENCE: Final = 5.0
#: Sends at once, to see how many deliveries a second there can be.
BURST: Final = 50
#: Views that did not return, after which no more are asked.
ENOUGH: Final = 2

#: What each state of Redis does to it.
STATES: Final[dict[str, Callable[[Redis], None]]] = {
    "up": Redis.go_on,
    "stopped": Redis.stop,
    "refusing": Redis.kill,
}


@dataclass
class Sends:
    """What one round in one state came to."""

    #: Microseconds in the view; infinite where it did not return in time.
    view_us: list[float] = field(default_factory=list)
    #: Milliseconds until the last socket had it.
    all_ms: list[float] = field(default_factory=list)
    #: Deliveries a second when many are sent at once.
    rate: float = math.nan
    others: float = 0.0

    def figures(self) -> dict[str, object]:
        """Return everything, for JSON, which has no infinity: what never came is null."""
        figures: dict[str, object] = {"rate": self.rate if self.rate > 0 else None}
        for name, values in (("view_us", self.view_us), ("all_ms", self.all_ms)):
            figures[name] = [each if each < math.inf else None for each in values]
        return {**figures, "others": self.others}


def send_one_by_one(server: Server, sockets: Sockets, args: argparse.Namespace) -> Sends:
    found = Sends()
    sockets.watch()
    while len(found.view_us) < args.sends and found.view_us.count(math.inf) < ENOUGH:
        before = len(sockets.seen_by_all)
        start = time.perf_counter()
        try:
            answer = json.loads(server.post(f"/send/1/{args.size}", timeout=PATIENCE))
        except TimeoutError:
            answer = {"us": math.inf, "at": start}
        found.view_us.append(answer["us"])
        seen = wait_seen(sockets, before + 1)
        found.all_ms.append((seen - answer["at"]) * 1000)
        time.sleep(PAUSE)
    return found


def wait_seen(sockets: Sockets, count: int) -> float:
    """Return when all had got `count` messages since the watch began; infinity for not in time."""
    deadline = time.monotonic() + PATIENCE
    while len(seen := sockets.seen_by_all) < count:
        if time.monotonic() > deadline:
            return math.inf
        time.sleep(PAUSE / 4)
    return seen[count - 1]


def burst(server: Server, sockets: Sockets, args: argparse.Namespace) -> float:
    sockets.watch()
    answer = json.loads(server.post(f"/send/{BURST}/{args.size}", timeout=10 * PATIENCE))
    seen = wait_seen(sockets, BURST)
    rate: float = BURST * args.sockets / (seen - answer["at"])
    return rate


def measure(
    server: Server, sockets: Sockets, args: argparse.Namespace, beside: Sequence[int] = ()
) -> Sends:
    ours = [*(each.pid for each in server.workers), sockets.pid, *beside]
    attempt = partial(send_one_by_one, server, sockets, args)
    found, others = quietest(args.attempts, ours, attempt)
    found.others = others
    if math.inf not in found.view_us:
        found.rate = burst(server, sockets, args)
    return found


def open_all(sockets: Sockets, args: argparse.Namespace) -> None:
    opened = sockets.open(args.sockets)
    if opened.failed:
        msg = f"{opened.failed} of {args.sockets} sockets could not be opened"
        raise RuntimeError(msg)
    time.sleep(1)


Found = dict[tuple[str, str], list[Sends]]


def with_memory(args: argparse.Namespace, found: Found) -> None:
    with serve(OURS, WSM_BROKER="memory://") as server, Sockets(server, "/ws/all") as sockets:
        open_all(sockets, args)
        found.setdefault(("ours", "none"), []).append(measure(server, sockets, args))


def with_redis(name: str, args: argparse.Namespace, found: Found) -> None:
    command, client = SYSTEMS[name]
    with (
        Redis() as queue,
        serve(command, WSM_BROKER=queue.url, REDIS_URL=queue.url) as server,
        Sockets(server, *client) as sockets,
    ):
        open_all(sockets, args)
        for state, act in STATES.items():
            act(queue)
            try:
                sends = measure(server, sockets, args, queue.pids)
            finally:
                queue.go_on()
            found.setdefault((name, state), []).append(sends)
            time.sleep(1)


def missing() -> dict[str, str]:
    """Return what cannot be measured here, each with what to install for it."""
    wanted = {}
    if not redis.is_installed():
        wanted["Redis"] = "the command redis-server (Debian: apt-get install redis-server)"
    elif importlib.util.find_spec("redis") is None:
        wanted["Redis"] = "python -m pip install 'redis>=5.0'"
    packages = {"flask_socketio": "'flask-socketio>=5.3'", "gevent": "'gevent>=24.10.1'"}
    lacking = [pip for name, pip in packages.items() if importlib.util.find_spec(name) is None]
    if lacking:
        wanted["Flask-SocketIO"] = f"python -m pip install {' '.join(lacking)}"
    return wanted


def tell(report: Report, found: Found, args: argparse.Namespace) -> None:
    base = found["ours", "none"]
    rows = []
    for (name, state), rounds in found.items():
        p99 = [percentile(each.view_us, 99) for each in rounds]
        p50 = [percentile(each.view_us, 50) for each in rounds]
        ratios = [mine / percentile(its.view_us, 50) for mine, its in zip(p50, base, strict=True)]
        all_ms = [percentile(each.all_ms, 50) for each in rounds]
        late = [mine / percentile(its.all_ms, 50) for mine, its in zip(all_ms, base, strict=True)]
        rows.append(
            (
                name,
                state,
                f"{median(p50):.0f}",
                f"{median(p99):.0f}",
                spread(ratios),
                f"{median(all_ms):.1f}",
                f"{median([percentile(each.all_ms, 99) for each in rounds]):.1f}",
                spread(late),
                f"{median([each.rate for each in rounds]):.0f}",
                f"{max(each.others for each in rounds):.2f}",
            )
        )
    view = ("view p50 us", "view p99 us", "p50, ratio")
    everybody = ("all have it, p50 ms", "p99 ms", "p50, ratio", "deliveries/s", "others")
    report.table(("", "Redis", *view, *everybody), rows)
    report.say(
        f"{args.sends} sends a round, of {args.size} bytes each. inf: the view did not return "
        f"within {PATIENCE:g} s. deliveries/s: {BURST} sends at once."
    )
    for what, remedy in missing().items():
        report.say(f"Not measured: {what}. Missing: {remedy}.")


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--sends", type=int, default=100, help="of a round, in each state")
    parser.add_argument("--size", type=int, default=100, help="of a message, in bytes")
    parser.add_argument("--attempts", type=int, default=3, help="while others use the machine")
    args = parser.parse_args(argv)
    raise_file_limit()
    report = Report("hub_send", f"A send to a room of {args.sockets} sockets")
    found: Found = {}
    lacking = missing()
    for number in range(args.rounds):
        report.progress(f"round {number + 1} of {args.rounds}")
        with_memory(args, found)
        if "Redis" not in lacking:
            names = [name for name in SYSTEMS if name not in lacking]
            for name in names if number % 2 == 0 else names[::-1]:
                with_redis(name, args, found)
    tell(report, found, args)
    report.figures["found"] = [
        {"system": name, "redis": state, "rounds": [each.figures() for each in rounds]}
        for (name, state), rounds in found.items()
    ]
    report.figures["missing"] = lacking
    report.publish(args.json)


if __name__ == "__main__":
    main()
