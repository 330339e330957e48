"""The Flask door: one line in the app, and its own login decides over its sockets.

`init_app` wraps `app.wsgi_app`, so the sockets share the app's port on whatever server runs it, and
gives every route a rule in `app.url_map`. With `FlaskAuth` the whole pipeline runs on the upgrade,
from `before_request` to `after_request`, sessions, blueprints and error handlers included; the
rules of other routes are for `url_for` only.
"""

from __future__ import annotations

import copy
import sys
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from .errors import ConfigError
from .gate.auth.app import GRANTED, run_app
from .types import Granted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from contextlib import AbstractContextManager

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask, Response

    from .gate.routing import PathTemplate
    from .route import Endpoint
    from .types import UpgradeRequest
    from .wsgi import WSGIMiddleware

__all__ = ["FlaskAuth", "FlaskHost"]

#: Where the extension is found: `app.extensions["websockets"]`.
EXTENSION: Final = "websockets"
_CONFIG: Final = "WEBSOCKETS"

#: Where the view behind a rule finds what is asked of it. Only a request that has passed our checks
#: has it, so an upgrade that came another way gets no yes.
_ASKED: Final = "ws_middleware.flask.asked"

#: What the endpoint of every rule of ours begins with. No dot: Flask would see a blueprint.
ENDPOINT: Final = "ws:"

#: What `FlaskAuth()` says where flask-login is missing, or knows nothing of the app.
NO_FLASK_LOGIN: Final = (
    "FlaskAuth() asks flask-login, which is not installed. Install it, or say who it is: "
    "FlaskAuth(get_user=lambda: session.get('user_id'))"
)
NO_MANAGER: Final = (
    "FlaskAuth() asks flask-login, and this app has no login manager. Add LoginManager(app), or "
    "say who it is: FlaskAuth(get_user=lambda: session.get('user_id'))"
)


class _Asked(NamedTuple):
    """What a `FlaskAuth` asks an app: whether the request may have this endpoint, and no other."""

    host: FlaskHost
    endpoint: str
    #: What our own path says.
    parameters: Mapping[str, Any]


class FlaskAuth:
    """An authenticator: who the Flask app says it is.

    Args:
        get_user: called in the request's context, after every `before_request`; returns the user's
            id, or `None` for nobody. Default: flask-login's `current_user`.

    The app's own answer is what a refused client gets; a redirect to a login page becomes a 401.
    """

    def __init__(self, get_user: Callable[[], object] | None = None) -> None:
        self._get_user = get_user or _login_user
        self._find_host: Callable[[], FlaskHost | None] = _no_host
        self._endpoint = ""

    def bound_to(self, host: FlaskHost, endpoint: str) -> Self:
        """Return one that asks the app of this host, which it does not keep, about one endpoint.

        Itself it asks none, and so may be shared by several.
        """
        bound = copy.copy(self)
        bound._find_host, bound._endpoint = weakref.ref(host), endpoint  # noqa: SLF001 - its own kind
        return bound

    @property
    def asks_login(self) -> bool:
        """Whether it is flask-login that says who it is."""
        return self._get_user is _login_user

    def __call__(self, request: UpgradeRequest) -> Granted:
        """Run the app on the request.

        Raises:
            Refused: with what the app answered.
            ConfigError: `init_app` was never called.
        """
        host = self._find_host()
        if host is None:
            msg = "FlaskAuth needs the app: call sockets.init_app(app)"
            raise ConfigError(msg)

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            environ[_ASKED] = _Asked(host, self._endpoint, request.path_params)
            return host.inner(environ, start_response)

        return run_app(app, request)

    def view(self, **view_args: Any) -> Response:  # noqa: ANN401 - what the converters made
        """The view behind the rule: says yes, or what Flask says to nobody."""
        from flask import Response, abort, request  # noqa: PLC0415 - the extra "flask"

        asked: _Asked | None = request.environ.pop(_ASKED, None)
        # Flask may see another rule in a path than we do. Its hooks have judged that one, then.
        if asked is None or asked[:2] != (self._find_host(), self._endpoint):
            abort(404)
        user: Any = self._get_user()
        if user is None or user == "":
            abort(401)
        # A url_value_preprocessor may have taken some out, and handlers are called with all.
        parameters = {name: view_args.get(name, value) for name, value in asked.parameters.items()}
        request.environ[GRANTED] = Granted(user, path_params=parameters)
        return Response(status=101)

    def __repr__(self) -> str:
        return "FlaskAuth()"


def _no_host() -> None:
    """Stand for the host of a `FlaskAuth` that no app has been told of."""


def _login_user() -> object:
    """Return the id of flask-login's user, `None` for an anonymous one."""
    try:
        from flask_login import current_user  # noqa: PLC0415 - the app's, not ours
    except ImportError:
        raise ConfigError(NO_FLASK_LOGIN) from None
    try:
        return current_user.get_id() if current_user.is_authenticated else None
    except AttributeError:
        from flask import current_app  # noqa: PLC0415 - the extra "flask"

        if hasattr(current_app, "login_manager"):
            raise
    raise ConfigError(NO_MANAGER)


