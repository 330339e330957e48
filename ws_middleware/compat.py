"""`Sock`: the shape of flask-sock, so that an app of it moves over by one line.

::

    from ws_middleware.compat import Sock  # was: from flask_sock import Sock

    sock = Sock(app)

    @sock.route("/echo")
    def echo(ws):
        while True:
            ws.send(ws.receive())

What is different: pages of other origins are refused (flask-sock lets every page in), the server's
worker is free while a socket is open, and a socket costs a thread of ours instead, while its
handler runs. See docs/migrate-flask-sock.md.
"""

from __future__ import annotations

import logging
import os
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, cast

from flask import Blueprint, copy_current_request_context, current_app, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from .callables import is_async, name_of
from .config import Heartbeat, Limits
from .errors import ConfigError
from .errors import ConnectionClosed as _Closed
from .gate.auth.anonymous import ANONYMOUS, Anonymous
from .sockets import WebSockets
from .views import make_upgrade
from .wsgi import OFFER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment
    from flask import Flask

    from .blocking import BlockingWebSocket
    from .config import Policy
    from .receipt import Receipt

    _ClosedBase = RuntimeError
else:
    # A handler that still catches flask-sock's own exception must go on catching it: one that
    # cleans up there would otherwise no longer do so, and nobody would notice.
    try:
        from simple_websocket import ConnectionClosed as _ClosedBase
    except ImportError:
        _ClosedBase = RuntimeError

__all__ = ["ConnectionClosed", "Server", "Sock"]

_log: Final = logging.getLogger("ws_middleware.compat")

#: Where an app keeps the `WebSockets` that serves its `Sock` routes.
_EXTENSION: Final = "ws_middleware.compat"
_CONFIG: Final = "WEBSOCKETS"
_OPTIONS: Final = "SOCK_SERVER_OPTIONS"
#: How many sockets may be open where nobody says; gunicorn's threads in flask-sock's own docs.
_CONVERSATIONS: Final = 100
#: Bytes of a reason in a close frame (RFC 6455 section 5.5).
_REASON: Final = 123
#: A close frame without a code, and no close frame (RFC 6455 section 7.4.1).
_NO_TEXT: Final = (1005, 1006)

_REDIRECTS: Final = range(300, 400)
_UNAUTHORIZED: Final = 401
#: A refusal as a close code: 4000 + status.
_REFUSAL: Final = 4000

#: Options that have been warned about, in this process.
_warned: Final[set[str]] = set()


class ConnectionClosed(_ClosedBase):
    """The socket has ended. `reason` is the close code, `message` the text that came with it.

    Not caught, it ends the handler, which is no error. Where flask-sock is still installed this is
    also a `simple_websocket.ConnectionClosed`.
    """

    def __init__(self, reason: int = 1005, message: str | None = None) -> None:
        RuntimeError.__init__(self, f"Connection closed: {reason} {message or ''}")
        self.reason = reason
        self.message = message


class Server:
    """What a handler gets: the methods and attributes of flask-sock's websocket."""

    def __init__(self, websocket: BlockingWebSocket, environ: WSGIEnvironment) -> None:
        self._websocket = websocket
        #: The WSGI environ of the upgrade request.
        self.environ = environ

    @property
    def connected(self) -> bool:
        """Whether messages can still be sent."""
        return not (self._websocket.closed or self._websocket.close_called)

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was chosen."""
        chosen: str | None = self._websocket.subprotocol
        return chosen

    @property
    def close_reason(self) -> int:
        """The code that ended it, 1005 while there is none."""
        return self._websocket.close_code or 1005

    @property
    def close_message(self) -> str | None:
        """The text that came with the code."""
        return _message(self._websocket.close_code, self._websocket.close_reason)

    def send(self, data: object) -> None:
        """Send `bytes` as a binary message, anything else as text; wait while the client is slow.

        Raises:
            ConnectionClosed: the socket has ended.
            MessageTooBig: it is over `Limits.outbound_bytes`.
        """
        message = data if isinstance(data, (bytes, bytearray, memoryview)) else str(data)
        receipt: Receipt[None] = self._websocket.send(message)
        try:
            receipt.result()
        except _Closed as closed:
            raise self._ended(closed) from None

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """Return the next message; `None` if none came within `timeout` seconds.

        Args:
            timeout: 0 looks whether one is there; `None` waits for as long as it takes.

        Raises:
            ConnectionClosed: the socket has ended, and all that came before has been taken.
        """
        try:
            return self._websocket.receive(timeout)
        except TimeoutError:
            return None
        except _Closed as closed:
            raise self._ended(closed) from None

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Close the socket with a code, 1000 where none is given, and a text.

        Raises:
            ConnectionClosed: it has ended already.
            ValueError: the code may not be sent (RFC 6455 section 7.4).
        """
        if not self.connected:
            raise ConnectionClosed(self.close_reason, self.close_message)
        text = (message or "").encode()[:_REASON].decode(errors="ignore")
        self._websocket.close(reason or 1000, text)

    @staticmethod
    def _ended(closed: _Closed) -> ConnectionClosed:
        return ConnectionClosed(closed.code, _message(closed.code, closed.reason))


