"""A Flask app behind the ASGI door, on the servers that people run: pages, routes, views."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from tests.integration.apps import flask_on_asgi
from tests.integration.asgi import SERVERS, Guest, closed, heard, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.serving import Server

APP = "tests.integration.apps.flask_on_asgi:asgi"

#: Servers that pass no headers on with an accept, and no HTTP answer in place of one.
NO_HEADERS = {"granian", "daphne"}
NO_DENIALS = {"daphne"}

#: uvicorn does not start if the app cannot answer its lifespan.
OPTIONS = {"uvicorn": ("--lifespan", "on")}


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    with serving(request.param, APP, folder, *OPTIONS.get(request.param, ())) as running:
        yield running


@pytest.fixture
def ann(server: Server) -> Guest:
    person = Guest(server)
    assert person.get("/login/ann").text == "hello"
    return person


def check_refused(who: Guest, path: str, status: int, code: str, origin: str = "same") -> None:
    """Whatever the server lets through of a refusal, it is known here, once, and as what."""
    before = who.get("/refused").json()
    refused = who.refused(path, origin)
    if who.server.name in NO_DENIALS:
        assert refused.status == 403
    else:
        assert refused.status == status
        assert refused.code == ("" if code == "app_refused" else code)
    after = who.get("/refused").json()
    more = {each: after[each] - before.get(each, 0) for each in after}
    assert {each: number for each, number in more.items() if number} == {code: 1}


# --- pages ---------------------------------------------------------------------------------------


def test_pages_are_served_as_ever(ann: Guest) -> None:
    answer = ann.get("/seen")
    assert answer.headers["x-asked"] == "/seen"
    assert answer.json()["url"] == f"ws://{ann.server.host}/ws/chat/1"
    assert ann.get("/nothing").status_code == 404
    assert ann.get("/health?teapot=1").status_code == 418


def test_requests_do_not_wait_for_one_another(server: Server) -> None:
    with ThreadPoolExecutor(2) as pool:
        pages = [pool.submit(Guest(server).get, "/both") for _ in range(2)]
        assert [page.result(20).text for page in pages] == ["both", "both"]


def test_a_body_arrives_whole(server: Server) -> None:
    body = b"x" * 3_000_000
    told = Guest(server).ask("POST", "/upload", content=body).json()
    assert told == {"bytes": len(body), "multiprocess": False}


def test_an_answer_is_streamed_and_closed(server: Server) -> None:
    guest = Guest(server)
    assert guest.get("/stream").text == "part 0\npart 1\npart 2\n"
    assert "stream" in guest.get("/closed").json()["closed"]


def test_a_sockets_path_opened_as_a_page_is_426(ann: Guest) -> None:
    answer = ann.get("/ws/chat/1")
    assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")


# --- routes of ours ------------------------------------------------------------------------------


def test_the_apps_session_lets_in(ann: Guest) -> None:
    with ann.connect("/ws/chat/1") as one, ann.connect("/ws/chat/1") as two:
        one.send("hello")
        assert heard(one) == heard(two) == {"from": "ann", "text": "hello"}


@pytest.mark.parametrize("path", ["/say/3", "/say-async/3"])
def test_a_view_sends(ann: Guest, path: str) -> None:
    with ann.connect("/ws/chat/3") as ws:
        assert ann.ask("POST", path, content=b"news").json() == {"sockets": 1}
        assert heard(ws) == {"text": "news"}


def test_a_logout_closes_the_sockets(ann: Guest) -> None:
    with ann.connect("/ws/chat/1") as one, ann.connect("/own") as two:
        assert ann.ask("POST", "/logout").text == "bye"
        assert [closed(one)[0], closed(two)[0]] == [4401, 4401]


def test_a_blocking_conversation_is_served(ann: Guest) -> None:
    with ann.connect("/ws/blocking") as ws:
        ws.send(b"\x00\x01")
        assert ws.recv(10) == b"\x00\x01"


def test_hooks_run_and_what_they_say_is_on_the_101(ann: Guest) -> None:
    with ann.connect("/ws/chat/1") as ws:
        assert ws.response is not None
        if ann.server.name not in NO_HEADERS:
            assert ws.response.headers["x-asked"] == "/ws/chat/1"
            assert "session=" in ws.response.headers["set-cookie"]
            assert "content-type" not in ws.response.headers


def test_who_may_not_is_refused(server: Server, ann: Guest) -> None:
    check_refused(Guest(server), "/ws/chat/1", 401, "app_refused")
    check_refused(ann, "/ws/chat/1?teapot=1", 418, "app_refused")
    check_refused(ann, "/ws/chat/99", 403, "not_allowed")
    check_refused(ann, "/ws/chat/1", 403, "origin_not_allowed", "https://evil.example")


def test_the_apps_own_error_page_is_the_answer(server: Server) -> None:
    if server.name in NO_DENIALS:
        pytest.skip("this server answers 403 to all")
    refused = Guest(server).refused("/ws/chat/1")
    assert b"<title>401 Unauthorized</title>" in refused.body
    assert refused.headers["x-asked"] == "/ws/chat/1"


def test_a_refusal_may_set_several_cookies(server: Server, ann: Guest) -> None:
    for path in ("/ws/chat/1?teapot=1", "/own?teapot=1"):
        refused = ann.refused(path)
        if server.name not in NO_DENIALS:
            assert (refused.status, refused.body) == (418, b"short and stout")
            # The last of them, which is all that granian sends.
            assert refused.headers["set-cookie"].startswith("session=")
        assert ann.get("/health").status_code == 200  # and the server is still there


# --- views that own a socket ---------------------------------------------------------------------


def test_a_view_accepts(ann: Guest) -> None:
    with ann.connect("/own") as ws:
        ws.send("hello")
        assert ws.recv(10) == "ann: 'hello'"
        assert ws.response is not None
        if ann.server.name not in NO_HEADERS:
            assert ws.response.headers["x-asked"] == "/own"
    with ann.connect("/own/1") as ws:
        ws.send("hello")
        assert ws.recv(10) == "ann: 'hello'"


def test_a_view_refuses(server: Server, ann: Guest) -> None:
    check_refused(Guest(server), "/own", 401, "login_required")
    check_refused(Guest(server), "/own/1", 401, "credential_refused")
    check_refused(ann, "/own/2", 403, "not_allowed")
    check_refused(ann, "/own", 403, "origin_not_allowed", "https://evil.example")
    check_refused(ann, "/nothing", 404, "app_refused")
    check_refused(ann, "/login/bob", 400, "app_refused")  # Flask's answer: it is no WebSocket's


def test_a_refusal_passes_through_the_apps_hooks(ann: Guest) -> None:
    if ann.server.name in NO_DENIALS:
        pytest.skip("this server answers 403 to all")
    assert ann.refused("/own/2").headers["x-asked"] == "/own/2"


def test_a_refusal_may_be_a_close_frame(ann: Guest) -> None:
    with ann.connect("/own/closing") as ws:
        assert closed(ws)[0] == 4401


def test_a_view_that_changes_its_mind_holds_no_place(ann: Guest) -> None:
    for _ in range(2):
        check_refused(ann, "/own/one?no=1", 409, "app_refused")
    with ann.connect("/own/one") as ws:
        check_refused(ann, "/own/one", 429, "too_many_connections")
        ws.send("still here")
        assert ws.recv(10) == "one: 'still here'"


def test_a_view_that_fails_is_the_apps_500(ann: Guest) -> None:
    check_refused(ann, "/own/broken", 500, "app_refused")


# --- mounted -------------------------------------------------------------------------------------


def test_mounted_in_another_app_it_has_its_sockets_there() -> None:
    app = Starlette(routes=[Mount("/shop", flask_on_asgi.asgi)])
    with TestClient(app) as client:
        client.get("/shop/login/ann")
        assert client.get("/shop/seen").json()["url"] == "ws://testserver/shop/ws/chat/1"
        headers = {"origin": "http://testserver"}
        with client.websocket_connect("/shop/ws/chat/1", headers=headers) as ws:
            ws.send_text("hello")
            assert ws.receive_json() == {"from": "ann", "text": "hello"}
        with client.websocket_connect("/shop/own", headers=headers) as ws:
            ws.send_text("hello")
            assert ws.receive_text() == "ann: 'hello'"
