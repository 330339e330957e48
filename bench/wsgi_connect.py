"""How fast sockets open on each server, and what each adds: milliseconds, memory, threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from .common.clients import Sockets
from .common.report import Report, arguments, median, percentile
from .common.servers import gunicorn, raise_file_limit, script, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVERS: Final = {
    "gunicorn gthread, 4 threads": gunicorn("bench.apps.ours:app", "--threads", "4"),
    "gunicorn sync": gunicorn("bench.apps.ours:app"),
    "werkzeug, threaded": script("werkzeug"),
    "waitress, 4 threads": script("waitress"),
    "cheroot, 4 threads": script("cheroot"),
    "wsgiref": script("wsgiref"),
}

#: Opened before anything is counted, so that whatever starts has started.
FIRST: Final = 10
#: At once. wsgiref listens with a backlog of five: more than a few at once wait for TCP to retry.
AT_ONCE: Final = 4


def connect(command: list[str], count: int) -> dict[str, Any]:
    with serve(command) as server, Sockets(server, "/ws/feed") as sockets:
        sockets.open(FIRST)
        time.sleep(1)
        threads, rss = server.threads(), server.rss()
        opened = sockets.open(count, at_once=AT_ONCE)
        time.sleep(1)
        return {
            "failed": opened.failed,
            "per_second": opened.opened / opened.seconds,
            "p50_ms": percentile(opened.ms, 50),
            "p99_ms": percentile(opened.ms, 99),
            "rss_per_socket": (server.rss() - rss) / count,
            "threads_added": server.threads() - threads,
        }


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--servers", nargs="*", default=list(SERVERS), choices=list(SERVERS))
    args = parser.parse_args(argv)
    raise_file_limit()
    report = Report("wsgi_connect", f"Opening {args.sockets} sockets, {AT_ONCE} at once")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in args.servers}
    for number in range(args.rounds):
        for name in args.servers if number % 2 == 0 else args.servers[::-1]:
            report.progress(f"round {number + 1} of {args.rounds}, {name}")
            found[name].append(connect(SERVERS[name], args.sockets))
    columns = ("server", "sockets/s", "p50 ms", "p99 ms", "kB a socket", "threads added", "failed")
    report.table(columns, [(name, *row(each)) for name, each in found.items()])
    report.figures.update(found)
    report.publish(args.json)


def row(rounds: list[dict[str, Any]]) -> tuple[str, ...]:
    def of(name: str) -> float:
        return median([each[name] for each in rounds])

    return (
        f"{of('per_second'):.0f}",
        f"{of('p50_ms'):.1f}",
        f"{of('p99_ms'):.1f}",
        f"{of('rss_per_socket') / 1000:.1f}",
        f"{of('threads_added'):.0f}",
        f"{sum(each['failed'] for each in rounds)}",
    )


if __name__ == "__main__":
    main()
