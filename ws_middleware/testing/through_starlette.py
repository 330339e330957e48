"""Connecting through Starlette's and FastAPI's test client: its app is asked, as by a server."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette import testclient
from starlette.websockets import WebSocketDisconnect

from .asgi_server import ServerLink
from .upgrade import ANSWER, SWITCHING, Request, check_answer

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from httpx2 import Request as HTTPRequest
    from starlette.testclient import TestClient

    from .asgi_server import App
    from .client import ClientSocket
    from .stage import Stage

__all__ = ["connect_through_starlette"]

#: What its own requests come from; an old one's have no choice.
_TESTCLIENT: Final = ("testclient", 50_000)
_PORTS: Final = {"http": 80, "https": 443}

_UNSEEN: Final = (
    "no WebSocketMiddleware was asked on the way: where the app is to serve sockets, it needs "
    "app.add_middleware(WebSocketMiddleware, sockets=sockets), or TestClient(sockets.asgi(app))"
)


def connect_through_starlette(
    stage: Stage, client: TestClient, ws: ClientSocket, request: Request
) -> None:
    """Open `ws` as this client would.

    Raises:
        Refused: the upgrade was refused.
        RuntimeError: it was accepted, but by nobody of ours.
        Exception: what the app raised before it had answered.
    """
    asked = _make_request(client, request)
    transport: Any = client._transport  # noqa: SLF001 - nothing public has what it knows
    ws.address = request.address or tuple(getattr(transport, "client", _TESTCLIENT))
    app = _watched(client.app, transport.root_path, partial(stage.app_failed, ws))
    link = ServerLink(stage.server, app, _scope(client, asked))
    ws.control = link.control
    before = stage.asked
    stage.start(link)
    ws.request(_head_of(asked))
    stage.wait_for(ANSWER, lambda: ws.is_answered)
    _keep_cookies(client, asked, ws)
    if ws.answer.status != SWITCHING and (errors := ws.take_errors()):
        raise errors[0]
    if stage.asked == before:
        _complain(ws)
    check_answer(ws)


def _complain(ws: ClientSocket) -> None:
    """Say that nothing of ours has seen the request, which is most likely why it went wrong."""
    if ws.answer.status == SWITCHING:
        raise RuntimeError(_UNSEEN)
    try:
        check_answer(ws)
    except Exception as refused:
        refused.add_note(_UNSEEN)
        raise


def _make_request(client: TestClient, request: Request) -> HTTPRequest:
    """Return the upgrade request: with the client's base URL, headers, cookies and login."""
    url = f"{(request.base_url or '').rstrip('/')}{request.path}"
    there = client.build_request("GET", url).url
    fields = request.fields(there.scheme, there.netloc.decode("ascii"))
    asked = client.build_request("GET", url, headers=fields)
    return asked if client.auth is None else next(client.auth.sync_auth_flow(asked))


def _head_of(asked: HTTPRequest) -> bytes:
    lines = [name + b": " + value for name, value in asked.headers.raw]
    return b"\r\n".join([b"GET " + asked.url.raw_path + b" HTTP/1.1", *lines, b"", b""])


def _scope(client: TestClient, asked: HTTPRequest) -> dict[str, Any]:
    """Return what a server adds to the request."""
    scheme = asked.url.scheme
    return {
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "scheme": "wss" if scheme == "https" else "ws",
        "server": (asked.url.host, asked.url.port or _PORTS[scheme]),
        "root_path": "",  # see `_watched`
        "state": dict(client.app_state),  # what the app's lifespan has put there
    }


def _watched(app: App, root_path: str, note: Callable[[Exception], None]) -> App:
    """Return an app whose exceptions are noted."""

    async def watched(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401
        # As for the client's HTTP requests: a path is taken as it is written, prefix or not.
        scope["root_path"] = root_path
        try:
            await app(scope, receive, send)
        except WebSocketDisconnect:  # the client has gone, and the app has not looked
            raise
        except Exception as error:
            note(error)
            raise

    return watched


def _keep_cookies(client: TestClient, asked: HTTPRequest, ws: ClientSocket) -> None:
    """Put what the answer sets into the client's jar, whatever the answer is."""
    status = ws.answer.status or HTTPStatus.INTERNAL_SERVER_ERROR
    make: Any = testclient.httpx.Response  # type: ignore[attr-defined]  # httpx2's, or httpx's
    response = make(status, headers=ws.answer.headers, request=asked)
    client.cookies.extract_cookies(response)
