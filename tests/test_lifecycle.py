"""Doors that open and close, processes that end and fork, and a loop that stands still."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, current_app, g
from websockets.exceptions import ConnectionClosed as PeerSawClose

from tests.clients.python import connect, end_of, refused, until
from tests.conftest import Served
from ws_middleware import (
    Anonymous,
    BlockingWebSocket,
    ConfigError,
    ConnectionClosed,
    Heartbeat,
    Limits,
    Principal,
    ServerLimits,
    UpgradeRequest,
    WebSocket,
    WebSockets,
)
from ws_middleware.net import sidecar as sidecar_module
from ws_middleware.net.worker import end_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serve = Callable[[WebSockets], Served]

ROOT = Path(__file__).parent.parent

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def echo(sockets: WebSockets, path: str = "/") -> None:
    @sockets.route(path)
    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)


def is_served(served: Served, path: str = "/") -> bool:
    with connect(served, path) as client:
        client.send("x")
        return client.recv(5) == "x"


class Started:
    """The threads of ours that have been started since it was made, and still run."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def names(self) -> list[str]:
        new = set(threading.enumerate()) - self._before
        return sorted(each.name for each in new if each.name.startswith("ws-"))


# --- listen --------------------------------------------------------------------------------------


def test_listen_returns_the_bound_address_and_does_not_block(serve: Serve) -> None:
    sockets = WebSockets(auth=Anonymous())
    echo(sockets)
    served = serve(sockets)
    assert served.address[0] == "127.0.0.1"
    assert served.address[1] > 0
    assert is_served(served)


def test_listen_opens_several_ports_over_the_same_sockets(serve: Serve) -> None:
    started = Started()
    sockets = WebSockets(auth=Anonymous())
    route = sockets.route("/")
    served = serve(sockets)
    other = Served(sockets, sockets.listen("127.0.0.1", 0))
    assert other.address != served.address
    with connect(served) as one, connect(other) as two:
        assert route.everyone.send("x").result(5).local == 2
        assert (one.recv(5), two.recv(5)) == ("x", "x")
    assert started.names() == ["ws-sidecar", "ws-watchdog"]


def test_listen_by_name(serve: Serve) -> None:
    sockets = WebSockets(auth=Anonymous())
    echo(sockets)
    serve(sockets)
    host, port = sockets.listen("localhost", 0)
    assert is_served(Served(sockets, (f"[{host}]" if ":" in host else host, port)))


def test_listen_on_a_port_that_is_taken_raises_and_changes_nothing(serve: Serve) -> None:
    sockets = WebSockets(auth=Anonymous())
    echo(sockets)
    served = serve(sockets)
    with pytest.raises(OSError):
        sockets.listen(*served.address)
    other = WebSockets(auth=Anonymous())
    with pytest.raises(OSError):
        other.listen(*served.address)
    other.close().result(5)
    assert is_served(served)


def test_reuse_port_lets_two_share_a_port(serve: Serve) -> None:
    first, second = WebSockets(auth=Anonymous()), WebSockets(auth=Anonymous())
    echo(first)
    echo(second)
    address = first.listen("127.0.0.1", 0, reuse_port=True)
    assert second.listen(*address, reuse_port=True) == address
    assert is_served(Served(first, address))
    first.close().result(5)
    assert is_served(Served(second, address))
    second.close().result(5)


def test_importing_and_configuring_starts_no_thread() -> None:
    started = Started()
    sockets = WebSockets(auth=Anonymous())
    echo(sockets)
    sockets.init_app(Flask("app"))
    sockets.everyone.send("x")
    sockets.describe()
    assert started.names() == []


def test_a_route_added_later_is_served(serve: Serve) -> None:
    sockets = WebSockets(auth=Anonymous())
    served = serve(sockets)
    assert refused(served, "/late").status_code == 404
    echo(sockets, "/late")
    assert is_served(served, "/late")


