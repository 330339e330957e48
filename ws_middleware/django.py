"""The Django door: the project's own settings, middleware and logins hold for its sockets.

`sockets.wsgi(get_wsgi_application())` makes the project our host: `settings.WEBSOCKETS` is read,
`ALLOWED_HOSTS` and `CSRF_TRUSTED_ORIGINS` count, and every call of the project's code has database
connections as fresh as in a view. `DjangoAuth` asks the project's middleware who it is; a view of
the project's own accepts with `upgrade`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Unpack
from uuid import UUID
from weakref import WeakSet
from wsgiref.util import is_hop_by_hop

from asgiref.sync import SyncToAsync
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import close_old_connections, connections
from django.http import HttpResponse
from django.urls import ResolverMatch, set_urlconf

from .core.headers import problem_body
from .errors import ConfigError
from .gate.auth.app import GRANTED, run_app
from .gate.origin import OriginRule
from .gate.upgrade import NO_UPGRADE
from .types import Principal, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.http import HttpRequest

    from .config import Policy
    from .route import Endpoint, Handler
    from .types import Granted, UpgradeRequest

__all__ = ["DjangoAuth", "DjangoHost", "upgrade"]

_log: Final = logging.getLogger("ws_middleware.settings")

_SETTING: Final = "WEBSOCKETS"

#: Django's own rule for an empty ALLOWED_HOSTS while DEBUG is on.
_DEBUG_HOSTS: Final = (".localhost", "127.0.0.1", "[::1]")

#: Where, in an environ, a view finds `WebSockets.upgrade`, and our handler the path's parameters.
_UPGRADE: Final = "ws_middleware.django.upgrade"
_PARAMETERS: Final = "ws_middleware.django.parameters"

_OWN_ORIGIN: Final = "same-origin"

#: "Whoever the middleware says it is."
_FROM_REQUEST: Final = object()


# --- who it is -----------------------------------------------------------------------------------


class DjangoAuth:
    """An authenticator: who the project's own middleware says it is.

    The whole middleware runs on the upgrade request (sessions, authentication, whatever there is),
    in a handler of its own: each class in `settings.MIDDLEWARE` is instantiated once more. No URL
    is needed for the path. What the middleware answers to a client it does not let in is what that
    client gets; a redirect to a login page becomes a 401. Cookies it sets go onto the 101.

    Args:
        get_user: called with the `HttpRequest`, after all middleware; returns a user, a
            `Principal`, an id, or `None` for nobody. Default: `request.user`, whose primary key is
            the id.
    """

    def __init__(self, get_user: Callable[[HttpRequest], object] | None = None) -> None:
        self._get_user = get_user or _request_user

    @cached_property
    def _handler(self) -> WSGIApplication:
        if not DjangoHost.extensions:
            _log.warning(
                "DjangoAuth is asked, but no Django project is the host, so settings.%s, "
                "ALLOWED_HOSTS and CSRF_TRUSTED_ORIGINS are not read. Wrap Django's own handler, "
                "and other WSGI middleware around that: sockets.wsgi(get_wsgi_application())",
                _SETTING,
            )
        handler: WSGIApplication = _UpgradeHandler(self._answer)
        return handler

    def __call__(self, request: UpgradeRequest) -> Granted:
        """Run the project's middleware on the request.

        Raises:
            Refused: with what it answered.
        """

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            environ[_PARAMETERS] = dict(request.path_params)
            return self._handler(environ, start_response)

        return run_app(app, request)

    def _answer(self, request: HttpRequest, **parameters: object) -> HttpResponse:  # noqa: ARG002
        """The view at the end of the middleware: says yes, or 401 to nobody."""
        request.get_host()  # raises if it is none of ALLOWED_HOSTS, which not every project asks
        user = _identify(self._get_user(request))
        if user is None or user == "":
            return _problem(Refusal(401, "login_required", "log in first"))
        request.META[GRANTED] = user
        return HttpResponse(status=101)

    def __repr__(self) -> str:
        return "DjangoAuth()"


class _UpgradeHandler(WSGIHandler):  # type: ignore[misc]  # Django has no types
    """Django's handler with the project's middleware, but one view for every path."""

    def __init__(self, view: Callable[..., HttpResponse]) -> None:
        super().__init__()
        self._view = view

    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        """Find that view, as if the project's URLs had it."""
        if hasattr(request, "urlconf"):  # chosen by a middleware; reverse() has to follow
            set_urlconf(request.urlconf)
        request.resolver_match = ResolverMatch(self._view, (), request.META.pop(_PARAMETERS))
        return request.resolver_match


