"""A Django project, served by the servers its developers have; see tests/django_project."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support import TEXT, RawPeer, frame, head
from ws_middleware import ConfigError
from ws_middleware.gate.origin import OriginRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from websockets.sync.client import ClientConnection

pytest.importorskip("django")

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "tests" / "django_project"
PROJECT_SETTINGS = "PROJECT_SETTINGS"

COMMANDS = {
    "runserver": ["manage.py", "runserver", "127.0.0.1:{port}"],
    "runserver-nothreading": [
        *("manage.py", "runserver", "--noreload", "--nothreading", "127.0.0.1:{port}"),
    ],
    "gunicorn": [
        *("-m", "gunicorn", "--worker-class", "gthread", "--threads", "4", "--workers", "1"),
        *("--bind", "127.0.0.1:{port}", "--access-logfile", "-", "project.wsgi:application"),
    ],
    "gunicorn-gevent": [
        *("-m", "gunicorn", "--worker-class", "gevent", "--bind", "127.0.0.1:{port}"),
        *("--access-logfile", "-", "project.wsgi:application"),
    ],
}


def mixes_origins() -> bool:
    """Whether a list of origins may have "same-origin" as an entry."""
    with contextlib.suppress(ConfigError):
        OriginRule(("same-origin",), ambient=True)
        return True
    return False


# --- a running project ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with ann and bob, made once."""
    database = tmp_path_factory.mktemp("django") / "db.sqlite3"
    run_code(
        """
        from django.core.management import call_command
        call_command("migrate", verbosity=0)
        from django.contrib.auth import get_user_model
        for name in ("ann", "bob"):
            get_user_model().objects.create_user(name, password=name)
        """,
        database,
    )
    return database


def environ(database: Path, settings: Mapping[str, object] | None = None) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PROJECT_DB": str(database),
        PROJECT_SETTINGS: json.dumps(settings or {}),
        "DJANGO_SETTINGS_MODULE": "project.settings",
    }