def test_what_is_wrong_as_a_whole_is_a_config_error_when_a_door_opens() -> None:
    started = Started()
    sockets = WebSockets()
    with pytest.raises(ConfigError, match="needs auth="):
        sockets.listen(port=0)
    sockets.route("/")
    with pytest.raises(ConfigError, match="needs auth="):
        sockets.listen(port=0)
    riding = WebSockets(auth=lambda request: "ann", origins="*")
    riding.route("/")
    with pytest.raises(ConfigError, match="ride on the user's cookies"):
        riding.listen(port=0)
    assert started.names() == []


def test_listen_again_after_a_config_error_that_was_mended() -> None:
    sockets = WebSockets()
    route = sockets.route("/")
    with pytest.raises(ConfigError):
        sockets.listen(port=0)
    route.given["auth"] = Anonymous()
    address = sockets.listen("127.0.0.1", 0)
    with connect(Served(sockets, address)):
        pass
    sockets.close().result(5)


# --- close ---------------------------------------------------------------------------------------


def test_close_is_1001_to_all_and_leaves_nothing(serve: Serve) -> None:
    started = Started()
    sockets = WebSockets(auth=Anonymous())
    echo(sockets)
    sockets.route("/push")
    served = serve(sockets)
    with connect(served) as one, connect(served, "/push") as two:
        receipt = sockets.close()
        assert end_of(one) == end_of(two) == (1001, "")
        receipt.result(5)
    assert sockets.everyone.count() == 0
    with pytest.raises(OSError):
        connect(served).__enter__()
    until(lambda: started.names() == [])


def test_close_with_a_code_over_time(serve: Serve) -> None:
    sockets = WebSockets(auth=Anonymous())
    echo(sockets)
    served = serve(sockets)
    ends: list[float] = []

    def watch(client: Any) -> None:
        assert end_of(client) == (1012, "restart")
        ends.append(time.monotonic())

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(served)) for _ in range(5)]
        watchers = [threading.Thread(target=watch, args=(each,)) for each in clients]
        for watcher in watchers:
            watcher.start()
        sockets.close(code=1012, reason="restart", over=0.5).result(5)
        for watcher in watchers:
            watcher.join(5)
    assert len(ends) == 5
    assert max(ends) - min(ends) > 0.3


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (1000, "x" * 124)])
def test_a_code_that_may_not_be_sent_closes_nothing(serve: Serve, code: int, reason: str) -> None:
    sockets = WebSockets(auth=Anonymous())
    echo(sockets)
    served = serve(sockets)
    with pytest.raises(ValueError):
        sockets.close(code=code, reason=reason)
    assert is_served(served)


def test_close_ends_in_time_whatever_def_handlers_do(serve: Serve) -> None:
    release = threading.Event()
    ended: Future[int] = Future()
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/blocked")
    def blocked(ws: BlockingWebSocket) -> None:
        release.wait(60)

    @sockets.route("/receiving")
    def receiving(ws: BlockingWebSocket) -> None:
        try:
            ws.receive()
        except ConnectionClosed as closed:
            ended.set_result(closed.code)

    event = sockets.route("/event")
    event.on_open(lambda ws: release.wait(60))
    served = serve(sockets)
    with (
        connect(served, "/blocked") as one,
        connect(served, "/receiving") as two,
        connect(served, "/event") as three,
    ):
        begun = time.monotonic()
        receipt = sockets.close(timeout=2)
        assert {end_of(each) for each in (one, two, three)} == {(1001, "")}
        receipt.result(3)
        assert time.monotonic() - begun < 2.5
        assert ended.result(1) == 1001
    release.set()


def test_close_ends_in_time_whatever_peers_do(serve: Serve) -> None:
    sockets = WebSockets(auth=Anonymous())
    echo(sockets)
    with serve(sockets).peer() as peer:
        peer.upgrade()
        begun = time.monotonic()
        sockets.close(timeout=0.5).result(3)  # this one never answers the close frame
        assert time.monotonic() - begun < 1.2
        assert peer.read_frame().close_code == 1001


