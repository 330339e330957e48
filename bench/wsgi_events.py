"""Whether `def` events that block for 50 ms slow HTTP down: a thousand sockets that keep them busy.

gunicorn with one gthread worker and `--threads 4`. The sockets send as many messages a second as
fill most of the event threads (`sync_threads`, 32, at 50 ms each: 640 a second at the most).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .common.report import Report, arguments, median
from .common.rounds import Condition, add_arguments, make_plan, measure
from .common.servers import gunicorn, raise_file_limit
from .wsgi_idle import NONE, OPTIONS, THREADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .common.clients import Sockets
    from .common.servers import Server


def working(rate: float) -> Condition:
    def begin(server: Server, sockets: Sockets) -> None:  # noqa: ARG001 - the same for all
        sockets.send(rate)

    def end(server: Server, sockets: Sockets) -> None:  # noqa: ARG001
        sockets.rest()

    return Condition(f"{rate:g} blocking events a second", begin=begin, end=end)


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--messages", type=float, default=500.0, help="a second, of all sockets")
    add_arguments(parser)
    args = parser.parse_args(argv)
    raise_file_limit()
    title = f"{args.sockets} sockets on `def` events of 50 ms, gunicorn --threads {THREADS}"
    report = Report("wsgi_events", title)
    conditions = (NONE, Condition("idle"), working(args.messages))
    command = gunicorn("bench.apps.ours:app", *OPTIONS)
    plan = make_plan(args, command, "/ws/work", conditions)
    results = measure(plan, report)
    results.tell_http(report, NONE.name)
    report.say(f"Memory per socket: {median(results.rss_per_socket) / 1000:.1f} kB.")
    report.figures.update(results.figures())
    report.publish(args.json)


if __name__ == "__main__":
    main()
