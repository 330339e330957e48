"""Authenticators with pooled asyncio clients, and SQLAlchemy's sessions, on real workers."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed

from tests.integration.serving import Server, Visitor, free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

for module in ("flask_sqlalchemy", "httpx", "redis"):
    pytest.importorskip(module)
if shutil.which("redis-server") is None:
    pytest.skip("needs redis-server", allow_module_level=True)

from redis import Redis  # noqa: E402 - there by now

#: How many upgrades make a mix-up of loops certain, on a server of four threads.
MANY = 50


class Identity(ThreadingHTTPServer):
    """Says who a session belongs to; counts how many connections it took to ask."""

    connections = 0
    daemon_threads = True

    def process_request(self, request: object, client_address: object) -> None:
        self.connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]


class Who(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 4096  # head and body in one packet

    def do_GET(self) -> None:
        name = b"ann" if "session=s-ann" in self.headers.get("Cookie", "") else b""
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name)

    def log_message(self, *args: object) -> None: ...


class Site(NamedTuple):
    server: Server
    identity: Identity
    redis: Redis

    def visitor(self, name: str = "ann") -> Visitor:
        visitor = Visitor(self.server)
        visitor.cookies["session"] = f"s-{name}"
        return visitor

    @property
    def redis_connections(self) -> int:
        return int(self.redis.info("stats")["total_connections_received"])

    @property
    def out(self) -> int:
        """How many connections to the database are out of their pool."""
        return int(self.visitor().get_json("/pool")["out"])


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Redis]]:
    port = free_port()
    folder = tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL) as process:
        try:
            client = Redis(port=port, decode_responses=True)
            wait_for(client)
            for name in ("ann", "bob"):
                client.set(f"session:s-{name}", name)
            yield f"redis://127.0.0.1:{port}", client
            client.close()
        finally:
            process.terminate()


def wait_for(client: Redis) -> None:
    end = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError, Exception):
            if client.ping():
                return
        assert time.monotonic() < end, "redis-server does not answer"
        time.sleep(0.02)


@pytest.fixture(scope="module", params=["gunicorn", "werkzeug"])
def site(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    redis: tuple[str, Redis],
) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("pooled")
    url, client = redis
    with Identity(("127.0.0.1", 0), Who) as identity:
        threading.Thread(target=identity.serve_forever, daemon=True).start()
        environ = {
            "IDENTITY": f"http://127.0.0.1:{identity.server_port}",
            "REDIS": url,
            "DATABASE": f"sqlite:///{folder}/db.sqlite3",
        }
        with serving(request.param, "pooled", folder, **environ) as server:
            yield Site(server, identity, client)
        identity.shutdown()


# --- asyncio's clients ---------------------------------------------------------------------------


def say_hello(site: Site, path: str) -> None:
    with site.visitor().connect(path) as ws:
        ws.send("hello")
        assert ws.recv(timeout=5) == "ann hello"


@pytest.mark.parametrize("path", ["/ws/http", "/ws/redis", "/ws/either"])
def test_upgrades_in_a_row_use_the_pool_on_one_loop(site: Site, path: str) -> None:
    say_hello(site, path)
    before = (site.identity.connections, site.redis_connections)
    for _ in range(MANY):
        say_hello(site, path)
    assert (site.identity.connections, site.redis_connections) == before
    assert "different loop" not in site.server.log


@pytest.mark.parametrize("path", ["/ws/http", "/ws/redis"])
def test_upgrades_at_once_share_it_too(site: Site, path: str) -> None:
    before = (site.identity.connections, site.redis_connections)
    with ThreadPoolExecutor(10) as pool:
        for done in [pool.submit(say_hello, site, path) for _ in range(MANY)]:
            done.result(30)
    opened = (site.identity.connections - before[0], site.redis_connections - before[1])
    assert max(opened) <= 10
    assert "different loop" not in site.server.log


def test_nobody_is_told_so_by_the_same_clients(site: Site) -> None:
    for path in ("/ws/http", "/ws/redis", "/ws/either"):
        assert site.visitor("eve").refused(path).status == 401


# --- SQLAlchemy ----------------------------------------------------------------------------------


def test_authorize_has_an_app_context_and_leaves_no_connection_out(site: Site) -> None:
    for _ in range(10):  # more than the pool has
        with site.visitor("ann").connect("/ws/room/1") as ws:
            ws.send("hello")
            assert ws.recv(timeout=5) == "ann hello"
            assert site.out == 0
        assert site.visitor("bob").refused("/ws/room/1").code == "not_allowed"
    assert site.out == 0


def test_each_event_has_a_session_of_its_own_and_gives_it_back(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(site.visitor().connect("/ws/count")) for _ in range(8)]
        for ws in sockets:
            ws.send("count")
        counts = sorted(int(ws.recv(timeout=10)) for ws in sockets)
        assert len(counts) == len(sockets)
        site.server.until(lambda: site.out == 0)


def test_an_event_that_fails_gives_it_back_too(site: Site) -> None:
    for _ in range(5):
        with site.visitor().connect("/ws/count") as ws:
            ws.send("fail")
            with pytest.raises(ConnectionClosed):
                ws.recv(timeout=5)
    site.server.until(lambda: site.out == 0)


def test_a_conversation_keeps_its_connection_until_it_lets_go(site: Site) -> None:
    with site.visitor().connect("/ws/blocking") as ws:
        ws.send("keep")
        assert ws.recv(timeout=5) == "ann"
        assert site.out == 1
        ws.send("release")
        assert ws.recv(timeout=5) == "ann"
        site.server.until(lambda: site.out == 0)
        ws.send("keep")
        assert ws.recv(timeout=5) == "ann"
    site.server.until(lambda: site.out == 0)