def test_close_lets_async_handlers_finish_what_they_do(serve: Serve) -> None:
    finished = threading.Event()
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/")
    async def handler(ws: WebSocket) -> None:
        await ws.wait_closed()
        await asyncio.sleep(0.1)
        finished.set()

    with connect(serve(sockets)) as client:
        receipt = sockets.close()
        assert end_of(client) == (1001, "")
        receipt.result(5)
    assert finished.is_set()


def test_close_cancels_async_handlers_that_go_on(serve: Serve) -> None:
    outcome: Future[str] = Future()
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/")
    async def handler(ws: WebSocket) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            outcome.set_result("cancelled")
            raise

    with connect(serve(sockets)) as client:
        receipt = sockets.close(timeout=0.5)
        assert end_of(client) == (1001, "")
        receipt.result(3)
    assert outcome.result(1) == "cancelled"


def test_close_answers_who_is_still_undecided(serve: Serve) -> None:
    asked = threading.Event()

    async def auth(request: UpgradeRequest) -> str:
        asked.set()
        await asyncio.sleep(60)
        return "ann"

    sockets = WebSockets(auth=auth)
    echo(sockets)
    with serve(sockets).peer() as peer:
        peer.send(
            b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        assert asked.wait(5)
        receipt = sockets.close(timeout=1)
        head = peer.read_head()
        assert head.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: 1" in head
        receipt.result(3)


def test_close_is_known_to_who_sends_next(serve: Serve) -> None:
    sockets = WebSockets(auth=Anonymous())
    route = sockets.route("/")
    with connect(serve(sockets)):
        (ws,) = route.everyone.local()
        sockets.close().result(5)
        assert ws.close_code == 1001
        with pytest.raises(ConnectionClosed):
            ws.send("x").result(1)
        ws.close().result(1)
        ws.terminate()
        ws.join("room")
        assert route.everyone.send("x").result(1).local == 0


@pytest.mark.parametrize("timeout", [0.0, 0.3])
def test_close_ends_in_time_though_a_coroutine_blocks_the_loop(
    serve: Serve, timeout: float
) -> None:
    release, blocked = threading.Event(), threading.Event()
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/")
    async def handler(ws: WebSocket) -> None:
        await ws.receive()
        blocked.set()
        release.wait(20)

    with connect(serve(sockets)) as client:
        client.send("block")
        assert blocked.wait(5)
        receipt = sockets.close(timeout=timeout)
        try:
            until(lambda: receipt.done, timeout + 2)
        finally:
            release.set()


def test_after_a_close_that_gave_up_on_a_blocked_loop_nobody_is_there(serve: Serve) -> None:
    release, blocked = threading.Event(), threading.Event()
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/")
    async def handler(ws: WebSocket) -> None:
        await ws.receive()
        blocked.set()
        release.wait(20)

    with connect(serve(sockets), close_timeout=0.5) as client:
        client.send("block")
        assert blocked.wait(5)
        try:
            sockets.close(timeout=0.1).result(3)
            assert sockets.everyone.count() == 0
            assert sockets.everyone.send("x").result(1).local == 0
        finally:
            release.set()


def test_after_close_the_object_is_as_new(serve: Serve) -> None:
    sockets = WebSockets(auth=lambda request: "ann", limits=Limits(connections_per_user=1))
    echo(sockets)
    for _ in range(3):
        served = Served(sockets, sockets.listen("127.0.0.1", 0))
        with connect(served) as client:
            client.send("x")
            assert client.recv(5) == "x"
            assert refused(served).status_code == 429
            sockets.close().result(5)
            assert end_of(client)[0] == 1001


def test_closing_what_is_not_open_is_nothing() -> None:
    sockets = WebSockets(auth=Anonymous())
    sockets.close().result(1)
    sockets.listen("127.0.0.1", 0)
    first, second = sockets.close(), sockets.close()
    second.result(5)
    first.result(5)


# --- the end of a process ------------------------------------------------------------------------


class Process:
    """A script in a process of its own. It prints `port N` when it serves, or several."""

    def __init__(self, script: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.ports = [int(port) for port in self.read_line().split()[1:]]
        self.port = self.ports[0]

    def served(self) -> Served:
        return Served(WebSockets(), ("127.0.0.1", self.port))

    def read_line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._process.communicate()[1]
        return line.strip()

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = 10) -> tuple[int, str]:
        """Return the exit code and what it wrote to its standard error."""
        _, errors = self._process.communicate(timeout=timeout)
        return self._process.returncode, errors

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def process() -> Iterator[Callable[[str], Process]]:
    started: list[Process] = []

    def start(script: str) -> Process:
        started.append(Process(script))
        return started[-1]

    yield start
    for each in started:
        each.kill()


BLOCKED_PROCESS = """
    import sys, time
    from ws_middleware import Anonymous, WebSockets

    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/receiving")
    def receiving(ws):
        ws.receive()

    @sockets.route("/sleeping")
    def sleeping(ws):
        time.sleep(60)

    @sockets.route("/event").on_open
    def event(ws):
        time.sleep(60)

    @sockets.route("/stubborn")
    async def stubborn(ws):
        import asyncio
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    @sockets.route("/blocking")
    async def blocking(ws):
        await ws.receive()
        time.sleep(60)

    print("port", sockets.listen(port=0)[1], flush=True)
    sys.stdin.readline()
"""


APPS_PROCESS = """
    import sys, time
    from ws_middleware import Anonymous, WebSockets

    apps = [WebSockets(auth=Anonymous()) for _ in range(3)]
    for sockets in apps:
        @sockets.route("/")
        async def stand_still(ws):
            await ws.receive()
            time.sleep(60)  # nothing can wait for this loop

    print("port", *[sockets.listen(port=0)[1] for sockets in apps], flush=True)
    sys.stdin.readline()
"""


def test_the_ends_of_several_apps_are_not_waited_for_in_turn(
    process: Callable[[str], Process],
) -> None:
    child = process(APPS_PROCESS)
    with contextlib.ExitStack() as stack:
        for port in child.ports:
            client = stack.enter_context(connect(Served(WebSockets(), ("127.0.0.1", port)), "/"))
            client.send("stand still")
            client.send("and be asked whether you do")
        begun = time.monotonic()
        child.tell("end")
        code, errors = child.wait(15)
    # Each is given up after 2.5 seconds and a bit: in turn they would take three times as long.
    assert time.monotonic() - begun < 2 * end_time(0.0, None)
    assert code == 0
    assert errors.count("blocked by a handler") == len(child.ports)


@pytest.mark.parametrize("paths", [[], ["/receiving"], ["/receiving", "/sleeping", "/event"]])
def test_a_process_ends_in_time_whatever_its_def_handlers_do(
    process: Callable[[str], Process], paths: list[str]
) -> None:
    child = process(BLOCKED_PROCESS)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(child.served(), path)) for path in paths]
        begun = time.monotonic()
        child.tell("end")
        for client in clients:
            assert end_of(client) == (1001, "going_away")
    code, errors = child.wait()
    assert time.monotonic() - begun < 3
    assert code == 0
    assert errors == ""


