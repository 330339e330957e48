"""A server that says no: it is told why, by its own words, and is not asked at full speed."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.redis_server import until
from ws_middleware import Anonymous, Publisher, WebSockets
from ws_middleware.errors import BrokerUnavailable
from ws_middleware.hub.brokers.redis import RedisBroker

from .ear import Ear
from .scripted import obedient, scripted
from .test_contract import opened, run

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

#: All that an app with `prefix="shop"` needs. docs/bus.md says so.
LEAST = ("-@all", "+publish", "+subscribe", "+unsubscribe")


def give(redis: RedisServer, *rules: str, name: str = "shop") -> str:
    """Make a user with these rules alone; return the URL."""
    with redis.client as client:
        client.execute_command("ACL", "SETUSER", name, "reset", "on", ">right", *rules)
    return f"redis://{name}:right@127.0.0.1:{redis.port}/0"


def commands(redis: RedisServer) -> set[str]:
    """Return what was refused to anybody."""
    with redis.client as client:
        return {str(each["object"]) for each in client.acl_log()}


def test_a_user_who_may_publish_and_subscribe_on_the_apps_channels_is_enough(
    redis: RedisServer,
) -> None:
    url = give(redis, "&shop:*", *LEAST)

    async def work() -> None:
        async with opened(RedisBroker(url), "shop:a", "shop:b") as (broker, ear):
            assert await broker.publish("shop:a", b"x") == 1
            broker.unsubscribe("shop:b")
            await ear.until(lambda: ear.heard == [("shop:a", b"x")])
            await asyncio.to_thread(Publisher(url, prefix="shop").room("7").send, "x")
            with pytest.raises(BrokerUnavailable, match="no permissions"):
                await broker.publish("other:a", b"x")
            assert await broker.publish("shop:a", b"y") == 1  # one refusal ends nothing
            assert ear.losses == []

    run(work())
    assert commands(redis) <= {"other:a", "client|setinfo"}


@pytest.mark.parametrize("missing", LEAST[1:])
def test_no_less_is_enough(redis: RedisServer, missing: str) -> None:
    url = give(redis, "&shop:*", *(each for each in LEAST if each != missing))

    async def work() -> None:
        broker, ear = RedisBroker(url), Ear()
        broker.open(ear)
        broker.subscribe("shop:a")
        if missing == "+subscribe":
            await ear.until(lambda: ear.losses)
            assert "no permissions" in str(ear.losses[0])
        else:
            await ear.until(lambda: ear.connections)
        if missing == "+publish":
            with pytest.raises(BrokerUnavailable, match="no permissions"):
                await broker.publish("shop:a", b"x")
        if missing == "+unsubscribe":
            broker.unsubscribe("shop:a")
            await ear.until(lambda: ear.losses)
            assert "no permissions" in str(ear.losses[0])
        await broker.close()

    run(work())


def test_a_channel_that_the_user_may_not_hear_is_a_loss_and_told(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = give(redis, "&shop:room:*", *LEAST)

    async def work() -> None:
        async with opened(RedisBroker(url), "shop:room:7") as (broker, ear):
            broker.subscribe("shop:user:7")
            await ear.until(lambda: len(ear.losses) >= 3)
            assert all("SUBSCRIBE was refused" in str(each) for each in ear.losses)
            give(redis, "&shop:*", *LEAST)
            lives = ear.connections
            await ear.until(lambda: ear.connections > lives)
            await broker.publish("shop:user:7", b"x")
            await ear.until(lambda: ear.heard)

    run(work())
    assert "right" not in caplog.text


def test_a_publisher_that_is_refused_says_so_once(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = give(redis, "&shop:*", "-@all", "+subscribe")

    async def work() -> None:
        async with opened(RedisBroker(url), "shop:a") as (broker, _):
            for _ in range(50):
                with pytest.raises(BrokerUnavailable, match="refused the message"):
                    await broker.publish("shop:a", b"x")

    run(work())
    told = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(told) == 1
    assert f"redis://127.0.0.1:{redis.port}/0: PUBLISH was refused" in caplog.text
    assert "publish" in told[0].getMessage()


@pytest.mark.parametrize(
    ("user", "cause"),
    [
        pytest.param(":wrong@", "invalid username-password", id="wrong password"),
        pytest.param("", "wants a password|Authentication required", id="none"),
        pytest.param("nobody:right@", "invalid username-password", id="wrong user"),
    ],
)
def test_a_wrong_password_is_told_without_it(
    redis: RedisServer, caplog: pytest.LogCaptureFixture, user: str, cause: str
) -> None:
    async def work() -> None:
        with redis.client as client:
            client.config_set("requirepass", "right")
        wrong, ear = RedisBroker(f"redis://{user}127.0.0.1:{redis.port}"), Ear()
        wrong.open(ear)
        receipt = wrong.publish("a", b"x")
        await ear.until(lambda: len(ear.losses) >= 3)
        assert all(re.search(cause, str(each)) for each in ear.losses)
        await wrong.close()
        with pytest.raises(BrokerUnavailable, match=cause) as caught:
            await receipt
        assert "wrong@" not in f"{caught.value}{ear.losses}"
        with pytest.raises(BrokerUnavailable, match=cause):
            await asyncio.to_thread(
                Publisher(f"redis://{user}127.0.0.1:{redis.port}").everyone.send, "x"
            )
        right = RedisBroker(f"redis://:right@127.0.0.1:{redis.port}")
        async with opened(right, "a") as (broker, heard):
            await broker.publish("a", b"x")
            await heard.until(lambda: heard.heard)

    run(work())
    assert "wrong@" not in caplog.text
    assert ":wrong" not in caplog.text
    assert len(re.findall(cause, caplog.text)) <= 1  # the subscriber logs the first loss


def test_an_app_with_a_wrong_password_has_the_reason_in_its_log_and_once_each_way(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.client as client:
        client.config_set("requirepass", "right")
    sockets = WebSockets(auth=Anonymous(), broker=f"redis://:wrong@127.0.0.1:{redis.port}")
    sockets.route("/ws")
    sockets.listen("127.0.0.1", 0)
    until(lambda: "invalid username-password" in caplog.text)
    time.sleep(1)  # several attempts later
    told = [each for each in caplog.messages if "invalid username-password" in each]
    away = [each for each in told if "is away" in each]
    unpublished = [
        each for each in told if "nothing can be published" in each
    ]  # where it was first
    assert (len(away), len(unpublished) <= 1) == (1, True)
    assert len(told) == len(away) + len(unpublished)
    assert ":wrong" not in caplog.text
    sockets.close(timeout=2).result(10)


REFUSALS = {
    "LOADING Redis is loading the dataset in memory": "loading the dataset",
    "READONLY You can't write against a read only replica.": "read only",
    "NOAUTH Authentication required.": "Authentication required",
    "MASTERDOWN Link with MASTER is down": "Link with MASTER",
    "CLUSTERDOWN The cluster is down": "cluster is down",
    "ERR max number of clients reached": "max number of clients",
    "ERR unknown command": "unknown command",
    "NOPERM this user has no permissions": "no permissions",
    "WHATEVER": "WHATEVER",
}


@pytest.mark.parametrize(("refusal", "cause"), REFUSALS.items())
def test_a_refusal_is_told_with_its_reason_and_asked_again_at_leisure(
    caplog: pytest.LogCaptureFixture, refusal: str, cause: str
) -> None:
    async def work() -> None:
        async with scripted(lambda command: b"-%s\r\n" % refusal.encode()) as server:
            broker, ear = RedisBroker(server.url), Ear()
            broker.open(ear)
            broker.subscribe("a")
            for _ in range(3):
                with pytest.raises(BrokerUnavailable, match=cause):
                    await broker.publish("a", b"x")
            await asyncio.sleep(1)
            assert ear.losses
            assert all(cause in str(each) for each in ear.losses)
            assert ear.connections == 0
            assert server.connections <= 16
            server.script = obedient
            await ear.until(lambda: ear.connections)
            assert await broker.publish("a", b"x") == 0
            await broker.close()

    run(work())
    assert len([each for each in caplog.records if cause in each.getMessage()]) <= 2
