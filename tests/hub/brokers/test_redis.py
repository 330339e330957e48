"""Redis that is away, comes back, hangs, or is not ours."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import pytest

from ws_middleware.errors import BrokerUnavailable, ConfigError
from ws_middleware.hub.brokers.addresses import Servers
from ws_middleware.hub.brokers.redis import RedisBroker

from .ear import Ear
from .test_contract import opened, run

if TYPE_CHECKING:
    from tests.redis_server import RedisServer


def test_killed_and_restarted_empty_it_is_heard_again(redis: RedisServer) -> None:
    async def work() -> None:
        async with opened(RedisBroker(redis.url), "a") as (broker, ear):
            for _ in range(3):
                lives = ear.connections
                redis.kill()
                await ear.until(lambda: len(ear.losses) >= lives)  # noqa: B023 - awaited here
                waiting = broker.publish("a", b"waiting")
                redis.start()
                await ear.until(lambda: ear.connections > lives)  # noqa: B023
                await waiting  # never sent, so it is sent now
                ear.heard.clear()
                await broker.publish("a", b"after")
                await ear.until(lambda: ("a", b"after") in ear.heard)

    run(work())


def test_a_cut_connection_to_listen_on_is_replaced(redis: RedisServer) -> None:
    async def work() -> None:
        async with opened(RedisBroker(redis.url), "a") as (broker, ear):
            with redis.client as client:
                assert client.client_kill_filter(_type="pubsub") == 1
            await ear.until(lambda: ear.connections == 2)
            await broker.publish("a", b"x")
            await ear.until(lambda: ear.heard == [("a", b"x")])

    run(work())


def test_a_cut_connection_to_publish_on_loses_nothing_that_comes_later(
    redis: RedisServer,
) -> None:
    async def work() -> None:
        async with opened(RedisBroker(redis.url), "a") as (broker, ear):
            await broker.publish("a", b"1")
            with redis.client as client:
                assert client.client_kill_filter(_type="normal", skipme=True) == 1
            await asyncio.sleep(0.05)  # the end has come, and nothing was on its way
            await broker.publish("a", b"2")
            await ear.until(lambda: len(ear.heard) == 2)
            assert ear.losses == []

    run(work())


def test_a_server_that_hangs_fails_what_it_was_sent_and_holds_up_nobody(
    redis: RedisServer,
) -> None:
    async def work() -> None:
        async with opened(RedisBroker(redis.url), "a") as (broker, ear):
            redis.send(signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="no answer in 5 s"):
                await broker.publish("a", b"x")
            assert time.monotonic() - began < 8
            broker.rebuild()
            await ear.until(lambda: ear.losses)
            assert "deaf" in str(ear.losses[0])
            late = broker.publish("a", b"late")
            await broker.close()
            with pytest.raises(BrokerUnavailable, match="closed"):
                await late
            assert time.monotonic() - began < 10

    run(work())


def test_without_a_server_a_message_waits_and_then_fails() -> None:
    async def work() -> None:
        broker = RedisBroker("redis://:secret@127.0.0.1:1/0")
        receipt = broker.publish("a", b"x")
        assert not receipt.done
        await broker.close()
        with pytest.raises(BrokerUnavailable) as caught:
            await receipt
        assert "redis://127.0.0.1:1/0" in str(caught.value)
        assert "secret" not in str(caught.value)

    run(work())


def test_what_waits_is_bounded() -> None:
    async def work() -> None:
        broker = RedisBroker("redis://127.0.0.1:1")
        receipts = [broker.publish("a", b"") for _ in range(10_001)]
        assert not receipts[9_999].done
        with pytest.raises(BrokerUnavailable, match="too much waits"):
            await receipts[-1]
        large = RedisBroker("redis://127.0.0.1:1")
        receipts = [large.publish("a", b"x" * 1024**2) for _ in range(65)]
        assert [receipt.done for receipt in receipts] == [False] * 64 + [True]
        await large.close()
        await broker.close()

    run(work())


def test_a_wrong_password_is_told(redis: RedisServer) -> None:
    async def work() -> None:
        with redis.client as client:
            client.config_set("requirepass", "right")
        wrong, ear = RedisBroker(f"redis://:wrong@127.0.0.1:{redis.port}"), Ear()
        wrong.open(ear)
        await ear.until(lambda: ear.losses)
        assert "password" in str(ear.losses[0])
        await wrong.close()
        right = RedisBroker(f"redis://:right@127.0.0.1:{redis.port}")
        async with opened(right, "a") as (broker, heard):
            await broker.publish("a", b"x")
            await heard.until(lambda: heard.heard)

    run(work())


def test_over_a_socket_file(redis: RedisServer) -> None:
    async def work() -> None:
        async with opened(RedisBroker(f"redis+unix://{redis.path}"), "a") as (broker, ear):
            await broker.publish("a", b"x")
            await ear.until(lambda: ear.heard == [("a", b"x")])

    run(work())


def test_of_several_hosts_the_next_is_tried(redis: RedisServer) -> None:
    async def work() -> None:
        url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{redis.port}"
        async with opened(RedisBroker(url), "a") as (broker, ear):
            await broker.publish("a", b"x")
            await ear.until(lambda: ear.heard == [("a", b"x")])

    run(work())


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://localhost", id="scheme"),
        pytest.param("redis+unis:///tmp/x", id="kind"),
        pytest.param("redis://localhost:port", id="port"),
        pytest.param("redis+sentinel://localhost", id="no service"),
        pytest.param("", id="empty"),
    ],
)
def test_a_url_that_is_none_is_refused_at_start(url: str) -> None:
    with pytest.raises(ConfigError, match="redis://host:6379/0"):
        Servers(url)


def test_no_password_is_shown() -> None:
    assert str(Servers("rediss://ann:secret@example.org:6380/2?ssl_cert_reqs=none")) == (
        "rediss://example.org:6380/2"
    )
    with pytest.raises(ConfigError) as caught:
        Servers("redis+what://ann:secret@example.org")
    assert "secret" not in str(caught.value)
