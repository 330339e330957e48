"""One suite, every WSGI server: sockets on the app's own port, and no thread for an idle one."""

from __future__ import annotations

import json
import re
import secrets
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import jwt
import pytest
from websockets.exceptions import ConnectionClosed

from tests.servers.app import KEY
from tests.support import TEXT, frame, head

from .conftest import WITH_ACCESS_LOG, run

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.sync.client import ClientConnection

    from .conftest import Running


#: Servers that take a second request on a connection.
KEEPS_ALIVE = {
    "gunicorn-gthread",
    "gunicorn-preload",
    "gunicorn-gevent",
    "gevent-pywsgi",
    "gevent-pywsgi-patched",
    "waitress",
    "cheroot",
}


def refused(
    server: Running, path: str, headers: dict[str, str], origin: str | None = ""
) -> tuple[int, str]:
    """Return status and code, or the app's own body. Some development servers answer HTTP/1.0."""
    origin = server.origin if origin == "" else origin
    with server.peer() as peer:
        peer.send(head(path, host=f"127.0.0.1:{server.port}", Origin=origin, **headers))
        answer = peer.read_head().decode("latin-1")
        length = re.search(r"(?i)^content-length: *([0-9]+)", answer, re.MULTILINE)
        assert length is not None
        body = peer.read_bytes(int(length[1])).decode()
    status = int(answer.split()[1])
    return status, json.loads(body)["code"] if "application/problem+json" in answer else body


@pytest.fixture(autouse=True)
def watched(request: pytest.FixtureRequest) -> None:
    """Look at the log of each server of the table, and keep a silent socket on it."""
    if "server" in request.fixturenames:
        request.getfixturevalue("silent")
        request.getfixturevalue("clean_log")


def test_text_a_large_message_and_http_beside_it(server: Running) -> None:
    headers = server.cookie()
    with server.connect("/ws/chat/1", headers) as one, server.connect("/ws/chat/1", headers) as two:
        one.send("hello")
        assert (one.recv(10), two.recv(10)) == ("hello", "hello")
        large = bytes(range(256)) * 1200
        two.send(large)
        assert one.recv(10) == large
        assert two.recv(10) == large
        assert server.get("/") == "http"
        assert server.post("/say/1") == 204
        assert (one.recv(10), two.recv(10)) == ("from a view", "from a view")
        assert server.post("/say/2") == 204


def test_a_frame_in_the_packet_of_the_request_is_answered(server: Running) -> None:
    if server.name.startswith("uwsgi"):
        pytest.skip(
            "what uWSGI has buffered cannot be had; RFC 6455 section 4.1 forbids to send it"
        )
    token = jwt.encode({"sub": "ann", "exp": int(time.time()) + 60}, KEY)
    request = head("/ws/token", host=f"127.0.0.1:{server.port}", Authorization=f"Bearer {token}")
    with server.peer() as peer:
        peer.send(request + frame(TEXT, b"early"))
        assert peer.read_head().startswith(b"HTTP/1.1 101")
        assert peer.read_frame().payload == b"early"


@pytest.mark.warns("refused /ws/token: server_unsupported")
def test_a_request_behind_the_upgrade_runs_only_if_that_was_refused(server: Running) -> None:
    token = jwt.encode({"sub": "ann", "exp": int(time.time()) + 60}, KEY)
    host = f"127.0.0.1:{server.port}"
    request = head("/ws/token", host=host, Authorization=f"Bearer {token}")
    behind = f"POST /say/55 HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode()
    with server.connect("/ws/chat/55", server.cookie()) as client:
        with server.peer() as peer:
            peer.send(request + behind)
            answer = peer.read_head()
            if answer.startswith(b"HTTP/1.1 101"):
                if not server.name.startswith("uwsgi"):  # which has lost what was behind
                    assert peer.read_frame().close_code == 1002
                    assert peer.read_rest() == b""
            else:
                assert (server.name, answer.split()[1]) == ("waitress", b"501")
                assert client.recv(10) == "from a view"
        client.send("the next")
        assert client.recv(10) == "the next"


@pytest.mark.warns("refused /ws/token: server_unsupported")
def test_what_came_before_on_the_connection_does_no_harm(server: Running) -> None:
    token = jwt.encode({"sub": "ann", "exp": int(time.time()) + 60}, KEY)
    host = f"127.0.0.1:{server.port}"
    request = head("/ws/token", host=host, Authorization=f"Bearer {token}")
    with server.peer() as peer:
        peer.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() + request)
        first = peer.read_head()
        assert first.split()[1] == b"200"
        if server.name not in KEEPS_ALIVE:
            return
        assert peer.read_bytes(4) == b"http"
        answer = peer.read_head()
        if server.name == "waitress" and answer.split()[1] == b"501":
            return  # it may not have sent the page when it comes to the upgrade
        assert answer.startswith(b"HTTP/1.1 101")
        peer.send(frame(TEXT, b"third"))
        assert peer.read_frame().payload == b"third"


