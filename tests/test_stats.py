"""What one process tells of itself: statistics, readiness, metrics; and how it is switched off."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from asgiref.testing import ApplicationCommunicator as _Communicator
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from ws_middleware import Anonymous, BrokerRequired, ConfigError, WebSockets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.conftest import Served
    from tests.redis_server import RedisServer
    from ws_middleware import WebSocket
    from ws_middleware.health import HealthAnswer

    Serve = Callable[[WebSockets], Served]


ApplicationCommunicator: Any = _Communicator  # has no types


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


def chat(**settings: Any) -> WebSockets:
    """An echo for users that are who they say."""
    sockets = WebSockets(auth=lambda request: request.query["user"], **settings)

    @sockets.route("/ws/<room>")
    async def echo(ws: WebSocket, room: str) -> None:
        async for message in ws:
            await ws.send(message)

    sockets.route("/push")
    return sockets


def enter(served: Served, path: str, origin: str | None = None) -> ClientConnection:
    return connect(served.url(path), origin=Origin(origin or served.origin))


def samples(text: str) -> dict[tuple[str, str], float]:
    """Return values by name and by the one label that a process does not have in all of them."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            own = {k: v for k, v in sample.labels.items() if k not in {"host", "pid"}}
            assert set(sample.labels) - set(own) == {"host", "pid"}
            found[sample.name.removeprefix("ws_middleware_"), "".join(own.values())] = sample.value
    return found


# --- statistics ----------------------------------------------------------------------------------


def test_what_is_there_and_what_has_been(serve: Serve) -> None:
    sockets = chat()
    served = serve(sockets)
    with ExitStack() as stack:
        one, two, three = (
            stack.enter_context(enter(served, path))
            for path in ("/ws/a?user=ann", "/ws/b?user=ann", "/push?user=bob")
        )
        for number in range(3):
            one.send(str(number))
            one.recv(5)
        sockets.user("bob").send("for bob").result(5)
        three.recv(5)
        stats = sockets.stats()
        assert (stats["pid"], stats["host"]) == (os.getpid(), socket.gethostname())
        assert (stats["sockets"], stats["users"], stats["rooms"]) == (3, 2, 2)
        assert stats["routes"] == {
            "/ws/*": {"sockets": 2, "opened": 2},
            "/push": {"sockets": 1, "opened": 1},
        }
        assert stats["messages"] == {"in": 3, "out": 4, "dropped": 0}
        assert (stats["ready"], stats["reasons"], stats["broker"]) == (True, [], None)
        assert stats["threads"]["events"]["size"] == 32
        assert json.loads(json.dumps(stats)) == stats
        two.close(1000)
        three.close(4000)
        wait_for(lambda: sockets.stats()["sockets"] == 1)
    with pytest.raises(InvalidStatus):
        enter(served, "/ws/a?user=ann", "https://evil.example").__enter__()
    wait_for(lambda: sockets.stats()["sockets"] == 0)
    stats = sockets.stats()
    assert stats["closed"] == {"1000": 2, "4000": 1}
    assert stats["refused"] == {"origin_not_allowed": 1}
    assert stats["messages"] == {"in": 3, "out": 4, "dropped": 0}  # of those that have gone, too
    assert stats["routes"]["/ws/*"] == {"sockets": 0, "opened": 2}


def test_before_a_door_is_open_there_is_nothing() -> None:
    stats = WebSockets(auth=Anonymous()).stats()
    assert (stats["sockets"], stats["routes"], stats["threads"]) == (0, {}, {})
    assert stats["ready"]


def test_the_statistics_of_all_processes_where_there_is_one(serve: Serve) -> None:
    sockets = chat()
    serve(sockets)
    everywhere = sockets.stats(everywhere=True).result(5)
    assert [each["pid"] for each in everywhere.processes] == [os.getpid()]
    assert everywhere.missing == 0
    assert sockets.everyone.count_everywhere().result(5) == 0


def test_the_statistics_of_siblings_need_a_broker(serve: Serve) -> None:
    sockets = chat()
    sockets._hub.has_siblings = True
    with pytest.raises(BrokerRequired):
        sockets.stats(everywhere=True)
    with pytest.raises(BrokerRequired):
        sockets.everyone.count_everywhere()
    sockets.stats()


# --- metrics -------------------------------------------------------------------------------------


