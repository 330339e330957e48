from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from starlette.authentication import BaseUser, SimpleUser, UnauthenticatedUser

from tests.gate.upgrades import upgrade
from ws_middleware import Granted, Principal, ScopeAuth
from ws_middleware.gate.verdict import AuthenticatorError

if TYPE_CHECKING:
    from ws_middleware.types import UpgradeRequest


def asked(**keys: Any) -> UpgradeRequest:
    """A request that came through an ASGI server."""
    return replace(upgrade(), native={"type": "websocket", "path": "/ws", **keys})


def who(user: object) -> Any:
    return ScopeAuth()(asked(user=user))


class Member(BaseUser):
    """One of Starlette's, as its documentation has them: `identity` is not implemented."""

    id = 7

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return "Ann"


class Model:
    """A user of some framework or database."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


# --- who is in the scope -------------------------------------------------------------------------


def test_starlettes_users_are_known_by_their_identity() -> None:
    assert who(SimpleUser("ann")) == Principal("ann", name="ann")
    assert who(UnauthenticatedUser()) is None


def test_a_user_without_an_identity_is_known_by_its_id() -> None:
    assert who(Member()) == Principal("7", name="Ann")


def test_a_display_name_alone_is_no_id_for_two_may_have_the_same() -> None:
    user = Model(is_authenticated=True, display_name="Ann")
    with pytest.raises(AuthenticatorError) as raised:
        who(user)
    assert str(raised.value) == (
        "found a Model in the scope, which has no pk, no identity, no id, no username: say who it "
        'is, as in ScopeAuth(get_user=lambda scope: scope["user"].email)'
    )


def test_djangos_users_are_known_by_their_primary_key() -> None:
    user = Model(is_authenticated=True, pk=3, id=3, username="ann", get_username=lambda: "ann")
    assert who(user) == Principal("3", name="ann")
    assert who(Model(is_authenticated=False, pk=None, id=None, username="")) is None


def test_an_id_that_is_there_and_empty_is_nobody() -> None:
    # Not "5": that may be somebody else's primary key.
    assert who(Model(is_authenticated=True, pk=None, username="5")) is None
    assert who(Model(id="")) is None


def test_a_user_that_says_nothing_of_being_authenticated_is_somebody() -> None:
    assert who(Model(id=UUID(int=1))) == Principal(str(UUID(int=1)))
    assert who(Model(username="ann")) == Principal("ann")
    assert who(Model(id=0)) == Principal("0")


@pytest.mark.parametrize(
    ("user", "verdict"),
    [
        ("ann", "ann"),
        (7, 7),
        (UUID(int=1), str(UUID(int=1))),
        (Principal("ann"), Principal("ann")),
        (Granted("ann", (("X-A", "1"),)), Granted("ann", (("X-A", "1"),))),
        (None, None),
        ("", ""),
    ],
)
def test_what_is_a_verdict_already_stays_one(user: object, verdict: object) -> None:
    assert who(user) == verdict


# --- get_user ------------------------------------------------------------------------------------


def test_get_user_reads_the_scope() -> None:
    auth = ScopeAuth(lambda scope: scope["session"].get("user"))
    assert auth(asked(session={"user": "ann"})) == "ann"
    assert auth(asked(session={})) is None


def test_get_user_may_be_a_coroutine() -> None:
    async def find(scope: Any) -> object:
        await asyncio.sleep(0)
        return SimpleUser(scope["session"]["user"])

    for get_user in (find, lambda scope: find(scope)):  # noqa: PLW0108 - no coroutine function
        verdict = ScopeAuth(get_user)(asked(session={"user": "ann"}))
        assert asyncio.run(settled(verdict)) == Principal("ann", name="ann")


def test_only_what_cannot_block_is_called_on_the_loop() -> None:
    async def find(scope: Any) -> None:
        pass

    assert ScopeAuth().runs_inline
    assert ScopeAuth(find).runs_inline
    assert not ScopeAuth(lambda scope: None).runs_inline


def test_it_may_look_at_cookies() -> None:
    assert ScopeAuth().ambient is True


# --- what is missing -----------------------------------------------------------------------------


def test_without_a_user_the_error_names_the_middleware_and_its_side() -> None:
    with pytest.raises(AuthenticatorError) as raised:
        ScopeAuth()(asked())
    assert str(raised.value) == (
        "found no user in the scope: the middleware that puts it there, such as "
        "AuthenticationMiddleware, is missing, or runs after ours. Starlette, FastAPI: what "
        "add_middleware adds last runs first, so add it after WebSocketMiddleware. channels: "
        "AuthMiddlewareStack(WebSocketMiddleware(URLRouter([...]), sockets=sockets)). Where there "
        'is a session only: ScopeAuth(get_user=lambda scope: scope["session"].get("user_id"))'
    )


def by_session(scope: Any) -> object:
    return scope["session"]["user"]


async def by_session_later(scope: Any) -> object:
    return scope["session"]["user"]


@pytest.mark.parametrize("get_user", [by_session, by_session_later])
def test_without_a_session_the_error_names_its_middleware(get_user: Any) -> None:
    with pytest.raises(AuthenticatorError) as raised:
        asyncio.run(settled(ScopeAuth(get_user)(asked())))
    assert str(raised.value) == (
        f"calls {get_user.__name__}, which looked for scope['session'], and there is none: "
        "SessionMiddleware is missing, or runs after ours. Starlette, FastAPI: what add_middleware "
        "adds last runs first, so add it after WebSocketMiddleware"
    )


@pytest.mark.parametrize("get_user", [by_session, by_session_later])
def test_a_key_that_only_the_session_lacks_is_the_apps_own_error(get_user: Any) -> None:
    with pytest.raises(KeyError, match="user"):
        asyncio.run(settled(ScopeAuth(get_user)(asked(session={}))))


async def settled(verdict: Any) -> Any:
    return await verdict


@pytest.mark.parametrize("native", [None, {"REQUEST_METHOD": "GET"}])
def test_where_there_is_no_scope_it_says_what_to_use_there(native: object) -> None:
    with pytest.raises(AuthenticatorError, match="asks an ASGI scope, and this request came") as e:
        ScopeAuth()(replace(upgrade(), native=native))
    assert "FlaskAuth(), DjangoAuth() or JWTAuth(...)" in str(e.value)


def test_it_is_told_in_logs_by_its_name() -> None:
    assert repr(ScopeAuth()) == "ScopeAuth()"
