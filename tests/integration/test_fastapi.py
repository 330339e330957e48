"""FastAPI's tutorial chat on real servers: two lines more, one path public, one that asks who."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import jwt
import pytest

from tests.integration.apps import tutorial
from tests.integration.asgi import SERVERS, Guest, heard, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.serving import Server

APP = "tests.integration.apps.tutorial:app"


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serving(request.param, APP, tmp_path_factory.mktemp(request.param)) as running:
        yield running


def token(user: str = "ann") -> str:
    claims = {"sub": user, "exp": int(time.time()) + 60}
    return jwt.encode(claims, tutorial.KEY, algorithm="HS256")


def test_the_chat_goes_on_as_it_was(server: Server) -> None:
    one, other = Guest(server), Guest(server)
    with one.connect("/ws/1") as first:
        with other.connect("/ws/2") as second:
            second.send("hello")
            assert second.recv(10) == "You wrote: hello"
            assert second.recv(10) == first.recv(10) == "Client #2 says: hello"
        assert first.recv(10) == "Client #2 left the chat"


def test_a_page_of_another_site_is_refused_at_a_public_path_too(server: Server) -> None:
    assert Guest(server).refused("/ws/1", "https://evil.example").status == 403


def test_depends_gets_the_principal(server: Server) -> None:
    with Guest(server).connect("/members", subprotocols=["bearer", token()]) as ws:
        assert ws.subprotocol == "bearer"
        ws.send("hello")
        assert heard(ws) == {"from": "ann", "text": "hello"}


def test_without_a_token_it_is_a_refusal_that_the_client_sees(server: Server) -> None:
    refused = Guest(server).refused("/members")
    if server.name == "daphne":  # which has one answer for all
        assert refused.status == 403
    else:
        assert (refused.status, refused.code) == (401, "credential_missing")
        assert refused.headers["www-authenticate"].startswith("Bearer")


def test_a_view_sends_to_all_of_them(server: Server) -> None:
    with (
        Guest(server).connect("/members", subprotocols=["bearer", token()]) as member,
        Guest(server).connect("/ws/1") as anybody,
    ):
        anybody.send("here")  # and so both are open by now
        assert anybody.recv(10) == "You wrote: here"
        assert anybody.recv(10) == "Client #1 says: here"
        member.send("here")
        assert heard(member)["text"] == "here"
        told = Guest(server).ask("POST", "/announce?text=lunch").json()
        assert told == {"sockets": 2}
        assert heard(member) == heard(anybody) == {"news": "lunch"}
