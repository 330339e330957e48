"""The demo as it is deployed: gunicorn, nginx with TLS and systemd, from the files in deploy/."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed

from examples.flask_app import create_app
from tests.browser.support import open_window, wait_for
from tests.examples.visitor import Browser
from tests.servers.conftest import ROOT, free_port
from tests.servers.nginx import DEPLOY, edited, run_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.nginx import Nginx


class Site(NamedTuple):
    """The demo, deployed."""

    nginx: Nginx
    gunicorn: subprocess.Popen[bytes]
    log_path: Path
    #: The same app with the same key and database: who logs in here is logged in there.
    alice: Browser
    bob: Browser

    @property
    def log(self) -> str:
        return self.log_path.read_text()


@contextmanager
def run_gunicorn(
    folder: Path, address: str, config: dict[str, Any]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command of flask_app.service, but for the address."""
    environ = {
        **os.environ,
        "SECRET_KEY": config["SECRET_KEY"],
        "FLASK_DATABASE": str(config["DATABASE"]),
        "FLASK_SESSION_COOKIE_SECURE": "true",
    }
    command = [sys.executable, "-m", "gunicorn", "--config", str(DEPLOY / "gunicorn.conf.py")]
    with (folder / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--bind", address], cwd=ROOT, env=environ, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def is_up(address: str) -> bool:
    unix = address.startswith("unix:")
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as probe:
        where = (
            address.removeprefix("unix:")
            if unix
            else ("127.0.0.1", int(address.rpartition(":")[2]))
        )
        return probe.connect_ex(where) == 0


@pytest.fixture(params=["tcp", "unix"])
def site(request: pytest.FixtureRequest, config: dict[str, Any], tmp_path: Path) -> Iterator[Site]:
    unix = request.param == "unix"
    address = f"unix:{tmp_path / 'gunicorn.sock'}" if unix else f"127.0.0.1:{free_port()}"
    app = create_app(config)
    with run_gunicorn(tmp_path, address, config) as process:
        log_path = tmp_path / "gunicorn.log"
        wait_for(lambda: is_up(address), 20, log_path.read_text)
        with run_nginx(tmp_path / "nginx", address) as nginx:
            people = (Browser(app).login(name) for name in ("alice", "bob"))
            yield Site(nginx, process, log_path, *people)
    assert "Traceback" not in log_path.read_text(), log_path.read_text()


def test_two_people_talk_through_the_proxy(site: Site) -> None:
    with (
        site.nginx.connect("/ws/chat/1", site.alice.cookie) as to_alice,
        site.nginx.connect("/ws/chat/1", site.bob.cookie) as to_bob,
    ):
        to_alice.send("hello")
        assert json.loads(to_bob.recv(5))["text"] == "hello"
        assert json.loads(to_alice.recv(5))["from"] == "alice"


def test_who_comes_without_tls_is_sent_to_it(site: Site) -> None:
    with closing(HTTPConnection("localhost", site.nginx.plain_port, timeout=5)) as plain:
        plain.request("GET", "/login")
        answer = plain.getresponse()
        answer.read()
    assert (answer.status, answer.headers["Location"]) == (301, "https://localhost/login")


def test_a_reload_says_restart_and_a_new_worker_is_there(site: Site) -> None:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(site.nginx.connect("/ws/notifications", site.alice.cookie))
            for _ in range(5)
        ]
        site.gunicorn.send_signal(signal.SIGHUP)
        for client in clients:
            with pytest.raises(ConnectionClosed):
                client.recv(20)
            assert (client.close_code, client.close_reason) == (1012, "restart")
    with site.nginx.connect("/ws/chat/1", site.bob.cookie) as to_bob:
        to_bob.send("back")
        assert json.loads(to_bob.recv(5))["text"] == "back"


@pytest.mark.browser
@pytest.mark.slow
def test_the_page_is_live_in_chromium_and_a_logout_ends_it(site: Site, tmp_path: Path) -> None:
    with open_window(tmp_path / "profile", "--ignore-certificate-errors") as window:
        window.get(f"{site.nginx.origin}/login")
        window.type("#username", "alice")
        window.type("#password", "alice-demo\n")
        wait_for(lambda: "Your rooms" in window.driver.page_source, 10, "the login")
        window.get(f"{site.nginx.origin}/rooms/1")
        window.wait_live()
        assert window.driver.get_cookie("flask_demo_session")["secure"]  # type: ignore[index]
        with site.nginx.connect("/ws/chat/1", site.bob.cookie) as to_bob:
            window.type("#compose input[name=text]", "from the page\n")
            assert json.loads(to_bob.recv(5))["text"] == "from the page"
        room = window.tabs[-1]
        window.new_tab()
        window.get(site.nginx.origin)
        window.click("form.account button")
        window.show(room)
        wait_for(lambda: window.status == "Please log in.", 8, lambda: window.status)


def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("no systemd-analyze on PATH")
    unit = edited(
        (DEPLOY / "flask_app.service").read_text(),
        ("/srv/flask_app/.venv/bin/gunicorn", sys.executable),
    )
    (tmp_path / "flask_app.service").write_text(unit)
    done = subprocess.run(
        [verify, "verify", "--man=no", str(tmp_path / "flask_app.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_files_agree_with_each_other() -> None:
    """What has to be the same in two files is the same."""
    gunicorn, nginx = ((DEPLOY / f).read_text() for f in ("gunicorn.conf.py", "nginx.conf"))
    unit = (DEPLOY / "flask_app.service").read_text()
    for address in ("127.0.0.1:8000", "unix:/run/flask_app/gunicorn.sock"):
        assert address in gunicorn
        assert address in nginx
    assert "RuntimeDirectory=flask_app" in unit
    assert "--config examples/flask_app/deploy/gunicorn.conf.py" in unit
    grace = int(gunicorn.partition("graceful_timeout = ")[2].split()[0])
    assert int(unit.partition("TimeoutStopSec=")[2].split()[0]) > grace
