"""Sentry watches the app: upgrades are short transactions, failing handlers are told, no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.integration.serving import Server, Visitor, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("sentry_sdk")

PATHS = ["/ws/events", "/ws/talk", "/ws/blocking", "/ws/view"]
TRANSACTIONS = {path: f"ws:{path}" for path in PATHS} | {"/ws/view": "view"}
ANN, BOB = {"X-User": "ann"}, {"X-User": "bob"}


@pytest.fixture(
    scope="module",
    params=[("werkzeug", "before"), ("gunicorn", "after")],
    ids=["werkzeug-before-init_app", "gunicorn-after-init_app"],
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    name, when = request.param
    with serving(name, "watched", tmp_path_factory.mktemp("watched"), SENTRY=when) as server:
        yield server


class Sentry:
    """What was sent since the last time."""

    def __init__(self, server: Server) -> None:
        self.visitor = Visitor(server)
        self.read()

    def read(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = self.visitor.get_json("/sent")
        return [each for each in told if each["transaction"] != "tell"]

    def wait(self, kind: str) -> dict[str, Any]:
        """Return the one item there is of a kind."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found.extend(each for each in self.read() if each["type"] == kind)
            return bool(found)

        self.visitor.server.until(is_there)
        (item,) = found
        return item


@pytest.fixture
def sentry(server: Server) -> Sentry:
    return Sentry(server)


@pytest.mark.parametrize("path", PATHS)
def test_the_transaction_of_an_upgrade_ends_with_the_request(
    server: Server, sentry: Sentry, path: str
) -> None:
    with Visitor(server).connect(path, **ANN) as ws:
        assert sentry.wait("transaction")["transaction"] == TRANSACTIONS[path]
        for _ in range(3):
            ws.send("hello")
            assert ws.recv(timeout=5) == "heard"
    assert sentry.read() == []  # neither messages nor the end of a socket are anything to tell


@pytest.mark.parametrize("path", PATHS)
def test_a_handler_that_fails_is_one_event_with_its_exception(
    server: Server, sentry: Sentry, path: str
) -> None:
    with Visitor(server).connect(path, **ANN) as ws:
        ws.send("fail")
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=5)
    event = sentry.wait("event")
    assert event["error"] == ["OnPurposeError"]
    assert (event["level"], event["logger"]) == ("error", "ws_middleware.handler")
    assert event["logentry"]["params"][1] == path
    assert event["logentry"]["params"][3] == "ann"


@pytest.mark.parametrize("path", PATHS)
def test_an_event_of_a_handler_has_nobodys_request_and_nobodys_user(
    server: Server, sentry: Sentry, path: str
) -> None:
    with Visitor(server).connect(path, **ANN) as one, Visitor(server).connect(path, **BOB) as two:
        one.send("hello")  # its handler says who its user is: that is for its own events
        one.recv(timeout=5)
        two.send("report")
        two.recv(timeout=5)
        event = sentry.wait("event")
    assert event["message"] == "by hand"
    assert event["request"] is None
    assert event["user"] is None
    assert event["transaction"] is None


def test_refusals_are_no_errors(server: Server, sentry: Sentry) -> None:
    visitor = Visitor(server)
    assert visitor.refused("/ws/talk").status == 401
    assert visitor.refused("/ws/talk", "https://evil.example", **ANN).status == 403
    assert {each["type"] for each in sentry.read()} <= {"transaction"}


def test_a_hook_that_fails_on_the_upgrade_is_told_as_for_any_request(
    server: Server, sentry: Sentry
) -> None:
    refused = Visitor(server).refused("/ws/talk", **ANN, **{"X-Please": "fail"})
    assert refused.status == 500
    event = sentry.wait("event")
    assert event["error"] == ["OnPurposeError"]
    assert event["request"]["url"] == f"{server.origin}/ws/talk"
