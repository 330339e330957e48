"""The Flask door: one line in the app, and its own login decides over its sockets.

`init_app` wraps `app.wsgi_app`, so the sockets share the app's port on whatever server runs it, and
gives every `FlaskAuth` route a rule in `app.url_map`: the whole pipeline runs on the upgrade, from
`before_request` to `after_request`, sessions, blueprints and error handlers included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .errors import ConfigError
from .gate.auth.app import GRANTED, run_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from _typeshed.wsgi import WSGIEnvironment
    from flask import Flask, Response

    from .route import Route
    from .types import Granted, UpgradeRequest

__all__ = ["FlaskAuth", "FlaskDoor"]

#: Where the extension is found: `app.extensions["websockets"]`.
EXTENSION: Final = "websockets"
_CONFIG: Final = "WEBSOCKETS"


class FlaskAuth:
    """An authenticator: who the Flask app says it is.

    Args:
        get_user: called in the request's context, after every `before_request`; returns the user's
            id, or `None` for nobody. Default: flask-login's `current_user`.

    The app's own answer is what a refused client gets; a redirect to a login page becomes a 401.
    """

    def __init__(self, get_user: Callable[[], object] | None = None) -> None:
        self._get_user = get_user or _login_user
        self._app: Flask | None = None
        self._inner: Callable[..., Iterable[bytes]] | None = None

    def bind(self, app: Flask, inner: Callable[..., Iterable[bytes]]) -> None:
        """Use this app, by the WSGI callable that `init_app` found."""
        self._app, self._inner = app, inner

    def __call__(self, request: UpgradeRequest) -> Granted:
        """Run the app on the request.

        Raises:
            Refused: with what the app answered.
            ConfigError: `init_app` was never called.
        """
        if self._inner is None:
            msg = "FlaskAuth needs the app: call sockets.init_app(app)"
            raise ConfigError(msg)
        return run_app(self._inner, request)

    def view(self, **view_args: object) -> Response:  # noqa: ARG002 - the route has them
        """The view behind the rule: says yes, or what Flask says to nobody."""
        from flask import Response, abort, request  # noqa: PLC0415 - the extra "flask"

        user = self._get_user()
        if user is None or user == "":
            abort(401)
        request.environ[GRANTED] = user
        return Response(status=101)

    def __repr__(self) -> str:
        return "FlaskAuth()"


def _login_user() -> object:
    """Return the id of flask-login's user, `None` for an anonymous one."""
    try:
        from flask_login import current_user  # noqa: PLC0415 - the app's, not ours
    except ImportError:
        msg = (
            "FlaskAuth() asks flask-login, which is not installed; "
            "say who it is with FlaskAuth(get_user=lambda: session.get('user_id'))"
        )
        raise ConfigError(msg) from None
    return current_user.get_id() if current_user.is_authenticated else None


class FlaskDoor:
    """What we need of one Flask app. Imports nothing of Flask: the app is given."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    @property
    def settings(self) -> dict[str, Any]:
        """What `app.config["WEBSOCKETS"]` says.

        Raises:
            ConfigError: it is no dict.
        """
        given = self._app.config.get(_CONFIG, {})
        if not isinstance(given, dict):
            msg = f'app.config["{_CONFIG}"] takes a dict, got {given!r}'
            raise ConfigError(msg)
        return given

    def context(self) -> AbstractContextManager[object]:
        """Return a fresh app context: extensions tear their state down after each call."""
        return self._app.app_context()

    def register(
        self, extension: object, wrap: Callable[[Callable[..., Iterable[bytes]]], Any]
    ) -> None:
        """Wrap the app, and be found by its other code."""
        self._inner = self._app.wsgi_app
        middleware = wrap(self._inner)
        middleware.is_mismatch = self._is_mismatch
        self._app.wsgi_app = middleware  # type: ignore[method-assign]
        self._app.extensions[EXTENSION] = extension

    def _is_mismatch(self, environ: WSGIEnvironment) -> bool:
        """Whether Flask knows the path for WebSockets only, which it tells a page by a 400."""
        from werkzeug.exceptions import HTTPException  # noqa: PLC0415 - Flask's own
        from werkzeug.routing import WebsocketMismatch  # noqa: PLC0415

        adapter = self._app.create_url_adapter(self._app.request_class(environ))
        assert adapter is not None, "there is one for every request"
        try:
            adapter.match()
        except HTTPException as error:
            return isinstance(error, WebsocketMismatch)
        return False

    def add_route(self, route: Route) -> None:
        """Give a route that Flask decides over a rule of its own."""
        auth = route.policy.auth
        if not isinstance(auth, FlaskAuth):
            return
        auth.bind(self._app, self._inner)
        endpoint = f"websockets.{route.name}".replace(".", "_")
        if endpoint in self._app.view_functions:
            return
        rule = self._app.url_rule_class(
            route.template.as_flask, endpoint=endpoint, methods={"GET"}, websocket=True
        )
        self._app.url_map.add(rule)
        self._app.view_functions[endpoint] = auth.view
