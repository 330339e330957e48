"""Connecting through Django's test client: what `settings.WSGI_APPLICATION` names is asked."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

from django.conf import settings
from django.core.servers.basehttp import get_internal_wsgi_application
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import RequestFactory

from ws_middleware.django import DjangoHost
from ws_middleware.sockets import WebSockets

from .upgrade import SWITCHING, Refused, Request, check_answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment
    from django.test import Client

    from .client import ClientSocket
    from .stage import Stage

__all__ = ["connect_through_django"]

_PORTS: Final = {"http": "80", "https": "443"}


def connect_through_django(
    stage: Stage, client: Client, ws: ClientSocket, request: Request
) -> None:
    """Open `ws` as this client would.

    Raises:
        Refused: the upgrade was refused.
        RuntimeError: the project has no `WebSockets`.
    """
    app: WSGIApplication = get_internal_wsgi_application()
    found = [each for each in DjangoHost.extensions if isinstance(each, WebSockets)]
    if not found:
        msg = (
            f"the project has no WebSockets: settings.WSGI_APPLICATION is "
            f"{settings.WSGI_APPLICATION!r}, and there has to be "
            "application = sockets.wsgi(get_wsgi_application())"
        )
        raise RuntimeError(msg)
    for sockets in found:
        stage.open(sockets._fronts.choose(DjangoHost.app))  # noqa: SLF001 - the same package
    with _connections_kept():
        status, headers, body = _ask(app, _environ(client, request))
    if ws.link is None:
        _keep_cookies(client, headers)
        if status == SWITCHING:
            msg = f"{request.path} is served by somebody else: ws_middleware never saw a yes"
            raise RuntimeError(msg)
        raise Refused.over_http(status, headers, body)
    stage.settle()
    check_answer(ws)
    _keep_cookies(client, ws.headers)


@contextlib.contextmanager
def _connections_kept() -> Iterator[None]:
    """Let requests begin and end without closing the test's connection and its transaction."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    try:
        yield
    finally:
        for signal in signals:
            signal.connect(close_old_connections)


def _environ(client: Client, request: Request) -> WSGIEnvironment:
    """Return what a server would make of the request: Django's own, with this client's cookies."""
    environ: WSGIEnvironment = RequestFactory.request(client).environ
    scheme = environ["wsgi.url_scheme"]
    host = environ.get("HTTP_HOST") or _name(scheme, environ)
    path = urlsplit(request.path)
    if request.base_url is not None:
        base = urlsplit(request.base_url)
        scheme, host = base.scheme, base.netloc
        environ["SERVER_NAME"] = base.hostname
        environ["SERVER_PORT"] = str(base.port or _PORTS[scheme])
    environ |= {
        "HTTP_HOST": host,
        "PATH_INFO": unquote_to_bytes(path.path).decode("latin-1"),
        "QUERY_STRING": path.query or environ.get("QUERY_STRING", ""),
        "wsgi.url_scheme": scheme,
        "wsgi.multiprocess": False,  # Django's client says yes, and a test is one process
    }
    if request.address is not None:
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = map(str, request.address)
    for name, value in request.fields(scheme, host):
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    return environ


def _name(scheme: str, environ: WSGIEnvironment) -> str:
    name, port = environ["SERVER_NAME"], environ["SERVER_PORT"]
    return str(name) if port == _PORTS[scheme] else f"{name}:{port}"


def _ask(app: WSGIApplication, environ: WSGIEnvironment) -> tuple[int, list[Any], bytes]:
    """Ask as a server does; return status, headers and body."""
    answer: list[Any] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:  # noqa: ANN401
        answer[:] = [int(status.partition(" ")[0]), headers]
        return written.append

    chunks = app(environ, start_response)
    try:
        written.extend(chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    return answer[0], answer[1], b"".join(written)


def _keep_cookies(client: Client, headers: Iterable[tuple[str, str]]) -> None:
    """Put what an answer sets into the client's jar, as a browser does."""
    for name, value in headers:
        if name.lower() == "set-cookie":
            client.cookies.load(value)
    for name in [name for name, morsel in client.cookies.items() if morsel["max-age"] == "0"]:
        del client.cookies[name]
