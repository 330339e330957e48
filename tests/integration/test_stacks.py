"""Middleware around the app and in it, mounts, proxies, and other WebSocket servers beside ours."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.serving import Server, Visitor, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.sync.client import ClientConnection

Serve = "Callable[[str], Server]"
ANN = {"X-User": "ann"}


@pytest.fixture(scope="module", params=["werkzeug", "gunicorn"])
def serve(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Server]]:
    """Serve a stack, once for all tests that ask for it."""
    folder = tmp_path_factory.mktemp("stacks")
    running: dict[str, Server] = {}
    managers = []

    def start(stack: str) -> Server:
        if stack not in running:
            managers.append(serving(request.param, "stacks", folder, STACK=stack))
            running[stack] = managers[-1].__enter__()
        return running[stack]

    yield start
    for manager in managers:
        manager.__exit__(None, None, None)


def talk(ws: ClientConnection) -> dict[str, Any]:
    """Say something; return what the handler sees."""
    ws.send("hello")
    seen: dict[str, Any] = json.loads(ws.recv(timeout=5))
    assert seen["heard"] == "hello"
    return seen


# --- headers, contexts, compression --------------------------------------------------------------


@pytest.mark.parametrize("stack", ["inside", "outside"])
@pytest.mark.parametrize("path", ["/ws/flask", "/ws/own", "/ws/view", "/ws/events"])
def test_a_handler_has_none_of_the_requests_context_variables(
    serve: Callable[[str], Server], stack: str, path: str
) -> None:
    visitor = Visitor(serve(stack))
    with visitor.connect(path, **ANN) as ws:
        assert talk(ws)["trace"] == "none"
        assert visitor.get("/page").startswith("page ")
        assert talk(ws)["trace"] == "none"


@pytest.mark.parametrize(
    ("stack", "path", "told"),
    [
        ("inside", "/ws/flask", True),
        ("inside", "/ws/view", True),
        ("inside", "/ws/own", False),
        ("outside", "/ws/flask", False),
        ("outside", "/ws/view", False),
    ],
)
def test_what_a_middleware_adds_is_on_the_101_if_it_is_inside_and_the_app_is_asked(
    serve: Callable[[str], Server],
    stack: str,
    path: str,
    told: bool,  # noqa: FBT001
) -> None:
    with Visitor(serve(stack)).connect(path, **ANN, **{"Accept-Encoding": "gzip"}) as ws:
        assert ws.response is not None
        assert ("X-Request-ID" in ws.response.headers) is told
        assert not [name for name in ws.response.headers if name.startswith("content-")]


@pytest.mark.parametrize("stack", ["inside", "outside"])
def test_a_refusal_goes_through_both(serve: Callable[[str], Server], stack: str) -> None:
    refused = Visitor(serve(stack)).refused("/ws/flask", **{"Accept-Encoding": "gzip"})
    assert refused.status == 401
    assert refused.headers["x-request-id"].startswith("r")
    assert refused.headers["content-encoding"] == "gzip"
    assert b"<title>401 Unauthorized</title>" in gzip.decompress(refused.body)


def test_a_refusal_of_ours_is_compressed_by_what_is_outside(
    serve: Callable[[str], Server],
) -> None:
    visitor = Visitor(serve("outside"))
    refused = visitor.refused("/ws/own", "https://evil.example", **{"Accept-Encoding": "gzip"})
    assert refused.status == 403
    assert json.loads(gzip.decompress(refused.body))["code"] == "origin_not_allowed"


# --- proxies -------------------------------------------------------------------------------------

FORWARDED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example",
}


@pytest.mark.parametrize("stack", ["fix-inside", "fix-outside"])
@pytest.mark.parametrize("path", ["/ws/flask", "/ws/own", "/ws/view"])
def test_proxy_fix_is_believed_by_the_gate_wherever_it_is(
    serve: Callable[[str], Server], stack: str, path: str
) -> None:
    visitor = Visitor(serve(stack))
    with visitor.connect(path, "https://shop.example", **ANN, **FORWARDED) as ws:
        seen = talk(ws)
        assert (seen["peer"], seen["scheme"]) == ("203.0.113.9", "https")
    refused = visitor.refused(path, "https://evil.example", **ANN, **FORWARDED)
    assert (refused.status, refused.code) == (403, "origin_not_allowed")


def test_gunicorn_believes_its_own_proxy_and_so_does_the_gate(
    serve: Callable[[str], Server],
) -> None:
    server = serve("inside")
    if server.name != "gunicorn":
        pytest.skip("it is gunicorn's forwarded_allow_ips")
    proto = {"X-Forwarded-Proto": "https"}
    with Visitor(server).connect("/ws/own", f"https://{server.host}", **ANN, **proto) as ws:
        assert talk(ws)["scheme"] == "https"
    assert Visitor(server).refused("/ws/own", **ANN, **proto).code == "origin_not_allowed"


# --- mounts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", ["mounted", "around"])
def test_an_app_in_a_mount_has_its_sockets_there(
    serve: Callable[[str], Server], stack: str
) -> None:
    visitor = Visitor(serve(stack))
    for path in ("/ws/flask", "/ws/own", "/ws/view"):
        with visitor.connect(f"/shop{path}", **ANN) as ws:
            outer = stack == "around" and path == "/ws/own"  # there is a route at the whole path
            assert talk(ws)["path"] == (f"/shop{path}" if outer else path)
    assert visitor.get("/shop/url") == f"ws://{visitor.server.host}/shop/ws/flask"


def test_what_is_not_in_the_mount_is_the_roots(serve: Callable[[str], Server]) -> None:
    refused = Visitor(serve("mounted")).refused("/ws/flask", **ANN)
    assert (refused.status, refused.body) == (404, b"nothing of the root's")


# --- others beside ours --------------------------------------------------------------------------


def test_flask_sock_and_a_socket_io_server_go_on_beside_ours(
    serve: Callable[[str], Server],
) -> None:
    visitor = Visitor(serve("others"))
    with (
        visitor.connect("/sock", None) as sock,
        visitor.connect("/socket.io/?EIO=4", "https://any.example") as socket_io,
        visitor.connect("/ws/flask", **ANN) as ours,
    ):
        for number in range(3):
            sock.send(f"{number}")
            socket_io.send(f"{number}")
            assert sock.recv(timeout=5) == f"sock {number}"
            assert socket_io.recv(timeout=5) == f"io {number}"
            talk(ours)
    assert visitor.get("/socket.io/?EIO=4") == "polling"
    assert visitor.refused("/ws/flask", "https://evil.example").code == "origin_not_allowed"