def _request_user(request: HttpRequest) -> object:
    try:
        return request.user
    except AttributeError:
        msg = (
            "there is no request.user: add django.contrib.auth's AuthenticationMiddleware to "
            "MIDDLEWARE, or say who it is with DjangoAuth(get_user=...) or upgrade(user=...)"
        )
        raise ConfigError(msg) from None


def _identify(user: object) -> Any:  # noqa: ANN401 - whatever is no user is judged where it goes
    """Return a principal for a user of Django's, `None` for an anonymous one."""
    if isinstance(user, UUID):
        return str(user)
    if isinstance(user, Principal) or not hasattr(user, "is_authenticated"):
        return user
    if not user.is_authenticated:
        return None
    pk, name = getattr(user, "pk", None), getattr(user, "get_username", str)()
    return None if pk is None else Principal(str(pk), name=str(name))


# --- a view that owns a socket -------------------------------------------------------------------


def upgrade(
    request: HttpRequest,
    handler: Handler,
    *,
    user: object = _FROM_REQUEST,
    name: str | None = None,
    subprotocols: Sequence[str] = (),
    **policy: Unpack[Policy],
) -> HttpResponse:
    """Accept an upgrade request in a view, which has let its user in; return what it answers.

    Host, syntax, origin and caps are checked first; a refusal is the answer then. Headers and
    cookies that view and middleware put on the response go onto the 101.

    Args:
        request: the view's.
        handler: a conversation, called as `handler(ws)`; bind more with `functools.partial`.
        user: who it is: a user of Django's, a `Principal`, or an id. Default: `request.user`.
            Nobody (anonymous, `None`) is a 401; `Principal("")` is anybody.
        name: its name in logs and audiences, and what a user's sockets are counted under; where
            none is given, the path of the request, and the handler.
        subprotocols: those it speaks.
        policy: what differs here from the app's policy; `auth` is not asked, `authorize` is.

    Raises:
        ConfigError: the handler or a value is wrong, or the project's `application` is not wrapped.
        TypeError: there is no such setting.
    """
    environ = request.META
    accept: Callable[..., WSGIApplication] | None = environ.get(_UPGRADE)
    if accept is None:
        if "HTTP_UPGRADE" in environ:
            msg = (
                "upgrade() needs the door: in wsgi.py, "
                "application = sockets.wsgi(get_wsgi_application())"
            )
            raise ConfigError(msg)
        return _problem(NO_UPGRADE)
    who = _identify(_request_user(request) if user is _FROM_REQUEST else user)
    app = accept(handler, user=who, name=name, subprotocols=subprotocols, **policy)
    return _run(app, environ)


def _run(app: WSGIApplication, environ: WSGIEnvironment) -> HttpResponse:
    """Return a WSGI app's answer as Django's."""
    answer: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:  # noqa: ANN401
        answer[:] = [int(status.partition(" ")[0]), headers]

    body = b"".join(app(environ, start_response))
    status, headers = answer
    allowed = {key: value for key, value in headers if not is_hop_by_hop(key)}
    return HttpResponse(body, status=status, headers=allowed)


def _problem(refusal: Refusal) -> HttpResponse:
    return HttpResponse(
        problem_body(refusal),
        status=refusal.status,
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store"},
    )


# --- the project as host -------------------------------------------------------------------------