def _message(code: int | None, reason: str) -> str | None:
    """Return the text of a close frame, `None` where there was no frame or nothing in it."""
    return None if code in {None, *_NO_TEXT} else reason


class Sock:
    """flask-sock's extension, served by `WebSockets`.

    It uses the app's own `WebSockets` where one has been initialised before, else one of its own,
    with what `app.config["WEBSOCKETS"]` says.

    Args:
        app: the app, if `init_app` is not called later.
        unsafe_any_origin: let pages of every origin in, as flask-sock does. Any page that a user
            visits can then open a socket with that user's cookies, and talk as that user.

    Raises:
        ConfigError: `app.config` is wrong.
    """

    def __init__(self, app: Flask | None = None, *, unsafe_any_origin: bool = False) -> None:
        self.app: Flask | None = None
        self.bp: Blueprint | None = None
        self._any_origin = unsafe_any_origin
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve the routes in `app`; those of blueprints are served where these are registered.

        Raises:
            ConfigError: `app.config` is wrong.
        """
        self._mount(app)
        if self.bp is not None:
            app.register_blueprint(self.bp)
        self.app = app

    def route(
        self,
        path: str,
        bp: Blueprint | None = None,
        **options: Any,  # noqa: ANN401 - those of Flask's route()
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorate a handler, `def f(ws, **path_params)`, which is returned as it was.

        Args:
            path: as for Flask's `route()`.
            bp: the blueprint it belongs to; without one it belongs to the app.
            options: those of Flask's `route()`, such as `endpoint` and `defaults`.

        Raises:
            ConfigError: the handler is an `async def`.
        """

        def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
            if is_async(handler):
                msg = (
                    f"{path}: Sock takes def handlers, {name_of(handler)} is an async def; use "
                    f"WebSockets.route({path!r}) for it"
                )
                raise ConfigError(msg)
            self._owner(bp).route(path, **{**options, "websocket": True})(self._view(handler))
            return handler

        return decorate

    def _owner(self, bp: Blueprint | None) -> Flask | Blueprint:
        if bp is not None:
            bp.record(lambda state: self._mount(cast("Flask", state.app)))
            return bp
        if self.app is not None:
            return self.app
        if self.bp is None:
            # The name that flask-sock has: it is a part of what url_for() takes.
            self.bp = Blueprint("__flask_sock", __name__)
        return self.bp

    def _mount(self, app: Flask) -> None:
        """See that something serves `app`, and that its configuration can be."""
        _read_options(app)
        sockets = app.extensions.get(_EXTENSION, app.extensions.get("websockets"))
        if sockets is None:
            sockets = _Own(app)
        app.extensions[_EXTENSION] = sockets
        self._origins(sockets, app)

    def _origins(self, sockets: WebSockets, app: Flask) -> Policy:
        if self._any_origin:
            return {"origins": "*"}
        front = sockets._fronts.choose(app)  # noqa: SLF001 - the same package
        if front.settings.get("origins") == "*":
            msg = (
                'the app\'s origins are "*": with Sock, which lives on cookies, any page could '
                'talk as your users. List the origins, give "*" only to the routes that need it, '
                "or say Sock(unsafe_any_origin=True)"
            )
            raise ConfigError(msg)
        return {}

    def _view(self, handler: Callable[..., Any]) -> Callable[..., WSGIApplication]:
        @wraps(handler)
        def view(**path_params: object) -> WSGIApplication:
            app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - documented
            sockets = _sockets_of(app)
            policy, subprotocols = _read_options(app)
            return make_upgrade(
                sockets._hub,  # noqa: SLF001 - the same package
                _conversation(handler, path_params),
                ANONYMOUS,
                name=str(request.url_rule),
                subprotocols=_in_clients_order(subprotocols),
                policy={**policy, **self._origins(sockets, app)},
                needs_origin=False,
            )

        return view


