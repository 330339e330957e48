"""`ws-middleware serve`: a process of its own for the sockets of an app, on a port of its own."""

from __future__ import annotations

import importlib
import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.errors import ConfigError
from ws_middleware.flask import EXTENSION
from ws_middleware.net.worker import drain_time, end_time
from ws_middleware.sockets import WebSockets

if TYPE_CHECKING:
    import argparse

    from .options import Commands

__all__ = ["add"]

_log: Final = logging.getLogger("ws_middleware.serve")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="serve the sockets of an app on a port of their own",
        description="Serve the sockets of an app in this process, until SIGTERM or Ctrl-C. Let "
        "the app's other processes reach them with a broker: WebSockets(broker='redis://...').",
    )
    parser.add_argument(
        "target",
        metavar="MODULE:NAME",
        help="the WebSockets object, or the Flask app it was given to, or a call that makes one: "
        "shop:sockets, shop:app, shop:create_app()",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=8001, help="default: 8001; 0: any")
    parser.add_argument(
        "--reuse-port", action="store_true", help="several such processes may share the port"
    )
    parser.add_argument(
        "--drain-over",
        type=float,
        metavar="SECONDS",
        help="at the end, spread the closes over this; default: the app's drain_over, else 0.02 a "
        "socket, at most 10",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    sys.path.insert(0, "")
    sockets, app = find(options.target)
    stopped = _catch_signals()
    host, port = sockets.listen(options.host, options.port, reuse_port=options.reuse_port, app=app)
    print(f"serving {options.target} at ws://{host}:{port}", flush=True)
    stopped.recv(1)
    _end(sockets, _drain_over(options, sockets, app))
    return 0


def _drain_over(options: argparse.Namespace, sockets: WebSockets, app: object) -> float | None:
    """Return over how many seconds the closes are spread; `None`: by the number of sockets."""
    if options.drain_over is not None:
        return float(options.drain_over)
    return sockets._fronts.choose(app).settings.drain_over  # noqa: SLF001 - the same package


def _catch_signals() -> socket.socket:
    """Return what can be read from once SIGTERM or SIGINT has come.

    Not an event that a handler sets: the system may interrupt any thread, and handlers run in the
    main one, which would go on waiting.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)  # noqa: FBT003 - as the module signal wants it
    signal.set_wakeup_fd(theirs.detach())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return ours


def _end(sockets: WebSockets, wanted: float | None) -> None:
    count = sockets.everyone.count()
    over = drain_time(None, count, None) if wanted is None else wanted
    _log.info("ending: %d sockets, over %.1f s", count, over)
    timeout = end_time(over, None)
    sockets.close(code=1012, reason="restart", over=over, timeout=timeout).result(timeout + 1)


def find(target: str) -> tuple[WebSockets, Any]:
    """Return what `MODULE:NAME` names, and the Flask app whose it is, if it is one's.

    Raises:
        ConfigError: it names nothing that serves sockets.
    """
    name, colon, path = target.partition(":")
    if not colon or not path:
        msg = f"{target!r} names no object: write MODULE:NAME, as in shop:sockets"
        raise ConfigError(msg)
    found: Any = _import(name)
    is_call = path.endswith("()")
    for part in path.removesuffix("()").split("."):
        if not hasattr(found, part):
            msg = f"{name} has no {path!r}; write MODULE:NAME, as in shop:sockets"
            raise ConfigError(msg)
        found = getattr(found, part)
    if is_call:
        found = found()
    return _sockets_of(found, target)


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that the app needs: its traceback says where
        msg = f"there is no module {name!r} here; run this in the folder that has it"
        raise ConfigError(msg) from None


def _sockets_of(found: Any, target: str) -> tuple[WebSockets, Any]:  # noqa: ANN401 - anything
    if isinstance(found, WebSockets):
        return found, None
    sockets = getattr(found, "extensions", {}).get(EXTENSION)
    if isinstance(sockets, WebSockets):
        return sockets, found
    kind = type(found).__name__
    hint = f"; a function is called as {target}()" if callable(found) else ""
    msg = (
        f"{target} is a {kind}, and neither a WebSockets nor an app that init_app() was given{hint}"
    )
    raise ConfigError(msg)
