"""What Node.js and redis-cli publish, as docs/bus.md describes it, comes to a socket."""

from __future__ import annotations

import json
import logging
import os
import shutil
import string
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.clients.python import connect, end_of, until
from ws_middleware import WebSocket, WebSockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.sync.client import ClientConnection

    from tests.clients.conftest import Node
    from tests.conftest import Served
    from tests.redis_server import RedisServer
    from ws_middleware import UpgradeRequest

SECRET = "s" * 32
LOBBY = "shop:room:/ws/chat/*:lobby"

#: On which the member is reached.
CHANNELS = (
    *("shop:everyone:", "shop:everyone:/ws/chat/*", LOBBY, "shop:room::lobby"),
    *("shop:user:/ws/chat/*:ann", "shop:user::ann"),
)

#: A name may be any text without control characters; these are all that ASCII has beside letters.
NAMES = [*string.punctuation, " ", "a b:c%3A", "größe", "日本", "👋", "x" * 255]


def who(request: UpgradeRequest) -> str | None:
    return request.cookies.get("user")


class Member(NamedTuple):
    """Ann's socket in the lobby, of an app that others publish to."""

    socket: ClientConnection
    sockets: WebSockets
    redis: RedisServer

    def hear(self, count: int) -> list[str | bytes]:
        return [self.socket.recv(10) for _ in range(count)]

    def until_subscribed(self) -> None:
        """Wait until Redis knows all that this socket wants to hear."""
        with self.redis.client as client:
            until(lambda: all(count for _, count in client.pubsub_numsub(*CHANNELS)), 10)


@pytest.fixture
def member(
    request: pytest.FixtureRequest, redis: RedisServer, serve: Callable[[WebSockets], Served]
) -> Iterator[Member]:
    """A test may give the secret that the app shares, by its parameter."""
    secret = getattr(request, "param", None)
    sockets = WebSockets(auth=who, broker=redis.url, prefix="shop", broker_secret=secret)

    @sockets.route("/ws/chat/<room>")
    async def chat(ws: WebSocket, room: str) -> None:
        async for name in ws:
            ws.join(str(name))

    sockets.route("/ws/other")
    ann = {"additional_headers": {"Cookie": "user=ann"}}
    with connect(serve(sockets), "/ws/chat/lobby", **ann) as socket:
        member = Member(socket, sockets, redis)
        member.until_subscribed()
        yield member


def redis_cli(redis: RedisServer, *arguments: str) -> str:
    """Run the command; return its answer, for PUBLISH how many connections have heard it."""
    found = shutil.which("redis-cli")
    if found is None:
        assert "CI" not in os.environ, "redis-cli is missing"
        pytest.skip("redis-cli is missing")
    command = [found, "-p", str(redis.port), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


# --- redis-cli -----------------------------------------------------------------------------------


def test_redis_cli_publishes_text_json_and_binary(member: Member) -> None:
    for message in (
        '{"v": 1, "text": "grüße 👋"}',
        '{"v": 1, "json": {"from": "cron", "list": [1, null]}}',
        '{"v": 1, "base64": "AAH+/w=="}',
    ):
        assert redis_cli(member.redis, "PUBLISH", LOBBY, message) == "1"
    text, data, binary = member.hear(3)
    assert text == "grüße 👋"
    assert json.loads(data) == {"from": "cron", "list": [1, None]}
    assert binary == b"\x00\x01\xfe\xff"


def test_redis_cli_leaves_out_and_closes(member: Member) -> None:
    (own,) = member.sockets.user("ann").local()
    told = json.dumps({"v": 1, "text": "not for you", "exclude": [own.id]})
    redis_cli(member.redis, "PUBLISH", "shop:user::ann", told)
    redis_cli(member.redis, "PUBLISH", "shop:user::ann", '{"v": 1, "text": "for you"}')
    assert member.hear(1) == ["for you"]
    close = '{"v": 1, "close": {"code": 4401, "reason": "logged_out"}}'
    redis_cli(member.redis, "PUBLISH", "shop:user::ann", close)
    assert end_of(member.socket) == (4401, "logged_out")


def test_what_is_no_message_is_dropped_and_harms_nobody(member: Member) -> None:
    for wrong in (
        "hello",
        '{"text": "no version"}',
        '{"v": 2, "text": "of tomorrow"}',
        '{"v": 1, "text": "two", "json": "things"}',
        '{"v": 1, "base64": "?"}',
        '{"v": 1, "close": {"code": 1006}}',
    ):
        assert redis_cli(member.redis, "PUBLISH", LOBBY, wrong) == "1"
    redis_cli(member.redis, "PUBLISH", LOBBY, '{"v": 1, "text": "well"}')
    assert member.hear(1) == ["well"]


# --- Node.js -------------------------------------------------------------------------------------


@pytest.mark.node
def test_node_publishes_text_json_and_binary(node: Node, member: Member) -> None:
    node.run("publish.mjs", "kinds", member.redis.url)
    text, data, binary = member.hear(3)
    assert text == "grüße 👋"
    assert json.loads(data) == {"from": "node", "list": [1, None, "é"]}
    assert binary == b"\x00\x01\xfe\xff"


@pytest.mark.node
def test_node_reaches_a_socket_in_every_way_that_there_is(node: Node, member: Member) -> None:
    node.run("publish.mjs", "addresses", member.redis.url)
    assert member.hear(6) == [
        "everyone",
        "everyone of the route",
        "room of the route",
        "room",
        "user of the route",
        "user",
    ]


@pytest.mark.node
def test_node_writes_names_as_we_do(node: Node, member: Member) -> None:
    for name in NAMES:
        member.socket.send(name)
    until(lambda: member.sockets.room(NAMES[-1]).count(), 10)
    with member.redis.client as client:
        until(lambda: len(client.pubsub_channels("shop:room::*")) == len(NAMES) + 1, 10)
    node.run("publish.mjs", "names", member.redis.url, json.dumps(NAMES))
    assert member.hear(len(NAMES)) == NAMES


@pytest.mark.node
def test_1000_of_1000_from_node_in_order(node: Node, member: Member) -> None:
    node.run("publish.mjs", "many", member.redis.url)
    assert member.hear(1000) == [str(number) for number in range(1000)]


@pytest.mark.node
def test_node_closes_a_users_sockets(node: Node, member: Member) -> None:
    node.run("publish.mjs", "close", member.redis.url)
    assert end_of(member.socket) == (4401, "logged_out")


@pytest.mark.node
@pytest.mark.parametrize("member", [SECRET], indirect=True)
def test_only_what_node_has_signed_with_the_secret_is_taken(
    node: Node, member: Member, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ws_middleware.bus"):
        node.run("publish.mjs", "signed", member.redis.url, SECRET)
        assert member.hear(1) == ["taken"]
        assert json.loads(member.hear(1)[0]) == {"taken": "too"}
        assert end_of(member.socket) == (4401, "logged_out")
    told = [each.getMessage() for each in caplog.records if each.name == "ws_middleware.bus"]
    forged, stale = told  # the first of each kind, the rest is counted
    assert forged.startswith(f"dropped an envelope on {LOBBY!r}: forged")
    assert stale.startswith(f"dropped an envelope on {LOBBY!r}: stale")
    bus = member.sockets._hub.bus
    assert bus is not None
    assert (bus.counts["dropped_forged"], bus.counts["dropped_stale"]) == (4, 1)