def test_prometheus_reads_the_metrics(serve: Serve) -> None:
    sockets = chat()
    served = serve(sockets)
    with enter(served, "/ws/a?user=ann") as one:
        one.send("x")
        one.recv(5)
        found = samples(sockets.metrics())
    expected = {
        ("ready", ""): 1,
        ("sockets", "/ws/*"): 1,
        ("opened_total", "/ws/*"): 1,
        ("users", ""): 1,
        ("rooms", ""): 1,
        ("messages_total", "in"): 1,
        ("messages_total", "out"): 1,
        ("messages_total", "dropped"): 0,
        ("threads_size", "auth"): 8,
        ("loop_blocked_total", ""): 0,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert not any(name.startswith("broker") for name, _ in found)


def test_a_name_cannot_break_a_line_of_the_metrics(serve: Serve) -> None:
    sockets = WebSockets(auth=Anonymous())
    sockets.route("/ws", name='a"b\\c')
    served = serve(sockets)
    with enter(served, "/ws"):
        assert samples(sockets.metrics())["sockets", 'a"b\\c'] == 1


# --- readiness -----------------------------------------------------------------------------------


def test_a_process_that_closes_is_not_ready_and_lets_nobody_in(serve: Serve) -> None:
    sockets = chat()
    served = serve(sockets)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(enter(served, "/push?user=ann"))
        assert sockets.ready()
        closed = sockets.close(code=1012, over=1.0, timeout=5)
        assert sockets.ready().reasons == ("draining",)
        assert not sockets.ready()
        with pytest.raises(RuntimeError, match="close\\(\\) is under way"):
            sockets.listen(port=0)
        closed.result(10)
    assert sockets.ready()  # as new
    address = sockets.listen(port=0)
    assert address[1]


def test_a_handler_that_blocks_the_loop_makes_a_process_unready(serve: Serve) -> None:
    release = threading.Event()
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/ws")
    async def block(ws: WebSocket) -> None:
        release.wait(20)

    served = serve(sockets)
    with enter(served, "/ws"):
        wait_for(lambda: sockets.ready().reasons == ("loop_blocked",))
        assert sockets.health("/livez").status == 503
        release.set()
        wait_for(sockets.ready)
    assert sockets.health("/livez").status == 200
    wait_for(lambda: sockets.stats()["loop_blocked"] == 1)


def test_a_process_that_serves_is_ready_when_it_hears_its_broker(redis: RedisServer) -> None:
    redis.kill()
    sockets = chat(broker=redis.url)
    app = sockets.wsgi(sockets.health_wsgi)
    assert sockets.ready()  # serves nothing: nobody sends it traffic
    get_wsgi(app, "/")
    assert sockets.ready().reasons == ("broker_away",)  # and asking has begun to connect
    redis.start()
    wait_for(sockets.ready)
    broker = sockets.stats()["broker"]
    assert broker["ready"]
    assert samples(sockets.metrics())["broker_ready", ""] == 1
    sockets.close().result(10)


# --- over HTTP -----------------------------------------------------------------------------------


def get_wsgi(app: Any, path: str, method: str = "GET") -> tuple[str, Mapping[str, str], bytes]:
    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method}
    environ |= {"QUERY_STRING": "", "SCRIPT_NAME": ""}
    setup_testing_defaults(environ)
    told: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc: Any = None) -> Any:
        told.extend((status, headers))

    checked: Any = validator(app)
    chunks = checked(environ, start_response)
    body = b"".join(chunks)
    chunks.close()
    return told[0], dict(told[1]), body


def get_asgi(app: Any, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    async def work() -> tuple[int, dict[str, str], bytes]:
        asked = ApplicationCommunicator(app, {"type": "http", "method": method, "path": path})
        start, body = await asked.receive_output(5), await asked.receive_output(5)
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], headers, body["body"]

    return asyncio.run(work())


