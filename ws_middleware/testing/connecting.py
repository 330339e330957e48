"""Connecting: through a Flask client and the whole app, or straight to a `WebSockets`."""

from __future__ import annotations

import base64
import json
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from ws_middleware.net.link import SocketLink
from ws_middleware.sockets import WebSockets

from .client import ClientSocket
from .stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from flask.testing import FlaskClient

__all__ = ["Connector", "Refused", "close_leftovers", "connect"]

#: What a browser would draw by lot.
_KEY: Final = base64.b64encode(b"sixteen is enough"[:16]).decode()
_LOCAL: Final = ("127.0.0.1", 50_000)
_DEFAULT_URL: Final = "http://localhost"
_SWITCHING: Final = 101
#: Virtual seconds that an answer may take; the session's own limit comes before.
_ANSWER: Final = 3600.0

#: Where everything takes place, while anything does.
_stages: Final[list[Stage]] = []


class Refused(Exception):  # noqa: N818 - it is an answer
    """The upgrade was refused.

    `status`, `headers` and `body` are those of the HTTP answer; `code` and `detail` those of its
    problem document, "" where the app sent a body of its own. With `refuse_with="close"` there is
    no HTTP answer: then `close_code` is what the client gets (4401), and `status` is that less
    4000.
    """

    def __init__(
        self,
        status: int,
        code: str = "",
        detail: str = "",
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        close_code: int | None = None,
    ) -> None:
        super().__init__(" ".join(str(part) for part in (status, code, detail) if part))
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = tuple(headers)
        self.body = body
        self.close_code = close_code

    @classmethod
    def over_http(cls, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Refused:
        """Read an HTTP answer."""
        code = detail = ""
        try:
            document = json.loads(body)
            code, detail = str(document["code"]), str(document["detail"])
        except (ValueError, KeyError, TypeError):
            pass  # an answer of the app's own
        return cls(status, code, detail, headers=headers, body=body)


def connect(
    client: FlaskClient | WebSockets,
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
        client: Flask's test client: its cookies go along, its base URL holds, and the request takes
            the way through the whole app. Or a `WebSockets`, as if through a port of its own.
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
        TypeError: `client` is neither.
        ConfigError: the settings as a whole are wrong.
        RuntimeError: the app has no `WebSockets`, or an event loop runs in this thread.
    """
    stage = _current_stage()
    stage.check_thread()
    stage.settle()
    options: dict[str, Any] = {"answer_pings": answer_pings, "raise_errors": raise_errors}
    ws = ClientSocket(stage, address or _LOCAL, **options)
    stage.clients.append(ws)
    request = _Request(path, _pairs(headers), origin, tuple(subprotocols), base_url, address)
    stage.caller = ws
    try:
        if isinstance(client, WebSockets):
            _connect_directly(stage, client, ws, request)
        else:
            _connect_through_flask(stage, client, ws, request)
    except BaseException:
        stage.leave(ws)
        raise
    finally:
        stage.caller = None
    return ws


def _current_stage() -> Stage:
    """Return where everything takes place: all clients of a test meet on one stage."""
    if not _stages or _stages[0].is_closed:
        _stages[:] = [Stage()]
    return _stages[0]


def _pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    items = getattr(headers, "items", None)
    return list(headers if items is None else items())


class _Request:
    """What a client asks for."""

    def __init__(
        self,
        path: str,
        headers: list[tuple[str, str]],
        origin: str | None,
        subprotocols: tuple[str, ...],
        base_url: str | None,
        address: tuple[str, int] | None,
    ) -> None:
        self.path = path
        self.base_url = base_url
        self.address = address
        self._headers = headers
        self._origin = origin
        self._subprotocols = subprotocols

    def fields(self, scheme: str, host: str) -> list[tuple[str, str]]:
        """Return the header fields of the upgrade request but for the Host."""
        fields = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": _KEY,
            "Sec-WebSocket-Version": "13",
        }
        if self._origin is not None:
            fields["Origin"] = f"{scheme}://{host}" if self._origin == "same" else self._origin
        if self._subprotocols:
            fields["Sec-WebSocket-Protocol"] = ", ".join(self._subprotocols)
        given = {name.lower() for name, _ in self._headers}
        own = [pair for pair in fields.items() if pair[0].lower() not in given]
        return [*own, *self._headers]


# --- straight to a WebSockets --------------------------------------------------------------------


def _connect_directly(
    stage: Stage, sockets: WebSockets, ws: ClientSocket, request: _Request
) -> None:
    engine, runtime = stage.open(sockets)
    url = urlsplit(request.base_url or _DEFAULT_URL)
    fields = request.fields(url.scheme, url.netloc)
    lines = [f"GET {url.path.rstrip('/')}{request.path} HTTP/1.1"]
    if not any(name.lower() == "host" for name, _ in fields):
        lines.append(f"Host: {url.netloc}")
    lines.extend(f"{name}: {value}" for name, value in fields)
    stage.start(SocketLink(engine, runtime))
    ws.request("\r\n".join([*lines, "", ""]).encode("latin-1"))
    stage.wait_for(_ANSWER, lambda: ws.is_answered)
    _check_answer(ws)


def _check_answer(ws: ClientSocket) -> None:
    answer = ws.answer
    if answer.status != _SWITCHING:
        raise Refused.over_http(answer.status or 0, answer.headers, answer.body)
    if not ws.was_let_in:
        code, reason = ws.close_code or 0, ws.close_reason
        raise Refused(code - 4000, reason, headers=answer.headers, close_code=code)


# --- through a Flask app -------------------------------------------------------------------------


def _connect_through_flask(
    stage: Stage, client: FlaskClient, ws: ClientSocket, request: _Request
) -> None:
    from flask.testing import EnvironBuilder, FlaskClient  # noqa: PLC0415 - the extra "flask"

    if not isinstance(client, FlaskClient):
        msg = f"connect() takes app.test_client() or a WebSockets, got {type(client).__name__}"
        raise TypeError(msg)
    found = [each for each in client.application.extensions.values() if _is_sockets(each)]
    if not found:
        msg = "the app has no WebSockets: call sockets.init_app(app) before connect()"
        raise RuntimeError(msg)
    for sockets in found:
        stage.open(sockets)
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
        if response.status_code == _SWITCHING:
            msg = f"{request.path} is served by somebody else: ws_middleware never saw a yes"
            raise RuntimeError(msg)
        body = response.get_data()
        raise Refused.over_http(response.status_code, list(response.headers), body)
    stage.settle()
    _check_answer(ws)
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
        client: FlaskClient | WebSockets,
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
