"""The Starlette demo: its pages in memory, its sockets on servers that are processes."""

from __future__ import annotations

import json
import re
import shutil
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from examples.starlette_app import create_app
from examples.starlette_app.db import Store, hash_password, is_password
from tests.integration.asgi import Guest, closed, heard, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from httpx2 import Response
    from websockets.sync.client import ClientConnection

    from tests.integration.serving import Server
    from tests.redis_server import RedisServer

    Open = Callable[..., ClientConnection]

APP = "examples.starlette_app.asgi:app"
NOTIFICATIONS = "/ws/notifications"


@pytest.fixture(scope="session")
def seeded_starlette(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database, made once: hashing the passwords takes most of the time."""
    path = tmp_path_factory.mktemp("seeded") / "demo.sqlite3"
    Store(path)
    return path


@pytest.fixture
def config(seeded_starlette: Path, tmp_path: Path) -> dict[str, str]:
    database = shutil.copy(seeded_starlette, tmp_path / "test.sqlite3")
    return {"DATABASE": str(database), "SECRET_KEY": "s" * 32}


# --- pages ---------------------------------------------------------------------------------------


class Visitor:
    """One cookie jar that reads the CSRF token out of the pages it is given."""

    def __init__(self, config: dict[str, str]) -> None:
        self.app = create_app(config)
        self.client = TestClient(self.app, follow_redirects=False)

    @property
    def store(self) -> Store:
        store: Store = self.app.state.store
        return store

    def get(self, path: str) -> Response:
        return self.client.get(path)

    def csrf_token(self) -> str:
        page = self.client.get("/", follow_redirects=True).text
        found = re.search(r'name="csrf_token" value="([^"]+)"', page)
        assert found is not None
        return found[1]

    def post(self, path: str, **fields: str) -> Response:
        return self.client.post(path, data={"csrf_token": self.csrf_token(), **fields})

    def post_json(self, path: str, body: object) -> Response:
        headers = {"Content-Type": "application/json", "X-CSRF-Token": self.csrf_token()}
        return self.client.post(path, content=json.dumps(body), headers=headers)

    def login(self, name: str) -> Visitor:
        answer = self.post("/login", username=name, password=f"{name}-demo")
        assert (answer.status_code, answer.headers["location"]) == (302, "/")
        return self


@pytest.fixture
def guest(config: dict[str, str]) -> Visitor:
    return Visitor(config)


@pytest.fixture
def alice(config: dict[str, str]) -> Visitor:
    return Visitor(config).login("alice")


@pytest.fixture
def bob(config: dict[str, str]) -> Visitor:
    return Visitor(config).login("bob")


def test_passwords_are_kept_as_salted_hashes(seeded_starlette: Path) -> None:
    assert b"alice-demo" not in seeded_starlette.read_bytes()
    one, other = hash_password("secret"), hash_password("secret")
    assert one != other
    assert is_password("secret", one)
    assert not is_password("Secret", one)


@pytest.mark.parametrize("path", ["/", "/rooms/1", "/rooms/99"])
def test_pages_send_guests_to_the_login(guest: Visitor, path: str) -> None:
    answer = guest.get(path)
    assert (answer.status_code, answer.headers["location"]) == (302, "/login")


@pytest.mark.parametrize(
    ("name", "password"), [("alice", "bob-demo"), ("alice", ""), ("nobody", "alice-demo"), ("", "")]
)
def test_wrong_login(guest: Visitor, name: str, password: str) -> None:
    answer = guest.post("/login", username=name, password=password)
    assert answer.status_code == 401
    assert "Wrong user name or password." in answer.text
    assert guest.get("/").headers["location"] == "/login"


def test_login_and_logout(alice: Visitor) -> None:
    assert "alice&#39;s desk" in alice.get("/").text
    assert alice.get("/login").headers["location"] == "/"
    assert alice.post("/logout").headers["location"] == "/login"
    assert alice.get("/").headers["location"] == "/login"


def test_session_cookie_flags(config: dict[str, str]) -> None:
    plain = Visitor(config).get("/login").headers["set-cookie"]
    secure = Visitor({**config, "SECURE": "1"}).get("/login").headers["set-cookie"]
    assert {"httponly", "samesite=lax"} <= set(plain.split("; "))
    assert "secure" in secure.split("; ")


def test_login_changes_the_csrf_token(guest: Visitor) -> None:
    before = guest.csrf_token()
    assert guest.login("alice").csrf_token() != before


@pytest.mark.parametrize("path", ["/login", "/logout", "/announce", "/rooms/1/messages"])
@pytest.mark.parametrize("token", [None, "wrong", "wröng"])
def test_nothing_changes_without_the_csrf_token(
    alice: Visitor, path: str, token: str | None
) -> None:
    alice.csrf_token()
    fields = {"text": "hello"} if token is None else {"text": "hello", "csrf_token": token}
    answer = alice.client.post(path, data=fields)
    assert answer.status_code == 400
    assert f"The CSRF token is {'wrong' if token else 'missing'}." in answer.text
    assert alice.get("/").status_code == 200
    assert alice.store.last_messages(1) == []


def test_only_members_may_enter(bob: Visitor) -> None:
    assert bob.get("/rooms/2").status_code == 403
    assert bob.post("/rooms/2/messages", text="hello").status_code == 403
    assert bob.post_json("/rooms/2/messages", {"text": "hello"}).status_code == 403
    assert bob.store.last_messages(2) == []


@pytest.mark.parametrize("room", ["0", "99", str(2**63), "9" * 100])
def test_unknown_room(alice: Visitor, room: str) -> None:
    assert alice.get(f"/rooms/{room}").status_code == 404
    assert alice.post(f"/rooms/{room}/messages", text="hello").status_code == 404


def test_a_message_by_form_and_by_json_is_on_the_page(alice: Visitor) -> None:
    answer = alice.post("/rooms/1/messages", text="  <b>hello</b>  ")
    assert (answer.status_code, answer.headers["location"]) == (302, "/rooms/1")
    sent = alice.post_json("/rooms/1/messages", {"text": "grüße 👋"})
    assert (sent.status_code, sent.json()["from"], sent.json()["room"]) == (201, "alice", 1)
    page = alice.get("/rooms/1").text
    assert '<p class="text">&lt;b&gt;hello&lt;/b&gt;</p>' in page
    assert '<p class="text">grüße 👋</p>' in page


@pytest.mark.parametrize(
    "sent", [{}, {"text": ""}, {"text": 5}, {"text": "x" * 2001}, {"text": "\ud800"}, [], "text"]
)
def test_bad_json(alice: Visitor, sent: object) -> None:
    answer = alice.post_json("/rooms/1/messages", sent)
    assert (answer.status_code, bool(answer.json()["error"])) == (400, True)
    assert alice.store.last_messages(1) == []


@pytest.mark.parametrize("data", [b"{", b"null", b"", b"\xff"])
def test_broken_json(alice: Visitor, data: bytes) -> None:
    headers = {"Content-Type": "application/json", "X-CSRF-Token": alice.csrf_token()}
    answer = alice.client.post("/rooms/1/messages", content=data, headers=headers)
    assert (answer.status_code, bool(answer.json()["error"])) == (400, True)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json"])
def test_an_oversized_body_is_refused(alice: Visitor, kind: str) -> None:
    token = alice.csrf_token()

    def parts() -> Iterator[bytes]:  # of a length that nobody says
        for _ in range(70):
            yield b"x" * 1024

    headers = {"Content-Type": kind, "X-CSRF-Token": token}
    answer = alice.client.post("/announce", content=parts(), headers=headers)
    assert answer.status_code == 413


def test_announcements_are_on_all_pages(alice: Visitor, guest: Visitor) -> None:
    assert 'aria-live="polite" hidden>' in alice.get("/").text
    assert alice.post("/announce", text="<b>lunch</b>").headers["location"] == "/"
    for page in (alice.get("/rooms/1"), guest.get("/login")):
        assert '<span id="banner-text">&lt;b&gt;lunch&lt;/b&gt;</span>' in page.text
        assert 'aria-live="polite" hidden>' not in page.text


def test_security_headers(guest: Visitor) -> None:
    for path in ["/login", "/no-such-page", "/static/chat.js"]:
        headers = guest.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"


def test_a_wrong_method_keeps_the_allow_header(alice: Visitor) -> None:
    answer = alice.get("/logout")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_the_key_is_made_once_and_kept_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEMO_SECRET_KEY", raising=False)
    folder = tmp_path / "instance"
    keys = {_key_of(create_app({"INSTANCE_PATH": str(folder)})) for _ in range(2)}
    assert len(keys) == 1
    assert stat.S_IMODE((folder / "secret_key.txt").stat().st_mode) == 0o600
    assert sorted(file.name for file in folder.iterdir()) == ["demo.sqlite3", "secret_key.txt"]


def _key_of(app: Any) -> str:
    (found,) = [
        each.kwargs["secret_key"] for each in app.user_middleware if "secret_key" in each.kwargs
    ]
    return str(found)


def test_a_short_key_is_refused(config: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="SECRET_KEY must have at least 32 bytes"):
        create_app({**config, "SECRET_KEY": "short"})


# --- sockets, on servers -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["uvicorn", "hypercorn"])
def server(
    request: pytest.FixtureRequest,
    seeded_starlette: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    database = shutil.copy(seeded_starlette, folder / "test.sqlite3")
    environ = {"DEMO_DATABASE": str(database), "DEMO_SECRET_KEY": "s" * 32}
    with serving(request.param, APP, folder, environ=environ) as running:
        yield running


def log_in(server: Server, name: str) -> Guest:
    person = Guest(server)
    assert person.post("/login", username=name, password=f"{name}-demo").status_code == 302
    return person


@pytest.fixture
def ann(server: Server) -> Guest:
    """Alice at a browser."""
    return log_in(server, "alice")


@pytest.fixture
def ben(server: Server) -> Guest:
    """Bob at another one."""
    return log_in(server, "bob")


@pytest.fixture
def opened() -> Iterator[Open]:
    """Open sockets; they are closed when the test ends."""
    with ExitStack() as stack:
        yield lambda who, *given: stack.enter_context(who.connect(*given))


def test_a_member_gets_in(opened: Open, ann: Guest, ben: Guest) -> None:
    opened(ann, "/ws/chat/1")
    opened(ann, "/ws/chat/2")
    opened(ben, "/ws/chat/1")
    opened(ben, NOTIFICATIONS)


@pytest.mark.parametrize("room", ["2", "99", "0", str(2**63)])
def test_others_than_members_get_403(ben: Guest, room: str) -> None:
    refused = ben.refused(f"/ws/chat/{room}")
    assert (refused.status, refused.code) == (403, "not_allowed")


@pytest.mark.parametrize("path", ["/ws/chat/1", NOTIFICATIONS])
def test_nobody_gets_401(server: Server, path: str) -> None:
    refused = Guest(server).refused(path)
    assert (refused.status, refused.code) == (401, "credential_refused")


def test_after_a_logout_there_is_no_way_in(ann: Guest) -> None:
    ann.post("/logout")
    assert ann.refused("/ws/chat/1").status == 401


@pytest.mark.parametrize(
    ("origin", "code"), [("http://evil.test", "origin_not_allowed"), (None, "origin_missing")]
)
@pytest.mark.parametrize("path", ["/ws/chat/1", NOTIFICATIONS])
def test_only_the_pages_of_the_demo_may_connect(
    ann: Guest, path: str, origin: str | None, code: str
) -> None:
    refused = ann.refused(path, origin)
    assert (refused.status, refused.code) == (403, code)


def test_a_line_reaches_the_others_and_the_sender(opened: Open, ann: Guest, ben: Guest) -> None:
    to_ann, to_ben = opened(ann, "/ws/chat/1"), opened(ben, "/ws/chat/1")
    to_ann.send("  grüße 👋 ")
    line = heard(to_ben)
    assert (line["from"], line["text"], line["room"]) == ("alice", "grüße 👋", 1)
    assert heard(to_ann) == line
    assert f'data-id="{line["id"]}"' in ben.get("/rooms/1").text


def test_a_line_stays_in_its_room(opened: Open, ann: Guest, ben: Guest) -> None:
    desk, hall, to_ben = (
        opened(ann, "/ws/chat/2"),
        opened(ann, "/ws/chat/1"),
        opened(ben, "/ws/chat/1"),
    )
    desk.send("a secret")
    assert heard(desk)["text"] == "a secret"
    hall.send("hello all")
    assert heard(to_ben)["text"] == "hello all"


@pytest.mark.parametrize("text", ["", " \n ", "x" * 2001, b"hello"])
def test_a_bad_line_is_answered_and_the_socket_stays(
    opened: Open, ann: Guest, text: str | bytes
) -> None:
    socket = opened(ann, "/ws/chat/1")
    socket.send(text)
    assert heard(socket) == {"error": "A message is text of 1 to 2000 characters."}
    socket.send("x" * 2000)
    assert heard(socket)["text"] == "x" * 2000


def test_lines_keep_their_order(opened: Open, ann: Guest, ben: Guest) -> None:
    to_ann, to_ben = opened(ann, "/ws/chat/1"), opened(ben, "/ws/chat/1")
    for number in range(30):
        to_ann.send(f"number {number}")
    for socket in (to_ann, to_ben):
        assert [heard(socket)["text"] for _ in range(30)] == [f"number {n}" for n in range(30)]


def test_what_is_posted_reaches_the_sockets(opened: Open, ann: Guest, ben: Guest) -> None:
    to_ben = opened(ben, "/ws/chat/1")
    ann.post("/rooms/1/messages", text="by form")
    assert heard(to_ben)["text"] == "by form"
    sent = ann.post_json("/rooms/1/messages", {"text": "by JSON"}).json()
    assert heard(to_ben) == sent


def test_an_announcement_reaches_every_page(opened: Open, ann: Guest, ben: Guest) -> None:
    sockets = [opened(who, NOTIFICATIONS) for who in (ann, ben, ben)]
    sent = ann.post_json("/announce", {"text": "lunch"}).json()
    assert [heard(socket) for socket in sockets] == [sent] * 3
    ben.post("/announce", text="dinner")
    assert heard(sockets[0])["text"] == "dinner"


def test_a_logout_closes_the_sockets_of_all_tabs(opened: Open, ann: Guest, ben: Guest) -> None:
    to_ben = opened(ben, "/ws/chat/1")
    tabs = [opened(ann, path) for path in ("/ws/chat/1", "/ws/chat/2", NOTIFICATIONS)]
    ann.post("/logout")
    assert [closed(tab) for tab in tabs] == [(4401, "logged_out")] * 3
    to_ben.send("still here")
    assert heard(to_ben)["text"] == "still here"


@pytest.mark.slow
def test_two_workers_and_a_redis_are_one_chat(
    redis: RedisServer, config: dict[str, str], tmp_path: Path
) -> None:
    environ = {
        "DEMO_DATABASE": config["DATABASE"],
        "DEMO_SECRET_KEY": config["SECRET_KEY"],
        "WSM_BROKER": f"redis://127.0.0.1:{redis.port}/0",
    }
    with (
        serving("uvicorn", APP, tmp_path, "--workers", "2", environ=environ) as server,
        ExitStack() as stack,
    ):
        ann, ben = log_in(server, "alice"), log_in(server, "bob")
        nodes: dict[str, list[ClientConnection]] = {}
        while len(nodes) < 2:  # the kernel chooses the worker
            socket = stack.enter_context(ben.connect("/ws/chat/1"))
            server.until(lambda: len(_nodes(server)) > sum(map(len, nodes.values())))
            nodes.setdefault(_nodes(server)[-1], []).append(socket)
            assert len(nodes[_nodes(server)[-1]]) < 20
        sockets = [each for some in nodes.values() for each in some]
        for number in range(4):
            ann.post("/rooms/1/messages", text=f"number {number}")
            assert {heard(socket)["text"] for socket in sockets} == {f"number {number}"}
        ben.post("/logout")
        assert {closed(socket) for socket in sockets} == {(4401, "logged_out")}


def _nodes(server: Server) -> list[str]:
    """The node of each socket that has opened: what its id begins with."""
    return re.findall(r"open id=(\S+)-[0-9a-f]+ route=/ws/chat", server.log)