@pytest.mark.warns("refused /ws/chat/1: origin_", "refused /ws/view: origin_")
@pytest.mark.parametrize(
    ("path", "login", "origin", "status", "code"),
    [
        pytest.param("/ws/chat/1", False, "", 401, "Unauthorized", id="nobody"),
        pytest.param(
            "/ws/chat/1", True, "https://evil.example", 403, "origin_not_allowed", id="evil"
        ),
        pytest.param("/ws/chat/1", True, None, 403, "origin_missing", id="no-origin"),
        pytest.param("/ws/chat/13", True, "", 403, "not_allowed", id="not-allowed"),
        pytest.param(
            "/ws/view", True, "https://evil.example", 403, "origin_not_allowed", id="view-evil"
        ),
        pytest.param("/ws/view", True, None, 403, "origin_missing", id="view-no-origin"),
        pytest.param("/ws/view", False, "", 401, "credential_refused", id="view-nobody"),
        pytest.param("/ws/token", False, "", 401, "credential_missing", id="no-token"),
        pytest.param("/nowhere", True, "", 404, "Not Found", id="the-apps-404"),
    ],
)
def test_refusals_are_plain_http(
    server: Running,
    path: str,
    login: bool,  # noqa: FBT001
    origin: str | None,
    status: int,
    code: str,
) -> None:
    path = f"{path}?case={secrets.token_hex(4)}"
    answer = refused(server, path, server.cookie() if login else {}, origin)
    assert answer[0] == status
    assert code in answer[1]
    assert_logged_once(server, path, status)


def assert_logged_once(server: Running, path: str, status: int) -> None:
    """Wait for the one line that the access log has for a path, where there is such a log."""
    lines = [status] if server.name in WITH_ACCESS_LOG else []
    server.until(lambda: len(server.statuses(path)) >= len(lines))
    assert server.get("/") == "http"  # whatever came late is there now
    assert server.statuses(path) == lines


def test_the_apps_own_hook_decides(server: Running) -> None:
    status, body = refused(server, "/ws/chat/1", {**server.cookie(), "X_Teapot": "1"})
    assert status == 418
    assert "teapot" in body


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        pytest.param({"Sec_WebSocket_Version": "8"}, 426, id="version"),
        pytest.param({"Sec_WebSocket_Key": "short"}, 400, id="key"),
        pytest.param({"Upgrade": None}, 426, id="upgrade-dropped-by-a-proxy"),
    ],
)
@pytest.mark.warns("refused /ws/token: upgrade_required. there is no Upgrade header")
def test_a_bad_upgrade_is_told(
    server: Running, changes: dict[str, str | None], status: int
) -> None:
    with server.peer() as peer:
        peer.send(head("/ws/token", host=f"127.0.0.1:{server.port}", **changes))
        assert peer.status() == status


def test_a_view_may_own_its_socket(server: Running) -> None:
    with server.connect("/ws/view", server.cookie("bob")) as client:
        assert client.recv(10) == "hello bob"


def test_idle_sockets_hold_no_thread_and_leave_no_descriptor(server: Running) -> None:
    headers = server.cookie()
    fill_pool(server)
    with server.connect("/ws/view", headers) as client:  # whatever starts, has started
        client.recv(10)
    time.sleep(0.5)
    threads, fds = server.usage()
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect("/ws/view", headers)) for _ in range(60)]
        for client in clients:
            assert client.recv(10) == "hello ann"
        server.until(lambda: server.usage()[1] <= fds + 60)
        server.until(lambda: server.usage()[0] <= threads)
        assert server.get("/") == "http"
    server.until(lambda: server.usage()[1] <= fds)


def fill_pool(server: Running) -> None:
    """Have every thread of a server's pool started."""
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(server.get, ["/nap/0.1"] * 4)) == {"slept"}


def test_a_token_in_the_query_is_in_no_line_of_ours_nor_of_gunicorns(server: Running) -> None:
    secret = "a-secret-that-is-no-token"
    assert refused(server, f"/ws/token?token={secret}", {})[0] == 401
    ours = [line for line in server.log.splitlines() if "ws_middleware" in line]
    assert not [line for line in ours if secret in line]
    if server.name.startswith("gunicorn"):
        server.until(lambda: "GET /ws/token?token=- HTTP/1.1" in server.log)
        assert secret not in server.log


def test_an_upgrade_is_one_line_of_the_access_log(server: Running) -> None:
    path = f"/ws/chat/77?case={secrets.token_hex(4)}"
    with server.connect(path, server.cookie()) as client:
        client.send("x")
        assert client.recv(10) == "x"
        assert_logged_once(server, path, 101)  # now, and not when the socket has ended
    assert_logged_once(server, path, 101)