@pytest.mark.parametrize("path", ["/stubborn", "/blocking"])
def test_a_process_ends_in_time_whatever_its_coroutines_do(
    process: Callable[[str], Process], path: str
) -> None:
    child = process(BLOCKED_PROCESS)
    with connect(child.served(), path, close_timeout=0.1) as client:
        client.send("x")
        time.sleep(0.1)
        begun = time.monotonic()
        child.tell("end")
        code, _ = child.wait()
        assert time.monotonic() - begun < 6
    assert code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_told_to_end_says_goodbye_if_python_does(
    process: Callable[[str], Process], number: int
) -> None:
    child = process(
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        + textwrap.dedent(BLOCKED_PROCESS)
    )
    with connect(child.served(), "/receiving") as client:
        child.signal(number)
        assert end_of(client) == (1001, "going_away")
    child.wait()


BREAKING_PROCESS = """
    import asyncio, sys, threading, time
    from ws_middleware import Anonymous, WebSockets

    sockets = WebSockets(auth=Anonymous())

    def ends_everything():
        raise SystemExit(3)  # a callback of the app's own can do that to any loop

    @sockets.route("/")
    async def handler(ws):
        async for message in ws:
            if message == "break":
                asyncio.get_running_loop().call_soon(ends_everything)
            await ws.send(message)

    print("port", sockets.listen(port=0)[1], flush=True)
    sys.stdin.readline()
    while any(each.name == "ws-sidecar" for each in threading.enumerate()):
        time.sleep(0.01)
    sockets.close(timeout=1).result(3)
    print("port", sockets.listen(port=0)[1], flush=True)
    sys.stdin.readline()
"""


