"""Where gevent has made threads greenlets: our loop has a real thread, the app's code has none."""

from __future__ import annotations

import contextlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from .conftest import COMMANDS, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

    from .conftest import Running

GUNICORN = ["gunicorn", "-k", "gevent", "--graceful-timeout", "5", "--bind", "127.0.0.1:{port}"]

#: Not in the table of those that the whole suite runs on: they serve another app.
COMMANDS.update(
    {
        "green": ["tests.servers.green", "{port}"],
        "green-asyncio": ["tests.servers.green", "{port}", "asyncio"],
        "green-gunicorn": [*GUNICORN, "tests.servers.green:app"],
    }
)


@pytest.fixture(scope="module", params=["green", "green-asyncio", "green-gunicorn"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with run(request.param, tmp_path_factory.mktemp("server")) as running:
        yield running
        for word in ("Traceback", "ERROR", "LoopExit", "Warning"):
            assert word not in running.log, running.log[-3000:]


def end_of(client: ClientConnection) -> tuple[int, str]:
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.recv(15)
    return client.close_code or 0, client.close_reason or ""


def test_asyncio_run_works_in_a_view_beside_our_loop(server: Running) -> None:
    with server.connect("/echo", {}) as client:
        assert server.get("/run") == "ran"
        client.send("x")
        assert client.recv(10) == "x"


def test_a_view_that_burns_the_cpu_stops_no_socket(server: Running) -> None:
    with server.connect("/echo", {}) as client, ThreadPoolExecutor() as pool:
        burning = pool.submit(server.get, "/burn?seconds=2")
        server.until(lambda: "burning" in server.log)
        for _ in range(5):
            client.send("x")
            assert client.recv(10) == "x"
        assert not burning.done()
        assert burning.result(20) == "burnt"


def test_a_socket_ends_while_a_view_burns_the_cpu(server: Running) -> None:
    # It is a line in the log, whose locks are those of the greenlets.
    with ExitStack() as stack:
        one = stack.enter_context(server.connect("/echo", {}))
        two = stack.enter_context(server.connect("/echo", {}))
        pool = stack.enter_context(ThreadPoolExecutor())
        before = server.log.count("burning")
        burning = pool.submit(server.get, "/burn?seconds=2")
        server.until(lambda: server.log.count("burning") > before)
        one.close()
        two.send("x")
        assert two.recv(10) == "x"
        assert not burning.done()
        burning.result(20)


def test_greenlets_run_while_a_view_waits_for_the_loop(server: Running) -> None:
    assert int(server.get("/wait")) > 10


def test_a_view_publishes_and_waits(server: Running) -> None:
    with server.connect("/echo", {}) as client:
        assert server.get("/publish") == "1"
        assert client.recv(10) == "published"


def test_an_event_has_what_other_greenlets_have(server: Running) -> None:
    with server.connect("/events", {}) as client:
        client.send("x")
        assert client.recv(10) == "X"


def test_a_conversation_waits_as_a_greenlet(server: Running) -> None:
    with server.connect("/conversation", {}) as client:
        assert client.recv(10) == "nothing yet"  # it waited with a timeout
        client.send("x")
        assert client.recv(10) == "X"


def test_a_blocking_authenticator(server: Running) -> None:
    with server.connect("/user", {}) as client:
        assert client.recv(10) == "ANN"


def test_a_coroutine_calls_blocking_code(server: Running) -> None:
    with server.connect("/echo", {}) as client:
        for message, answer in [("to_thread", "THREAD"), ("getaddrinfo", "True")]:
            client.send(message)
            assert client.recv(10) == answer


def test_many_conversations_need_no_thread_each(server: Running) -> None:
    with server.connect("/conversation", {}) as client:
        client.recv(10)
    threads, _ = server.usage()
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(server.connect("/conversation", {})).recv(10)
        assert server.usage()[0] <= threads


def test_the_loop_and_many_greenlets_log_at_once(server: Running) -> None:
    with ThreadPoolExecutor() as pool:
        talking = [pool.submit(server.get, "/talk") for _ in range(4)]
        for _ in range(60):
            with server.connect("/echo", {}) as client:
                client.send("x")
                assert client.recv(10) == "x"
        assert [each.result(20) for each in talking] == ["talked"] * 4
    server.until(lambda: server.log.count(" open id=") == server.log.count(" close id="))


def test_a_view_closes_all_and_the_next_upgrade_opens_again(server: Running) -> None:
    with server.connect("/echo", {}) as one, server.connect("/conversation", {}) as two:
        assert server.get("/close") == "closed"
        assert [end_of(one), end_of(two)] == [(1001, ""), (1001, "")]
    with server.connect("/echo", {}) as client:
        client.send("x")
        assert client.recv(10) == "x"


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_worker_that_ends_says_restart(tmp_path: Path, signal_number: int) -> None:
    with run("green-gunicorn", tmp_path) as server, ExitStack() as stack:
        paths = ["/echo", "/events", "/conversation"] * 5
        clients = [stack.enter_context(server.connect(path, {})) for path in paths]
        server.process.send_signal(signal_number)
        for client in clients:
            assert end_of(client) == (1012, "restart")
        # The worker's last lines are not lost.
        server.until(lambda: server.log.count("code=1012") == len(paths))
        assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("extra", "loop"),
    [
        pytest.param(["--worker-class", "gevent_pywsgi"], "libev-cext", id="pywsgi"),
        pytest.param([], "libuv-cffi", id="libuv"),
    ],
)
def test_other_ways_to_run_it(tmp_path: Path, extra: list[str], loop: str) -> None:
    with run("green-gunicorn", tmp_path, *extra, GEVENT_LOOP=loop) as server:
        with server.connect("/echo", {}) as one, server.connect("/events", {}) as two:
            for _ in range(3):
                one.send("x")
                assert one.recv(10) == "x"
                two.send("x")
                assert two.recv(10) == "X"
            assert server.get("/publish") == "2"
            assert (one.recv(10), two.recv(10)) == ("published", "published")
            assert server.get("/run") == "ran"
            (worker,) = server.workers
            before = worker.cpu_times().user
            time.sleep(1)  # in which nothing happens, and nothing turns
            assert worker.cpu_times().user - before < 0.5
        assert "Traceback" not in server.log


def test_an_app_that_was_imported_before_gevent_patched(tmp_path: Path) -> None:
    with run("gunicorn-gevent", tmp_path, "--preload") as server:
        with server.connect("/ws/chat/1", server.cookie()) as client:
            client.send("x")  # to a `def` event
            assert client.recv(10) == "x"
            assert server.post("/say/1") == 204
            assert client.recv(10) == "from a view"
        assert "Traceback" not in server.log
