"""Publishing in the calling thread: to every kind of Redis, and to one that is away."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from ws_middleware import Publisher, Sent
from ws_middleware.errors import BrokerUnavailable
from ws_middleware.hub.brokers.redis import RedisBroker

from .conftest import KINDS
from .scripted import obedient, scripted
from .test_contract import opened, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

    from tests.redis_server import RedisServer

#: Seconds after which a call must have raised: two, as promised, and some for a busy machine.
BOUND = 4.0

EVERYONE = "wsm:everyone:"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_url_reaches_the_brokers(
    kind: str, urls_of: Callable[[str], list[str]]
) -> None:
    urls = urls_of(kind)

    async def work() -> None:
        async with opened(RedisBroker(urls[0]), EVERYONE) as (_, ear):
            publisher = Publisher(urls[-1])
            for number in range(20):
                await asyncio.to_thread(publisher.everyone.send, str(number))
            await ear.until(lambda: len(ear.heard) == 20)
            assert [
                f'"text":"{number}"'.encode() in data for number, (_, data) in enumerate(ear.heard)
            ] == [True] * 20

    run(work())


def test_many_threads_share_one(server: RedisServer) -> None:
    publisher = Publisher(server.url)
    with server.client as client, ThreadPoolExecutor(32) as threads:
        replies = client.pubsub()
        replies.subscribe(EVERYONE)
        sent = list(threads.map(lambda number: publisher.everyone.send(str(number)), range(2000)))
        assert len(sent) == 2000
        heard = 0
        while heard < 2000:
            message = replies.get_message(timeout=5)
            assert message is not None
            heard += message["type"] == "message"
        assert 1 <= len(ours(client)) <= 8
        replies.close()


def raises_in_time(publisher: Publisher) -> None:
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="did not take the message"):
        publisher.everyone.send("x")
    assert time.monotonic() - began < BOUND


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_redis_that_hangs_or_is_gone_is_told_in_time_and_the_next_call_works(
    redis: RedisServer, kind: str
) -> None:
    url = {"tcp": redis.url, "unix": redis.unix_url}[kind]
    used, fresh = Publisher(url), Publisher(url)
    used.everyone.send("x")
    redis.send(signal.SIGSTOP)
    for publisher in (used, fresh, used):
        raises_in_time(publisher)
    redis.send(signal.SIGCONT)
    for publisher in (used, fresh):
        publisher.everyone.send("x")
    redis.kill()
    for publisher in (used, fresh):
        raises_in_time(publisher)
    redis.start()
    for publisher in (used, fresh):
        publisher.everyone.send("x")


def ours(client: Redis) -> list[str]:
    """Return the ids of the connections that publishers keep."""
    return [each["id"] for each in client.client_list() if each["name"] == "ws_middleware"]


def in_a_child(act: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_so_it_is_in_a_forked_child_whose_parent_goes_on(redis: RedisServer) -> None:
    publisher = Publisher(redis.url)
    with redis.client as client:
        replies = client.pubsub()
        replies.subscribe(EVERYONE)

        def heard() -> str:
            while (message := replies.get_message(timeout=5))["type"] != "message":
                pass
            return str(message["data"])

        def send_apart(text: str) -> None:
            publisher.everyone.send(text)
            with redis.client as another:
                assert len(ours(another)) == 2

        publisher.everyone.send("parent")
        assert "parent" in heard()
        before = ours(client)
        assert len(before) == 1
        for number in range(3):
            in_a_child(lambda: send_apart(f"child {number}"))  # noqa: B023
            assert f"child {number}" in heard()
            publisher.everyone.send(f"parent {number}")
            assert f"parent {number}" in heard()
        # The parent has gone on with its one connection, and no child has touched that.
        assert ours(client) == before
        replies.close()
    redis.send(signal.SIGSTOP)
    in_a_child(lambda: raises_in_time(publisher))
    redis.send(signal.SIGCONT)
    in_a_child(lambda: publisher.everyone.send("x"))
    redis.kill()
    in_a_child(lambda: raises_in_time(publisher))
    redis.start()
    in_a_child(lambda: publisher.everyone.send("x"))
    publisher.everyone.send("x")


def test_of_several_hosts_those_that_hang_or_are_gone_are_passed_over_in_time(
    redis: RedisServer, server: RedisServer
) -> None:
    redis.send(signal.SIGSTOP)
    hosts = f"127.0.0.1:1,127.0.0.1:{redis.port},127.0.0.1:{server.port}"
    for _ in range(3):  # wherever it begins
        began = time.monotonic()
        assert Publisher(f"redis+cluster://{hosts}").everyone.send("x").result().published
        assert time.monotonic() - began < BOUND


def test_a_refused_message_costs_no_connection_and_one_cut_short_does() -> None:
    async def work() -> None:
        async with scripted(lambda command: b"-ERR not today\r\n") as server:
            publisher = Publisher(server.url)
            for _ in range(3):
                with pytest.raises(BrokerUnavailable, match="not today"):
                    await asyncio.to_thread(publisher.everyone.send, "x")
            assert server.connections == 1
            server.script = lambda command: None
            with pytest.raises(BrokerUnavailable):
                await asyncio.to_thread(publisher.everyone.send, "x")
            server.script = obedient
            sent = await asyncio.to_thread(publisher.everyone.send, "x")
            assert sent.result() == Sent(0, published=True)
            assert server.connections == 2

    run(work())
