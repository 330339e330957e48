"""The demo with four workers on one Redis, as its README has it; and what it says without one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from examples.flask_app import create_app
from tests.browser.support import wait_for
from tests.examples.visitor import Browser
from tests.redis_server import RedisServer, need_redis
from tests.servers.conftest import ROOT, free_port, is_up
from tests.servers.nginx import DEPLOY
from ws_middleware import Publisher

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from flask import Flask
    from websockets.sync.client import ClientConnection

    from examples.flask_app.db import Store
    from ws_middleware.hub.audience import Audience

WORKERS = 4
#: Over how many of them the sockets of a test are spread at least.
SPREAD = 3
NEWS = "/ws/notifications"


class Site(NamedTuple):
    """The demo in several processes."""

    port: int
    process: subprocess.Popen[bytes]
    log_path: Path
    #: The same app with the same key and database: who logs in here is logged in there.
    app: Flask
    broker: str

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def store(self) -> Store:
        found: Store = self.app.extensions["store"]
        return found

    def visitor(self, name: str) -> Browser:
        return Browser(self.app).login(name)

    def open(self, path: str, who: Browser) -> ClientConnection:
        socket: ClientConnection = connect(
            f"ws://127.0.0.1:{self.port}{path}",
            origin=Origin(f"http://127.0.0.1:{self.port}"),
            additional_headers=who.cookie,
            proxy=None,
        )
        return socket

    def post(self, path: str, who: Browser, body: dict[str, Any]) -> tuple[int, bytes]:
        """Send it over the network, as the page does."""
        headers = {"Content-Type": "application/json", "X-CSRF-Token": who.csrf_token()}
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request("POST", path, json.dumps(body), {**headers, **who.cookie})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def posted_by(self, path: str) -> list[str]:
        """The processes that have answered a POST, out of the access log."""
        return re.findall(rf"<(\d+)> POST {path} ", self.log)

    def worker_of(self, socket: ClientConnection) -> int:
        """The process that has the other end of a connection."""
        own = socket.local_address[1]
        for worker in psutil.Process(self.process.pid).children():
            if any(each.raddr and each.raddr.port == own for each in worker.net_connections("tcp")):
                return worker.pid
        message = "no worker has it"
        raise AssertionError(message)


@contextmanager
def run(folder: Path, seeded: Path, **environ: str) -> Iterator[Site]:
    """Run the command of the README, but for the address; the log tells which process answered."""
    config = {"SECRET_KEY": "s" * 32, "DATABASE": shutil.copy(seeded, folder / "demo.sqlite3")}
    told = {"SECRET_KEY": config["SECRET_KEY"], "FLASK_DATABASE": str(config["DATABASE"])}
    port = free_port()
    command = ["gunicorn", "--config", str(DEPLOY / "gunicorn.conf.py"), "--workers", str(WORKERS)]
    extra = ["--bind", f"127.0.0.1:{port}", "--access-logformat", "%(p)s %(r)s %(s)s"]
    log_path = folder / "gunicorn.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, *extra],
            cwd=ROOT,
            env={**os.environ, **told, **environ},
            stdout=log,
            stderr=log,
        )
    site = Site(port, process, log_path, create_app(config), environ.get("WSM_BROKER", ""))
    try:
        wait_for(lambda: is_up(f"http://127.0.0.1:{port}/health"), 20, log_path.read_text)
        wait_for(lambda: site.log.count("Booting worker") == WORKERS, 20, log_path.read_text)
        yield site
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def run_redis(folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(need_redis(), folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Crowd:
    """Tabs of some people, opened one after the other until they are in several workers.

    `audience` has them all, and reaches them by the end of this.
    """

    def __init__(
        self,
        site: Site,
        stack: ExitStack,
        path: str,
        people: Sequence[Browser],
        audience: Audience[Any],
    ) -> None:
        self.tabs: list[ClientConnection] = []
        self.workers: set[int] = set()
        while len(self.workers) < SPREAD or len(self.tabs) % len(people):
            assert len(self.tabs) < 60, "the sockets do not spread over the workers"
            who = people[len(self.tabs) % len(people)]
            self.tabs.append(stack.enter_context(site.open(path, who)))
            self.workers.add(site.worker_of(self.tabs[-1]))
        self._until_reached(audience)

    def _until_reached(self, audience: Audience[Any]) -> None:
        """Send until each tab has heard something: a worker takes its time to subscribe."""
        missing = self.tabs
        end = time.monotonic() + 20
        while missing:
            assert time.monotonic() < end, f"{len(missing)} tabs are not reached"
            audience.send_json({"ready": False})
            missing = [tab for tab in missing if not has_heard(tab)]
        audience.send_json({"ready": True})
        for tab in self.tabs:
            while json.loads(tab.recv(10)) != {"ready": True}:
                pass

    def hear(self, count: int = 1) -> list[list[Any]]:
        return [[json.loads(tab.recv(10)) for _ in range(count)] for tab in self.tabs]


def has_heard(tab: ClientConnection) -> bool:
    try:
        tab.recv(0.2)
    except TimeoutError:
        return False
    return True


def in_the_room(site: Site, stack: ExitStack, *people: Browser) -> Crowd:
    room = Publisher(site.broker).route("/ws/chat/*").room(1)
    return Crowd(site, stack, "/ws/chat/1", people, room)


def with_news(site: Site, stack: ExitStack, *people: Browser) -> Crowd:
    return Crowd(site, stack, NEWS, people, Publisher(site.broker).route(NEWS).everyone)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, seeded: Path) -> Iterator[Site]:
    """The demo on a Redis of its own, for all tests that do nothing to it."""
    folder = tmp_path_factory.mktemp("site")
    with (
        run_redis(tmp_path_factory.mktemp("r")) as redis,
        run(folder, seeded, WSM_BROKER=redis.url) as site,
    ):
        yield site
    assert "Traceback" not in site.log, site.log[-3000:]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


# --- with Redis between them ---------------------------------------------------------------------


def test_a_line_reaches_every_tab_in_every_worker_once_and_in_order(
    site: Site, stack: ExitStack
) -> None:
    alice, bob = site.visitor("alice"), site.visitor("bob")
    room = in_the_room(site, stack, alice, bob)
    desk = stack.enter_context(site.open("/ws/chat/2", alice))
    for number in range(20):
        room.tabs[0].send(f"number {number}")
    lines = room.hear(20)
    assert [line["text"] for line in lines[0]] == [f"number {number}" for number in range(20)]
    assert lines == [lines[0]] * len(room.tabs)
    assert site.store.last_messages(1)[-20:] == lines[0]
    desk.send("a secret")  # the first that is heard there
    assert json.loads(desk.recv(10))["text"] == "a secret"
    room.tabs[1].send("the last")  # and of which nothing is heard here
    assert [line["from"] for (line,) in room.hear()] == ["bob"] * len(room.tabs)


def test_a_post_to_any_worker_reaches_every_tab_once(site: Site, stack: ExitStack) -> None:
    alice, bob = site.visitor("alice"), site.visitor("bob")
    room = in_the_room(site, stack, alice, bob)
    path = "/rooms/1/messages"
    sent: list[dict[str, Any]] = []
    end = time.monotonic() + 30
    while len(set(site.posted_by(path))) < 2 or len(sent) < 20:
        assert time.monotonic() < end, "one worker takes them all"
        status, body = site.post(path, bob, {"text": f"post {len(sent)}"})
        assert status == 201
        sent.append(json.loads(body))
    for heard in room.hear(len(sent)):
        assert sorted(heard, key=lambda line: line["id"]) == sent


def test_an_announcement_reaches_everybody_in_every_worker(site: Site, stack: ExitStack) -> None:
    alice, bob = site.visitor("alice"), site.visitor("bob")
    everybody = with_news(site, stack, alice, bob)
    status, body = site.post("/announce", alice, {"text": "lunch"})
    assert status == 201
    assert everybody.hear() == [[json.loads(body)]] * len(everybody.tabs)


def test_a_logout_closes_every_tab_of_the_user_in_every_worker_and_no_other(
    site: Site, stack: ExitStack
) -> None:
    alice, bob = site.visitor("alice"), site.visitor("bob")
    tabs = with_news(site, stack, alice)
    rooms = in_the_room(site, stack, alice)
    others = in_the_room(site, stack, bob)
    assert site.post("/logout", alice, {})[0] == 302
    for socket in (*tabs.tabs, *rooms.tabs):
        assert end_of(socket) == (4401, "logged_out")
    others.tabs[0].send("still here")
    assert [line["text"] for (line,) in others.hear()] == ["still here"] * len(others.tabs)
    with pytest.raises(InvalidStatus, match="401"):
        site.open(NEWS, Browser(site.app))


@pytest.mark.slow
def test_after_redis_was_away_every_page_comes_back(
    redis: RedisServer, seeded: Path, tmp_path: Path, stack: ExitStack
) -> None:
    with run(tmp_path, seeded, WSM_BROKER=redis.url) as site:
        alice, bob = site.visitor("alice"), site.visitor("bob")
        room = in_the_room(site, stack, alice, bob)
        redis.kill()
        wait_for(lambda: site.log.count(" is away ") >= len(room.workers), 10, lambda: site.log)
        room.tabs[0].send("while it was away")
        wait_for(lambda: bool(site.store.last_messages(1)), 10, "the line")
        redis.start()
        for socket in room.tabs:
            assert end_of(socket) == (1013, "messages_missed")
        # What a page does then: it opens its socket again, and reads what it has missed.
        again = in_the_room(site, stack, alice, bob)
        again.tabs[0].send("all hear this")
        assert [line["text"] for (line,) in again.hear()] == ["all hear this"] * len(again.tabs)
        assert "while it was away" in alice.get("/rooms/1").text
        assert "Traceback" not in site.log, site.log[-3000:]


def end_of(socket: ClientConnection) -> tuple[int | None, str | None]:
    """Read to the end; return what the close frame says."""
    with suppress(ConnectionClosed):
        while True:
            socket.recv(30)
    return socket.close_code, socket.close_reason


# --- without -------------------------------------------------------------------------------------


def test_without_redis_it_says_what_is_missing_and_loses_no_line(
    seeded: Path, tmp_path: Path, stack: ExitStack
) -> None:
    with run(tmp_path, seeded) as site:
        alice = site.visitor("alice")
        socket = stack.enter_context(site.open("/ws/chat/1", alice))
        socket.send("over the socket")
        assert end_of(socket)[0] == 1011
        assert site.post("/rooms/1/messages", alice, {"text": "by post"})[0] == 500
        assert site.post("/announce", alice, {"text": "lunch"})[0] == 500
        assert site.post("/logout", alice, {})[0] == 500
        assert site.log.count("ws_middleware.errors.BrokerRequired: ") == 4
        assert 'WebSockets(broker="redis://localhost:6379/0")' in site.log
        page = alice.get("/rooms/1").text
        assert all(each in page for each in ("over the socket", "by post", "lunch"))
