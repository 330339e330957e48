"""What is said of settings that were given and that the server behind a door does not keep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

import pytest

from ws_middleware import Anonymous, Heartbeat, Limits, ServerLimits, WebSockets
from ws_middleware.doors import Door, Server
from ws_middleware.misfits import find_complaints, find_deaf_spot

if TYPE_CHECKING:
    from collections.abc import Mapping


def told(
    sockets: WebSockets,
    door: Door,
    *,
    name: str | None = None,
    has: Mapping[str, object] | None = None,
    where: str = "",
) -> list[str]:
    """Return what is said behind a door, without what its server is deaf to."""
    server = Server(door, name or door.value, (has or {}).get)
    front = sockets._front
    endpoints = front._resolve_all()
    deaf = find_deaf_spot(server, endpoints)
    found = find_complaints(server, front.settings, endpoints, where)
    return [each for each in found if each != deaf]


def app(**settings: Any) -> WebSockets:
    return WebSockets(auth=Anonymous(), **settings)


ASGI = [
    *(Door.UVICORN_OURS, Door.UVICORN, Door.HYPERCORN, Door.DAPHNE, Door.GRANIAN),
    *(Door.GUNICORN, Door.OTHER),
]


@pytest.mark.parametrize("door", Door)
def test_defaults_are_nobodys_wish(door: Door) -> None:
    sockets = app()
    sockets.route("/a")
    sockets.guard("/b")
    assert told(sockets, door) == []


EVERYTHING: dict[str, Any] = {
    "limits": Limits(message_size=2**30, fragments=7, close_timeout=1, outbound_bytes=9),
    "heartbeat": Heartbeat(interval=3, timeout=4),
    "slow": "drop_oldest",
    "refuse_with": "http",
}


def test_on_a_port_of_our_own_all_holds() -> None:
    sockets = app(server_limits=ServerLimits(head_size=9), **EVERYTHING)
    sockets.route("/a", heartbeat=None)
    assert told(sockets, Door.OWN_PORT) == []


# --- the sentences -------------------------------------------------------------------------------

OUR_CLASS = "Or serve with --ws ws_middleware.uvicorn:WebSocketProtocol, where it holds"


@pytest.mark.parametrize(
    ("door", "remedy"),
    [
        pytest.param(
            Door.UVICORN,
            "the pings are its own. Start it with --ws-ping-interval 10 --ws-ping-timeout 5.5. "
            + OUR_CLASS,
            id="uvicorn",
        ),
        pytest.param(
            Door.HYPERCORN,
            "the pings are its own. Start it with --websocket-ping-interval 10. It has no option "
            "for timeout",
            id="hypercorn",
        ),
        pytest.param(
            Door.DAPHNE,
            "the pings are its own. Start it with --ping-interval 10 --ping-timeout 6",
            id="daphne-whole-seconds-only",
        ),
        pytest.param(
            Door.GRANIAN,
            "it sends no pings. It has no option for interval and timeout",
            id="granian",
        ),
    ],
)
def test_a_heartbeat_is_told_with_the_options_of_the_server(door: Door, remedy: str) -> None:
    sockets = app()
    sockets.route("/ws/chat", heartbeat=Heartbeat(interval=10, timeout=5.5))
    given = "Heartbeat(interval=10, timeout=5.5) (route /ws/chat)"
    assert told(sockets, door) == [f"{given} does not hold on {door.value}: {remedy}"]


@pytest.mark.parametrize(
    ("settings", "door", "name", "sentence"),
    [
        pytest.param(
            {"limits": Limits(message_size=2**25)},
            Door.UVICORN,
            "uvicorn",
            "Limits(message_size=33554432) (WebSockets()) does not hold on uvicorn: it puts "
            "messages together itself, and closes at a bound of its own before ours. Start it with "
            "--ws-max-size 33554432",
            id="a-size-over-the-servers",
        ),
        pytest.param(
            {"limits": Limits(message_size=None)},
            Door.DAPHNE,
            "daphne",
            "Limits(message_size=None) (WebSockets()) does not hold on daphne: it puts messages "
            "together itself, and closes at a bound of its own before ours. Start it with "
            "--websocket-max-message-size 0. And --websocket-max-frame-size to as much",
            id="no-limit",
        ),
        pytest.param(
            {"limits": Limits(message_size=2**25)},
            Door.HYPERCORN,
            "hypercorn",
            "Limits(message_size=33554432) (WebSockets()) does not hold on hypercorn: it puts "
            "messages together itself, and closes at a bound of its own before ours. Say "
            "websocket_max_message_size = 33554432 in its configuration",
            id="what-is-no-flag",
        ),
        pytest.param(
            {"limits": Limits(fragments=7)},
            Door.UVICORN_OURS,
            "uvicorn with our class",
            "Limits(fragments=7) (WebSockets()) does not hold on uvicorn with our class: its "
            "bound for frames is a part of that for bytes. See --ws-max-size. A 64th of it is how "
            "many there may be, and 1,024 at the least",
            id="no-translation",
        ),
        pytest.param(
            {"server_limits": ServerLimits(head_timeout=2.5, head_fields=50)},
            Door.WSGI,
            "gunicorn",
            "ServerLimits(head_fields=50, head_timeout=2.5) (WebSockets()) does not hold on "
            "gunicorn: it reads the head of the request itself. Start it with "
            "--limit-request-fields 50. It has no option for head_timeout. Or serve sockets on a "
            "port of our own, sockets.listen(), where it holds",
            id="wsgi",
        ),
        pytest.param(
            {"auth_threads": 3},
            Door.WSGI,
            "waitress",
            "auth_threads=3 (WebSockets()) does not hold on waitress: a def in auth or authorize "
            "runs in the thread that has the request. Or serve sockets on a port of our own, "
            "sockets.listen(), where it holds",
            id="a-wsgi-server-whose-options-we-do-not-know",
        ),
        pytest.param(
            {"refuse_with": "http"},
            Door.GUNICORN,
            "gunicorn asgi",
            "refuse_with='http' (WebSockets()) does not hold on gunicorn asgi: it cannot answer an "
            'upgrade with HTTP: every refusal is a bare 403. With refuse_with="close" clients are '
            "told 4401 and the like",
            id="a-word",
        ),
        pytest.param(
            {"drain_over": 5},
            Door.HYPERCORN,
            "hypercorn",
            "drain_over=5 (WebSockets()) does not hold on hypercorn: at its end it closes its "
            "clients by itself, or drops them, all at once. Set drain_on_sigterm=True, or call "
            "sockets.close(code=1012, over=...) before the server is told to end",
            id="of-the-app",
        ),
        pytest.param(
            {"heartbeat": None},
            Door.UVICORN,
            "uvicorn",
            "heartbeat=None (WebSockets()) does not hold on uvicorn: the pings are its own. Start "
            f"it with --ws-ping-interval 0. {OUR_CLASS}",
            id="no-pings",
        ),
        pytest.param(
            {"server_limits": ServerLimits(head_timeout=2.5)},
            Door.UVICORN,
            "uvicorn",
            "ServerLimits(head_timeout=2.5) (WebSockets()) does not hold on uvicorn: it waits for "
            "the head of a request without end. Have a proxy before it do so: nginx's "
            "client_header_timeout",
            id="what-a-proxy-does",
        ),
        pytest.param(
            {"server_limits": ServerLimits(head_timeout=2.5)},
            Door.GRANIAN,
            "granian",
            "ServerLimits(head_timeout=2.5) (WebSockets()) does not hold on granian: it reads the "
            "head of the request itself. Start it with --http1-header-read-timeout 2500",
            id="another-unit",
        ),
    ],
)
def test_what_does_not_hold_is_said_with_what_to_do(
    settings: dict[str, Any], door: Door, name: str, sentence: str
) -> None:
    sockets = app(**settings)
    sockets.route("/a")
    assert told(sockets, door, name=name) == [sentence]


# --- where it was given --------------------------------------------------------------------------


def test_every_layer_is_named_that_has_said_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSM_LIMITS_FRAGMENTS", "7")
    sockets = app()
    sockets.route("/a")
    assert "Limits(fragments=7) (WSM_LIMITS_FRAGMENTS) " in told(sockets, Door.GRANIAN)[0]
    monkeypatch.delenv("WSM_LIMITS_FRAGMENTS")
    sockets._front.settings.host = {"drain_over": 5, "limits": Limits(fragments=7)}
    found = told(sockets, Door.GRANIAN, where="settings.WEBSOCKETS")
    assert [each.partition(" does")[0] for each in found] == [
        "Limits(fragments=7) (settings.WEBSOCKETS)",
        "drain_over=5 (settings.WEBSOCKETS)",
    ]


def test_variables_of_the_app_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSM_DRAIN_OVER", "5")
    monkeypatch.setenv("WSM_REFUSE_WITH", "http")
    monkeypatch.setenv("WSM_SERVER_LIMITS_HEAD_SIZE", "9000")
    sockets = app()
    sockets.route("/a")
    assert [each.partition(" does")[0] for each in told(sockets, Door.GUNICORN)] == [
        "ServerLimits(head_size=9000) (WSM_SERVER_LIMITS_HEAD_SIZE)",
        "refuse_with='http' (WSM_REFUSE_WITH)",
        "drain_over=5 (WSM_DRAIN_OVER)",
    ]


def test_of_several_values_the_one_that_a_server_can_have_is_named() -> None:
    sockets = app()
    for number, size in enumerate((2**25, 2**26, 2**10)):
        sockets.route(f"/{number}", limits=Limits(message_size=size))
    sockets.route("/slow", heartbeat=Heartbeat(interval=50))
    sockets.guard("/quick", heartbeat=Heartbeat(interval=5))
    found = told(sockets, Door.UVICORN)
    assert [each.partition(" does")[0] for each in found] == [
        "Limits(message_size=67108864) (route /1)",
        "Heartbeat(interval=5) (guard /quick)",
    ]


def test_many_places_are_counted() -> None:
    sockets = app()
    for number in range(5):
        sockets.route(f"/{number}", limits=Limits(fragments=9))
    assert "(route /0, route /1, route /2 and 2 more)" in told(sockets, Door.GRANIAN)[0]


def test_a_time_to_drain_holds_where_sigterm_drains() -> None:
    sockets = app(drain_over=5, drain_on_sigterm=True)
    sockets.route("/a")
    assert told(sockets, Door.UVICORN) == []


# --- what holds in effect ------------------------------------------------------------------------


def test_what_the_server_has_set_is_looked_at() -> None:
    sockets = app(heartbeat=Heartbeat(interval=20, timeout=20), limits=Limits(message_size=2**25))
    sockets.route("/a")
    has = {"ws_ping_interval": 20.0, "ws_ping_timeout": 20.0, "ws_max_size": 2**25}
    assert told(sockets, Door.UVICORN, has=has) == []
    assert len(told(sockets, Door.UVICORN, has={**has, "ws_ping_timeout": 30.0})) == 1
    assert len(told(sockets, Door.UVICORN, has={**has, "ws_max_size": 2**25 - 1})) == 1


@pytest.mark.parametrize("door", ASGI)
def test_a_size_under_the_servers_is_ours_to_keep(door: Door) -> None:
    sockets = app(limits=Limits(message_size=64 * 1024))
    sockets.route("/a")
    assert told(sockets, door) == []


def test_a_stricter_server_is_no_fault() -> None:
    sockets = app(server_limits=ServerLimits(head_fields=200))
    sockets.route("/a")
    assert told(sockets, Door.WSGI, name="gunicorn", has={"limit_request_fields": 100}) == []
    assert told(sockets, Door.WSGI, name="gunicorn", has={"limit_request_fields": 300})


@pytest.mark.parametrize("door", [Door.GRANIAN, Door.GUNICORN, Door.HYPERCORN, Door.UVICORN_OURS])
def test_no_pings_are_easily_had_where_there_are_none(door: Door) -> None:
    sockets = app(heartbeat=None)
    sockets.route("/a")
    assert told(sockets, door) == []


def test_a_word_that_holds_is_not_complained_of() -> None:
    sockets = app(refuse_with="close")
    sockets.route("/a")
    assert told(sockets, Door.DAPHNE) == []


def test_what_an_app_says_of_sizes_is_not_meant_for_its_guards() -> None:
    sockets = app(limits=Limits(message_size=2**25))
    sockets.guard("/a")
    assert told(sockets, Door.UVICORN) == []
    sockets.guard("/b", limits=Limits(message_size=2**25))
    assert "(guard /b)" in told(sockets, Door.UVICORN)[0]


# --- dead peers ----------------------------------------------------------------------------------


def deaf(sockets: WebSockets, door: Door) -> str | None:
    return find_deaf_spot(Server(door, door.value), sockets._front._resolve_all())


@pytest.mark.parametrize("door", Door)
def test_three_servers_do_not_find_clients_that_vanish(door: Door) -> None:
    sockets = app()
    sockets.route("/a")
    said = deaf(sockets, door)
    assert (said is not None) is (door in {Door.HYPERCORN, Door.GRANIAN, Door.GUNICORN})
    assert ("--websocket-ping-interval" in (said or "")) is (door is Door.HYPERCORN)


def test_what_is_said_of_them() -> None:
    sockets = app()
    sockets.route("/a")
    assert deaf(sockets, Door.GRANIAN) == (
        "granian does not find clients that vanish while they are idle: their sockets stay and "
        "count until a send to them fails. Serve with uvicorn --ws "
        "ws_middleware.uvicorn:WebSocketProtocol, which finds them, or have clients answer a ping "
        "of the app's own: Heartbeat(app_ping=..., app_pong=...)"
    )


@dataclass(frozen=True)
class Answered(Heartbeat):
    """One with a ping of the app's own."""

    app_ping: str | None = None


