"""A Django project on ASGI servers, without channels and with them; see tests/django_project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration.asgi import Guest, closed, heard, serving
from tests.integration.serving import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.serving import Server

pytest.importorskip("django")
pytest.importorskip("channels")

PROJECT = ROOT / "tests" / "django_project"

#: uvicorn does not start if the app cannot answer its lifespan: channels' routers never can.
LIFESPAN = ("--lifespan", "on")

MAKE_USERS = """
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django.contrib.auth import get_user_model
for name in ("ann", "bob"):
    get_user_model().objects.create_user(name, password=name)
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the project finds a database with ann and bob."""
    environ = {
        "PYTHONPATH": os.pathsep.join((str(PROJECT), str(ROOT))),
        "PROJECT_DB": str(tmp_path_factory.mktemp("django") / "db.sqlite3"),
        "DJANGO_SETTINGS_MODULE": "project.settings",
    }
    command = [sys.executable, "-c", MAKE_USERS]
    subprocess.run(command, env={**os.environ, **environ}, check=True, timeout=60)
    return environ


def log_in(server: Server, name: str) -> Guest:
    person = Guest(server)
    token = person.get("/login/").text
    form = {"username": name, "password": name, "csrfmiddlewaretoken": token}
    assert person.ask("POST", "/login/", data=form).text == "yes"
    return person


def publish(who: Guest, room: int, text: str) -> dict[str, int]:
    token = who.get("/login/").text
    form = {"text": text, "csrfmiddlewaretoken": token}
    told: dict[str, int] = who.ask("POST", f"/rooms/{room}/", data=form).json()
    return told


def check_refused(who: Guest, path: str, status: int, code: str, origin: str = "same") -> None:
    """Whatever the server lets through of a refusal."""
    refused = who.refused(path, origin)
    if who.server.name == "daphne":  # which answers 403 to all
        assert refused.status == 403
    else:
        assert (refused.status, refused.code) == (status, code)


# --- without channels ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["uvicorn", "hypercorn", "granian", "daphne"])
def plain(
    request: pytest.FixtureRequest,
    environ: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    options = LIFESPAN if request.param == "uvicorn" else ()
    app = "project.asgi:application"
    with serving(request.param, app, folder, *options, cwd=PROJECT, environ=environ) as server:
        yield server


def test_the_projects_login_decides(plain: Server) -> None:
    ann, bob = log_in(plain, "ann"), log_in(plain, "bob")
    with ann.connect("/ws/echo") as ws:
        ws.send("hello")
        assert ws.recv(10) == "hello"
    with ann.connect("/ws/room/1"):
        pass
    check_refused(bob, "/ws/room/1", 403, "not_allowed")
    check_refused(Guest(plain), "/ws/echo", 401, "login_required")
    check_refused(ann, "/ws/echo", 403, "origin_not_allowed", "https://evil.example")


def test_the_projects_middleware_answers(plain: Server) -> None:
    refused = log_in(plain, "ann").refused("/ws/echo?please=teapot")
    if plain.name != "daphne":
        assert (refused.status, refused.body) == (418, b"<h1>short and stout</h1>")


def test_a_view_publishes(plain: Server) -> None:
    ann = log_in(plain, "ann")
    with ann.connect("/ws/room/1") as ws:
        assert publish(ann, 1, "news") == {"sockets": 1}
        assert heard(ws)["text"] == "news"


@pytest.mark.parametrize("path", ["/ws/orm", "/ws/async-events", "/ws/async-talk"])
def test_handlers_ask_the_database_on_fresh_connections(plain: Server, path: str) -> None:
    with log_in(plain, "ann").connect(path) as ws:
        for number in ("1", "2"):
            ws.send(number)
            answer = heard(ws)
            assert (answer["name"], answer["asked"]) == ("ann", number)


def test_a_view_accepts_and_refuses_by_itself(plain: Server) -> None:
    ann = log_in(plain, "ann")
    with ann.connect("/own/hey/") as ws:
        ws.send("you")
        assert str(ws.recv(10)).endswith("ann hey 'you'")
    check_refused(Guest(plain), "/own/hey/", 401, "login_required")
    check_refused(ann, "/own/hey/", 403, "origin_not_allowed", "https://evil.example")
    refused = ann.refused("/taken-back/")
    assert refused.status == (403 if plain.name == "daphne" else 409)


def test_an_unknown_path_is_djangos_404(plain: Server) -> None:
    refused = Guest(plain).refused("/nothing")
    assert refused.status == (403 if plain.name == "daphne" else 404)
    assert "Django can only handle ASGI/HTTP connections" not in plain.log


def test_settings_of_the_project_hold(environ: dict[str, str], tmp_path: Path) -> None:
    settings = {
        "ALLOWED_HOSTS": ["127.0.0.1"],
        "CSRF_TRUSTED_ORIGINS": ["https://shop.example"],
        "WEBSOCKETS": {"refuse_with": "close"},
    }
    given = {**environ, "PROJECT_SETTINGS": json.dumps(settings)}
    app = "project.asgi:application"
    with serving("uvicorn", app, tmp_path, cwd=PROJECT, environ=given) as server:
        ann = log_in(server, "ann")
        with ann.connect("/ws/echo", "https://shop.example") as ws:
            ws.send("hello")
            assert ws.recv(10) == "hello"
        with ann.connect("/ws/echo", "https://evil.example") as ws:
            assert closed(ws) == (4403, "origin_not_allowed")


# --- with channels -------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["uvicorn", "daphne"])
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module", params=["around", "inside"])
def channels(
    request: pytest.FixtureRequest,
    name: str,
    environ: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    app = f"project.asgi:{request.param}"
    with serving(name, app, folder, cwd=PROJECT, environ=environ) as server:
        yield server


def test_a_consumer_has_the_principal_and_channels_own_user(channels: Server) -> None:
    with log_in(channels, "ann").connect("/channels/room/1/") as ws:
        ws.send('"hello"')
        assert heard(ws) == {"id": "1", "name": "ann", "text": "hello"}


def test_a_sync_consumer_is_served(channels: Server) -> None:
    with log_in(channels, "bob").connect("/channels/echo/") as ws:
        ws.send(b"\x00")
        assert ws.recv(10) == b"\x00"


def test_consumers_are_guarded(channels: Server) -> None:
    ann, bob = log_in(channels, "ann"), log_in(channels, "bob")
    code = "login_required" if "around" in channels.log_path.parent.name else "credential_refused"
    check_refused(Guest(channels), "/channels/echo/", 401, code)
    check_refused(bob, "/channels/room/1/", 403, "not_allowed")
    check_refused(ann, "/channels/room/2/", 403, "not_allowed")
    check_refused(ann, "/channels/echo/", 403, "origin_not_allowed", "https://evil.example")


def test_routes_of_ours_are_served_beside_consumers(channels: Server) -> None:
    if "around" not in channels.log_path.parent.name:
        pytest.skip("this app has none")
    with log_in(channels, "ann").connect("/ws/room/1") as ws:
        assert publish(log_in(channels, "ann"), 1, "news") == {"sockets": 1}
        assert heard(ws)["text"] == "news"


def test_on_the_wrong_side_of_channels_login_it_says_so(
    environ: dict[str, str], tmp_path: Path
) -> None:
    app = "project.asgi:wrong_side"
    with serving("uvicorn", app, tmp_path, cwd=PROJECT, environ=environ) as server:
        refused = log_in(server, "ann").refused("/channels/echo/")
        assert (refused.status, refused.code) == (500, "authenticator_failed")
        assert (
            "AuthMiddlewareStack(WebSocketMiddleware(URLRouter([...]), sockets=sockets))"
        ) in server.log
