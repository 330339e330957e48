"""The host's own middleware decides: who it has put into the ASGI scope.

Starlette's `AuthenticationMiddleware`, channels' `AuthMiddlewareStack`, a session: whatever runs
around our door has looked at the request already, and left what it found in the scope.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from ws_middleware.callables import is_async, name_of
from ws_middleware.gate.verdict import AuthenticatorError
from ws_middleware.types import Granted, Principal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from ws_middleware.types import UpgradeRequest

    Scope = MutableMapping[str, Any]

__all__ = ["ScopeAuth"]

#: What a user object may call its id: Django, Starlette, and what models mostly have. No display
#: name: two people may have the same.
_IDS: Final = ("pk", "identity", "id", "username")

_NO_SCOPE: Final = (
    "asks an ASGI scope, and this request came through no ASGI server. Behind a WSGI server or on "
    "a port of our own it is FlaskAuth(), DjangoAuth() or JWTAuth(...) that can know who it is"
)
_OUTSIDE: Final = (
    "is missing, or runs after ours. Starlette, FastAPI: what add_middleware adds last runs first, "
    "so add it after WebSocketMiddleware"
)
_NO_USER: Final = (
    "found no user in the scope: the middleware that puts it there, such as "
    f"AuthenticationMiddleware, {_OUTSIDE}. channels: "
    "AuthMiddlewareStack(WebSocketMiddleware(URLRouter([...]), sockets=sockets)). Where there is a "
    'session only: ScopeAuth(get_user=lambda scope: scope["session"].get("user_id"))'
)

_MISSING: Final = object()

#: Who puts what into a scope, where we know it.
_OWNERS: Final = {
    "session": "SessionMiddleware",
    "user": "AuthenticationMiddleware",
    "auth": "AuthenticationMiddleware",
}


class _NoKeyError(KeyError):
    """A scope has no such key. Nothing else raises it."""


class _Looked(dict[str, Any]):
    """A scope that tells its own missing keys from those of what is in it."""

    def __missing__(self, key: str) -> object:
        raise _NoKeyError(key)


class ScopeAuth:
    """An authenticator: who the middleware around our door says it is.

    Args:
        get_user: called with the ASGI scope; returns a user, a `Principal`, an id, or `None` for
            nobody. A `def` runs in a thread, so it may ask a database; `async def` runs on the
            loop. Default: `scope["user"]`.

    A user is let in if its `is_authenticated` is not false. Its id is the first of `pk`,
    `identity`, `id` and `username` that it has; its name is `display_name` or `get_username()`.
    """

    #: Most likely a cookie's doing.
    ambient = True

    def __init__(
        self,
        get_user: Callable[[Scope], object] | None = None,
    ) -> None:
        self._get_user = get_user
        #: Whether it may be called on the loop itself: it only looks, or is a coroutine.
        self.runs_inline = get_user is None or is_async(get_user)

    def __call__(self, request: UpgradeRequest) -> Any:  # noqa: ANN401 - a verdict, or who awaits it
        """Return who is in the scope, `None` for nobody.

        Raises:
            AuthenticatorError: there is no scope, or nobody has put a user there.
        """
        scope: Any = request.native
        if not isinstance(scope, dict) or "type" not in scope:
            raise AuthenticatorError(_NO_SCOPE)
        if self._get_user is None:
            if "user" not in scope:
                raise AuthenticatorError(_NO_USER)
            return _identify(scope["user"])
        try:
            found = self._get_user(_Looked(scope))
        except _NoKeyError as error:
            raise self._explain(error) from error
        return self._settle(found) if inspect.isawaitable(found) else _identify(found)

    async def _settle(self, found: Awaitable[object]) -> Any:  # noqa: ANN401
        try:
            return _identify(await found)
        except _NoKeyError as error:
            raise self._explain(error) from error

    def _explain(self, error: _NoKeyError) -> AuthenticatorError:
        """Return what to raise where there is no key that a middleware should have put there."""
        key = error.args[0]
        owner = _OWNERS.get(key, "the middleware that puts it there")
        return AuthenticatorError(
            f"calls {name_of(self._get_user)}, which looked for scope[{key!r}], and there is none: "
            f"{owner} {_OUTSIDE}"
        )

    def __repr__(self) -> str:
        return "ScopeAuth()"


def _identify(user: object) -> Any:  # noqa: ANN401 - whatever is no user is judged where it goes
    """Return a principal for a user object, `None` for an anonymous one."""
    if isinstance(user, UUID):
        return str(user)
    if user is None or isinstance(user, (Principal, Granted, str, int)):
        return user
    if not getattr(user, "is_authenticated", True):
        return None
    for name in _IDS:
        found = _read(user, name)
        if found is not _MISSING:
            # What is there and empty decides, too: another kind of id could be somebody else's.
            return None if found is None or found == "" else _principal(found, user)
    msg = (
        f"found a {type(user).__name__} in the scope, which has no {', no '.join(_IDS)}: say who "
        'it is, as in ScopeAuth(get_user=lambda scope: scope["user"].email)'
    )
    raise AuthenticatorError(msg)


def _read(user: object, name: str) -> Any:  # noqa: ANN401
    try:
        return getattr(user, name)
    except (AttributeError, NotImplementedError):  # Starlette's BaseUser raises the second
        return _MISSING


def _principal(found: object, user: object) -> Principal:
    shown = _read(user, "display_name")
    if not isinstance(shown, str):
        named = getattr(user, "get_username", None)
        shown = str(named()) if callable(named) else ""
    return Principal(str(found), name=shown)