def test_health_as_wsgi_and_asgi_and_without_a_framework(serve: Serve) -> None:
    sockets = chat()
    serve(sockets)
    for path, status in [
        ("/livez", 200),
        ("/health/readyz", 200),
        ("/metrics", 200),
        ("/health/other", 404),
        ("/", 404),
    ]:
        plain: HealthAnswer = sockets.health(path)
        said, headers, body = get_wsgi(sockets.health_wsgi, path)
        number, lower, same = get_asgi(sockets.health_asgi, path)
        assert (plain.status, int(said[:3]), number) == (status,) * 3
        assert headers["Content-Type"] == dict(plain.headers)["Content-Type"]
        assert headers["Cache-Control"] == lower["cache-control"] == "no-store"
        assert int(headers["Content-Length"]) == len(body)
        assert int(lower["content-length"]) == len(same)
        assert get_wsgi(sockets.health_wsgi, path, "HEAD")[2] == b""
        assert get_asgi(sockets.health_asgi, path, "HEAD")[2] == b""
    who = {"node": sockets._hub.node, "pid": os.getpid(), "host": socket.gethostname()}
    assert json.loads(sockets.health("/livez").body) == {"status": "alive", **who}
    ready = json.loads(sockets.health("/readyz").body)
    assert ready == {"status": "ready", "reasons": [], **who}


def test_a_flask_view_may_return_it() -> None:
    app = Flask("shop")
    sockets = chat()
    sockets.init_app(app)

    @app.get("/livez")
    @app.get("/readyz")
    def health() -> Any:
        return sockets.health_wsgi

    sockets.pause()
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.get_json()["reasons"]) == (503, ["paused"])
    assert answer.get_json()["status"] == "not ready"
    assert app.test_client().get("/livez").status_code == 200


def test_the_asgi_form_answers_nothing_but_http() -> None:
    async def work() -> None:
        asked = ApplicationCommunicator(chat().health_asgi, {"type": "websocket", "path": "/"})
        with pytest.raises(ValueError, match="health answers HTTP, not 'websocket'"):
            await asked.receive_output(5)

    asyncio.run(work())


# --- switched off --------------------------------------------------------------------------------


def test_pause_sends_away_and_refuses_until_resume(serve: Serve) -> None:
    sockets = chat()
    served = serve(sockets)
    url = "/push?user=ann"
    with enter(served, url) as one:
        assert sockets.pause().result(5) == 1
        with pytest.raises(ConnectionClosed):
            one.recv(5)
        assert (one.close_code, one.close_reason) == (1013, "paused")
    assert sockets.ready().reasons == ("paused",)
    with pytest.raises(InvalidStatus) as caught:
        enter(served, url).__enter__()
    answer = caught.value.response
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "30"
    assert answer.body is not None
    assert json.loads(answer.body)["code"] == "paused"
    sockets.resume()
    assert sockets.ready()
    with enter(served, url) as one:
        one.ping().wait(5)


def test_who_is_asked_for_while_it_is_paused_does_not_slip_in(serve: Serve) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(request: object) -> str:
        asked.set()
        go_on.wait(10)
        return "ann"

    sockets = WebSockets(auth=slow)
    sockets.route("/ws")
    served = serve(sockets)
    caught: list[BaseException] = []

    def try_to() -> None:
        try:
            enter(served, "/ws").__enter__()
        except InvalidStatus as error:
            caught.append(error)

    thread = threading.Thread(target=try_to)
    thread.start()
    assert asked.wait(10)
    sockets.pause()
    go_on.set()
    thread.join(10)
    assert "503" in str(caught[0])
    assert sockets.stats()["sockets"] == 0


def test_paused_before_a_door_is_open_is_paused_behind_it(serve: Serve) -> None:
    sockets = chat()
    sockets.pause()
    served = serve(sockets)
    with pytest.raises(InvalidStatus, match="503"):
        enter(served, "/push?user=ann").__enter__()


@pytest.mark.parametrize("text", ["1", "true"])
def test_disabled_by_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("WSM_DISABLED", text)
    sockets = chat()
    served = serve(sockets)
    with pytest.raises(InvalidStatus, match="503") as caught:
        enter(served, "/push?user=ann").__enter__()
    assert caught.value.response.body is not None
    assert json.loads(caught.value.response.body)["code"] == "disabled"
    assert sockets.ready().reasons == ("disabled",)
    sockets.resume()  # is another switch
    assert not sockets.ready()


def test_disabled_in_code() -> None:
    app = Flask("shop")
    sockets = chat(disabled=True)
    sockets.init_app(app)

    @app.get("/")
    def index() -> str:
        return "http"

    assert app.test_client().get("/").text == "http"
    assert sockets.ready().reasons == ("disabled",)
    with pytest.raises(ConfigError, match="disabled takes True or False"):
        chat(disabled="yes")