def test_a_loop_that_breaks_hangs_up_and_can_be_closed_and_opened_again(
    process: Callable[[str], Process],
) -> None:
    child = process(BREAKING_PROCESS)
    with connect(child.served(), close_timeout=0.1) as client, child.served().peer() as other:
        assert other.upgrade().startswith(b"HTTP/1.1 101")
        client.send("break")
        child.tell("close")
        child.port = int(child.read_line().split()[1])
        with contextlib.suppress(ConnectionResetError):
            other.read_rest()  # nobody is left hanging
    assert is_served(child.served())
    child.tell("end")
    code, errors = child.wait()
    assert code == 0
    assert "the sidecar's loop has ended" in errors


# --- forks ---------------------------------------------------------------------------------------

FORKING_PROCESS = """
    import logging, os, sys, time
    from ws_middleware import Limits, WebSockets

    logging.basicConfig(level=logging.INFO, format="%(process)d %(levelname)s %(message)s")

    def say(line):  # in one write: the two processes share the pipe
        os.write(1, line.encode() + b"\\n")

    def auth(request):
        return "ann"

    auth.ambient = False
    sockets = WebSockets(auth=auth, limits=Limits(connections_per_user=1))
    route = sockets.route("/")

    @route.on_message
    def said(ws, message):
        ws.send(message)

    @sockets.route("/conversation")
    def conversation(ws):
        for message in ws:
            ws.send(message)

    print("port", sockets.listen(port=0)[1], flush=True)
    sys.stdin.readline()
    pid = os.fork()
    if pid == 0:
        say(f"child {os.getpid()} {sockets.everyone.count()}")
        what = sys.stdin.readline().strip()
        if what == "listen":
            say(f"port {sockets.listen(port=0)[1]}")
            what = sys.stdin.readline().strip()
        if what == "exit":
            sys.exit(0)
        if what == "_exit":
            os._exit(0)
    else:
        say(f"parent {pid}")
        os.waitpid(pid, 0)
        say("child is gone")
        os._exit(7)
"""


def _forked(child: Process) -> tuple[int, int]:
    """Let it fork; return the child's id and how many sockets it counts."""
    child.tell("fork")
    lines = sorted([child.read_line(), child.read_line()])
    assert lines[1].startswith("parent")
    return int(lines[0].split()[1]), int(lines[0].split()[2])


@needs_fork
@pytest.mark.parametrize("how", ["exit", "_exit"])
def test_a_childs_end_does_not_touch_the_parents_sockets(
    process: Callable[[str], Process], how: str
) -> None:
    parent = process(FORKING_PROCESS)
    with connect(parent.served(), close_timeout=1) as client:
        client.send("before")
        assert client.recv(5) == "before"
        _, count = _forked(parent)
        assert count == 0
        client.send("with a child")
        assert client.recv(5) == "with a child"
        # The parent waits for the child, and ends at once when it has gone.
        parent.tell(how)
        assert parent.read_line() == "child is gone"
        assert end_of(client)[0] == 1006
    code, errors = parent.wait()
    assert code == 7
    assert "Traceback" not in errors
    assert "close id=" not in errors


