"""The Flask demo app, driven through its pages the way a browser does it."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

import pytest

from examples.flask_app import create_app
from tests.examples.visitor import body

if TYPE_CHECKING:
    from pathlib import Path

    from examples.flask_app.db import Store
    from tests.examples.visitor import Browser


def test_health(guest: Browser) -> None:
    answer = guest.get("/health")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


# Login and logout


@pytest.mark.parametrize("path", ["/", "/rooms/1", "/rooms/99"])
def test_pages_send_guests_to_the_login(guest: Browser, path: str) -> None:
    answer = guest.get(path)
    assert (answer.status_code, answer.location) == (302, "/login")


def test_guest_gets_401_for_json(guest: Browser) -> None:
    answer = guest.post_json("/rooms/1/messages", {"text": "hello"})
    assert (answer.status_code, answer.json) == (401, {"error": "Log in first."})


def test_login_shows_the_rooms_of_the_user(alice: Browser, bob: Browser) -> None:
    assert "general" in alice.get("/").text
    assert "alice&#39;s desk" in alice.get("/").text
    assert "general" in bob.get("/").text
    assert "alice&#39;s desk" not in bob.get("/").text


def test_login_page_sends_a_logged_in_user_on(alice: Browser) -> None:
    assert alice.get("/login").location == "/"


@pytest.mark.parametrize(
    ("name", "password"), [("alice", "bob-demo"), ("alice", ""), ("nobody", "alice-demo"), ("", "")]
)
def test_wrong_login(guest: Browser, name: str, password: str) -> None:
    answer = guest.post("/login", username=name, password=password)
    assert answer.status_code == 401
    assert "Wrong user name or password." in answer.text
    assert guest.get("/").location == "/login"


def test_logout(alice: Browser) -> None:
    assert alice.post("/logout").location == "/login"
    assert alice.get("/").location == "/login"


def test_session_cookie_flags(guest: Browser) -> None:
    answer = guest.post("/login", username="alice", password="alice-demo")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_login_changes_the_csrf_token(guest: Browser) -> None:
    before = guest.csrf_token()
    assert guest.login("alice").csrf_token() != before


# CSRF


@pytest.mark.parametrize("path", ["/login", "/logout", "/announce", "/rooms/1/messages"])
def test_csrf_token_missing(alice: Browser, path: str) -> None:
    alice.csrf_token()
    answer = alice.client.post(path, data={"text": "hello"})
    assert answer.status_code == 400
    assert "The CSRF token is missing." in answer.text


def test_csrf_token_without_a_session(guest: Browser) -> None:
    answer = guest.client.post("/login", data={"csrf_token": "x"})
    assert answer.status_code == 400
    assert "The CSRF token is missing." in answer.text


@pytest.mark.parametrize("token", ["wrong", "wröng"])
def test_csrf_token_wrong(alice: Browser, store: Store, token: str) -> None:
    alice.csrf_token()
    path = "/rooms/1/messages"
    as_form = alice.client.post(path, data={"csrf_token": token, "text": "hello"})
    as_json = alice.client.post(path, json={"text": "hello"}, headers={"X-CSRF-Token": token})
    assert (as_form.status_code, as_json.status_code) == (400, 400)
    assert "The CSRF token is wrong." in as_form.text
    assert "The CSRF token is wrong." in body(as_json)["error"]
    assert store.last_messages(1) == []


def test_csrf_token_of_another_session(alice: Browser, bob: Browser) -> None:
    alice.csrf_token()
    fields = {"csrf_token": bob.csrf_token(), "text": "hello"}
    assert alice.client.post("/announce", data=fields).status_code == 400


# Rooms and messages


def test_only_members_may_enter(bob: Browser, store: Store) -> None:
    assert bob.get("/rooms/2").status_code == 403
    assert bob.post("/rooms/2/messages", text="hello").status_code == 403
    assert bob.post_json("/rooms/2/messages", {"text": "hello"}).status_code == 403
    assert store.last_messages(2) == []


@pytest.mark.parametrize("room", ["0", "99", str(2**63), "9" * 100])
def test_unknown_room(alice: Browser, room: str) -> None:
    assert alice.get(f"/rooms/{room}").status_code == 404
    assert alice.post(f"/rooms/{room}/messages", text="hello").status_code == 404


def test_message_by_form_is_seen_by_others(alice: Browser, bob: Browser) -> None:
    answer = alice.post("/rooms/1/messages", text="  hello bob  ")
    assert (answer.status_code, answer.location) == (302, "/rooms/1")
    assert '<p class="text">hello bob</p>' in bob.get("/rooms/1").text


def test_message_by_json(alice: Browser, store: Store) -> None:
    answer = alice.post_json("/rooms/1/messages", {"text": "grüße 👋"})
    assert answer.status_code == 201
    assert answer.json == store.last_messages(1)[0]
    assert set(body(answer)) == {"id", "room", "from", "text", "at"}
    assert (body(answer)["room"], body(answer)["from"]) == (1, "alice")
    assert body(answer)["text"] == "grüße 👋"


def test_messages_are_escaped(alice: Browser, bob: Browser) -> None:
    alice.post("/rooms/1/messages", text="<script>alert(1)</script>")
    page = bob.get("/rooms/1").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize("text", ["", " \n ", "x" * 2001])
def test_bad_text_by_form(alice: Browser, store: Store, text: str) -> None:
    assert alice.post("/rooms/1/messages", text=text).status_code == 400
    assert store.last_messages(1) == []


@pytest.mark.parametrize(
    "sent", [{}, {"text": ""}, {"text": 5}, {"text": "x" * 2001}, {"text": "\ud800"}, [], "text"]
)
def test_bad_json(alice: Browser, store: Store, sent: object) -> None:
    answer = alice.post_json("/rooms/1/messages", sent)
    assert answer.status_code == 400
    assert body(answer)["error"]
    assert store.last_messages(1) == []


@pytest.mark.parametrize("data", ["{", "null", "", b"\xff"])
def test_broken_json(alice: Browser, data: str | bytes) -> None:
    headers = {"Content-Type": "application/json", "X-CSRF-Token": alice.csrf_token()}
    answer = alice.client.post("/rooms/1/messages", data=data, headers=headers)
    assert answer.status_code == 400
    assert body(answer)["error"]


def test_longest_text(alice: Browser) -> None:
    assert alice.post_json("/rooms/1/messages", {"text": "x" * 2000}).status_code == 201


def test_oversized_body_is_refused(alice: Browser) -> None:
    assert alice.post("/rooms/1/messages", text="x" * 70_000).status_code == 413


def test_room_shows_the_last_50_in_order(alice: Browser, store: Store) -> None:
    for number in range(52):
        store.add_message("1", 1, f"number {number}")
    shown = re.findall(r'<p class="text">number (\d+)</p>', alice.get("/rooms/1").text)
    assert [int(number) for number in shown] == list(range(2, 52))


@pytest.mark.parametrize(
    ("user_id", "room", "expected"),
    [
        ("1", 1, True),
        ("1", 2, True),
        ("2", 1, True),
        ("2", 2, False),
        ("1", 3, False),
        ("3", 1, False),
        ("", 1, False),
        ("1 OR 1=1", 1, False),
        ("1", 0, False),
        ("1", -1, False),
        ("1", 2**64, False),
        ("9" * 100, 1, False),
    ],
)
def test_may_read(store: Store, user_id: str, room: int, *, expected: bool) -> None:
    assert store.may_read(user_id, room) is expected


# Announcements


def test_announcement_is_on_all_pages(alice: Browser, bob: Browser, guest: Browser) -> None:
    assert 'aria-live="polite" hidden>' in bob.get("/").text
    alice.post("/announce", text="first")
    assert alice.post("/announce", text="<b>lunch</b>").location == "/"
    pages = [bob.get("/"), bob.get("/rooms/1"), bob.get("/rooms/2"), guest.get("/login")]
    for page in pages:
        assert '<strong id="banner-from">alice</strong>' in page.text
        assert '<span id="banner-text">&lt;b&gt;lunch&lt;/b&gt;</span>' in page.text
        assert 'aria-live="polite" hidden>' not in page.text


def test_announcement_by_json(bob: Browser) -> None:
    answer = bob.post_json("/announce", {"text": "lunch"})
    assert answer.status_code == 201
    assert (body(answer)["from"], body(answer)["text"]) == ("bob", "lunch")


def test_announcement_needs_a_login_and_a_text(guest: Browser, store: Store) -> None:
    assert guest.post("/announce", text="lunch").location == "/login"
    assert guest.login("bob").post("/announce", text=" ").status_code == 400
    assert store.latest_announcement() is None


# Headers, errors, the key


def test_security_headers(guest: Browser) -> None:
    for path in ["/login", "/no-such-page", "/static/chat.js"]:
        headers = guest.get(path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_wrong_method_keeps_the_allow_header(alice: Browser) -> None:
    answer = alice.get("/logout")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


def test_the_key_is_made_once_and_kept_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    folder = tmp_path / "instance"
    first = create_app({"INSTANCE_PATH": str(folder)})
    second = create_app({"INSTANCE_PATH": str(folder)})
    assert first.config["SECRET_KEY"] == second.config["SECRET_KEY"]
    assert stat.S_IMODE((folder / "secret_key.txt").stat().st_mode) == 0o600
    assert sorted(file.name for file in folder.iterdir()) == ["demo.sqlite3", "secret_key.txt"]


def test_key_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "e" * 32)
    app = create_app({"INSTANCE_PATH": str(tmp_path)})
    assert app.config["SECRET_KEY"] == "e" * 32


def test_short_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SECRET_KEY must have at least 32 bytes"):
        create_app({"INSTANCE_PATH": str(tmp_path), "SECRET_KEY": "short"})
