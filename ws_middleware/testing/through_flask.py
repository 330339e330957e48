"""Connecting through Flask's test client: the request takes the way through the whole app."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import TYPE_CHECKING

from flask.testing import EnvironBuilder

from ws_middleware.sockets import WebSockets

from .upgrade import SWITCHING, Refused, Request, check_answer

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from .client import ClientSocket
    from .stage import Stage

__all__ = ["connect_through_flask"]


def connect_through_flask(
    stage: Stage, client: FlaskClient, ws: ClientSocket, request: Request
) -> None:
    """Open `ws` as this client would.

    Raises:
        Refused: the upgrade was refused.
        RuntimeError: the app has no `WebSockets`.
    """
    found = [each for each in client.application.extensions.values() if _is_sockets(each)]
    if not found:
        msg = "the app has no WebSockets: call sockets.init_app(app) before connect()"
        raise RuntimeError(msg)
    for sockets in found:
        stage.open(sockets._fronts.choose(client.application))  # noqa: SLF001 - the same package
    overrides = {}
    if request.address is not None:
        overrides = {"REMOTE_ADDR": request.address[0], "REMOTE_PORT": str(request.address[1])}
    builder = EnvironBuilder(
        client.application, request.path, base_url=request.base_url, environ_overrides=overrides
    )
    for name, value in request.fields(builder.url_scheme, builder.host):
        builder.headers.add(name, value)
    response = client.open(builder)
    if ws.link is None:
        if response.status_code == SWITCHING:
            msg = f"{request.path} is served by somebody else: ws_middleware never saw a yes"
            raise RuntimeError(msg)
        body = response.get_data()
        raise Refused.over_http(response.status_code, list(response.headers), body)
    stage.settle()
    check_answer(ws)
    _keep_cookies(client, ws, builder.host)


def _is_sockets(extension: object) -> bool:
    return isinstance(extension, WebSockets)


def _keep_cookies(client: FlaskClient, ws: ClientSocket, host: str) -> None:
    """Put what the 101 sets into the client's jar, as a browser does."""
    for name, value in ws.headers:
        if name.lower() != "set-cookie":
            continue
        for key, morsel in SimpleCookie(value).items():
            where = {"domain": morsel["domain"] or host, "path": morsel["path"] or "/"}
            if morsel["max-age"] == "0":
                client.delete_cookie(key, **where)
            else:
                client.set_cookie(key, morsel.value, origin_only=not morsel["domain"], **where)
