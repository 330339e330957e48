"""What the middleware costs a request that is none of ours: microseconds, without any server.

A WSGI callable that does next to nothing, bare and wrapped, is called over and over with the same
environ, in turns. The difference is what we add to every HTTP request of the app.
"""

from __future__ import annotations

import timeit
from typing import TYPE_CHECKING
from wsgiref.util import setup_testing_defaults

from ws_middleware import Anonymous, WebSockets

from .common.report import Report, arguments, median, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:  # noqa: ARG001
    start_response("200 OK", [("Content-Length", "0")])
    return []


def start_response(*args: object) -> object:  # noqa: ARG001
    return None


def environ_of_a_browser() -> WSGIEnvironment:
    environ: WSGIEnvironment = {f"HTTP_X_FIELD_{number}": "value" for number in range(20)}
    setup_testing_defaults(environ)
    environ["wsgi.multiprocess"] = False
    return environ


def microseconds(target: WSGIApplication, environ: WSGIEnvironment, calls: int) -> float:
    timer = timeit.Timer(lambda: target(environ, start_response))  # type: ignore[arg-type]
    return timer.timeit(calls) / calls * 1e6


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, rounds=15)
    parser.add_argument("--calls", type=int, default=200_000, help="of each callable, a round")
    args = parser.parse_args(argv)
    report = Report("wsgi_passthrough", "A request that is not ours, through the middleware")
    sockets = WebSockets(auth=Anonymous())
    sockets.route("/ws")
    wrapped = sockets.wsgi(app)
    environ = environ_of_a_browser()
    bare_us, wrapped_us = [], []
    for _ in range(args.rounds):
        bare_us.append(microseconds(app, environ, args.calls))
        wrapped_us.append(microseconds(wrapped, environ, args.calls))
    added = [mine - its for mine, its in zip(wrapped_us, bare_us, strict=True)]
    report.table(
        ("bare us", "wrapped us", "added us"),
        [(f"{median(bare_us):.3f}", f"{median(wrapped_us):.3f}", spread(added, 3))],
    )
    report.figures.update(bare_us=bare_us, wrapped_us=wrapped_us, added_us=added)
    report.publish(args.json)


if __name__ == "__main__":
    main()
