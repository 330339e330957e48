from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.hub.brokers.ear import Ear
from ws_middleware import BrokerUnavailable, ConfigError, Publisher, Sent
from ws_middleware.hub.brokers.redis import RedisBroker
from ws_middleware.hub.envelope import Close, Envelope
from ws_middleware.hub.wire import read
from ws_middleware.types import EncodedMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.redis_server import RedisServer

SECRET = "s" * 32


def hear(
    url: str, channels: list[str], act: Callable[[], object], count: int
) -> list[tuple[str, bytes]]:
    """Return what is heard on `channels` while `act` runs in another thread."""

    async def work() -> list[tuple[str, bytes]]:
        broker, ear = RedisBroker(url), Ear()
        broker.open(ear)
        for channel in channels:
            broker.subscribe(channel)
        await ear.until(lambda: ear.connections)
        await asyncio.to_thread(act)
        await ear.until(lambda: len(ear.heard) >= count)
        await broker.close()
        return ear.heard

    return asyncio.run(work())


def opened(heard: tuple[str, bytes], secret: bytes | None = None) -> Any:
    envelope = read(heard[1], channel=heard[0], largest=10**6, now=time.time(), secret=secret)
    assert isinstance(envelope, Envelope), envelope
    action = envelope.action
    return action.payload if isinstance(action, EncodedMessage) else action


def test_every_audience_has_its_channel(redis: RedisServer) -> None:
    shop = Publisher(redis.url, prefix="shop")
    news = shop.route("/ws/news")

    def act() -> None:
        assert shop.everyone.send("all").result() == Sent(0, published=True)
        shop.room("lobby").send_json({"a": 1})
        shop.user(7).send(b"\x00")
        shop.socket("9f2c-1").send("one")
        news.everyone.send("news")
        news.room("x").send("x")
        news.user("ann").close(4401, "logged_out", over=2)

    expected = {
        "shop:everyone:": b"all",
        "shop:room::lobby": b'{"a":1}',
        "shop:user::7": b"\x00",
        "shop:node:9f2c": b"one",
        "shop:everyone:/ws/news": b"news",
        "shop:room:/ws/news:x": b"x",
        "shop:user:/ws/news:ann": Close(4401, "logged_out", 2.0),
    }
    heard = hear(redis.url, list(expected), act, len(expected))
    assert {each[0]: opened(each) for each in heard} == expected


def test_1000_of_1000_from_a_process_that_is_nothing_else(redis: RedisServer) -> None:
    code = (
        "import sys; from ws_middleware import Publisher; user = Publisher(sys.argv[1]).user('7')\n"
        "for i in range(1000): user.send(str(i))"
    )

    def act() -> None:
        subprocess.run([sys.executable, "-c", code, redis.url], check=True, timeout=60)

    heard = hear(redis.url, ["wsm:user::7"], act, 1000)
    assert [opened(each) for each in heard] == [str(i).encode() for i in range(1000)]


def test_a_secret_signs(redis: RedisServer) -> None:
    publisher = Publisher(redis.url, secret=SECRET)
    heard = hear(redis.url, ["wsm:everyone:"], lambda: publisher.everyone.send("x"), 1)
    assert opened(heard[0], SECRET.encode()) == b"x"


def test_a_child_may_go_on_with_its_parents(redis: RedisServer) -> None:
    publisher = Publisher(redis.url)
    publisher.everyone.send("before")

    def act() -> None:
        child = os.fork()
        if child == 0:
            publisher.everyone.send("child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        publisher.everyone.send("parent")

    heard = hear(redis.url, ["wsm:everyone:"], act, 2)
    assert [opened(each) for each in heard] == [b"child", b"parent"]


def test_without_a_broker_a_send_raises_within_two_seconds_and_the_next_may_do(
    redis: RedisServer,
) -> None:
    publisher = Publisher(redis.url)
    publisher.everyone.send("x")
    redis.send(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="did not take the message"):
        publisher.everyone.send("x")
    with pytest.raises(BrokerUnavailable):
        publisher.everyone.send("x")
    assert time.monotonic() - began < 5
    redis.kill()
    with pytest.raises(BrokerUnavailable):
        publisher.everyone.send("x")
    redis.start()
    publisher.everyone.send("x")
    with redis.client as client:
        client.shutdown()
    redis.kill()
    redis.start()
    publisher.everyone.send("x")  # its old connection has ended, which is seen in time


def test_nothing_is_of_this_process() -> None:
    publisher = Publisher("redis://127.0.0.1:1")
    assert publisher.everyone.count() == 0
    assert list(publisher.everyone.local()) == []


@pytest.mark.parametrize("url", ["memory://", "http://:secret@host", ""])
def test_what_nobody_else_hears_is_no_broker(url: str) -> None:
    with pytest.raises(ConfigError, match="redis://") as caught:
        Publisher(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("wrong", [None, True, 1.5, "", "\n"])
def test_names_are_checked_where_they_are_given(wrong: Any) -> None:
    publisher = Publisher("redis://127.0.0.1:1")
    for make in (publisher.room, publisher.user, publisher.route("x").room):
        with pytest.raises((TypeError, ValueError)):
            make(wrong)
