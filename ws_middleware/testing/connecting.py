"""Connecting: through a host's test client and the whole app, or straight to a `WebSockets`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias
from urllib.parse import urlsplit

from ws_middleware.net.link import SocketLink
from ws_middleware.sockets import WebSockets

from .client import ClientSocket
from .stage import Stage
from .upgrade import ANSWER, Refused, Request, check_answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from django.test import Client
    from flask.testing import FlaskClient
    from starlette.testclient import TestClient

    AnyClient: TypeAlias = FlaskClient | Client | TestClient | WebSockets

__all__ = ["Connector", "Refused", "close_leftovers", "connect"]

_LOCAL: Final = ("127.0.0.1", 50_000)
_DEFAULT_URL: Final = "http://localhost"

#: Where everything takes place, while anything does.
_stages: Final[list[Stage]] = []


def connect(
    client: AnyClient,
    path: str,
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    origin: str | None = "same",
    subprotocols: Sequence[str] = (),
    base_url: str | None = None,
    address: tuple[str, int] | None = None,
    answer_pings: bool = True,
    raise_errors: bool = True,
) -> ClientSocket:
    """Open a WebSocket in memory.

    Args:
        client: the test client of Flask, Django, or Starlette and FastAPI: its cookies go along,
            its base URL holds, and the request takes the way through the whole app, which for
            Django is the one that `settings.WSGI_APPLICATION` names. Or a `WebSockets`, as if
            through a port of its own.
        path: where to, with a query if there is one.
        headers: more header fields.
        origin: "same" is what a page of this host sends; `None` sends none, as a program does.
        subprotocols: those that the client offers.
        base_url: scheme, host and port, such as "https://myapp.com".
        address: where the server sees the client.
        answer_pings: whether to answer pings, as every browser does by itself.
        raise_errors: whether what a handler raises is raised in the test, at the end of the `with`.

    Raises:
        Refused: the upgrade was refused.
        TypeError: `client` is none of these.
        ConfigError: the settings as a whole are wrong.
        RuntimeError: the app has no `WebSockets`, or an event loop runs in this thread.
        Exception: an ASGI app has raised it before it had answered; not without `raise_errors`.
    """
    stage = _current_stage()
    stage.check_thread()
    stage.settle()
    options: dict[str, Any] = {"answer_pings": answer_pings, "raise_errors": raise_errors}
    ws = ClientSocket(stage, address or _LOCAL, **options)
    stage.clients.append(ws)
    request = Request(path, _pairs(headers), origin, tuple(subprotocols), base_url, address)
    stage.caller = ws
    try:
        _connect(stage, client, ws, request)
    except BaseException:
        stage.leave(ws)
        raise
    finally:
        stage.caller = None
    return ws


def _connect(stage: Stage, client: AnyClient, ws: ClientSocket, request: Request) -> None:
    """Take the client's way. Whose client it is has been imported; nothing else need be there."""
    flask, django = sys.modules.get("flask.testing"), sys.modules.get("django.test.client")
    starlette = sys.modules.get("starlette.testclient")
    if isinstance(client, WebSockets):
        _connect_directly(stage, client, ws, request)
    elif flask is not None and isinstance(client, flask.FlaskClient):
        from .through_flask import connect_through_flask  # noqa: PLC0415 - the extra "flask"

        connect_through_flask(stage, client, ws, request)
    elif django is not None and isinstance(client, django.Client):
        from .through_django import connect_through_django  # noqa: PLC0415 - the extra "django"

        connect_through_django(stage, client, ws, request)
    elif starlette is not None and isinstance(client, starlette.TestClient):
        from .through_starlette import connect_through_starlette  # noqa: PLC0415 - the app's own

        connect_through_starlette(stage, client, ws, request)
    else:
        msg = (
            "connect() takes Flask's app.test_client(), a django.test.Client, Starlette's or "
            f"FastAPI's TestClient, or a WebSockets, got {type(client).__name__}"
        )
        raise TypeError(msg)


def _current_stage() -> Stage:
    """Return where everything takes place: all clients of a test meet on one stage."""
    if not _stages or _stages[0].is_closed:
        _stages[:] = [Stage()]
    return _stages[0]


def _pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    items = getattr(headers, "items", None)
    return list(headers if items is None else items())


# --- straight to a WebSockets --------------------------------------------------------------------


def _connect_directly(
    stage: Stage, sockets: WebSockets, ws: ClientSocket, request: Request
) -> None:
    engine, runtime = stage.open(sockets._fronts.choose())  # noqa: SLF001 - the same package
    url = urlsplit(request.base_url or _DEFAULT_URL)
    fields = request.fields(url.scheme, url.netloc)
    lines = [f"GET {url.path.rstrip('/')}{request.path} HTTP/1.1"]
    if not any(name.lower() == "host" for name, _ in fields):
        lines.append(f"Host: {url.netloc}")
    lines.extend(f"{name}: {value}" for name, value in fields)
    stage.start(SocketLink(engine, runtime))
    ws.request("\r\n".join([*lines, "", ""]).encode("latin-1"))
    stage.wait_for(ANSWER, lambda: ws.is_answered)
    check_answer(ws)


# --- for a whole test ----------------------------------------------------------------------------


class Connector:
    """`connect` for a whole test: one clock from the first socket to the last, and a clean end.

    What the pytest fixture `ws_connect` gives. A context manager: at its end every socket is
    closed, and what handlers raised, if no test has been told yet, is raised.
    """

    def __init__(self) -> None:
        self._stage = _current_stage()
        self._stage.is_held = True

    def __call__(
        self,
        client: AnyClient,
        path: str,
        **options: Any,  # noqa: ANN401 - those of `connect`
    ) -> ClientSocket:
        """Open a WebSocket, as `connect` does, with its keyword arguments."""
        return connect(client, path, **options)

    def advance(self, seconds: float) -> None:
        """Let `seconds` of the virtual clock pass, whether anybody is connected or not."""
        self._stage.pass_time(seconds)

    def close(self) -> None:
        """Close every socket.

        Raises:
            BaseException: what handlers have raised; several as a group.
        """
        _raise(self._stage.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def close_leftovers() -> None:
    """End what a test has left open; for the pytest plugin.

    Raises:
        BaseException: what handlers have raised; several as a group.
    """
    errors = [error for stage in _stages for error in stage.close()]
    _stages.clear()
    _raise(errors)


def _raise(errors: list[BaseException]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        msg = "handlers failed"
        raise BaseExceptionGroup(msg, errors)