def test_where_clients_answer_a_ping_of_the_apps_own_nothing_is_amiss() -> None:
    sockets = app(heartbeat=Heartbeat(interval=7))
    sockets.asgi(no_app)  # which may have WebSockets of its own, or not
    sockets.route("/a")
    sockets.guard("/b")
    front = sockets._front
    heartbeat = Answered(interval=7, timeout=5, app_ping="ping")
    server = Server(Door.GRANIAN, "granian")
    endpoints = front._resolve_all()
    assert [each.route.kind for each in endpoints] == ["route", "guard", "rest"]
    assert find_deaf_spot(server, endpoints) is not None
    for number in range(2):
        assert find_deaf_spot(server, endpoints) is not None, "one is still not found"
        policy = replace(endpoints[number].policy, heartbeat=heartbeat)
        endpoints[number] = replace(endpoints[number], policy=policy)
    assert find_deaf_spot(server, endpoints) is None
    [rest] = find_complaints(server, front.settings, endpoints[2:], "")[1:]
    assert rest.startswith("Heartbeat(interval=7)")
    assert find_complaints(server, front.settings, endpoints[:2], "") == [], "it is our ping"


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    """Nothing."""


# --- when it is said -----------------------------------------------------------------------------


def call(door: Any, path: str = "/") -> list[bytes]:
    """Have a WSGI server call a door for a page."""
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
    setup_testing_defaults(environ)
    environ["SERVER_SOFTWARE"] = "waitress"
    return list(door(environ, lambda status, headers, exc_info=None: None))


def page(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"page"]


HEAD = ServerLimits(head_timeout=2.5)


def test_it_is_said_with_the_first_call_and_once(caplog: pytest.LogCaptureFixture) -> None:
    door = app(server_limits=HEAD).wsgi(page)
    assert caplog.messages == []
    for _ in range(3):
        assert call(door) == [b"page"]
    [said] = caplog.records
    assert (said.name, said.levelname) == ("ws_middleware.settings", "WARNING")
    assert said.message.startswith("ServerLimits(head_timeout=2.5) (WebSockets()) does not hold on")


def test_with_a_port_of_our_own_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    sockets = app(server_limits=HEAD)
    sockets.listen(port=0)
    try:
        call(sockets.wsgi(page))
    finally:
        sockets.close().result(10)
    assert caplog.messages == []


def test_settings_that_cannot_be_are_no_fault_of_a_page(caplog: pytest.LogCaptureFixture) -> None:
    sockets = WebSockets(server_limits=HEAD)
    sockets.route("/a")
    assert call(sockets.wsgi(page)) == [b"page"]
    assert caplog.messages == []