def test_four_seconds_of_silence_and_then_a_message(
    server: Running, silent: tuple[ClientConnection, float]
) -> None:
    client, since = silent  # meanwhile all tests above went on
    time.sleep(max(0, since + 4 - time.monotonic()))
    client.send("still here")
    assert client.recv(10) == "still here"


# --- what only some servers have ------------------------------------------------------------------


def test_a_worker_that_ends_says_restart(tmp_path: Path) -> None:
    with run("gunicorn-gthread", tmp_path) as server, ExitStack() as stack:
        headers = server.cookie()
        clients = [stack.enter_context(server.connect("/ws/view", headers)) for _ in range(20)]
        for client in clients:
            client.recv(10)
        server.process.send_signal(signal.SIGHUP)
        for client in clients:
            with pytest.raises(ConnectionClosed):
                client.recv(10)
            assert (client.close_code, client.close_reason) == (1012, "restart")
        server.until(lambda: server.get("/") == "http")
        with server.connect("/ws/view", headers) as client:
            assert client.recv(10) == "hello ann"
        assert "Traceback" not in server.log


@pytest.mark.parametrize("name", ["gunicorn-sync", "gunicorn-gthread"])
def test_a_worker_that_is_recycled_says_so_and_what_to_set(name: str, tmp_path: Path) -> None:
    # One request is that of `run`, to see whether it is up; one is the login.
    with run(name, tmp_path, "--max-requests", "5") as server, ExitStack() as stack:
        headers = server.cookie()
        clients = [stack.enter_context(server.connect("/ws/view", headers)) for _ in range(3)]
        for client in clients:
            assert client.recv(10) == "hello ann"
            with pytest.raises(ConnectionClosed):
                client.recv(10)
            assert (client.close_code, client.close_reason) == (1012, "restart")
        server.until(
            lambda: (
                "WARNING ws_middleware.sidecar gunicorn recycles this worker after max_requests=5, "
                "and so closes its 3 sockets with 1012: each upgrade counts as a request. "
                "Raise --max-requests, or set it to 0" in server.log
            )
        )
        server.until(lambda: server.get("/") == "http")
        assert "Traceback" not in server.log


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_worker_that_is_told_to_end_blames_no_max_requests(
    number: signal.Signals, tmp_path: Path
) -> None:
    with run("gunicorn-gthread", tmp_path, "--max-requests", "50") as server:
        with server.connect("/ws/view", server.cookie()) as client:
            client.recv(10)
            server.process.send_signal(number)
            with pytest.raises(ConnectionClosed):
                client.recv(10)
            assert (client.close_code, client.close_reason) == (1012, "restart")
        assert "recycles" not in server.log


def ended_at(client: ClientConnection) -> float:
    """Wait for the end of a socket, and return when it came."""
    with pytest.raises(ConnectionClosed):
        client.recv(10)
    assert client.close_code == 1012
    return time.monotonic()


def test_closes_are_spread_as_drain_over_says(tmp_path: Path) -> None:
    with run("gunicorn-gthread", tmp_path, WSM_DRAIN_OVER="2") as server, ExitStack() as stack:
        headers = server.cookie()
        clients = [stack.enter_context(server.connect("/ws/view", headers)) for _ in range(3)]
        for client in clients:
            client.recv(10)
        server.process.send_signal(signal.SIGTERM)
        with ThreadPoolExecutor() as pool:  # in whatever order they end
            ends = list(pool.map(ended_at, clients))
        assert max(ends) - min(ends) > 0.5, "all at once"
        assert "drain_over" not in server.log


def test_a_drain_over_that_gunicorn_would_cut_short_is_a_warning(tmp_path: Path) -> None:
    with run("gunicorn-sync", tmp_path, WSM_DRAIN_OVER="9") as server:
        with server.connect("/ws/view", server.cookie()) as client:
            client.recv(10)
        assert (
            "WARNING ws_middleware.sidecar drain_over=9 does not fit: gunicorn kills a worker that "
            "takes 5 s to end. Raise its graceful_timeout and its timeout, or lower drain_over to "
            "3.33333" in server.log
        )


def test_an_audience_over_several_workers_is_refused_aloud(tmp_path: Path) -> None:
    with run("gunicorn-gthread", tmp_path, "--workers", "2") as server:
        with pytest.raises(OSError, match="500"):
            server.post("/say/1")
        assert "BrokerRequired" in server.log
        assert "memory://per-process" in server.log
        with server.connect("/ws/view", server.cookie()) as client:  # sockets are served
            assert client.recv(10) == "hello ann"
    with run(
        "gunicorn-gthread", tmp_path, "--workers", "2", WSM_BROKER="memory://per-process"
    ) as server:
        assert server.post("/say/1") == 204
