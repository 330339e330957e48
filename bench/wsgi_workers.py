"""How sockets spread over the workers of gunicorn, which is what a message to all has to bridge.

Three workers of a kind, and 300 sockets that connect one after the other, or 20 at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from .common.clients import Sockets
from .common.report import Report, arguments
from .common.servers import gunicorn, raise_file_limit, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS: Final = {
    "sync": ("--worker-class", "sync"),
    "gthread --threads 4": ("--worker-class", "gthread", "--threads", "4"),
}


def spread_of(kind: str, workers: int, count: int, at_once: int) -> list[int]:
    """Return how many of `count` sockets each worker has."""
    options = ("--workers", str(workers), *KINDS[kind])
    with serve(gunicorn("bench.apps.ours:app", *options)) as server:
        while len(server.workers) < workers or not server.answers(5):
            time.sleep(0.1)
        time.sleep(1)  # the last of them may have forked but not begun to accept
        with Sockets(server, "/ws/feed") as sockets:
            sockets.open(count, at_once=at_once)
            return server.connections()


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--sockets", type=int, default=300)
    parser.add_argument("--workers", type=int, default=3)
    args = parser.parse_args(argv)
    raise_file_limit()
    title = f"{args.sockets} sockets over {args.workers} workers of gunicorn"
    report = Report("wsgi_workers", title)
    rows = []
    for kind in KINDS:
        for at_once in (1, 20):
            report.progress(f"{kind}, {at_once} at once")
            found = [
                spread_of(kind, args.workers, args.sockets, at_once) for _ in range(args.rounds)
            ]
            shown = ["/".join(map(str, each)) for each in found]
            rows.append((kind, at_once, ", ".join(shown)))
            report.figures[f"{kind}, {at_once} at once"] = found
    report.table(("workers", "connecting at once", "sockets a worker, a round each"), rows)
    report.publish(args.json)


if __name__ == "__main__":
    main()