class FlaskHost:
    """What we need of one Flask app. Imports little of Flask: the app is given."""

    where: Final = f'app.config["{_CONFIG}"]'

    def __init__(self, app: Flask) -> None:
        self.app = app
        #: The app without us: what a `FlaskAuth` runs.
        self.inner: WSGIApplication = app.wsgi_app

    @property
    def name(self) -> str:
        """Flask's name for the app."""
        return self.app.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """What `app.config["WEBSOCKETS"]` says.

        Raises:
            ConfigError: it is no dict.
        """
        given = self.app.config.get(_CONFIG, {})
        if not isinstance(given, dict):
            msg = f"{self.where} takes a dict, got {given!r}"
            raise ConfigError(msg)
        return given

    def defaults(self, given: Collection[str]) -> Mapping[str, Any]:  # noqa: ARG002
        """Return nothing: Flask has no settings that mean something for sockets."""
        return {}

    def context(self) -> AbstractContextManager[object]:
        """Return a fresh app context: extensions tear their state down after each call."""
        return self.app.app_context()

    def register(
        self, extension: object, wrap: Callable[[WSGIApplication], WSGIMiddleware]
    ) -> None:
        """Wrap the app, and be found by its other code."""
        middleware = wrap(self.inner)
        middleware.is_mismatch = self._is_mismatch
        middleware.see = self._see
        self.app.wsgi_app = middleware  # type: ignore[method-assign]
        self.app.extensions[EXTENSION] = extension

    def _see(self, environ: WSGIEnvironment) -> WSGIEnvironment:
        """Return an environ as a `ProxyFix` that was laid over the app before us will read it."""
        fixes = sys.modules.get("werkzeug.middleware.proxy_fix")  # else nobody has made one
        if fixes is None or not isinstance(self.inner, fixes.ProxyFix):
            return environ
        seen: list[WSGIEnvironment] = []

        def note(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:  # noqa: ARG001
            seen.append(environ)
            return ()

        fix = copy.copy(self.inner)
        fix.app = note
        fix(dict(environ), lambda *_: lambda _: None)
        return seen[0] if seen else environ

    def _is_mismatch(self, environ: WSGIEnvironment) -> bool:
        """Whether Flask knows the path for WebSockets only, which it tells a page by a 400."""
        from werkzeug.exceptions import HTTPException  # noqa: PLC0415 - Flask's own
        from werkzeug.routing import WebsocketMismatch  # noqa: PLC0415

        try:  # a Host that is none of TRUSTED_HOSTS is an error here already
            adapter = self.app.create_url_adapter(self.app.request_class(environ))
            assert adapter is not None, "there is one for every request"
            adapter.match()
        except HTTPException as error:
            return isinstance(error, WebsocketMismatch)
        return False

    def watch_logout(self, logout: Callable[[object], None]) -> None:
        """Call `logout` with the id of each user whom flask-login logs out of this app.

        A `LoginManager` may come later, or never. The signal holds neither us nor the app.
        """
        try:
            from flask_login import user_logged_out  # noqa: PLC0415 - the app's, not ours
        except ImportError:
            return
        self._logout = logout
        user_logged_out.connect(self._logged_out, sender=self.app)

    def _logged_out(self, app: Flask, user: Any, **_: object) -> None:  # noqa: ANN401, ARG002 - the signal's
        self._logout(user.get_id())

    # --- routes ------------------------------------------------------------------------------

    def adapt(self, endpoint: Endpoint) -> Endpoint:
        """Have a `FlaskAuth` ask this app, and its path read as this app reads it.

        Raises:
            ConfigError: no rule of this app could match it.
        """
        auth = endpoint.policy.auth
        if not isinstance(auth, FlaskAuth):
            return endpoint
        if self.app.url_map.host_matching:
            path = endpoint.template.as_flask
            msg = (
                f"{endpoint.route.path}: the app matches hosts, and a route with FlaskAuth names "
                f'none; write a view, @app.route("{path}", host=..., websocket=True), that returns '
                "sockets.upgrade(...)"
            )
            raise ConfigError(msg)
        policy = replace(endpoint.policy, auth=auth.bound_to(self, endpoint.name))
        return replace(endpoint, policy=policy, template=self._read(endpoint.template))

    def _read(self, template: PathTemplate) -> PathTemplate:
        """Return the template with the expressions of the app's own converters.

        What they make of the text is found where the app runs: they may ask a database.
        """
        from werkzeug.routing import Map  # noqa: PLC0415 - the extra "flask"

        known, url_map = Map.default_converters, self.app.url_map
        own = {kind: url_map.converters.get(kind) for kind in template.kinds}
        expressions = {
            kind: converter(url_map).regex
            for kind, converter in own.items()
            if converter is not None and converter is not known.get(kind)
        }
        return replace(template, expressions=expressions)

    def add(self, endpoint: Endpoint) -> None:
        """Give a route a rule: to be matched where Flask decides, else for `url_for` only.

        Raises:
            ConfigError: the app has another endpoint of that name.
        """
        auth, url_map = endpoint.policy.auth, self.app.url_map
        if url_map.host_matching:
            return  # a rule would need a host, and there is none to name
        name = f"{ENDPOINT}{endpoint.name.replace('.', '_')}"
        if any(rule.endpoint == name for rule in url_map.iter_rules()):
            msg = (
                f"{endpoint.route.path}: the app {self.name!r} has an endpoint {name!r} already; "
                "give the route another name="
            )
            raise ConfigError(msg)
        url_map.add(
            self.app.url_rule_class(
                endpoint.template.as_flask,
                endpoint=name,
                methods={"GET"},
                websocket=True,
                build_only=not isinstance(auth, FlaskAuth),
            )
        )
        if isinstance(auth, FlaskAuth):
            self.app.view_functions[name] = auth.view