def run_code(code: str, database: Path, settings: Mapping[str, object] | None = None) -> str:
    """Run code in a process of the project's own, warnings being errors; return what it says."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "import django; django.setup()\n" + textwrap.dedent(code),
        ],
        cwd=PROJECT,
        env=environ(database, settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class Site(NamedTuple):
    """A served project."""

    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def http(
        self, method: str, path: str, headers: dict[str, str] | None = None, **fields: str
    ) -> tuple[int, bytes, list[tuple[str, str]]]:
        """Ask as a plain HTTP client."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        form = {"Content-Type": "application/x-www-form-urlencoded"} if fields else {}
        with contextlib.closing(connection):
            connection.request(method, path, urlencode(fields) or None, {**form, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.getheaders()

    def read_log(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


class Visitor:
    """A browser: it keeps cookies, logs in, and connects with them."""

    def __init__(self, site: Site, name: str = "") -> None:
        self.site = site
        self.cookies: dict[str, str] = {}
        if name:
            token = self.ask("GET", "/login/")[1].decode()
            fields = {"username": name, "password": name, "csrfmiddlewaretoken": token}
            assert self.ask("POST", "/login/", **fields)[:2] == (200, b"yes")

    @property
    def headers(self) -> dict[str, str]:
        if not self.cookies:
            return {}
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}

    def ask(self, method: str, path: str, **fields: str) -> tuple[int, bytes]:
        headers = self.headers
        if method == "POST":
            headers["X-CSRFToken"] = self.cookies.get("csrftoken", "")
        status, body, answered = self.site.http(method, path, headers, **fields)
        for name, value in answered:
            if name.lower() == "set-cookie":
                cookie, _, text = value.partition(";")[0].partition("=")
                self.cookies[cookie] = text
        return status, body

    def connect(self, path: str, origin: str | None = "same", **changes: str) -> ClientConnection:
        return connect(
            f"ws://127.0.0.1:{self.site.port}{path}",
            origin=self.site.origin if origin == "same" else origin,  # type: ignore[arg-type]
            additional_headers={**self.headers, **changes},
            open_timeout=10,
        )

    def refused(self, path: str, origin: str | None = "same", **changes: str) -> Refused:
        with pytest.raises(InvalidStatus) as refused, self.connect(path, origin, **changes):
            pass
        answer = refused.value.response
        body = bytes(answer.body)
        kind = answer.headers.get("Content-Type", "")
        code = json.loads(body)["code"] if kind == "application/problem+json" else ""
        return Refused(answer.status_code, code, body)


class Refused(NamedTuple):
    """What a refused client got."""

    status: int
    code: str
    body: bytes


@contextlib.contextmanager
def serving(
    command: str,
    database: Path,
    folder: Path,
    settings: Mapping[str, object] | None = None,
    project: Path = PROJECT,
) -> Iterator[Site]:
    """Run a server until the block ends; whatever happens, its processes are gone then."""
    port = free_port()
    log = folder / "server.log"
    arguments = [part.format(port=port) for part in COMMANDS[command]]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=project,
            env=environ(database, settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        site = Site(port, log, process)
        try:
            wait_for(lambda: answers(site), f"the server to answer; its log is {log}")
            yield site
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and, for the reloader, its child: the group is theirs alone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(site: Site, status: str = "ok") -> bool:
    assert site.process.poll() is None, site.read_log()
    with contextlib.suppress(OSError, http.client.HTTPException):
        return f'"status": "{status}"'.encode() in site.http("GET", "/health/")[1]
    return False


def wait_for(what: Callable[[], bool], name: str, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, f"waited in vain for {name}"
        time.sleep(0.05)


@pytest.fixture(scope="module", params=list(COMMANDS))
def site(
    request: pytest.FixtureRequest, migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    database = Path(shutil.copy(migrated, folder / "db.sqlite3"))
    with serving(request.param, database, folder) as site:
        yield site


@pytest.fixture(scope="module")
def ann(site: Site) -> Visitor:
    return Visitor(site, "ann")


@pytest.fixture(scope="module")
def bob(site: Site) -> Visitor:
    return Visitor(site, "bob")


@pytest.fixture(autouse=True)
def no_traceback(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does to the shared servers: no traceback in their logs."""
    if "site" not in request.fixturenames:
        yield
        return
    site: Site = request.getfixturevalue("site")
    before = len(site.read_log())
    yield
    said = site.read_log()[before:]
    assert "Traceback" not in said, said
    assert "Warning:" not in said, said


# --- who may connect -----------------------------------------------------------------------------


def test_the_session_of_a_login_is_accepted(ann: Visitor) -> None:
    with ann.connect("/ws/echo") as ws:
        for message in ("hello", b"\x00\x01", "x" * 300_000):
            ws.send(message)
            assert ws.recv(timeout=5) == message


def test_headers_and_cookies_of_the_middleware_are_on_the_101(ann: Visitor) -> None:
    with ann.connect("/ws/echo") as ws:
        assert ws.response is not None
        assert ws.response.headers["X-House"] == "rules"
        assert ws.response.headers["Set-Cookie"] == 'visited="/ws/echo"; Path=/'
        assert "Content-Type" not in ws.response.headers
        assert "Content-Length" not in ws.response.headers


def test_without_a_login_401(site: Site) -> None:
    assert Visitor(site).refused("/ws/echo")[:2] == (401, "login_required")
    assert Visitor(site).refused("/ws/echo", Cookie="sessionid=made-up")[:2] == (
        401,
        "login_required",
    )


@pytest.mark.parametrize("path", ["/ws/echo", "/own/word/"])
def test_pages_of_others_cannot_use_the_login(ann: Visitor, path: str) -> None:
    assert ann.refused(path, "https://evil.example")[:2] == (403, "origin_not_allowed")
    assert ann.refused(path, "null")[:2] == (403, "origin_not_allowed")
    assert ann.refused(path, None)[:2] == (403, "origin_missing")


def test_a_host_that_is_not_allowed(ann: Visitor) -> None:
    with RawPeer(("127.0.0.1", ann.site.port)) as peer:
        answer = peer.upgrade(
            "/ws/echo", host="evil.example", origin="http://evil.example", **ann.headers
        )
        assert answer.split()[1] == b"403"


@pytest.mark.parametrize(
    ("please", "status", "body"),
    [
        ("teapot", 418, b"<h1>short and stout</h1>"),
        ("redirect", 401, b"login_required"),
        ("fine", 403, b"app_refused"),
    ],
)
def test_the_middleware_has_its_say(ann: Visitor, please: str, status: int, body: bytes) -> None:
    refused = ann.refused(f"/ws/echo?please={please}")
    assert refused.status == status
    assert body in refused.body


def test_authorize_asks_the_database(ann: Visitor, bob: Visitor) -> None:
    with ann.connect("/ws/room/1"):
        pass
    assert ann.refused("/ws/room/2")[:2] == (403, "not_allowed")
    assert bob.refused("/ws/room/1")[:2] == (403, "not_allowed")


# --- what happens then ---------------------------------------------------------------------------


def test_a_view_publishes_to_a_room(ann: Visitor) -> None:
    with ann.connect("/ws/room/1") as one, ann.connect("/ws/room/1") as two:
        status, body = ann.ask("POST", "/rooms/1/", text="news")
        assert (status, json.loads(body)) == (200, {"sockets": 2})
        for ws in (one, two):
            assert json.loads(ws.recv(timeout=5)) == {"from": 1, "text": "news"}


def test_sync_events_use_the_orm_and_leave_no_connection(ann: Visitor, bob: Visitor) -> None:
    with ann.connect("/ws/orm") as one, bob.connect("/ws/orm") as two:
        heard = []
        for number in range(6):
            for ws in (one, two):
                ws.send(str(number))
                heard.append(json.loads(ws.recv(timeout=5)))
    assert [(said["name"], said["asked"]) for said in heard] == [
        (name, str(number)) for number in range(6) for name in ("ann", "bob")
    ]
    assert len({said["thread"] for said in heard}) < len(heard), "no thread was used again"
    assert not any(said["left"] for said in heard)


@pytest.mark.parametrize("path", ["/ws/async-events", "/ws/async-talk"])
def test_async_handlers_use_the_orm_and_leave_no_connection(ann: Visitor, path: str) -> None:
    for number in range(4):
        with ann.connect(path) as ws:
            ws.send(f"{number}")
            said = {"name": "ann", "asked": f"{number}", "left": False}
            assert json.loads(ws.recv(timeout=5)) == said


def test_async_events_leave_no_connection_to_the_next_event(ann: Visitor, bob: Visitor) -> None:
    with ann.connect("/ws/async-events") as one, bob.connect("/ws/async-events") as two:
        for _ in range(3):
            for ws in (one, two):
                ws.send("hello")
                assert json.loads(ws.recv(timeout=5))["left"] is False


@pytest.mark.parametrize("path", ["/ws/async-events", "/ws/async-talk"])
def test_a_connection_that_died_is_not_met_by_the_next_socket(
    migrated: Path, tmp_path: Path, path: str
) -> None:
    database = Path(shutil.copy(migrated, tmp_path / "db.sqlite3"))
    with serving("gunicorn", database, tmp_path) as site:
        ann = Visitor(site, "ann")
        with ann.connect(path) as ws:
            ws.send("break")
            with pytest.raises(ConnectionClosed):
                ws.recv(timeout=5)
        with ann.connect(path) as ws:
            ws.send("hello")
            assert json.loads(ws.recv(timeout=5))["name"] == "ann"


def test_a_conversation_in_a_thread_uses_the_orm(bob: Visitor) -> None:
    with bob.connect("/ws/blocking") as ws:
        ws.send("hello")
        assert ws.recv(timeout=5) == "bob: 'hello'"


def test_a_view_accepts(ann: Visitor) -> None:
    with ann.connect("/own/word/") as ws:
        assert ws.response is not None
        assert sorted(ws.response.headers.get_all("Set-Cookie")) == [
            'visited="/own/word/"; Path=/',
            "word=word; Path=/",
        ]
        assert ws.response.headers["X-House"] == "rules"
        ws.send("hello")
        assert ws.recv(timeout=5) == "1 ann word 'hello'"


def test_login_required_before_a_view_accepts(site: Site) -> None:
    with RawPeer(("127.0.0.1", site.port)) as peer:
        answer = peer.upgrade("/own/word/", host=f"127.0.0.1:{site.port}", origin=site.origin)
        assert answer.split()[1] == b"401"
        assert b"location" not in answer.lower()
        length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", answer)
        assert length is not None
        assert json.loads(peer.read_bytes(int(length[1])))["code"] == "login_required"


def test_a_view_without_a_user(site: Site) -> None:
    assert Visitor(site).refused("/anybody/")[:2] == (401, "credential_refused")


def test_a_view_that_accepts_and_answers_something_else(ann: Visitor) -> None:
    refused = ann.refused("/taken-back/")
    assert (refused.status, refused.body) == (409, b"changed my mind")


def test_a_view_that_accepts_is_no_page(ann: Visitor) -> None:
    status, body = ann.ask("GET", "/own/word/")
    assert (status, json.loads(body)["code"]) == (426, "upgrade_required")


# --- on this server ------------------------------------------------------------------------------


def test_a_frame_in_the_same_packet_as_the_request(ann: Visitor) -> None:
    with RawPeer(("127.0.0.1", ann.site.port)) as peer:
        fields = {"origin": ann.site.origin, **ann.headers}
        peer.send(
            head("/ws/echo", host=f"127.0.0.1:{ann.site.port}", **fields) + frame(TEXT, b"early")
        )
        assert peer.status() == 101
        assert peer.read_frame().payload == b"early"


def test_echo_after_silence_and_http_meanwhile(ann: Visitor) -> None:
    with ann.connect("/ws/echo") as ws:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert ann.ask("GET", "/health/")[0] == 200
            time.sleep(0.2)
        ws.send("still there?")
        assert ws.recv(timeout=5) == "still there?"
    assert ann.ask("GET", "/health/")[0] == 200


def test_idle_sockets_hold_no_thread(ann: Visitor) -> None:
    def serving_threads() -> int:
        child = psutil.Process(ann.site.process.pid).children(recursive=True)
        return (
            sum(process.num_threads() for process in child)
            or psutil.Process(ann.site.process.pid).num_threads()
        )

    with contextlib.ExitStack() as stack:
        stack.enter_context(ann.connect("/ws/echo"))
        before = serving_threads()
        sockets = [stack.enter_context(ann.connect("/ws/echo")) for _ in range(15)]
        wait_for(lambda: serving_threads() <= before + 4, "the server's own threads to end", 5)
        for ws in sockets:
            ws.send("here")
            assert ws.recv(timeout=5) == "here"


@pytest.mark.parametrize(
    ("path", "origin", "status"),
    [
        ("/ws/echo", "same", 101),
        ("/own/word/", "same", 101),
        ("/ws/echo", None, 403),
        ("/ws/room/2", "same", 403),
    ],
)
def test_one_line_in_the_access_log(
    ann: Visitor, path: str, origin: str | None, status: int
) -> None:
    path = f"{path}?n={status}{origin}"
    if status == 101:
        with ann.connect(path, origin) as ws:
            ws.send("x")
            ws.recv(timeout=5)
    else:
        assert ann.refused(path, origin).status == status
    time.sleep(0.3)
    lines = [line for line in ann.site.read_log().splitlines() if f"GET {path} HTTP/1.1" in line]
    assert len(lines) == 1, lines
    assert f'HTTP/1.1" {status} ' in lines[0]


def test_the_static_files_of_runserver(site: Site) -> None:
    status, body, _ = site.http("GET", "/static/hello.txt")
    if "gunicorn" in site.read_log():
        assert status == 404
    else:
        assert (status, body) == (200, b"hello from a file\n")


def test_the_reloader_restarts_what_serves_sockets(migrated: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(PROJECT, tmp_path / "copy"))
    database = Path(shutil.copy(migrated, tmp_path / "db.sqlite3"))
    with serving("runserver", database, tmp_path, project=project) as site:
        ann = Visitor(site, "ann")
        with ann.connect("/ws/echo") as ws:
            ws.send("before")
            assert ws.recv(timeout=5) == "before"
            views = project / "project" / "views.py"
            views.write_text(views.read_text().replace('"ok"', '"reloaded"'))
            with pytest.raises(ConnectionClosed) as closed:
                ws.recv(timeout=15)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code in {1001, 1012}
        wait_for(lambda: answers(site, "reloaded"), "the new process")
        with ann.connect("/ws/echo") as ws:
            ws.send("after")
            assert ws.recv(timeout=5) == "after"
        assert "Traceback" not in site.read_log()


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.skipif(not mixes_origins(), reason="the origin rule takes no same-origin in a list")
def test_trusted_origins_may_connect_beside_the_sites_own(migrated: Path, tmp_path: Path) -> None:
    trusted = ["https://trusted.example", "https://*.trusted.example"]
    settings = {"CSRF_TRUSTED_ORIGINS": trusted}
    database = Path(shutil.copy(migrated, tmp_path / "db.sqlite3"))
    with serving("gunicorn", database, tmp_path, settings) as site:
        ann = Visitor(site, "ann")
        for path in ("/ws/echo", "/own/word/"):
            for origin in ("same", "https://trusted.example"):
                with ann.connect(path, origin) as ws:
                    ws.send("hello")
                    ws.recv(timeout=5)
            for origin in ("https://evil.example", "http://trusted.example"):
                assert ann.refused(path, origin)[:2] == (403, "origin_not_allowed")
            assert ann.refused(path, None)[:2] == (403, "origin_missing")
        log = site.read_log()
        assert "CSRF_TRUSTED_ORIGINS: sockets cannot allow 'https://*.trusted.example'" in log


DESCRIBE = """
    from django.core.wsgi import get_wsgi_application
    from ws_middleware import WebSockets
    from ws_middleware.django import DjangoAuth
    sockets = WebSockets(auth=DjangoAuth())
    route = sockets.route("/ws")
    try:
        sockets.wsgi(get_wsgi_application())
    except Exception as error:
        print(type(error).__name__, error)
    else:
        policy = sockets._front.resolve(route).policy
        print(policy.origins, policy.allowed_hosts, policy.refuse_with)
"""

describe = functools.partial(run_code, DESCRIBE)


def test_what_settings_say_by_default(migrated: Path) -> None:
    said = describe(migrated).splitlines()[-1]
    assert said == "same-origin ('.localhost', '127.0.0.1', '[::1]') http"


def test_allowed_hosts_are_djangos(migrated: Path) -> None:
    said = describe(migrated, {"ALLOWED_HOSTS": [".shop.example"], "DEBUG": False})
    assert said == "same-origin ('.shop.example',) http\n"
    assert describe(migrated, {"DEBUG": False}) == "same-origin () http\n"


def test_websockets_in_the_settings(migrated: Path) -> None:
    given: dict[str, Any] = {
        "origins": ["https://a.example"],
        "allowed_hosts": ["b.example"],
        "refuse_with": "close",
    }
    settings = {"WEBSOCKETS": given, "CSRF_TRUSTED_ORIGINS": ["https://*.c.example"]}
    assert describe(migrated, settings) == "('https://a.example',) ('b.example',) close\n"


def test_variables_come_before_what_is_only_derived(
    migrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSM_ORIGINS", "https://v.example")
    said = describe(migrated, {"CSRF_TRUSTED_ORIGINS": ["https://t.example"]})
    assert said.startswith("('https://v.example',)")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["origins"], "ConfigError settings.WEBSOCKETS takes a dict, got ['origins']"),
        ({"orgins": "*"}, "TypeError settings.WEBSOCKETS has no setting 'orgins'"),
        ({"origins": ["a.example"]}, "ConfigError origins: 'a.example' is no origin"),
        ({"origins": "*"}, "ConfigError route /ws: origins='*' lets any page"),
    ],
)
def test_wrong_settings_are_found_when_the_server_starts(
    migrated: Path, given: object, error: str
) -> None:
    assert describe(migrated, {"WEBSOCKETS": given}).startswith(error)


def test_origins_that_cannot_be_told_are_left_out_aloud(migrated: Path) -> None:
    said = describe(migrated, {"CSRF_TRUSTED_ORIGINS": ["https://*.a.example"]})
    assert said.startswith("CSRF_TRUSTED_ORIGINS: sockets cannot allow 'https://*.a.example'")
    assert said.splitlines()[-1].startswith("same-origin ")


def test_forwarded_hosts_need_a_trusted_proxy(migrated: Path) -> None:
    assert "USE_X_FORWARDED_HOST is on" in describe(migrated, {"USE_X_FORWARDED_HOST": True})


# --- without a server ----------------------------------------------------------------------------


def test_http_is_untouched(migrated: Path) -> None:
    run_code(
        """
        from django.core.wsgi import get_wsgi_application
        from django.test import RequestFactory
        from project.live import sockets

        bare = get_wsgi_application()
        wrapped = sockets.wsgi(get_wsgi_application())

        def answer(app, path):
            environ = RequestFactory().get(path, SERVER_NAME="localhost").environ
            heads = []
            chunks = app(environ, lambda *head: heads.append(head))
            body = b"".join(chunks)
            chunks.close()
            assert not [key for key in environ if key.startswith("ws_middleware")]
            return heads, body

        for path in ("/health/", "/nowhere/", "/own/word/", "/?please=teapot"):
            assert answer(bare, path) == answer(wrapped, path), path
        """,
        migrated,
    )


def test_a_port_of_our_own(migrated: Path, tmp_path: Path) -> None:
    database = Path(shutil.copy(migrated, tmp_path / "db.sqlite3"))
    run_code(
        """
        import threading
        from django.contrib.auth import get_user_model
        from django.test import Client
        from websockets.exceptions import InvalidStatus
        from websockets.sync.client import connect
        from project.live import sockets
        import project.wsgi

        client = Client()
        client.force_login(get_user_model().objects.get(username="bob"))
        cookie = {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}
        host, port = sockets.listen(port=0)
        url, origin = f"ws://{host}:{port}/ws/orm", f"http://{host}:{port}"
        with connect(url, origin=origin, additional_headers=cookie) as ws:
            assert ws.response.headers["Set-Cookie"] == 'visited="/ws/orm"; Path=/'
            ws.send("hello")
            assert '"name":"bob"' in ws.recv(timeout=5)
        for path, status in (("", 401), ("?please=teapot", 418)):
            try:
                connect(url + path, origin=origin).__enter__()
            except InvalidStatus as refused:
                assert refused.response.status_code == status
            else:
                raise AssertionError(path)
        sockets.close().result(timeout=10)
        """,
        database,
    )


def test_get_user(migrated: Path) -> None:
    run_code(
        """
        import types
        import uuid
        from django.test import RequestFactory
        from django.contrib.auth.models import AnonymousUser, User
        from ws_middleware import Principal, Refused, UpgradeRequest
        from ws_middleware.django import DjangoAuth

        request = UpgradeRequest("GET", "/ws/any", "1.1", b"host:localhost")
        number = uuid.uuid4()
        for said, principal in (
            (7, 7),
            ("seven", "seven"),
            (number, str(number)),
            (Principal("p"), Principal("p")),
            (User(pk=7, username="ann"), Principal("7", name="ann")),
        ):
            auth = DjangoAuth(get_user=lambda request: said)
            assert auth(request).principal == principal, said
        disowned = types.SimpleNamespace(is_authenticated=False, pk=7)
        for nobody in (None, "", AnonymousUser(), User(username="unsaved"), disowned):
            try:
                DjangoAuth(get_user=lambda request: nobody)(request)
            except Refused as refused:
                assert refused.status == 401
            else:
                raise AssertionError(nobody)
        try:
            DjangoAuth()(UpgradeRequest("GET", "/ws/any", "1.1", b"host:evil.example"))
        except Refused as refused:
            assert refused.status == 400
        else:
            raise AssertionError("a host that is not allowed")
        """,
        migrated,
        {"DEBUG": False, "ALLOWED_HOSTS": ["localhost"], "MIDDLEWARE": []},
    )


def test_middleware_sees_the_path_and_may_choose_urls(migrated: Path) -> None:
    run_code(
        """
        import sys, types
        from django.http import HttpResponse
        from django.urls import path, reverse

        other = types.ModuleType("other_urls")
        other.urlpatterns = [path("elsewhere/", lambda request: None, name="only-there")]
        sys.modules["other_urls"] = other
        seen = []

        class Rules:
            def __init__(self, get_response):
                self.get_response = get_response

            def __call__(self, request):
                request.urlconf = "other_urls"
                return self.get_response(request)

            def process_view(self, request, view, args, kwargs):
                seen.append((kwargs, request.resolver_match.kwargs, reverse("only-there")))

        rules = types.ModuleType("rules")
        rules.Rules = Rules
        sys.modules["rules"] = rules

        from ws_middleware import UpgradeRequest
        from ws_middleware.django import DjangoAuth
        auth = DjangoAuth(get_user=lambda request: "ann")
        request = UpgradeRequest(
            "GET", "/ws/room/1", "1.1", b"host:localhost", path_params={"room": 1}
        )
        assert auth(request).principal == "ann"
        assert seen == [({"room": 1}, {"room": 1}, "/elsewhere/")], seen
        """,
        migrated,
        {"MIDDLEWARE": ["rules.Rules"]},
    )


# --- the test kit --------------------------------------------------------------------------------

IN_MEMORY = """
    from django.contrib.auth import get_user_model
    from django.test import Client
    from django.test.utils import setup_test_environment
    from ws_middleware.testing import Refused, connect

    setup_test_environment()
    users = get_user_model().objects

    def logged_in(name):
        client = Client()
        client.force_login(users.get(username=name))
        return client

    def refused(client, path, **options):
        try:
            connect(client, path, **options)
        except Refused as refused:
            return refused.status, refused.code
        raise AssertionError(path)

    ann, bob = logged_in("ann"), logged_in("bob")
"""


def run_in_memory(code: str, database: Path, settings: Mapping[str, object] | None = None) -> str:
    """Run a test that uses Django's client, in a process of the project's own."""
    both = textwrap.dedent(IN_MEMORY) + textwrap.dedent(code)
    return run_code(both, database, settings)


def test_in_memory_the_clients_login_counts(migrated: Path) -> None:
    run_in_memory(
        """
        with connect(ann, "/ws/echo") as ws:
            for message in ("hello", bytes([0, 1])):
                ws.send(message)
                assert ws.receive() == message
            assert ("X-House", "rules") in ws.headers
        assert ann.cookies["visited"].value == "/ws/echo"
        assert refused(Client(), "/ws/echo") == (401, "login_required")
        assert refused(ann, "/ws/echo", origin="https://evil.example")[0] == 403
        assert refused(ann, "/ws/echo", origin=None) == (403, "origin_missing")
        assert refused(ann, "/ws/echo?please=teapot") == (418, "")
        assert refused(ann, "/nowhere/") == (404, "")

        with connect(ann, "/ws/room/1"):
            assert refused(bob, "/ws/room/1") == (403, "not_allowed")
        ann.logout()
        assert refused(ann, "/ws/echo") == (401, "login_required")
        """,
        migrated,
    )


def test_in_memory_a_login_through_a_page_counts_and_cookies_are_kept(migrated: Path) -> None:
    run_in_memory(
        """
        client = Client(enforce_csrf_checks=True)
        token = client.get("/login/").content.decode()
        fields = {"username": "bob", "password": "bob", "csrfmiddlewaretoken": token}
        assert client.post("/login/", fields).content == b"yes"
        with connect(client, "/own/word/") as ws:
            ws.send("hello")
            assert ws.receive() == "2 bob word 'hello'"
        assert client.cookies["word"].value == "word"
        """,
        migrated,
    )


def test_in_memory_what_a_view_sends_is_there_when_it_has_answered(migrated: Path) -> None:
    run_in_memory(
        """
        with connect(ann, "/ws/room/1") as ws:
            assert ann.post("/rooms/1/", {"text": "news"}).json() == {"sockets": 1}
            assert ws.receive_json() == {"from": 1, "text": "news"}
            ws.receive_nothing()
        """,
        migrated,
    )


def test_in_memory_handlers_use_the_database_of_the_test(migrated: Path) -> None:
    run_in_memory(
        """
        import threading
        from django.test import TestCase

        class Rolled(TestCase):
            def runTest(self):
                carl = users.create_user("carl", password="carl")
                self.client.force_login(carl)
                with connect(self.client, "/ws/orm") as ws:
                    ws.send("hello")
                    said = ws.receive_json()
                assert said["name"] == "carl"
                assert said["thread"] == threading.get_ident()

        Rolled().debug()
        assert not users.filter(username="carl").exists()
        """,
        migrated,
    )


def test_in_memory_the_host_is_the_clients(migrated: Path) -> None:
    run_in_memory(
        """
        evil = {"base_url": "http://evil.example"}
        assert refused(ann, "/ws/echo", **evil)[0] in (400, 403)
        with connect(ann, "/ws/echo", base_url="https://shop.example") as ws:
            ws.send("hello")
            assert ws.receive() == "hello"
        other = Client(SERVER_NAME="shop.example", SERVER_PORT="8000", REMOTE_ADDR="203.0.113.9")
        other.force_login(users.get(username="ann"))
        with connect(other, "/ws/echo", origin="http://shop.example:8000"):
            pass
        assert refused(other, "/ws/echo", origin="http://shop.example")[0] == 403
        """,
        migrated,
        {"ALLOWED_HOSTS": ["shop.example", "testserver"], "DEBUG": False},
    )


def test_in_memory_a_project_that_is_not_wrapped_says_so(migrated: Path) -> None:
    said = run_in_memory(
        """
        try:
            connect(ann, "/ws/echo")
        except RuntimeError as error:
            print(error)
        try:
            connect(users, "/ws/echo")
        except TypeError as error:
            print(error)
        """,
        migrated,
        {"WSGI_APPLICATION": None},
    )
    no_websockets, no_client = said.splitlines()
    assert no_websockets == (
        "the project has no WebSockets: settings.WSGI_APPLICATION is None, and there has to be "
        "application = sockets.wsgi(get_wsgi_application())"
    )
    assert no_client == (
        "connect() takes Flask's app.test_client(), a django.test.Client, Starlette's or FastAPI's "
        "TestClient, or a WebSockets, got UserManager"
    )


def test_the_test_kit_needs_no_flask_for_django(migrated: Path) -> None:
    run_in_memory(
        """
        with connect(ann, "/ws/echo"):
            import sys
            assert "flask" not in sys.modules
        """,
        migrated,
    )


def test_upgrade_without_the_door_says_so(migrated: Path) -> None:
    said = run_code(
        """
        from django.test import RequestFactory
        from ws_middleware.django import upgrade
        try:
            upgrade(RequestFactory().get("/own/", HTTP_UPGRADE="websocket"), print, user="ann")
        except Exception as error:
            print(type(error).__name__, error)
        """,
        migrated,
    )
    assert said.startswith("ConfigError upgrade() needs the door: in wsgi.py, application = sock")


def test_no_user_on_the_request_says_so(migrated: Path) -> None:
    said = run_code(
        """
        from ws_middleware import UpgradeRequest
        from ws_middleware.django import DjangoAuth
        try:
            DjangoAuth()(UpgradeRequest("GET", "/ws", "1.1", b"host:localhost"))
        except Exception as error:
            print(type(error).__name__, error)
        """,
        migrated,
        {"MIDDLEWARE": []},
    )
    assert "there is no request.user: add django.contrib.auth's" in said
    assert "DjangoAuth is asked, but no Django project is the host" in said


def test_wsgi_comes_before_listen(migrated: Path) -> None:
    said = run_code(
        """
        from django.core.wsgi import get_wsgi_application
        from project.live import sockets
        sockets.listen(port=0)
        try:
            sockets.wsgi(get_wsgi_application())
        except Exception as error:
            print(type(error).__name__, error)
        sockets.close().result(timeout=10)
        """,
        migrated,
    )
    assert said.startswith("ConfigError wsgi() comes before listen()")


def test_other_apps_import_nothing_of_django() -> None:
    code = "import sys, ws_middleware as w; w.WebSockets(auth=w.Anonymous()).wsgi(print)\n"
    code += "assert 'django' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
