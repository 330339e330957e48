"""A master that dies, is replaced, or is none any more, as sentinels tell it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ResponseError

from tests.certificates import make_certificate
from tests.redis_server import RedisServer, Sentinel, need_redis, until
from tests.redis_sets import Watched
from ws_middleware import Publisher
from ws_middleware.errors import BrokerUnavailable
from ws_middleware.hub.brokers.redis import RedisBroker

from .ear import Ear
from .scripted import scripted
from .test_contract import opened, run

if TYPE_CHECKING:
    from pathlib import Path

    from ws_middleware.hub.brokers import Broker

#: Seconds from a master's death until messages flow again: half a second until the sentinel has
#: seen it, about one until it has acted, and one attempt of ours after that. The rest is for a busy
#: machine.
BOUND = 15.0


async def until_carried(broker: Broker, ear: Ear, data: bytes) -> None:
    """Publish until it is heard, for the next attempt may be one at the old master."""
    async with asyncio.timeout(BOUND):
        while ("a", data) not in ear.heard:
            broker.publish("a", data)
            await asyncio.sleep(0.1)


@pytest.mark.slow
def test_when_the_master_is_killed_its_replica_is_found(tmp_path: Path) -> None:
    async def work(watched: Watched) -> None:
        async with (
            opened(RedisBroker(watched.url), "a") as (one, ear),
            opened(RedisBroker(watched.url), "a") as (_, other),
        ):
            watched.sentinels[0].kill()  # the first of those that may be asked
            watched.master.kill()
            began = time.monotonic()
            for each in (ear, other):
                await each.until(lambda: each.losses, BOUND)  # noqa: B023 - awaited here
                await each.until(lambda: each.connections == 2, BOUND)  # noqa: B023
            await until_carried(one, other, b"after")
            assert time.monotonic() - began < BOUND

    with Watched(tmp_path, sentinels=3) as watched:
        publisher = Publisher(watched.url)
        publisher.everyone.send("before")
        run(work(watched))
        publisher.everyone.send("after")


@pytest.mark.slow
def test_a_master_that_is_set_down_but_lives_is_left(tmp_path: Path) -> None:
    async def work(watched: Watched) -> None:
        publisher = Publisher(watched.url)
        async with opened(RedisBroker(watched.url), "a", "wsm:everyone:") as (broker, ear):
            publisher.everyone.send("before")
            await asyncio.to_thread(until, lambda: is_set_down(watched))
            await ear.until(lambda: ear.connections == 2, BOUND)
            await until_carried(broker, ear, b"after")
            await asyncio.to_thread(until, lambda: is_replica(watched.master))
            ear.heard.clear()
            # It has connections that were kept; a replica would take this, and nobody would hear.
            await asyncio.to_thread(publisher.everyone.send, "after")
            await ear.until(lambda: any(b"after" in data for _, data in ear.heard))

    with Watched(tmp_path) as watched:
        run(work(watched))


def is_set_down(watched: Watched) -> bool:
    try:
        with watched.sentinels[0].client as client:
            client.sentinel_failover("shop")
    except ResponseError:  # it does not know enough of the replica yet
        return False
    return True


def is_replica(server: RedisServer) -> bool:
    with server.client as client:
        return bool(client.info("replication")["role"] == "slave")


def test_a_replica_is_not_believed_to_be_the_master(watched: Watched) -> None:
    """As long as a sentinel has not heard of it: what is published there reaches nobody."""
    port = str(watched.replica.port).encode()
    answer = b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port)

    async def work() -> None:
        async with scripted(lambda command: answer) as late:
            url = f"redis+sentinel://127.0.0.1:{late.port}/shop"
            broker, ear = RedisBroker(url), Ear()
            broker.open(ear)
            receipt = broker.publish("a", b"x")
            await ear.until(lambda: len(ear.losses) >= 2)
            assert "is a replica, and not yet the master" in str(ear.losses[0])
            with pytest.raises(BrokerUnavailable, match="not yet the master"):
                await asyncio.to_thread(Publisher(url).everyone.send, "x")
            port = str(watched.master.port).encode()
            right = b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port)
            late.script = lambda command: right
            await receipt
            await broker.close()

    run(work())


def test_a_service_that_the_sentinel_does_not_know_is_told(watched: Watched) -> None:
    async def work() -> None:
        broker, ear = RedisBroker(watched.url.replace("/shop", "/shp")), Ear()
        broker.open(ear)
        await ear.until(lambda: ear.losses)
        assert "knows no service 'shp'" in str(ear.losses[0])
        await broker.close()

    run(work())


def test_the_sentinels_have_a_password_of_their_own(tmp_path: Path) -> None:
    command = need_redis()
    master = RedisServer(command, tmp_path, password="of-master")
    passwords = ["requirepass of-sentinels", "sentinel auth-pass shop of-master"]
    sentinel = Sentinel(command, tmp_path, master, *passwords)
    url = f"redis+sentinel://:of-master@127.0.0.1:{sentinel.port}/shop?sentinel_password="

    async def work() -> None:
        async with opened(RedisBroker(f"{url}of-sentinels"), "a") as (broker, ear):
            await broker.publish("a", b"x")
            await ear.until(lambda: ear.heard)
        Publisher(f"{url}of-sentinels").everyone.send("x")
        wrong, heard = RedisBroker(f"{url}wrong"), Ear()
        wrong.open(heard)
        await heard.until(lambda: heard.losses)
        assert "password" in str(heard.losses[0])
        await wrong.close()

    try:
        master.start()
        sentinel.start()
        run(work())
    finally:
        sentinel.kill()
        master.kill()


def test_both_speak_tls(tmp_path: Path) -> None:
    command, certificate = need_redis(), make_certificate(tmp_path)
    master = RedisServer(command, tmp_path, certificate=certificate)
    files = [
        f"tls-cert-file {certificate.certificate}",
        f"tls-key-file {certificate.key}",
        f"tls-ca-cert-file {certificate.certificate}",
        *("tls-replication yes", "tls-auth-clients no"),
    ]
    sentinel = Sentinel(command, tmp_path, master, *files, over_tls=True)
    ca = f"ssl_ca_certs={certificate.certificate}"
    url = f"rediss+sentinel://127.0.0.1:{sentinel.port}/shop?{ca}"

    async def work() -> None:
        async with opened(RedisBroker(url), "a") as (broker, ear):
            await broker.publish("a", b"x")
            await ear.until(lambda: ear.heard)
        Publisher(url).everyone.send("x")

    try:
        master.start()
        sentinel.start()
        run(work())
    finally:
        sentinel.kill()
        master.kill()
