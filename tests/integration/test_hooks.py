"""Flask's own hooks on an upgrade request: which run, in what order, and which don't."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.serving import Server, Visitor, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A route that `FlaskAuth` decides, and a view that calls `upgrade()` itself.
PATHS = ["/ws/talk", "/ws/events", "/ws/view"]


@pytest.fixture(scope="module", params=["werkzeug", "gunicorn"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serving(request.param, "hooks", tmp_path_factory.mktemp("hooks")) as server:
        yield server


@pytest.fixture
def ann(server: Server) -> Visitor:
    visitor = Visitor(server)
    visitor.get("/login/ann")
    visitor.get("/trace")
    return visitor


# --- pages of other origins ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "code"),
    [("https://evil.example", "origin_not_allowed"), (None, "origin_missing")],
    ids=["evil", "none"],
)
@pytest.mark.parametrize("path", ["/ws/talk", "/ws/events"])
def test_a_login_is_of_no_use_to_another_origin_and_nothing_of_the_app_runs(
    ann: Visitor, path: str, origin: str | None, code: str
) -> None:
    refused = ann.refused(path, origin)
    assert (refused.status, refused.code) == (403, code)
    assert ann.get_json("/trace") == []


@pytest.mark.parametrize(
    ("origin", "code"),
    [("https://evil.example", "origin_not_allowed"), (None, "origin_missing")],
    ids=["evil", "none"],
)
def test_a_view_is_asked_first_but_no_handler_runs_for_another_origin(
    ann: Visitor, origin: str | None, code: str
) -> None:
    refused = ann.refused("/ws/view", origin)
    assert (refused.status, refused.code) == (403, code)
    assert ann.get_json("/trace") == [
        "before_request",
        "user_loader",
        "view",
        "after_request",
        "teardown_request None",
    ]


# --- who may come in -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws/talk", "/ws/events", "/ws/view"])
def test_nobody_is_a_401_without_a_redirect(server: Server, path: str) -> None:
    refused = Visitor(server).refused(path)
    assert refused.status == 401
    assert "location" not in refused.headers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("please", "status", "body"),
    [("forbid", 403, b"<title>403 Forbidden</title>"), ("fail", 500, b"Internal Server Error")],
)
def test_before_request_may_abort(
    ann: Visitor, path: str, please: str, status: int, body: bytes
) -> None:
    refused = ann.refused(path, **{"X-Please": please})
    assert refused.status == status
    assert body in refused.body
    assert not {"talk", "greet", "view"} & set(ann.get_json("/trace"))


@pytest.mark.parametrize("path", PATHS)
def test_the_apps_error_page_is_the_answer(ann: Visitor, path: str) -> None:
    refused = ann.refused(path, **{"X-Please": "teapot", "X-Request-ID": "r-1"})
    assert (refused.status, json.loads(refused.body)) == (418, {"error": "short and stout"})
    assert refused.headers["content-type"] == "application/json"
    assert (refused.headers["x-pot"], refused.headers["x-request-id"]) == ("tea", "r-1")
    assert ann.get_json("/trace") == [
        "before_request",
        "errorhandler",
        "after_request",
        "teardown_request None",
    ]


# --- what comes in -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_a_change_of_the_session_is_on_the_101_and_seen_by_the_next_request(
    ann: Visitor, path: str
) -> None:
    for count in (1, 2):
        with ann.connect(path, **{"X-Please": "count"}) as ws:
            assert ws.response is not None
            assert len(ws.response.headers.get_all("Set-Cookie")) == 1
        assert ann.get_json("/session") == {"seen": count, "flashed": ["seen"]}


@pytest.mark.parametrize("path", PATHS)
def test_fields_of_after_request_are_on_the_101(ann: Visitor, path: str) -> None:
    with ann.connect(path, **{"X-Request-ID": "r-2"}) as ws:
        assert ws.response is not None
        assert ws.response.headers["X-Request-ID"] == "r-2"
        assert ws.response.headers["X-Seen-By"] == "after_request"
        assert "Content-Type" not in ws.response.headers


@pytest.mark.parametrize(
    ("path", "ran"),
    [("/ws/talk", ["user_loader"]), ("/ws/view", ["user_loader", "view"])],
)
def test_the_request_is_over_before_the_handler_begins(
    ann: Visitor, path: str, ran: list[str]
) -> None:
    with ann.connect(path) as ws:
        if path == "/ws/talk":
            ws.send("hello")
        ws.recv(timeout=5)
        seen = ann.get_json("/trace")
    handler = "greet" if path == "/ws/view" else "talk"
    request = ["before_request", *ran, "after_request", "teardown_request None"]
    assert seen == [*request, handler]


# --- the app context of handlers -----------------------------------------------------------------


def test_each_event_has_an_app_context_of_its_own(ann: Visitor) -> None:
    with ann.connect("/ws/events") as ws:
        ann.get("/trace")
        for message in ("one", "two"):
            ws.send(message)
            assert json.loads(ws.recv(timeout=5)) == {"user": "ann", "g": None, "request": False}
    assert ann.get_json("/trace") == [
        "on_message one",
        "teardown_appcontext one",
        "on_message two",
        "teardown_appcontext two",
    ]


def test_a_conversation_has_one_app_context_and_it_is_its_own(server: Server, ann: Visitor) -> None:
    bob = Visitor(server)
    bob.get("/login/bob")
    bob.get("/trace")
    with ann.connect("/ws/talk") as one, bob.connect("/ws/talk") as two:
        for _ in range(2):
            for ws, name in ((one, "ann"), (two, "bob")):
                ws.send("hi")
                said = {"heard": "hi", "g": f"talk of {name}", "request": False}
                assert json.loads(ws.recv(timeout=5)) == said
    seen: list[str] = []

    def is_told() -> bool:
        seen.extend(bob.get_json("/trace"))
        return {"teardown_appcontext talk of ann", "teardown_appcontext talk of bob"} <= set(seen)

    server.until(is_told)


def test_the_request_of_a_view_that_sends_stays_with_the_view(ann: Visitor) -> None:
    with ann.connect("/ws/talk") as ws:
        for _ in range(5):
            assert json.loads(ann.get("/say/news", "POST"))["sockets"] >= 1
            assert ws.recv(timeout=5) == "news"
            ws.send("hi")
            assert json.loads(ws.recv(timeout=5))["request"] is False