class DjangoHost:
    """What we need of the project whose `settings` are configured in this process."""

    #: What it is the host for: one process, one project.
    app: Final[object] = settings
    name: Final = "Django"

    #: Where its settings come from, for errors.
    where: Final = f"settings.{_SETTING}"

    #: The `WebSockets` that the project is the host of, for its other code to find.
    extensions: ClassVar[WeakSet[object]] = WeakSet()

    @property
    def settings(self) -> dict[str, Any]:
        """What `settings.WEBSOCKETS` says.

        Raises:
            ConfigError: it is no dict.
        """
        given = getattr(settings, _SETTING, {})
        if not isinstance(given, dict):
            msg = f"{self.where} takes a dict, got {given!r}"
            raise ConfigError(msg)
        return given

    @staticmethod
    def defaults(given: Collection[str]) -> dict[str, Any]:
        """Return what Django's own settings mean for sockets, without what is `given` anywhere."""
        found: dict[str, Any] = {}
        if "allowed_hosts" not in given:
            hosts = tuple(settings.ALLOWED_HOSTS)
            found["allowed_hosts"] = hosts or (_DEBUG_HOSTS if settings.DEBUG else ())
        if "origins" not in given and settings.CSRF_TRUSTED_ORIGINS:
            found["origins"] = _origins(settings.CSRF_TRUSTED_ORIGINS)
        if settings.USE_X_FORWARDED_HOST and "trusted_proxies" not in given:
            _log.warning(
                "USE_X_FORWARDED_HOST is on: sockets believe forwarded headers only from proxies "
                'that are named, as in %s = {"trusted_proxies": ["127.0.0.1"]}',
                _SETTING,
            )
        return found

    @staticmethod
    def adapt(endpoint: Endpoint) -> Endpoint:
        """Return it as it is: no URL is needed for a route."""
        return endpoint

    @staticmethod
    def add(endpoint: Endpoint) -> None:
        """Do nothing, likewise."""

    @staticmethod
    @contextlib.contextmanager
    def context() -> Iterator[None]:
        """Surround a call of the project's code as Django surrounds a request.

        Our threads live on between calls, and so do their database connections: one that has died
        or is older than `CONN_MAX_AGE` must not be met by the next call. In a test that connects in
        memory the connection is the test's, and closing it would end its transaction.
        """
        kept = [each for each in connections.all(initialized_only=True) if each.in_atomic_block]
        _close_old(kept)
        try:
            yield
        finally:
            _close_old(kept)

    @classmethod
    def register(cls, extension: object) -> None:
        """Be found by the project's other code."""
        cls.extensions.add(extension)

    @staticmethod
    def wrap(app: WSGIApplication, accept: Callable[..., WSGIApplication]) -> WSGIApplication:
        """Return `app` as the door calls it: its views find `accept`, the way to an upgrade."""

        def inner(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if "HTTP_UPGRADE" not in environ and "HTTP_SEC_WEBSOCKET_KEY" not in environ:
                return app(environ, start_response)
            environ[_UPGRADE] = accept

            def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:  # noqa: ANN401
                # Django's Set-Cookie begins with a blank, which a server trims; we send the 101.
                trimmed = [(name, value.strip(" \t")) for name, value in headers]
                return start_response(status, trimmed, *exc_info)

            return app(environ, start)

        return inner


def _close_old(kept: Collection[BaseDatabaseWrapper]) -> None:
    """Close old connections: this thread's, or those of the thread that a coroutine's ORM uses."""
    loop = asyncio._get_running_loop()  # noqa: SLF001 - documented, does not raise
    if loop is not None:
        # Django's a... methods run in one thread of asgiref's, in the order in which they are
        # asked for: so this is done before the handler's next one, and waits for nothing.
        with contextlib.suppress(RuntimeError):  # the interpreter ends, and its connections too
            done = loop.run_in_executor(SyncToAsync.single_thread_executor, close_old_connections)
            done.add_done_callback(lambda it: it.cancelled() or it.exception())
        return
    for connection in connections.all(initialized_only=True):
        if connection not in kept:
            connection.close_if_unusable_or_obsolete()


def _origins(trusted: Sequence[str]) -> str | list[str]:
    """Return the site's own origin and those trusted, as far as the origin rule can tell them."""
    mixes = _is_known(_OWN_ORIGIN)
    known = [entry for entry in trusted if mixes and _is_known(entry)]
    for entry in trusted:
        if entry not in known:
            _log.warning(
                "CSRF_TRUSTED_ORIGINS: sockets cannot allow %r beside the site's own origin, so it "
                'is left out; list all that may connect: %s = {"origins": [...]}',
                entry,
                _SETTING,
            )
    return [_OWN_ORIGIN, *known] if known else _OWN_ORIGIN


def _is_known(entry: str) -> bool:
    try:
        OriginRule((entry,), ambient=True)
    except ConfigError:
        return False
    return True