@needs_fork
def test_a_child_that_lives_on_does_not_hold_a_connection_or_the_port(
    process: Callable[[str], Process],
) -> None:
    parent = process(FORKING_PROCESS)
    with connect(parent.served(), close_timeout=1) as client:
        pid, _ = _forked(parent)
        begun = time.monotonic()
        parent.signal(signal.SIGKILL)
        assert end_of(client, 3)[0] == 1006  # the child lives: only its descriptors could hold it
        assert time.monotonic() - begun < 2
    until(lambda: _is_free(parent.port))
    os.kill(pid, signal.SIGKILL)


def _is_free(port: int) -> bool:
    with socket.socket() as trying:
        trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trying.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@needs_fork
def test_the_log_says_that_a_child_lets_go(process: Callable[[str], Process]) -> None:
    parent = process(FORKING_PROCESS)
    pid, _ = _forked(parent)
    parent.tell("exit")
    _, errors = parent.wait()
    (line,) = [line for line in errors.splitlines() if "WARNING" in line]
    assert line.startswith(f"{pid} WARNING forked after listen(): the child {pid} lets go of the")
    assert "call listen() in the process that serves" in line


@needs_fork
@pytest.mark.parametrize("path", ["/", "/conversation"])
def test_a_child_can_serve_by_itself_as_if_it_were_new(
    process: Callable[[str], Process], path: str
) -> None:
    parent = process(FORKING_PROCESS)
    with connect(parent.served(), path) as old:
        old.send("x")
        assert old.recv(5) == "x"  # a thread of the parent's is idle now, which the child has not
        _forked(parent)
        parent.tell("listen")
        port = int(parent.read_line().split()[1])
        served = Served(WebSockets(), ("127.0.0.1", port))
        with connect(served, path) as client:  # and the parent's socket is not counted here
            client.send("to the child")
            assert client.recv(5) == "to the child"
        old.send("to the parent")
        assert old.recv(5) == "to the parent"
        with connect(served, path, close_timeout=0.5):  # the old place was given back
            parent.tell("exit")
            assert parent.read_line() == "child is gone"


LOCKED_PROCESS = """
    import os, threading
    from ws_middleware import Anonymous, WebSockets, receipt

    sockets = WebSockets(auth=Anonymous())
    sockets.route("/")
    held, go = threading.Event(), threading.Event()

    def settle():  # what the loop's thread does at any moment
        with receipt._lock:
            held.set()
            go.wait(10)

    threading.Thread(target=settle, daemon=True).start()
    held.wait()
    if os.fork() == 0:
        os.write(1, b"port %d\\n" % sockets.listen(port=0)[1])
        sockets.close().result(3)
        os._exit(0)
    os.wait()
    go.set()
"""


@needs_fork
def test_a_fork_in_the_middle_of_another_threads_receipt_leaves_the_child_able_to_serve() -> None:
    command = [sys.executable, "-c", textwrap.dedent(LOCKED_PROCESS)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, process_group=0) as parent:
        try:
            output, _ = parent.communicate(timeout=4)
        except subprocess.TimeoutExpired:
            os.killpg(parent.pid, signal.SIGKILL)
            raise
    assert output.startswith(b"port ")


# --- a loop that stands still --------------------------------------------------------------------


def _blocked_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        each.getMessage()
        for each in caplog.records
        if each.name == "ws_middleware.watchdog" and each.levelno == logging.WARNING
    ]


