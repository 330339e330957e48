"""Which server has called, read off its objects on the stack; real servers are in tests/asgi/."""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest

from ws_middleware.doors import Door
from ws_middleware.net.servers import find_asgi_server, find_wsgi_server
from ws_middleware.uvicorn import WebSocketProtocol

if TYPE_CHECKING:
    from collections.abc import Callable


def call_from(package: str, ask: Callable[[], Any], **settings: object) -> Any:
    """Ask from a function of a server's module that has an object of it, with its settings."""

    def serve(server: object) -> Any:
        return ask(), server

    own = {"__module__": f"{package}.server"}
    config = type("Config", (), {**own, **settings})()
    server = type("Server", (), {**own, "config": config})()
    asked: Any = FunctionType(
        serve.__code__, {"__name__": f"{package}.server"}, closure=serve.__closure__
    )
    return asked(server)[0]


def test_where_no_server_is_nothing_is_claimed() -> None:
    assert find_asgi_server() is None
    assert call_from("celery", find_asgi_server) is None


@pytest.mark.parametrize(
    ("package", "door"),
    [
        ("uvicorn", Door.UVICORN),
        ("hypercorn", Door.HYPERCORN),
        ("daphne", Door.DAPHNE),
        ("granian", Door.GRANIAN),
        ("gunicorn", Door.GUNICORN),
    ],
)
def test_a_server_is_known_by_its_package_and_its_settings_are_read(
    package: str, door: Door
) -> None:
    server = call_from(package, find_asgi_server, ping=7)
    assert server.door is door
    assert (server.setting("ping"), server.setting("pong")) == (7, None)


def test_the_innermost_of_several_is_the_one_that_calls() -> None:
    server = call_from(
        "gunicorn", lambda: call_from("uvicorn", find_asgi_server, ping=1), ping=2, other=3
    )
    assert server.door is Door.UVICORN
    assert (server.setting("ping"), server.setting("other")) == (1, None)


class Derived(WebSocketProtocol):
    """As somebody may have it who changes something."""


@pytest.mark.parametrize(
    ("protocol", "door"),
    [
        (WebSocketProtocol, Door.UVICORN_OURS),
        (Derived, Door.UVICORN_OURS),
        (object, Door.UVICORN),
        (None, Door.UVICORN),
    ],
)
def test_uvicorn_with_our_class_is_another_door(protocol: object, door: Door) -> None:
    server = call_from("uvicorn", find_asgi_server, ws_protocol_class=protocol)
    assert server.door is door


@pytest.mark.parametrize(
    ("software", "name"),
    [
        ("gunicorn/23.0.0", "gunicorn"),
        ("WSGIServer/0.2 CPython/3.11.7", "WSGIServer"),
        ("waitress", "waitress"),
        ("", "this server"),
        (None, "this server"),
    ],
)
def test_a_wsgi_server_is_what_it_calls_itself(software: str | None, name: str) -> None:
    environ = {} if software is None else {"SERVER_SOFTWARE": software}
    server = find_wsgi_server(environ)
    assert (server.door, server.name, server.setting("fields")) == (Door.WSGI, name, None)


def test_the_settings_of_a_wsgi_server_are_read_too() -> None:
    environ = {"SERVER_SOFTWARE": "gunicorn/23.0.0"}
    server = call_from("gunicorn", lambda: find_wsgi_server(environ), fields=50)
    assert server.setting("fields") == 50
