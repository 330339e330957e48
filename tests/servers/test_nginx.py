"""nginx with TLS before gunicorn: no setting of ours but `auth`, as long as nginx passes Host."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.browser.support import open_window

from .conftest import free_port, run
from .nginx import DEPLOY, edited, run_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.browser.support import Window

    from .conftest import Running
    from .nginx import Nginx

HOST = "proxy_set_header Host $http_host;"
HOST_MISSING = (HOST, "")
NO_SCHEME = ("proxy_set_header X-Forwarded-Proto $scheme;", "")
NO_NAME = ("proxy_set_header X-Forwarded-Host $http_host;", "")
NO_UPGRADE = ("proxy_set_header Upgrade $http_upgrade;", "")
NO_CONNECTION = ("proxy_set_header Connection $connection_upgrade;", "")
NO_HTTP_11 = ("proxy_http_version 1.1;", "proxy_http_version 1.0;")

CONNECT = """
const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws/view");
socket.onmessage = (event) => { done(event.data); socket.close(); };
socket.onclose = (event) => done(event.code);
"""


class Behind(NamedTuple):
    """A gunicorn, and the two ways to it as nginx writes them."""

    server: Running
    tcp: str
    unix: str

    def upstream(self, way: str) -> str:
        return self.unix if way == "unix" else self.tcp


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("behind")
    unix = f"unix:{folder / 'gunicorn.sock'}"
    with run("gunicorn-gthread", folder, "--bind", unix) as server:
        yield Behind(server, f"127.0.0.1:{server.port}", unix)
        assert "Traceback" not in server.log, server.log[-3000:]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    profile = tmp_path_factory.mktemp("window")
    with open_window(profile, "--ignore-certificate-errors") as window:
        yield window


def greeting(nginx: Nginx, headers: dict[str, str], site: str = "", origin: str = "") -> str:
    with nginx.connect("/ws/view", headers, site=site, origin=origin) as client:
        return str(client.recv(10))


def status(
    nginx: Nginx,
    headers: dict[str, str],
    site: str = "",
    origin: str = "",
    path: str = "/ws/view",
) -> int:
    with pytest.raises(InvalidStatus) as refused:
        nginx.connect(path, headers, site=site, origin=origin)
    return refused.value.response.status_code


both_ways = pytest.mark.parametrize("way", ["tcp", "unix"])


# --- who gets in ----------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("edits", [[], [NO_SCHEME]], ids=["as-it-is", "no-forwarded-proto"])
def test_a_client_is_accepted_with_no_setting(
    behind: Behind, tmp_path: Path, way: str, edits: list[tuple[str, str]]
) -> None:
    with run_nginx(tmp_path / "nginx", behind.upstream(way), *edits) as nginx:
        assert greeting(nginx, behind.server.cookie()) == "hello ann"
        assert status(nginx, behind.server.cookie(), origin="https://evil.example") == 403
        assert status(nginx, {}) == 401


@pytest.mark.browser
@pytest.mark.slow
@both_ways
@pytest.mark.parametrize("edits", [[], [NO_SCHEME]], ids=["as-it-is", "no-forwarded-proto"])
def test_chromium_is_accepted_with_no_setting(
    behind: Behind, window: Window, tmp_path: Path, way: str, edits: list[tuple[str, str]]
) -> None:
    with run_nginx(tmp_path / "nginx", behind.upstream(way), *edits) as nginx:
        window.get(f"{nginx.origin}/login/ann")
        assert window.run_async(CONNECT) == "hello ann"


def test_a_page_that_came_without_tls_is_of_another_origin(behind: Behind, tmp_path: Path) -> None:
    with run_nginx(tmp_path / "nginx", behind.tcp) as nginx:
        page = nginx.origin.replace("https", "http")
        assert status(nginx, behind.server.cookie(), origin=page) == 403


def test_on_the_default_port_the_name_alone_is_enough(behind: Behind, tmp_path: Path) -> None:
    host = (HOST, "proxy_set_header Host $host;")
    site = "chat.example.com"
    with run_nginx(tmp_path / "nginx", behind.tcp, host) as nginx:
        assert greeting(nginx, behind.server.cookie(), site) == "hello ann"


def test_a_port_that_got_lost_is_told(behind: Behind, tmp_path: Path) -> None:
    host = (HOST, "proxy_set_header Host $host;")
    with run_nginx(tmp_path / "nginx", behind.tcp, host) as nginx:
        assert status(nginx, behind.server.cookie()) == 403
        told = (
            f"Page: {nginx.origin}. This request: https://localhost. Another port is another "
            f'origin: list origins=["{nginx.origin}"]; or, if a proxy drops the port, add "{HOST}".'
        )
        behind.server.until(lambda: told in behind.server.log)


@pytest.mark.parametrize(
    ("way", "edits", "host"),
    [
        pytest.param("tcp", [], "flask_app", id="upstream"),
        pytest.param("unix", [], "flask_app", id="upstream-unix"),
        pytest.param("tcp", [("http://flask_app", "http://{}")], "{}", id="address"),
        pytest.param("unix", [("http://flask_app", "http://{}")], "localhost", id="address-unix"),
    ],
)
def test_without_the_line_for_host_the_log_names_it(
    behind: Behind, tmp_path: Path, way: str, edits: list[tuple[str, str]], host: str
) -> None:
    address = behind.upstream(way)
    changes = [(old, new.format(address)) for old, new in edits]
    with run_nginx(tmp_path / "nginx", address, HOST_MISSING, *changes) as nginx:
        # As a page of the default port has it: what nginx sends then has nothing of it.
        assert status(nginx, behind.server.cookie(), "chat.example.com") == 403
    told = (
        "refused /ws/view: origin_not_allowed. Page: https://chat.example.com. "
        f"This request: https://{host.format(address)}. "
        "If that page is yours, the proxy does not pass Host: add "
        '"proxy_set_header Host $http_host;", or list origins=["https://chat.example.com"].'
    )
    behind.server.until(lambda: told in behind.server.log)


@both_ways
@pytest.mark.parametrize(
    ("edits", "statuses"),
    [
        pytest.param([NO_UPGRADE, NO_CONNECTION], {426}, id="no-upgrade"),
        pytest.param([NO_UPGRADE, NO_CONNECTION, NO_HTTP_11], {426, 505}, id="none-of-three"),
        pytest.param([NO_HTTP_11], {426, 505}, id="http-1.0"),
    ],
)
def test_an_upgrade_that_a_proxy_keeps_to_itself_is_refused(
    behind: Behind, tmp_path: Path, way: str, edits: list[tuple[str, str]], statuses: set[int]
) -> None:
    with run_nginx(tmp_path / "nginx", behind.upstream(way), *edits) as nginx:
        assert status(nginx, behind.server.cookie(), path="/ws/chat/1") in statuses


# --- whoever else has read the forwarded headers --------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "environ"),
    [
        pytest.param([], {"PROXY_FIX": "inside"}, id="proxyfix-before-init_app"),
        pytest.param([], {"PROXY_FIX": "outside"}, id="proxyfix-after-init_app"),
        pytest.param(["--forwarded-allow-ips", "10.0.0.1"], {}, id="gunicorn-trusts-nobody"),
        pytest.param(["--forwarded-allow-ips", "*"], {}, id="gunicorn-trusts-all"),
        pytest.param([], {"WSM_TRUSTED_PROXIES": "127.0.0.1"}, id="trusted_proxies"),
    ],
)
def test_whoever_reads_forwarded_headers_the_verdict_is_the_same(
    tmp_path: Path, extra: list[str], environ: dict[str, Any]
) -> None:
    unix = f"unix:{tmp_path / 'gunicorn.sock'}"
    with run("gunicorn-gthread", tmp_path, "--bind", unix, *extra, **environ) as server:
        for way in (f"127.0.0.1:{server.port}", unix):
            with run_nginx(tmp_path / way[:4], way) as nginx:
                assert greeting(nginx, server.cookie()) == "hello ann"
                spoof = {"X-Forwarded-Host": "evil.example", "X-Forwarded-For": "10.0.0.1"}
                assert greeting(nginx, spoof | server.cookie()) == "hello ann"
                for headers in (server.cookie(), spoof | server.cookie()):
                    assert status(nginx, headers, origin="https://evil.example") == 403


@pytest.mark.parametrize(
    ("trusted", "peer"), [("", "127.0.0.1"), ("127.0.0.1", "127.0.0.2")], ids=["nobody", "nginx"]
)
def test_the_log_has_the_address_of_the_client_where_the_proxy_is_trusted(
    tmp_path: Path, trusted: str, peer: str
) -> None:
    with (
        run("gunicorn-gthread", tmp_path, WSM_TRUSTED_PROXIES=trusted) as server,
        run_nginx(tmp_path / "nginx", f"127.0.0.1:{server.port}") as nginx,
        nginx.connect("/ws/view", server.cookie(), source="127.0.0.2"),
    ):
        server.until(lambda: f"user=ann peer={peer}" in server.log)


@both_ways
def test_a_name_that_a_client_forwards_is_not_believed(
    behind: Behind, tmp_path: Path, way: str
) -> None:
    with run_nginx(tmp_path / "nginx", behind.upstream(way), NO_NAME) as nginx:
        spoof = {"X-Forwarded-Host": "evil.example", **behind.server.cookie()}
        assert status(nginx, spoof, origin="https://evil.example") == 403
        assert greeting(nginx, spoof) == "hello ann"


# --- what nginx keeps -----------------------------------------------------------------------------


def test_an_upgrade_is_answered_once_in_the_log_of_nginx(behind: Behind, tmp_path: Path) -> None:
    with run_nginx(tmp_path / "nginx", behind.tcp) as nginx:
        assert greeting(nginx, behind.server.cookie()) == "hello ann"
        log = nginx.folder / "access.log"
        behind.server.until(lambda: "GET /ws/view HTTP/1.1" in log.read_text())
        lines = log.read_text().splitlines()
        assert len([line for line in lines if '"GET /ws/view HTTP/1.1" 101 ' in line]) == 1


# --- a port of our own ----------------------------------------------------------------------------


def listening(process: psutil.Process, port: int) -> bool:
    return any(
        each.status == psutil.CONN_LISTEN and each.laddr.port == port
        for each in process.net_connections("tcp")
    )


def served(process: psutil.Process, port: int) -> int:
    return sum(
        each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port
        for each in process.net_connections("tcp")
    )


def test_the_sockets_may_have_a_port_of_their_own(tmp_path: Path) -> None:
    port = free_port()
    config = edited(
        (DEPLOY / "own_port" / "gunicorn.conf.py").read_text(), ("port=8001", f"port={port}")
    )
    (tmp_path / "gunicorn.conf.py").write_text(config)
    location = edited(
        (DEPLOY / "own_port" / "nginx.conf").read_text(), ("127.0.0.1:8001", f"127.0.0.1:{port}")
    )
    split = ("    location / {", f"{location}\n    location / {{")
    extra = ["--config", str(tmp_path / "gunicorn.conf.py"), "--workers", "2"]
    with (
        run("gunicorn-gthread", tmp_path, *extra) as server,
        run_nginx(tmp_path / "nginx", f"127.0.0.1:{server.port}", split) as nginx,
        ExitStack() as stack,
    ):
        server.until(lambda: all(listening(each, port) for each in server.workers))
        assert not listening(psutil.Process(server.process.pid), port)
        assert len(server.workers) == 2
        clients = [
            stack.enter_context(nginx.connect("/ws/chat/1", server.cookie())) for _ in range(32)
        ]
        # The kernel spreads them: that one of two gets none of 32 is one chance in two billion.
        assert sum(served(each, port) for each in server.workers) == len(clients)
        assert all(served(each, port) for each in server.workers)
        evil = "https://evil.example"
        assert status(nginx, server.cookie(), origin=evil, path="/ws/chat/1") == 403
        assert "GET /ws/" not in server.log  # gunicorn has seen none of it

        # A reload: the new workers take the port while the old ones still have it.
        old = {each.pid for each in server.workers}
        server.process.send_signal(signal.SIGHUP)
        for client in clients:
            with pytest.raises(ConnectionClosed):
                client.recv(20)
            assert client.close_code == 1001
        server.until(lambda: not old & {each.pid for each in server.workers})
        with nginx.connect("/ws/chat/1", server.cookie()) as client:
            assert client.ping().wait(10)
        assert "Traceback" not in server.log