def test_a_coroutine_that_blocks_is_named_once_and_closes_nobody(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    sockets = WebSockets(auth=Anonymous(), heartbeat=Heartbeat(interval=0.4, timeout=0.3))
    ids: list[str] = []

    @sockets.route("/blocking")
    async def blocking_handler(ws: WebSocket) -> None:
        ids.append(ws.id)
        async for _ in ws:
            _sleeps_for_a_second()
            ws.send("awake")

    echo(sockets, "/echo")
    served = serve(sockets)
    with connect(served, "/echo") as other, connect(served, "/blocking") as client:
        for _ in range(2):
            client.send("x")
            assert client.recv(5) == "awake"
            other.send("alive")
            assert other.recv(5) == "alive"
        until(lambda: _blocked_lines(caplog))
        (line,) = _blocked_lines(caplog)
        name = blocking_handler.handler.__qualname__  # type: ignore[union-attr]
    found = re.fullmatch(
        r"loop blocked (\d\.\d) s by (\S+):(\d+) in (\S+) \(socket (\S+), route (\S+)\); "
        r"use def on_message or asyncio.to_thread \(1 times here\)",
        line,
    )
    assert found is not None, line
    assert 0.4 <= float(found[1]) < 2
    assert Path(found[2]) == Path(__file__)
    assert found[4] == name
    assert found[5] == ids[0]
    assert found[6] == "/blocking"


def _sleeps_for_a_second() -> None:
    time.sleep(1)


def test_a_loop_that_is_blocked_for_good_is_told_while_it_lasts(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/")
    async def handler(ws: WebSocket) -> None:
        await ws.receive()
        release.wait(20)

    with connect(serve(sockets), close_timeout=0.5) as client:
        client.send("block")
        try:
            until(lambda: _blocked_lines(caplog), 3)
        finally:
            release.set()


def test_a_loop_that_turns_is_left_alone(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/")
    async def handler(ws: WebSocket) -> None:
        await asyncio.sleep(0.8)

    with connect(serve(sockets)) as client:
        assert end_of(client)[0] == 1000
    assert not _blocked_lines(caplog)


# --- Flask ---------------------------------------------------------------------------------------


def test_init_app_reads_the_apps_configuration(serve: Serve) -> None:
    app = Flask("app")
    app.config["WEBSOCKETS"] = {
        "auth": Anonymous(),
        "limits": Limits(message_size=10),
        "server_limits": ServerLimits(connections=1),
    }
    sockets = WebSockets()
    echo(sockets)
    sockets.init_app(app)
    assert app.extensions["websockets"] is sockets
    served = serve(sockets)
    with connect(served) as client:
        assert refused(served).status_code == 503
        client.send("x" * 11)
        assert end_of(client)[0] == 1009


def test_what_code_says_comes_before_the_apps_configuration(serve: Serve) -> None:
    app = Flask("app")
    app.config["WEBSOCKETS"] = {"auth": lambda request: None}
    sockets = WebSockets(auth=Anonymous())
    echo(sockets)
    sockets.init_app(app)
    assert is_served(serve(sockets))


@pytest.mark.parametrize(
    ("config", "error", "text"),
    [
        ({"atuh": 1}, TypeError, "did you mean auth?"),
        ({"limits": {"message_size": 1}}, ConfigError, "limits takes Limits"),
        ([], ConfigError, "takes a dict"),
        ({"sync_threads": 0}, ConfigError, "sync_threads"),
        ({"origins": ["myapp.example"]}, ConfigError, "is no origin"),
        ({}, ConfigError, "needs auth="),
    ],
)
def test_a_configuration_that_is_wrong_is_told_at_init_app(
    config: Any, error: type[Exception], text: str
) -> None:
    app = Flask("app")
    app.config["WEBSOCKETS"] = config
    sockets = WebSockets()
    sockets.route("/")
    with pytest.raises(error, match=re.escape(text)):
        sockets.init_app(app)


class Noting:
    """A Flask app that notes its contexts: which call had one, and which were torn down."""

    def __init__(self) -> None:
        self.app = Flask("noting")
        self.seen: list[str] = []
        self.torn: list[str] = []
        self.app.teardown_appcontext(lambda error: self.torn.append(g.get("what", "?")))

    def note(self, what: str) -> None:
        assert current_app.name == "noting"
        assert "what" not in g  # nothing of another call's is left
        g.what = what
        self.seen.append(what)

    async def note_async(self, what: str) -> None:
        self.note(what)
        await asyncio.sleep(0.01)
        assert g.what == what  # it is the same context after others had theirs

    def expect(self, *what: str) -> None:
        until(lambda: len(self.torn) == len(what))
        assert self.seen == self.torn == list(what)


@pytest.fixture
def noting() -> Noting:
    return Noting()


def test_authenticator_and_authorize_have_an_app_context_each(serve: Serve, noting: Noting) -> None:
    def auth(request: UpgradeRequest) -> str:
        noting.note("auth")
        return "ann"

    async def authorize(user: Principal, request: UpgradeRequest) -> bool:
        await noting.note_async("authorize")
        return True

    sockets = WebSockets(auth=auth, authorize=authorize)
    sockets.route("/")
    sockets.init_app(noting.app)
    with connect(serve(sockets)):
        noting.expect("auth", "authorize")


def test_every_event_has_an_app_context_of_its_own(serve: Serve, noting: Noting) -> None:
    sockets = WebSockets(auth=Anonymous())
    route = sockets.route("/")

    @route.on_open
    def opened(ws: WebSocket) -> None:
        noting.note("def on_open")

    @route.on_message
    async def said(ws: WebSocket, message: str) -> None:
        await noting.note_async(f"async {message}")

    @route.on_close
    def gone(ws: WebSocket) -> None:
        noting.note("def on_close")

    sockets.init_app(noting.app)
    with connect(serve(sockets)) as client:
        for message in ("one", "two", "three"):
            client.send(message)
    noting.expect("def on_open", "async one", "async two", "async three", "def on_close")


def test_a_batch_of_def_events_has_an_app_context_each(serve: Serve, noting: Noting) -> None:
    sockets = WebSockets(auth=Anonymous())
    route = sockets.route("/")

    @route.on_message
    def said(ws: WebSocket, message: str) -> None:
        noting.note(message)

    sockets.init_app(noting.app)
    with connect(serve(sockets)) as client:
        for number in range(40):
            client.send(str(number))
    noting.expect(*map(str, range(40)))


@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_conversation_has_one_app_context(serve: Serve, noting: Noting, kind: str) -> None:
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/async")
    async def conversation(ws: WebSocket) -> None:
        await noting.note_async("async")

    @sockets.route("/def")
    def blocking(ws: BlockingWebSocket) -> None:
        noting.note("def")

    sockets.init_app(noting.app)
    served = serve(sockets)
    with connect(served, f"/{kind}") as one, connect(served, f"/{kind}") as two:
        assert end_of(one)[0] == end_of(two)[0] == 1000
    noting.expect(kind, kind)


def test_a_def_handler_that_fails_tears_its_context_down(serve: Serve) -> None:
    app = Flask("app")
    torn: list[BaseException | None] = []
    app.teardown_appcontext(torn.append)
    sockets = WebSockets(auth=Anonymous())
    route = sockets.route("/")

    @route.on_open
    def opened(ws: WebSocket) -> None:
        raise LookupError

    sockets.init_app(app)
    with connect(serve(sockets)) as client:
        assert end_of(client)[0] == 1011
    (error,) = torn
    assert isinstance(error, LookupError)


def test_init_app_after_listen_is_a_config_error(serve: Serve) -> None:
    sockets = WebSockets(auth=Anonymous())
    serve(sockets)
    with pytest.raises(ConfigError, match="before listen"):
        sockets.init_app(Flask("app"))


# --- both loops ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_whole_life_on_either_loop(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    module = asyncio if kind == "asyncio" else pytest.importorskip("uvloop")
    monkeypatch.setattr(sidecar_module, "new_loop", lambda host: module.new_event_loop())
    sockets = WebSockets(auth=Anonymous())
    echo(sockets)
    served = serve(sockets)
    with connect(served) as client, connect(served) as resetting:
        resetting.socket.shutdown(socket.SHUT_RDWR)
        client.send("x" * 300_000)
        assert client.recv(5) == "x" * 300_000
        assert client.ping().wait(5)
        until(lambda: sockets.everyone.count() == 1)
        receipt = sockets.close()
        with pytest.raises(PeerSawClose):
            client.recv(5)
        receipt.result(5)
    assert sockets._front.sidecar is None