class _Own(WebSockets):
    """A `WebSockets` for an app that had none."""

    def __init__(self, app: Flask) -> None:
        self.given = dict(app.config.get(_CONFIG, {}))
        said = "sync_conversations" in self.given or "WSM_SYNC_CONVERSATIONS" in os.environ
        super().__init__(auth=Anonymous(), sync_conversations=None if said else _CONVERSATIONS)
        self.init_app(app)


def _sockets_of(app: Flask) -> WebSockets:
    """Return what serves `app`.

    Raises:
        RuntimeError: nothing does, or not on this way in.
        ConfigError: the configuration was changed when it was too late.
    """
    sockets: WebSockets | None = app.extensions.get(_EXTENSION)
    if sockets is None or OFFER not in request.environ:
        msg = "Sock serves nothing here: call sock.init_app(app)"
        raise RuntimeError(msg)
    if isinstance(sockets, _Own) and sockets.given != app.config.get(_CONFIG, {}):
        msg = f'app.config["{_CONFIG}"] was set after Sock(app), which reads it: set it before'
        raise ConfigError(msg)
    return sockets


def _conversation(
    handler: Callable[..., Any], path_params: dict[str, object]
) -> Callable[[BlockingWebSocket], None]:
    """Return what runs `handler` later, in another thread, in a copy of this request's context."""
    kept = g._get_current_object()  # noqa: SLF001 - documented
    environ = request.environ

    @copy_current_request_context
    def run(websocket: BlockingWebSocket) -> None:
        # By now the request's own teardown has run, so what it left in `g` is still good. Names
        # with an underscore are the caches of extensions, which are made anew where they are asked.
        for name in kept:
            if not name.startswith("_"):
                setattr(g, name, kept.get(name))
        server = Server(websocket, environ)
        try:
            _judge(server, handler(server, **path_params))
        except ConnectionClosed:
            return
        except HTTPException as error:
            _refuse(server, error.code or 500, error.name)

    def converse(ws: BlockingWebSocket) -> None:
        run(ws)

    converse.__qualname__ = name_of(handler)  # for logs
    return converse


def _judge(server: Server, result: object) -> None:
    """Close as `@login_required` means it, whose answer comes too late to be one."""
    if isinstance(result, Response) and result.status_code >= _REDIRECTS.start:
        redirect = result.status_code in _REDIRECTS
        _refuse(server, _UNAUTHORIZED if redirect else result.status_code, result.status[4:])


def _refuse(server: Server, status: int, name: str) -> None:
    if server.connected:
        server.close(_REFUSAL + status, name)


# --- SOCK_SERVER_OPTIONS -------------------------------------------------------------------------


def _read_options(app: Flask) -> tuple[Policy, Sequence[str]]:
    """Return what the app's options for flask-sock mean here: a policy and subprotocols.

    Raises:
        ConfigError: a value is wrong.
    """
    options: dict[str, Any] = dict(app.config.get(_OPTIONS, {}))
    policy: Policy = {}
    if "ping_interval" in options:
        interval = options.pop("ping_interval")
        # A pong has until the next ping, as there.
        policy["heartbeat"] = Heartbeat(interval, interval) if interval else None
    if "max_message_size" in options:
        policy["limits"] = Limits(message_size=options.pop("max_message_size") or None)
    subprotocols = options.pop("subprotocols", None) or ()
    for name in options.keys() - _warned:
        _warned.add(name)
        _log.warning('app.config["%s"]: %s means nothing to ws_middleware', _OPTIONS, name)
    return policy, (subprotocols,) if isinstance(subprotocols, str) else tuple(subprotocols)


def _in_clients_order(subprotocols: Sequence[str]) -> Sequence[str]:
    """Return those that the client offers, its favourite first, as flask-sock chooses."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    return [name for part in offered.split(",") if (name := part.strip()) in subprotocols]
