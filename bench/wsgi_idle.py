"""What a thousand idle sockets cost a worker of four threads: threads, memory, and HTTP latency.

gunicorn with one gthread worker and `--threads 4`. HTTP is asked at a fixed rate without sockets,
with idle ones, and with ones that get a message a second each: evenly spread over the second, and
all at once. Beside it flask-sock on the same settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .common.clients import Sockets
from .common.report import Report, arguments, median
from .common.rounds import Condition, Plan, Results, add_arguments, make_plan, measure
from .common.servers import Server, gunicorn, raise_file_limit, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

THREADS = 4
OPTIONS = ("--worker-class", "gthread", "--threads", str(THREADS))

NONE = Condition("none", has_sockets=False)


def pushed(name: str, how: str) -> Condition:
    def begin(server: Server, sockets: Sockets) -> None:  # noqa: ARG001 - the same for all
        server.post(f"/push/{how}")

    def end(server: Server, sockets: Sockets) -> None:  # noqa: ARG001
        server.post("/quiet")

    return Condition(name, begin=begin, end=end)


CONDITIONS = (
    NONE,
    Condition("idle"),
    pushed("1 message/s each, spread", "spread"),
    pushed("1 message/s each, at once", "at-once"),
)


def tell(report: Report, plan: Plan, results: Results) -> None:
    before, after = results.threads[0]
    report.table(
        ("", f"{plan.sockets} sockets"),
        [
            ("threads of the worker", f"{before} before, {after} with the sockets"),
            ("memory per socket", f"{median(results.rss_per_socket) / 1000:.1f} kB"),
            ("time to connect, median", f"{median(results.connect_ms):.1f} ms"),
        ],
    )
    results.tell_http(report, NONE.name)
    report.figures.update(results.figures())


def compare(report: Report) -> None:
    """Open twice as many sockets as there are threads, on flask-sock."""
    report.progress("flask-sock")
    with serve(gunicorn("bench.apps.sock:app", *OPTIONS)) as server:
        with Sockets(server, "/ws/feed") as sockets:
            opened = sockets.open(2 * THREADS, timeout=3).opened
            answers = server.answers(3)
        again = server.answers(10)
    report.say(
        f"flask-sock on the same settings: of {2 * THREADS} sockets {opened} were opened within "
        f"3 s; a plain view meanwhile {'answered' if answers else 'did not answer within 3 s'}; "
        f"after the sockets had gone it {'answered' if again else 'did not answer'}."
    )
    report.figures["flask_sock"] = {"asked": 2 * THREADS, "opened": opened, "http": answers}


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, rounds=5)
    add_arguments(parser)
    args = parser.parse_args(argv)
    raise_file_limit()
    report = Report(
        "wsgi_idle", f"{args.sockets} sockets beside HTTP, gunicorn --threads {THREADS}"
    )
    command = gunicorn("bench.apps.ours:app", *OPTIONS)
    plan = make_plan(args, command, "/ws/feed", CONDITIONS)
    tell(report, plan, measure(plan, report))
    compare(report)
    report.publish(args.json)


if __name__ == "__main__":
    main()
