"""uWSGI: what its options change, its routers, nginx before it, and the end of its workers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sysconfig
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support import head

from .conftest import COMMANDS, UWSGI, free_port, is_up, need, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Running

#: Not in the table of those that the whole suite runs on.
COMMANDS.update(
    {
        "uwsgi-router": [*UWSGI, "--http", "127.0.0.1:{port}"],
        "uwsgi-router-alias": [*UWSGI, "--httprouter", "127.0.0.1:{port}"],
        "uwsgi-gevent": [*UWSGI, "--gevent", "10", "--http-socket", "127.0.0.1:{port}"],
    }
)

#: A reload starts the interpreter anew, and pyuwsgi's forgets the virtual environment.
PACKAGES = f"{sysconfig.get_path('purelib')}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"


def close_codes(server: Running, signal_number: int, sockets: int = 12) -> set[tuple[int, str]]:
    """Return how sockets end when the server gets a signal."""
    headers = server.cookie()
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect("/ws/view", headers)) for _ in range(sockets)]
        for client in clients:
            client.recv(10)
        server.process.send_signal(signal_number)
        for client in clients:
            with pytest.raises(ConnectionClosed):
                client.recv(15)
        return {(client.close_code or 0, client.close_reason or "") for client in clients}


@pytest.mark.parametrize("name", ["uwsgi", "uwsgi-threads"])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_sigterm_says_restart(name: str, processes: str, tmp_path: Path) -> None:
    extra = ("--processes", processes)
    with run(name, tmp_path, *extra, WSM_BROKER="memory://per-process") as server:
        assert close_codes(server, signal.SIGTERM) == {(1012, "restart")}
        server.process.wait(10)
        assert "Traceback" not in server.log


def test_a_reload_says_restart_and_serves_again(tmp_path: Path) -> None:
    with run("uwsgi", tmp_path, PYTHONPATH=PACKAGES) as server:
        assert close_codes(server, signal.SIGHUP) == {(1012, "restart")}
        server.until(lambda: server.log.count("spawned uWSGI worker 1") == 2, 20)
        server.until(lambda: is_up(server.origin))
        with server.connect("/ws/view", server.cookie()) as client:
            assert client.recv(10) == "hello ann"
        assert "Traceback" not in server.log


def test_two_processes_need_a_broker(tmp_path: Path) -> None:
    with run("uwsgi", tmp_path, "--processes", "2") as server:
        with pytest.raises(OSError, match="500"):
            server.post("/say/1")
        assert "BrokerRequired" in server.log


def test_the_router_with_http_websockets(tmp_path: Path) -> None:
    with run("uwsgi-router", tmp_path, "--http-websockets") as server:
        with server.connect("/ws/chat/1", server.cookie()) as client:
            large = bytes(range(256)) * 1200
            client.send(large)
            assert client.recv(10) == large
            assert server.get("/") == "http"
        # The router ends at once, and takes along what it relays.
        assert close_codes(server, signal.SIGTERM, 3) == {(1006, "")}


@pytest.mark.parametrize("name", ["uwsgi-router", "uwsgi-router-alias"])
def test_the_router_without_it_is_refused(name: str, tmp_path: Path) -> None:
    with run(name, tmp_path) as server:
        cookie = server.cookie()["Cookie"]
        with server.peer() as peer:
            host = f"127.0.0.1:{server.port}"
            peer.send(head("/ws/view", host=host, Origin=server.origin, Cookie=cookie))
            assert peer.status() == 501
        server.until(lambda: "add --http-websockets" in server.log)


def test_gevents_loop_serves_and_says_no_goodbye(tmp_path: Path) -> None:
    need("uwsgi")
    pytest.importorskip("gevent")
    with run("uwsgi-gevent", tmp_path, "--gevent-early-monkey-patch") as server:
        with server.connect("/ws/chat/1", server.cookie()) as client:
            client.send("x")  # to a `def` event, which runs as a greenlet
            assert client.recv(10) == "x"
            assert server.post("/say/1") == 204
            assert client.recv(10) == "from a view"
        # uWSGI runs no hook of Python's at the end of an asynchronous worker.
        assert close_codes(server, signal.SIGTERM, 3) == {(1006, "")}


# --- behind nginx --------------------------------------------------------------------------------

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 100; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    uwsgi_temp_path {folder}/uwsgi; fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            uwsgi_pass 127.0.0.1:{upstream};
            uwsgi_param QUERY_STRING $query_string;
            uwsgi_param REQUEST_METHOD $request_method;
            uwsgi_param CONTENT_TYPE $content_type;
            uwsgi_param CONTENT_LENGTH $content_length;
            uwsgi_param REQUEST_URI $request_uri;
            uwsgi_param PATH_INFO $document_uri;
            uwsgi_param SERVER_PROTOCOL $server_protocol;
            uwsgi_param REMOTE_ADDR $remote_addr;
            uwsgi_param REMOTE_PORT $remote_port;
            uwsgi_param SERVER_NAME $server_name;
            uwsgi_param SERVER_PORT $server_port;
        }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    """Run nginx before a uwsgi socket; yield its port."""
    port = free_port()
    settings = folder / "nginx.conf"
    settings.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(
            [need("nginx"), "-p", str(folder), "-c", str(settings)], stdout=log, stderr=log
        )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


def test_behind_nginx_by_uwsgi_pass(tmp_path: Path) -> None:
    upstream = free_port()
    with (
        run("uwsgi", tmp_path, "--socket", f"127.0.0.1:{upstream}") as server,
        nginx(tmp_path, upstream) as port,
    ):
        server.until(lambda: is_up(f"http://127.0.0.1:{port}"))
        proxied = server._replace(port=port)
        with proxied.connect("/ws/chat/1", server.cookie()) as client:
            large = bytes(range(256)) * 1200
            client.send(large)
            assert client.recv(10) == large
            assert server.post("/say/1") == 204
            assert client.recv(10) == "from a view"
            time.sleep(1)  # longer than a request takes to be put away
            client.send("still here")
            assert client.recv(10) == "still here"
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                client.recv(15)
            assert (client.close_code, client.close_reason) == (1012, "restart")
